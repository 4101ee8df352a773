"""From an outcome to its commit: journal first, then many outcomes share a statement.

complete() is called before the next command goes out on a session, and has the outcome in the journal when it returns
(D3). Whatever the database does afterwards, nothing is dropped: a batch is tried again until it is in.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from bounce.outcome import Action
from config.database import DatabaseUnavailable
from config.log import LOG
from metrics import registry
from mta.journal import Journal
from mta.queue import Completion, FinalState, NewMessage, Queue
from mta.tally import provider_of

if TYPE_CHECKING:
    from prometheus_client import Counter

_BATCH = 500
_RETRY_SECONDS = 0.5
# outcomes that come within this time share statements: the journal has them, so that nothing hangs on their commit
_GATHER_SECONDS = 0.05

Compose = Callable[[Sequence[Completion]], Awaitable[list[tuple[Sequence[Completion], NewMessage]]]]
Suppress = Callable[[Sequence[Completion]], Awaitable[None]]


class Recorder:
    """Writes completions to the database: what follows from them first, then the completions themselves.

    suppress records what a bounce says about a person; compose writes the notices that envelope senders are owed. Used
    by a living worker, and to replay the journal of a dead one.
    """

    def __init__(self, queue: Queue, *, compose: Compose, suppress: Suppress) -> None:
        self._queue = queue
        self._compose = compose
        self._suppress = suppress

    async def record(self, batch: Sequence[Completion]) -> None:
        """Commit a batch; applying it twice changes nothing. Raises DatabaseUnavailable.

        One that can't be stored as it is must not hold up the others, so that each is tried by itself then, and that
        one without what follows from it.
        """
        try:
            await self._record(batch)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            if len(batch) > 1:
                for completion in batch:
                    await self.record([completion])
                return
            LOG.error("an outcome is stored without what the peer said", error=type(error).__name__)
            await self._write([_plain(completion) for completion in batch])

    async def _record(self, batch: Sequence[Completion]) -> None:
        await self._suppress([c for c in batch if c.state is FinalState.BOUNCED])
        notices = await self._compose([c for c in batch if c.notice])
        await self._write(batch, notices)

    async def _write(
        self, batch: Sequence[Completion], notices: Sequence[tuple[Sequence[Completion], NewMessage]] = ()
    ) -> None:
        finals = [c for c in batch if c.state is not None]
        deferred = [c for c in batch if c.state is None]
        if notices:
            done = await self._with_notices(finals, deferred, notices)
        else:
            done = await self._queue.finish(finals) | await self._queue.defer(deferred)
        lost = len(batch) - len(done)
        if lost:
            registry.lost_leases.inc(lost)
            LOG.warning("outcomes came after their lease had gone to another worker", outcomes=lost)

    async def _with_notices(
        self,
        finals: list[Completion],
        deferred: list[Completion],
        notices: Sequence[tuple[Sequence[Completion], NewMessage]],
    ) -> set[tuple[int, int]]:
        """A notice goes in with the state that it reports, or not at all."""
        async with self._queue.transaction() as connection:
            done = await self._queue.finish(finals, connection) | await self._queue.defer(deferred, connection)
            for about, notice in notices:
                if any(completion.key in done for completion in about):
                    await self._queue.insert([notice], connection)
                    registry.notices.labels(about[0].notice).inc()
        return done


class Outcomes:
    """The completions of one worker on their way to the database. on_settled gets each batch after its commit."""

    def __init__(
        self,
        recorder: Recorder,
        journal: Journal,
        *,
        on_settled: Callable[[Sequence[Completion]], Awaitable[None]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._recorder = recorder
        self._journal = journal
        self._on_settled = on_settled
        self._sleep = sleep
        self._pending: list[Completion] = []
        self._flushing: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Completions that are not committed yet."""
        return len(self._pending)

    def keys(self) -> Iterator[tuple[int, int]]:
        """Message id and ordinal of each of these."""
        return (completion.key for completion in self._pending)

    def complete(self, completion: Completion) -> None:
        """Journal a completion and see to its commit. Raises OSError when the journal can't be written.

        A commit is seen to even then: the database may have room where the journal's disk has none.
        """
        try:
            self._journal.append(completion)
        finally:
            _count(completion)
            self._pending.append(completion)
            if self._flushing is None:
                self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def drain(self) -> None:
        """Wait until everything is committed."""
        while self._flushing is not None:
            await asyncio.wait([self._flushing])

    async def _flush(self) -> None:
        try:
            while self._pending:
                if len(self._pending) < _BATCH:
                    await self._sleep(_GATHER_SECONDS)
                batch = self._pending[:_BATCH]
                await self._record(batch)
                del self._pending[: len(batch)]
                self._journal.committed(batch)
                await self._settled(batch)
        finally:
            self._flushing = None

    async def _record(self, batch: list[Completion]) -> None:
        """Until it is in."""
        while True:
            started = time.perf_counter()
            try:
                await self._recorder.record(batch)
            except DatabaseUnavailable:
                await self._sleep(_RETRY_SECONDS)
            except Exception as error:
                LOG.error("outcomes can't be stored", outcomes=len(batch), error=type(error).__name__)
                await self._sleep(_RETRY_SECONDS)
            else:
                registry.outcome_seconds.observe(time.perf_counter() - started)
                return

    async def _settled(self, batch: list[Completion]) -> None:
        try:
            await self._on_settled(batch)
        except DatabaseUnavailable:
            LOG.info("content of finished messages is dropped later")
        except Exception as error:
            LOG.error("settled outcomes could not be cleared away", error=type(error).__name__)


def _plain(completion: Completion) -> Completion:
    """The same state without a notice, and without the texts that came from outside."""
    outcome = completion.outcome and replace(completion.outcome, status="", diagnostic="", remote_mta="")
    return replace(completion, outcome=outcome, site="", notice="")


@lru_cache(maxsize=10_000)
def _attempts(site: str, action: Action) -> "Counter":
    return registry.attempts.labels(provider_of(site), str(action))


def _count(completion: Completion) -> None:
    """Metrics of an outcome."""
    bounce_class = str(completion.outcome.bounce_class) if completion.outcome else "none"
    if completion.tried and completion.outcome is not None:
        _attempts(completion.site, completion.outcome.action).inc()
    match completion.state:
        case None:
            if completion.tried:
                registry.deferred.labels(bounce_class).inc()
        case FinalState.BOUNCED:
            registry.bounced.labels(bounce_class).inc()
        case FinalState.EXPIRED:
            registry.expired.inc()
        case _:
            pass
