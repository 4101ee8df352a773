"""Consents: recorded for ever, and the only thing that lifts an unsubscribe (S5).

A consent lifts an unsubscribe of the same person and scope that is older than it, and nothing else: complaints, hard
bounces, manual and legal suppressions are the operator's. It is recorded either way. Raises DatabaseUnavailable;
ValueError for a consent that lies in the future.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from config.database import Database, load_queries
from suppression.digest import Kind, Scope
from suppression.entry import Action, Channel, Entry, clean
from suppression.log import Appending, SuppressionLog
from suppression.plan import Lift

FUTURE_SECONDS: Final = 60.0
"""By how much a recording system's clock may be ahead of the database's."""

_QUERIES = load_queries("suppression", "consent.sql")


@dataclass(frozen=True, slots=True)
class Consent:
    """What a person agreed to. `at`: epoch seconds, None for now; `basis`, `source`, `evidence` hold no addresses."""

    person: int
    scope: Scope
    tenant_id: int
    list_id: int
    basis: str
    source: str
    actor: str
    at: float | None = None
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A consent that is written down, and the entry that lifts an unsubscribe because of it, if there was one."""

    consent_id: int
    at: float
    lifted: Entry | None


@dataclass(frozen=True, slots=True)
class KnownConsent:
    """A consent as it was recorded."""

    consent_id: int
    scope: Scope
    tenant_id: int
    list_id: int
    basis: str
    source: str
    evidence: str
    actor: str
    at: datetime
    recorded_at: datetime


class Consents:
    """Records consents, and knows who gave one."""

    def __init__(self, database: Database, log: SuppressionLog) -> None:
        self._database = database
        self._log = log

    async def record(self, consents: Sequence[Consent]) -> list[Recorded]:
        """Write consents down and lift what they lift, in one commit; one answer for each, in order."""
        async with self._log.appending() as appending:
            return await record(appending, consents)

    async def lists_of(self, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], set[int]]:
        """The lists that persons consented to, for each (person, tenant) that has any; 0: all mail of the tenant."""
        persons, tenants = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        async with self._database.connection() as connection:
            rows = await connection.fetch(_QUERIES.lists_of, persons, tenants)
        found: dict[tuple[int, int], set[int]] = {}
        for person, tenant_id, list_id in rows:
            found.setdefault((person, tenant_id), set()).add(list_id)
        return found

    async def count_since(self, person: int, seconds: float) -> int:
        """How many consents of a person were recorded in the last seconds."""
        async with self._database.connection() as connection:
            count: int = await connection.fetchval(_QUERIES.count_since, person, seconds)
        return count

    async def of_person(self, person: int) -> list[KnownConsent]:
        """All consents of a person, in the order of their recording."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_QUERIES.of_person, person)
        return [KnownConsent(row[0], Scope(row[1]), *row[2:]) for row in rows]


def consent_time(text: str) -> float | None:
    """Epoch seconds of a time in ISO 8601; None for what is none, or names no zone: a guess might lift too much."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return at.timestamp() if at.tzinfo else None


async def record(appending: Appending, consents: Sequence[Consent]) -> list[Recorded]:
    """Write consents down in an open transaction, and lift what they lift."""
    now = appending.now
    times = [now if consent.at is None else consent.at for consent in consents]
    if any(at > now + FUTURE_SECONDS for at in times):
        raise ValueError("a consent lies in the future")
    rows = await appending.connection.fetch(_QUERIES.record, *_columns(consents, times, now))
    lifts = [_lift(consent, row["id"], at) for consent, row, at in zip(consents, rows, times, strict=True)]
    # an entry's reason begins with the consent's id, and so is its own
    lifted = {entry.reason: entry for entry in await appending.lift(lifts, Action.LIFT_BY_CONSENT)}
    return [
        Recorded(row["id"], at, lifted.get(clean(lift.reason)))
        for row, at, lift in zip(rows, times, lifts, strict=True)
    ]


def _lift(consent: Consent, consent_id: int, at: float) -> Lift:
    return Lift(
        consent.person, consent.scope, frozenset({Kind.UNSUBSCRIBE}), consent.tenant_id, consent.list_id,
        Channel.CONSENT, consent.actor, f"consent {consent_id}: {consent.basis}", older_than=at,
    )  # fmt: skip


def _columns(consents: Sequence[Consent], times: Sequence[float], now: float) -> list[list[object]]:
    recorded_at = datetime.fromtimestamp(now, UTC)
    rows = [
        (
            consent.person, consent.scope, consent.tenant_id, consent.list_id, clean(consent.basis),
            clean(consent.source), clean(consent.evidence), clean(consent.actor), datetime.fromtimestamp(at, UTC),
            recorded_at,
        )
        for consent, at in zip(consents, times, strict=True)
    ]  # fmt: skip
    return [list(column) for column in zip(*rows, strict=True)]
