"""A person's whole story: what was suppressed when and how, what was sent and withheld, and that nothing went after.

Deciding is pure: entries of the log and the attempts that the queue recorded come in, and a `Story` comes out, whose
`late` are the deliveries that the log forbade at their time. It must be empty; it is computed from the two records, not
from what the gate believed. No address is in it: a story is of a digest.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from suppression.consent import Consents, KnownConsent
from suppression.digest import AddressError, Digest, Effect, MessageClass
from suppression.entry import Action, Entry
from suppression.log import SuppressionLog
from suppression.scopes import Scopes
from suppression.tokens import TokenError, Tokens

DIGEST_CHARACTERS: Final = 16


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one message for the person. `at`: epoch seconds of the final dot, or of the decision."""

    at: float
    state: str
    """delivered, bounced, expired, suppressed or cancelled."""
    tenant_id: int
    list_id: int
    campaign_id: int
    message_id: int
    message_class: MessageClass
    status: str


@dataclass(frozen=True, slots=True)
class Story:
    """All that is known of a person, in order; `late`: what went out although the log forbade it."""

    person: int
    entries: Sequence[Entry]
    consents: Sequence[KnownConsent]
    attempts: Sequence[Attempt]
    late: Sequence[Attempt]
    head_position: int
    head_hash: bytes

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the hashes by which the entries can be found in the chain."""
        return {
            "person": digest_text(self.person),
            "head": {"position": self.head_position, "hash": self.head_hash.hex()},
            "entries": [_entry_dict(entry) for entry in self.entries],
            "consents": [_consent_dict(consent) for consent in self.consents],
            "attempts": [_attempt_dict(attempt) for attempt in self.attempts],
            "sent_after_suppression": [_attempt_dict(attempt) for attempt in self.late],
        }

    def as_text(self) -> str:
        """The same to read, one line an event, in order of time."""
        lines = [
            *((entry.at, _entry_line(entry)) for entry in self.entries),
            *((consent.recorded_at.timestamp(), _consent_line(consent)) for consent in self.consents),
            *((attempt.at, _attempt_line(attempt, late=attempt in self.late)) for attempt in self.attempts),
        ]
        told = [f"{_time(at)}  {line}" for at, line in sorted(lines, key=lambda line: line[0])]
        verdict = f"{len(self.late)} sent after a suppression" if self.late else "nothing was sent after a suppression"
        return "\n".join([
            f"person {digest_text(self.person)}", *(told or ["nothing is known"]), verdict,
            f"log head: position {self.head_position}, {self.head_hash.hex()}",
        ])  # fmt: skip


def digest_text(person: int) -> str:
    """A digest as it is written for people: 16 hex digits."""
    return f"{person & (1 << 64) - 1:016x}"


def person_of_digest(text: str) -> int:
    """The person of 16 hex digits; `AddressError` for anything else."""
    try:
        if len(text) == DIGEST_CHARACTERS:
            return int.from_bytes(bytes.fromhex(text), "big", signed=True)
    except ValueError:
        pass
    raise AddressError("not a digest of 16 hex digits")


def person_of(text: str, digest: Digest, tokens: Tokens) -> int:
    """The person that an address, a token or a digest (16 hex digits) names; `AddressError` for anything else."""
    text = text.strip()
    if "@" in text:
        return digest.person(text)
    if len(text) == DIGEST_CHARACTERS:
        return person_of_digest(text)
    try:
        return tokens.read(text).person
    except TokenError:
        raise AddressError("neither an address nor a token nor a digest") from None


def late_attempts(
    entries: Iterable[Entry], attempts: Iterable[Attempt], scopes: Scopes, bound_seconds: float = 0.0
) -> list[Attempt]:
    """The deliveries that were made when the log forbade them. Entries and attempts of one person, in any order.

    `bound_seconds`: within which a suppression, or a join of a group, is in force on every node; a final dot in this
    time is not late.
    """
    history = sorted(entries, key=lambda entry: entry.position)
    person = history[0].person if history else 0
    return [
        attempt
        for attempt in attempts
        if attempt.state == "delivered"
        and _forbidden(
            history,
            set(scopes.keys_at(attempt.at - bound_seconds, person, attempt.tenant_id, attempt.list_id)),
            attempt,
            bound_seconds,
        )
    ]


async def late_deliveries(
    log: SuppressionLog, deliveries: Sequence[tuple[int, Attempt]], scopes: Scopes, bound_seconds: float = 0.0
) -> list[Attempt]:
    """The deliveries, each given with its person, that the log forbade at their time: to be run over all of them, some
    time after, as the measure of the promise. Raises DatabaseUnavailable."""
    history: dict[int, list[Entry]] = {}
    for entry in await log.read_persons(sorted({person for person, _ in deliveries})):
        history.setdefault(entry.person, []).append(entry)
    return [
        late
        for person, attempt in deliveries
        if person in history
        for late in late_attempts(history[person], [attempt], scopes, bound_seconds)
    ]


def _forbidden(history: Sequence[Entry], keys: set[int], attempt: Attempt, bound_seconds: float) -> bool:
    """Forbidden for the whole of the bound: what was lifted within it might have been sent, and was."""
    wanted = Effect.ALL if attempt.message_class is MessageClass.TRANSACTIONAL else Effect.CAMPAIGN
    ours = [entry for entry in history if entry.key in keys and entry.at < attempt.at]
    before = {entry.key: entry.effect for entry in ours if entry.at < attempt.at - bound_seconds}
    within = [entry for entry in ours if entry.at >= attempt.at - bound_seconds]
    stopped = {key for key, effect in before.items() if effect >= wanted}
    return bool(stopped - {entry.key for entry in within if entry.effect < wanted})


async def story_of(
    person: int,
    log: SuppressionLog,
    consents: Consents,
    attempts_of: Callable[[int], Awaitable[Sequence[Attempt]]],
    scopes: Scopes,
    bound_seconds: float = 0.0,
) -> Story:
    """Collect a person's story; `bound_seconds` as for `late_attempts`. Raises DatabaseUnavailable."""
    attempts = sorted(await attempts_of(person), key=lambda attempt: attempt.at)
    entries, known = await log.read_person(person), await consents.of_person(person)
    late = late_attempts(entries, attempts, scopes, bound_seconds)
    position, head_hash = await log.head()
    return Story(person, entries, known, attempts, late, position, head_hash)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")


