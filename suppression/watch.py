"""The watch: keeps a worker's index current, and knows how current it is (S2, S3).

The watermark is the position up to which the log is applied, and the time at which that was known to be the newest:
the clock is read BEFORE the question is sent, so a slow answer, or a machine that slept, only makes it older.
NOTIFY only hastens the next poll. A database that is behind what was applied here, or has another log, is not
followed: the watermark then goes stale, and nothing is sent, until an operator has decided (S5).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from config.clock import boot_clock
from config.database import DatabaseUnavailable
from config.log import LOG
from suppression.entry import Step
from suppression.feed import Feed
from suppression.index import Index
from suppression.scopes import Scopes

STEPS_AT_ONCE: Final = 2_000
"""Entries applied between two looks at the event loop: some 2 ms."""

RECONNECT_SECONDS: Final = 0.2


class Diverged(Exception):
    """The database's log is not a continuation of what was applied here: an older backup, or another installation."""


@dataclass(frozen=True, slots=True)
class Watermark:
    """`position` was the newest entry at `confirmed_at` (the watch's clock); None before the first answer."""

    position: int
    confirmed_at: float | None


class Maintenance(Protocol):
    """Who looks after the base files (keeper.py)."""

    async def load(self, index: Index) -> None:
        """Bring the index forward by the node's base file, if there is one."""
        ...

    async def advance(self, index: Index, head: int) -> None:
        """Bring it forward in one step by the database's state in force, if it is far behind the head."""
        ...

    def consider(self, index: Index) -> None:
        """Begin what is worth doing, in the background."""
        ...

    def discard(self) -> None:
        """Drop the base file: it is of another log."""
        ...

    async def stop(self) -> None:
        """End what was begun."""
        ...


