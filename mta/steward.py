"""The steward of a node: moves the queue's rows after the operators' orders, and keeps the queue's summary.

Workers obey orders by themselves, so that nothing is sent against one whatever happens here; the steward sets aside
what waits in the database, so that a stopped campaign does not stand in the way of others, and queues it again when it
may go or has expired. After a change every lane is gone through until there is nothing left to do; a slow round goes on
all the time, for what a worker that did not know yet set aside too late.
"""

import asyncio
import time
from contextlib import suppress
from typing import Final

from config.database import DatabaseUnavailable
from config.log import LOG
from mta.identifiers import LANES
from mta.order_store import OrderStore
from mta.orders import Book, Stopped
from mta.summary import Summary

_TICK_SECONDS: Final = 0.25
_BATCH: Final = 2_000
# between two lanes of the slow round: each lane's turn comes every 8 seconds, or later where a look takes long: what is
# stopped, a million perhaps, is looked through for nothing every time
_SLOW_SECONDS: Final = 0.5
_SLOW_TIMES: Final = 10


class Steward:
    """Begins nothing by itself: tend_for_ever is a task of the supervisor."""

    def __init__(self, book: Book, store: OrderStore, summary: Summary) -> None:
        self._book = book
        self._store = store
        self._summary = summary
        self._obeyed: Stopped | None = None
        self._changed = asyncio.Event()
        self._lane = 0
        self._slow_at = 0.0

    def changed(self) -> None:
        """The book has changed."""
        self._changed.set()

    async def tend_for_ever(self) -> None:
        """Until it is cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self.tend(slow_round=time.monotonic() >= self._slow_at)
            except DatabaseUnavailable as error:
                LOG.warning("the queue is not tended", reason=str(error))
                await asyncio.sleep(1.0)

    async def tend(self, *, slow_round: bool) -> None:
        """Do what there is to do now; nothing before the orders are known. Raises DatabaseUnavailable."""
        if not self._book.known:
            return
        stopped = self._book.stopped()
        if stopped != self._obeyed:
            await self._move_everything(stopped)
            self._obeyed = stopped
        elif slow_round:
            self._lane = (self._lane + 1) % LANES
            began = time.monotonic()
            await self._store.move(stopped, self._lane, _BATCH)
            ended = time.monotonic()
            self._slow_at = ended + max(_SLOW_SECONDS, _SLOW_TIMES * (ended - began))

    async def count_for_ever(self) -> None:
        """Keep the queue's summary; a task of its own, because counting takes longer than obeying may wait."""
        while True:
            with suppress(DatabaseUnavailable):
                await self._summary.refresh()
            await asyncio.sleep(1.0)

    async def _move_everything(self, stopped: Stopped) -> None:
        """Lane by lane until no lane has anything left; cut short when orders have changed meanwhile."""
        left = list(range(LANES))
        while left:
            for lane in list(left):
                if self._book.stopped() != stopped:
                    return
                if not await self._store.move(stopped, lane, _BATCH):
                    left.remove(lane)