def _name(value: Any) -> str:
    return value.name.lower().replace("_", "-") if value else ""


def _entry_dict(entry: Entry) -> dict[str, Any]:
    return {
        "position": entry.position, "at": _time(entry.at), "action": _name(entry.action), "scope": _name(entry.scope),
        "kind": _name(entry.kind), "stops": _name(entry.effect), "tenant_id": entry.tenant_id,
        "list_id": 0 if entry.group_id else entry.list_id, "group_id": entry.group_id,
        "campaign_id": entry.campaign_id, "message_id": entry.message_id,
        "channel": entry.channel, "actor": entry.actor, "reason": entry.reason, "cancelled": entry.cancelled,
        "previous": entry.previous.hex(), "hash": entry.hash.hex(), "intact": entry.computed_hash() == entry.hash,
    }  # fmt: skip


def _consent_dict(consent: KnownConsent) -> dict[str, Any]:
    return {
        "id": consent.consent_id, "at": _time(consent.at.timestamp()),
        "recorded_at": _time(consent.recorded_at.timestamp()), "scope": _name(consent.scope),
        "tenant_id": consent.tenant_id, "list_id": consent.list_id, "basis": consent.basis, "source": consent.source,
        "evidence": consent.evidence, "actor": consent.actor,
    }  # fmt: skip


def _attempt_dict(attempt: Attempt) -> dict[str, Any]:
    return {
        "at": _time(attempt.at), "state": attempt.state, "class": _name(attempt.message_class),
        "tenant_id": attempt.tenant_id, "list_id": attempt.list_id, "campaign_id": attempt.campaign_id,
        "message_id": attempt.message_id, "status": attempt.status,
    }  # fmt: skip


def _entry_line(entry: Entry) -> str:
    what = "suppressed"
    if entry.action is not Action.SUPPRESS:
        what = f"{_name(entry.action)}, still stopped: {_name(entry.effect)}"
    where = {
        "tenant": f" {entry.tenant_id}",
        "list": f" {entry.list_id} of tenant {entry.tenant_id}",
        "group": f" {entry.group_id}",
    }
    scope = _name(entry.scope)
    why = f", because of {entry.reason}" if entry.reason else ""
    broken = "" if entry.computed_hash() == entry.hash else "  BROKEN: its hash is not that of its content"
    return (
        f"{what}: {_name(entry.kind)} by {entry.channel}, scope {scope}{where.get(scope, '')}, by {entry.actor or '-'},"
        f" {entry.cancelled} cancelled, position {entry.position}{why}{broken}"
    )


def _consent_line(consent: KnownConsent) -> str:
    return f"consent {consent.consent_id} recorded, scope {_name(consent.scope)}: {consent.basis} ({consent.source})"


def _attempt_line(attempt: Attempt, *, late: bool) -> str:
    mark = "  SENT AFTER A SUPPRESSION" if late else ""
    return (
        f"{attempt.state} {attempt.status}: message {attempt.message_id:x} of tenant {attempt.tenant_id},"
        f" list {attempt.list_id}, campaign {attempt.campaign_id}{mark}"
    )
