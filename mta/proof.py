"""The promise, measured afterwards: every delivery compared with the log, and the log's head signed once a day.

A gate that is trusted to have worked is no measurement. The supervisor of every node compares all deliveries, mail of
both classes; what it finds is counted, and must be nothing. What becomes known when its time has been compared, from
the journal of a worker that died long ago, is compared by who replays it. Raises DatabaseUnavailable, OSError.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from config.log import LOG
from metrics import registry
from mta.parts import Parts
from mta.queue import Completion, FinalState
from suppression.heads import HeadSigner, sign_head
from suppression.prove import Attempt, late_deliveries

# a delivery is looked at when its outcome is certainly committed
_BEHIND_SECONDS: Final = 30.0
_SPAN_SECONDS: Final = 60.0


class Proof:
    """Compares and signs, a span of time after the other."""

    def __init__(self, parts: Parts, heads: Path) -> None:
        self._parts = parts
        self._signer = HeadSigner(parts.keyring.head_seed)
        self._heads = heads
        self._compared_until = parts.now() - _BEHIND_SECONDS - _SPAN_SECONDS

    async def turn(self) -> None:
        """Compare what has been delivered since the last turn, and sign the head where that is due."""
        until = self._parts.now() - _BEHIND_SECONDS
        while self._compared_until < until:
            upto = min(until, self._compared_until + _SPAN_SECONDS)
            await _compare(self._parts, await self._parts.queue.delivered_between(self._compared_until, upto))
            self._compared_until = upto
        entry = await sign_head(self._parts.log, self._signer, self._heads)
        if entry is not None:
            LOG.info("the suppression log's head is signed", position=entry.position)


async def compare_replayed(parts: Parts, replayed: Sequence[Completion]) -> None:
    """Compare those deliveries that a turn may have passed by; a second time, where they were committed before."""
    passed = parts.now() - _BEHIND_SECONDS
    old = [c for c in replayed if c.state is FinalState.DELIVERED and c.at < passed]
    if old:
        await _compare(parts, await parts.queue.delivered_of([c.person for c in old], [c.message_id for c in old]))


async def _compare(parts: Parts, deliveries: Sequence[tuple[int, Attempt]]) -> None:
    bound = parts.settings.suppression.max_staleness
    parts.scopes.learn(await parts.groups.members())
    late = await late_deliveries(parts.log, deliveries, parts.scopes, bound) if deliveries else []
    registry.compared.inc(len(deliveries))
    registry.sends_after_suppression.inc(len(late))
    if late:
        LOG.critical("mail was delivered after a suppression was in force", deliveries=len(late))
