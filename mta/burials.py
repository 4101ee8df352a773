"""What dead workers leave: what one had learnt is brought into the database before what it had leased goes back (D3).

One burial at a time on a node: a journal that is being replayed is locked, and who comes second can't tell it from one
that is gone. Raises DatabaseUnavailable, and leaves everything for later.
"""

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from config.database import DatabaseUnavailable
from config.log import LOG
from metrics import registry
from mta.journal import DeadJournal, dead_journals
from mta.outcomes import Recorder
from mta.parts import Parts
from mta.proof import compare_replayed
from mta.queue import Completion, Queue

_BATCH: Final = 500
_RETRY_SECONDS: Final = 1.0
# how far the clocks of this machine and of the database may be apart; where it is more, silence buries
_CLOCK_SECONDS: Final = 2.0


class Burials:
    """Buries the workers of one node. journals: the directory of theirs."""

    def __init__(
        self, parts: Parts, journals: Path, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._parts = parts
        self._journals = journals
        self._sleep = sleep
        self._answered_at = -math.inf  # by the database's clock: when it answered last, and since when it does
        self._answers_since = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def recover(self) -> None:
        """Bring in what workers of an earlier run had learnt, and take back what they had leased."""
        reclaimed = await self._bury([])
        if reclaimed:
            LOG.info("recipients of dead workers are queued again", recipients=reclaimed)

    async def lay_to_rest(self, worker_id: int) -> None:
        """Bury a worker that is known dead, as soon as the database allows."""
        while True:
            try:
                await self._bury([worker_id])
            except DatabaseUnavailable:
                await self._sleep(_RETRY_SECONDS)
            else:
                return

    async def bury_silent(self, silent_seconds: float) -> None:
        """Take back what workers of any node had leased that were silent for so long; to be called all the time.

        While the database was away, or this machine asleep, nobody could give a sign of life: a worker is silent only
        where the database has answered for as long. One of them may be our own, that died in the meantime: what it had
        learnt comes first.
        """
        queue = self._parts.queue
        now, silent = await queue.silent(silent_seconds)
        if not 0 <= now - self._answered_at <= silent_seconds / 2:
            self._answers_since = now
        self._answered_at = now
        if not silent or now - self._answers_since < silent_seconds:
            return
        async with self._one_at_a_time:
            await self._replay_dead()
            registry.reclaimed.inc(await queue.bury_silent(silent_seconds, self._parts.now()))

    async def _bury(self, worker_ids: Sequence[int]) -> int:
        async with self._one_at_a_time:
            await self._replay_dead()
            reclaimed = await self._parts.queue.bury(worker_ids, self._parts.now())
        registry.reclaimed.inc(reclaimed)
        return reclaimed

    async def _replay_dead(self) -> None:
        for journal in dead_journals(self._journals):
            await self._replay(journal)

    async def _replay(self, journal: DeadJournal) -> None:
        replayed = False
        try:
            completions = journal.completions()
            recorder = self._parts.recorder(Queue(self._parts.database, journal.worker_id, socket.gethostname()))
            for start in range(0, len(completions), _BATCH):
                await _record(recorder, completions[start : start + _BATCH])
                await compare_replayed(self._parts, completions[start : start + _BATCH])
            # a database that was made anew or restored gives its ids again: a living worker of a node may have this one
            last_sign = journal.written_at + _CLOCK_SECONDS
            reclaimed = await self._parts.queue.bury([journal.worker_id], self._parts.now(), started_before=last_sign)
            registry.reclaimed.inc(reclaimed)
            replayed = True
        finally:
            journal.close(replayed=replayed)
        LOG.info("journal of a dead worker is replayed", dead_worker=journal.worker_id, outcomes=len(completions))


async def _record(recorder: Recorder, completions: Sequence[Completion]) -> None:
    """Bring outcomes in; one that can't be stored costs a second delivery, never the start of the node."""
    try:
        await recorder.record(completions)
    except DatabaseUnavailable:
        raise
    except Exception as error:
        if len(completions) == 1:
            LOG.error("an outcome can't be replayed", message=completions[0].message_id, error=type(error).__name__)
            return
        for completion in completions:
            await _record(recorder, [completion])