class Watch:
    """Follows the log for one worker's index."""

    def __init__(
        self,
        index: Index,
        connect: Callable[[], Awaitable[Feed]],
        maintenance: Maintenance,
        scopes: Scopes,
        *,
        poll_seconds: float = 1.0,
        max_staleness_seconds: float = 5.0,
        clock: Callable[[], float] = boot_clock,
        wall_clock: Callable[[], float] = time.time,
        last_receipt: Callable[[], tuple[int, bytes] | None] | None = None,
        on_applied: Callable[[float], None] | None = None,
    ) -> None:
        """`scopes` learns which tenants are in groups, before the watermark is confirmed.
        `last_receipt`: position and hash of the newest entry that this node has in its receipts (receipts.py).
        `on_applied` gets, for each entry, the seconds from its time in the log until it was in force here."""
        self.index = index
        self.max_staleness_seconds = max_staleness_seconds
        self._connect = connect
        self._maintenance = maintenance
        self._scopes = scopes
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._wall_clock = wall_clock
        self._last_receipt = last_receipt
        self._on_applied = on_applied
        self._confirmed_at: float | None = None
        self._head = 0
        self._trouble = ""
        self._hint = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def watermark(self) -> Watermark:
        """How far the index is, and since when that is known."""
        return Watermark(self.index.position, self._confirmed_at)

    @property
    def age_seconds(self) -> float:
        """The watermark's age; infinite before the first answer."""
        return float("inf") if self._confirmed_at is None else self._clock() - self._confirmed_at

    @property
    def lag_entries(self) -> int:
        """How many entries the log is known to have that are not applied yet."""
        return max(0, self._head - self.index.position)

    @property
    def trouble(self) -> str:
        """Why the log can't be followed now; empty when it can."""
        return self._trouble

    def fresh(self) -> bool:
        """Whether the watermark is young enough to send on."""
        confirmed_at = self._confirmed_at
        return confirmed_at is not None and self._clock() - confirmed_at <= self.max_staleness_seconds

    def nudge(self) -> None:
        """The log may have grown: ask now instead of at the next poll."""
        self._hint.set()

    async def start(self) -> None:
        """Begin to follow the log; returns at once."""
        self._task = asyncio.create_task(self._follow_for_ever(), name="suppression watch")

    async def stop(self) -> None:
        """End; the watermark grows stale from here on."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._maintenance.stop()

    async def caught_up(self) -> None:
        """Wait until the index has once been at the head of the log."""
        await self._caught_up.wait()

    async def _follow_for_ever(self) -> None:
        while True:
            feed: Feed | None = None
            try:
                feed = await self._connect()
                await self._follow(feed)
            except Exception as error:
                # Whatever it is, the watch goes on: it fails closed, and says so.
                self._say(error)
            finally:
                if feed is not None:
                    feed.close()
            await asyncio.sleep(min(RECONNECT_SECONDS, self._poll_seconds))

    async def _follow(self, feed: Feed) -> None:
        try:
            await feed.listen(self._hint.set)
        except DatabaseUnavailable as error:
            # LISTEN alone may be refused (a transaction pooler); if the connection is gone the first poll says so.
            LOG.warning("suppression hints are not available", reason=str(error))
        await self._begin(feed)
        while True:
            self._hint.clear()
            await self._poll(feed)
            self._maintenance.consider(self.index)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._hint.wait()

    async def _begin(self, feed: Feed) -> None:
        """On every connection anew: prove that the log is the one that was applied so far, then take a large step."""
        await self._maintenance.load(self.index)
        receipted = await self._check_receipts(feed)
        position, digest = self.index.position, self.index.hash
        if await feed.hash_at(position) != digest:
            if not receipted:
                raise Diverged(f"the database's log does not hold entry {position} as it was applied here")
            # The receipts follow the database's log although we can't: what was lost has been replayed into it.
            LOG.warning("suppression index is built anew after a replay", position=position)
            self.index.reset()
            self._maintenance.discard()
        self._head = (await feed.head()).position
        await self._maintenance.advance(self.index, self._head)

    async def _check_receipts(self, feed: Feed) -> bool:
        """Whether there are receipts; `Diverged` when the database does not hold the newest of them."""
        last = self._last_receipt() if self._last_receipt is not None else None
        if last is None:
            return False
        position, digest = last
        if await feed.hash_at(position) != digest:
            raise Diverged(f"the database is behind entry {position} of this node's receipts: heed suppress replay")
        return True

    async def _poll(self, feed: Feed) -> None:
        behind = True
        while behind:
            asked_at, applied = self._clock(), self.index.position
            head, steps = await feed.news(applied, STEPS_AT_ONCE)
            self._head = head.position
            if head.joined != self._scopes.position:
                self._scopes.learn(await feed.members())
            if head.position < applied:
                raise Diverged(f"the database's log ends at {head.position}, but {applied} was applied here")
            self._apply(steps)
            behind = self.index.position < head.position
            if behind and not steps:
                raise Diverged(f"entries behind {self.index.position} are missing from the database's log")
        if self.index.position == head.position and self.index.hash != head.hash:
            raise Diverged(f"the database's log has another entry {head.position}")
        self._confirm(asked_at)

    def _apply(self, steps: list[Step]) -> None:
        # A newer base file may have come in while the steps were on their way.
        steps = [step for step in steps if step.position > self.index.position]
        try:
            self.index.apply(steps)
        except ValueError as error:
            raise Diverged(f"the database's log does not continue: {error}") from None
        if self._on_applied is not None and self._caught_up.is_set():
            now = self._wall_clock()
            for step in steps:
                self._on_applied(max(now - step.at.timestamp(), 0.0))

    def _confirm(self, asked_at: float) -> None:
        self._confirmed_at = asked_at
        if self._trouble or not self._caught_up.is_set():
            LOG.info("suppression log is followed", position=self.index.position)
        self._trouble = ""
        self._caught_up.set()

    def _say(self, error: Exception) -> None:
        """Fail closed, at once where the log itself is wrong, else when the watermark has grown stale."""
        if not isinstance(error, DatabaseUnavailable):
            self._confirmed_at = None
        trouble = f"{type(error).__name__}: {error}"
        if trouble != self._trouble:
            LOG.error("suppression log is not followed", reason=trouble, position=self.index.position)
        self._trouble = trouble
