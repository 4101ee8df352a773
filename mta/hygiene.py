"""What a permanent refusal at delivery says about a person, and its way into the suppression log.

bounce.policy decides; this module only carries the decision. An asynchronous bounce takes the same way (answers.py).
Raises DatabaseUnavailable.
"""

from collections.abc import Sequence

from bounce.outcome import BounceClass
from metrics import registry
from mta.queue import Completion
from suppression.digest import Kind, Scope
from suppression.entry import Channel, NewEntry
from suppression.log import SuppressionLog

_AT_ONCE = frozenset({BounceClass.UNKNOWN_USER, BounceClass.UNKNOWN_HOST, BounceClass.MOVED})


class Hygiene:
    """Suppresses those who can't be reached any more, for the tenant that mailed them."""

    def __init__(self, log: SuppressionLog) -> None:
        self._log = log

    async def note_bounces(self, bounced: Sequence[Completion]) -> None:
        """Record what these completions say about their persons; saying it again changes nothing."""
        entries = [
            NewEntry(
                completion.person,
                Scope.TENANT,
                Kind.HARD_BOUNCE,
                completion.tenant_id,
                0,
                Channel.BOUNCE,
                "delivery",
                campaign_id=completion.campaign_id,
                message_id=completion.message_id,
                reason=f"{completion.outcome.status} {completion.outcome.bounce_class}",
            )
            for completion in bounced
            if completion.outcome is not None and completion.outcome.bounce_class in _AT_ONCE
        ]
        await self.append(entries)

    async def append(self, entries: Sequence[NewEntry]) -> None:
        """Commit suppressions, and count the new ones."""
        for entry in await self._log.append(entries):
            if not entry.already_in_force:
                registry.unsubscribes.labels(entry.channel).inc()
                registry.cancelled.inc(entry.cancelled)
