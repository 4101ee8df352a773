"""List hygiene: what refusals at delivery and bounces afterwards say about a person, and its way into the log.

bounce.policy decides; this module knows what was counted before, and carries the decision out. Saying the same bounce
again changes nothing. Raises DatabaseUnavailable.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from bounce.outcome import BounceClass
from bounce.policy import Decision, Policy, Step
from bounce.reading import Kind as Reads
from bounce.reading import Reading, Recipient
from config.database import Database, load_queries
from metrics import registry
from mta.queue import Completion
from suppression.digest import AddressError, Digest, Kind, Scope
from suppression.entry import Channel, Entry, NewEntry
from suppression.log import SuppressionLog
from suppression.tokens import Token

_QUERIES: Final = load_queries("mta", "hygiene.sql")


class Hygiene:
    """Suppresses those who can't be reached any more, for the tenant that mailed them."""

    def __init__(
        self,
        database: Database,
        log: SuppressionLog,
        digest: Digest,
        policy: Policy,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._db = database
        self._digest = digest
        self._log = log
        self._policy = policy
        self._now = now

    async def note_refusals(self, bounced: Sequence[Completion]) -> None:
        """Act on final refusals at the dialogue."""
        entries = []
        for completion in bounced:
            outcome = completion.outcome
            if outcome is None:
                continue
            person, tenant_id, message_id = completion.person, completion.tenant_id, completion.message_id
            decision = self._policy.of_outcome(outcome)
            if decision.step is Step.COUNT:
                earlier = await self._count(person, tenant_id, message_id, completion.at, outcome.bounce_class)
                decision = self._policy.of_outcome(outcome, earlier, self._now())
            entries += _entry(decision, person, tenant_id, completion.campaign_id, message_id, Channel.BOUNCE)
        await self.append(entries)

    async def entries_of_report(self, token: Token, reading: Reading) -> list[NewEntry]:
        """What a bounce or complaint that came with a genuine token asks for; counts what is only counted."""
        channel = Channel.BOUNCE if reading.kind is Reads.BOUNCE else Channel.COMPLAINT
        for recipient in self._about(token, reading):
            decision = self._policy.of_report(reading.kind, recipient, authentic=True)
            if decision.step is Step.COUNT:
                now = self._now()
                earlier = await self._count(
                    token.person, token.tenant_id, token.message_id, now, recipient.bounce_class
                )
                decision = self._policy.of_report(reading.kind, recipient, authentic=True, earlier=earlier, now=now)
            entries = _entry(decision, token.person, token.tenant_id, token.campaign_id, token.message_id, channel)
            if entries:
                return entries
        return []

    def _about(self, token: Token, reading: Reading) -> list[Recipient]:
        """What of a report is about the person we wrote to.

        If it names that person, the others in it are others. If it names only others (a forwarder's, a list's members),
        it proves nothing by itself.
        """
        ours = [recipient for recipient in reading.recipients if self._fits(recipient, token)]
        return ours or [replace(recipient, certain=False) for recipient in reading.recipients]

    def _fits(self, reported: Recipient, token: Token) -> bool:
        named = [address for address in (reported.address, reported.original) if address]
        try:
            return not named or any(self._digest.person(address) == token.person for address in named)
        except AddressError:
            return False

    async def append(self, entries: Sequence[NewEntry]) -> list[Entry]:
        """Commit suppressions, and count the new ones."""
        written = await self._log.append(entries)
        for entry in written:
            if not entry.already_in_force:
                registry.unsubscribes.labels(str(entry.channel)).inc()
                registry.cancelled.inc(entry.cancelled)
        return written

    async def _count(
        self, person: int, tenant_id: int, message_id: int, at: float, bounce_class: BounceClass
    ) -> list[float]:
        """Count this one; the times of the others that count."""
        async with self._db.connection() as connection:
            window = self._policy.window_days
            await connection.execute(_QUERIES.count, person, tenant_id, message_id, at, str(bounce_class), window)
            rows = await connection.fetch(_QUERIES.earlier, person, tenant_id, message_id)
        return [row[0].timestamp() for row in rows]


def _entry(
    decision: Decision, person: int, tenant_id: int, campaign_id: int, message_id: int, channel: Channel
) -> list[NewEntry]:
    """For all mail of the tenant: neither a dead mailbox nor a complaint is about one list."""
    if decision.step is not Step.SUPPRESS or decision.kind is None:
        return []
    actor = "delivery" if channel is Channel.BOUNCE else "report"
    kind = Kind(decision.kind)
    entry = NewEntry(person, Scope.TENANT, kind, tenant_id, 0, channel, actor, campaign_id, message_id, decision.reason)
    return [entry]
