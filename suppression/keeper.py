"""The keeper of a node's base file: loads it, has it rebuilt when the delta has grown, and hands it to the index.

The node's workers share one file; whoever holds the lock file's flock builds, the others map what they find. All
reading, checking, merging and writing happens in threads; only the swap is made on the event loop. A damaged file is
worth a line in the log, and is built anew; a disk that takes no file costs memory and a later start, never a wrong
answer.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from config.log import LOG
from suppression.base import Base, BaseFileError
from suppression.index import Index
from suppression.log import SuppressionLog

REPLAY_AT_MOST: Final = 200_000
"""Entries that are read from the log one by one (2 s); further behind, the state in force is read at once."""

RETRY_SECONDS: Final = 60.0
REST_FACTOR: Final = 10.0
"""So many times its duration pass between a rebuild and the next: an import must not rebuild all the time."""

_LOOK_AGAIN_SECONDS: Final = 0.2


class BaseKeeper:
    """Looks after one base file for one worker's index."""

    def __init__(
        self,
        path: Path,
        log: SuppressionLog,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_rebuilt: Callable[[float], None] | None = None,
    ) -> None:
        """`path`: the file, in a directory that exists. `on_rebuilt` gets the seconds that a rebuild took."""
        self._path = path
        self._log = log
        self._clock = clock
        self._on_rebuilt = on_rebuilt
        self._seen: tuple[int, int] | None = None
        self._task: asyncio.Task[None] | None = None
        self._not_before = self._rest_until = 0.0

    async def load(self, index: Index) -> None:
        """Use the file if it is newer than what the index has; one that can't be used is left to the next build."""
        stamp = self._stamp()
        if stamp is not None and stamp == self._seen:
            return
        self._seen = stamp
        try:
            base = await asyncio.to_thread(Base.load, self._path)
        except FileNotFoundError:
            return
        except (BaseFileError, OSError, ValueError) as error:
            LOG.warning("suppression base file is not used", reason=f"{type(error).__name__}: {error}")
            return
        index.swap(base)

    async def advance(self, index: Index, head: int) -> None:
        """Build from the database's state if the log is too far ahead to be read; raises DatabaseUnavailable."""
        while head - index.position > max(REPLAY_AT_MOST, len(index) // 4):
            with self._lock() as mine:
                await self.load(index)
                if mine and head - index.position > REPLAY_AT_MOST:
                    await self._build_from_database(index)
            if not mine:
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    def consider(self, index: Index) -> None:
        """Load a newer file, or have a new one built, in the background; one thing at a time."""
        if self._task is not None or self._clock() < self._not_before:
            return
        if self._stamp() != self._seen:
            self._begin(self.load(index))
        elif index.rebuild_due() and self._clock() >= self._rest_until:
            self._begin(self._rebuild(index))

    def discard(self) -> None:
        """Remove the file: it is of another log."""
        self._path.unlink(missing_ok=True)

    async def stop(self) -> None:
        """Wait for what runs: a thread can't be ended, and it is a matter of seconds."""
        if self._task is not None:
            with suppress(Exception):
                await self._task

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._task = asyncio.create_task(work, name="suppression base file")
        self._task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._not_before = self._clock() + RETRY_SECONDS
            LOG.error("suppression base file is not rebuilt", reason=f"{type(error).__name__}: {error}")

    async def _rebuild(self, index: Index) -> None:
        with self._lock() as mine:
            if not mine:
                return
            await self.load(index)
            if not index.rebuild_due():
                return
            started = self._clock()
            base, position, digest, changes = index.changes()
            await asyncio.to_thread(_write_merged, self._path, base, position, digest, changes)
            await self.load(index)
            self._report(index, started)

    async def _build_from_database(self, index: Index) -> None:
        from suppression.build import CopiedKeys  # numpy is for the builder alone

        started, copied = self._clock(), CopiedKeys()
        position, digest = await self._log.snapshot(copied.feed)
        await asyncio.to_thread(copied.write, self._path, position, digest)
        await self.load(index)
        self._report(index, started)

    def _report(self, index: Index, started: float) -> None:
        seconds = self._clock() - started
        self._rest_until = self._clock() + REST_FACTOR * seconds
        LOG.info("suppression base file is rebuilt", position=index.base_position, seconds=round(seconds, 3))
        if self._on_rebuilt is not None:
            self._on_rebuilt(seconds)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """Whether this process may build; the lock ends with the block, or with the process."""
        descriptor = os.open(
            self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)


def _write_merged(path: Path, base: Base, position: int, digest: bytes, changes: Sequence[tuple[int, int]]) -> None:
    from suppression import build  # numpy is for the builder alone

    build.write(path, position, digest, build.merged(base, changes), len(base) + len(changes))
