"""Keeps a process's book of orders current: a look at the head each poll, NOTIFY as a hint that hastens the next one.

The book is confirmed with the time before the question was sent. While the database does not answer, the book grows
stale, and nothing is sent on it.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from config.clock import boot_clock
from config.database import Database, DatabaseUnavailable
from config.log import LOG
from mta.order_store import OrderFeed
from mta.orders import Book, OrderError

POLL_SECONDS: Final = 0.4
_ANSWER_SECONDS: Final = 2.0
_RECONNECT_SECONDS: Final = 0.2


class OrderWatch:
    """Follows the orders for one book. on_change is called after the book has changed."""

    def __init__(
        self,
        book: Book,
        database: Database,
        *,
        on_change: Callable[[], None],
        poll_seconds: float = POLL_SECONDS,
        clock: Callable[[], float] = boot_clock,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.book = book
        self._database = database
        self._on_change = on_change
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._now = now
        self._position = -1
        self._trouble = ""
        self._hint = asyncio.Event()
        self._known = asyncio.Event()

    async def known(self) -> None:
        """Wait until the orders have been read once."""
        await self._known.wait()

    async def follow_for_ever(self) -> None:
        """Until it is cancelled."""
        while True:
            feed: OrderFeed | None = None
            try:
                feed = await OrderFeed.open(self._database, answer_within_seconds=_ANSWER_SECONDS)
                await feed.listen(self._hint.set)
                await self._follow(feed)
            except (DatabaseUnavailable, OrderError) as error:
                self._note(str(error))
            finally:
                if feed is not None:
                    feed.close()
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _follow(self, feed: OrderFeed) -> None:
        self._position = -1  # what is connected to may be another server, on which the same number means something else
        while True:
            hinted = self._hint.is_set()
            self._hint.clear()
            asked_at = self._clock()
            if hinted or await feed.head() != self._position:
                await self._read(feed)
            self.book.confirm(asked_at)
            self._note("")
            self._known.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._hint.wait()

    async def _read(self, feed: OrderFeed) -> None:
        """Take over what has changed; at once what stops mail: each question takes long where a node is busy."""
        position, orders = await feed.orders(self._now())
        if position == self._position:
            return
        self.book.replace(orders, self.book.consent_required)
        self._on_change()
        consent_required = await feed.consent_required()
        if consent_required != self.book.consent_required:
            self.book.replace(orders, consent_required)
            self._on_change()
        self._position = position

    def _note(self, trouble: str) -> None:
        """Say what keeps the orders from being followed, once, and when they are followed again."""
        if trouble and trouble != self._trouble:
            LOG.warning("orders are not followed", reason=trouble)
        elif self._trouble and not trouble:
            LOG.info("orders are followed again")
        self._trouble = trouble
