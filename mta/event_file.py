"""All events as JSON lines in a file of this node. Rotated by size, and compressed with zstd then.

    events.jsonl                        grows; ends in a whole line whenever the process is alive
    events-20261123T101500Z.jsonl.zst   complete; the oldest are removed

Lines are on disk before the cursor moves, so a crash repeats the last ones and loses none. No address is in them.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
import zstandard

from config.database import DatabaseUnavailable
from config.log import LOG
from mta.event_records import Records
from mta.events import Events

_BATCH: Final = 1_000
_POLL_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 10.0
_NAME: Final = "events.jsonl"


class EventFile:
    """The file in a directory of ours; name: which follower of the stream it is."""

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        max_bytes: int,
        max_files: int,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._directory = directory
        self._name = name
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._now = now
        self._sleep = sleep

    async def follow(self, events: Events, records: Records) -> None:
        """Write what happens, until cancelled."""
        prepared = False
        while True:
            wait = 0.0
            try:
                if not prepared:
                    await asyncio.to_thread(self.prepare)
                    prepared = True
                wait = 0.0 if await self._step(events, records) else _POLL_SECONDS
            except DatabaseUnavailable:
                wait = _POLL_SECONDS
            except OSError as error:
                LOG.error("the file of events can't be written", error=error.strerror)
                wait, prepared = _RETRY_SECONDS, False
            await self._sleep(wait)

    async def _step(self, events: Events, records: Records) -> bool:
        cursor = await events.cursor(self._name)
        batch, behind = await events.of_all(cursor, _BATCH)
        if batch:
            written = await records.records(batch, addresses=False)
            await asyncio.to_thread(self.append, written)
        if behind != cursor:
            await events.move(self._name, behind)
        return bool(batch)

    def prepare(self) -> None:
        """Make the directory, drop a line that a crash cut off, compress what a crash left uncompressed."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / _NAME
        if path.exists():
            with path.open("r+b") as file:
                file.truncate(_whole_lines(file.read()))
        for left in self._directory.glob("events-*.jsonl"):
            _compress(left)

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Write lines durably, and begin a new file where this one is large enough."""
        path = self._directory / _NAME
        lines = b"".join(orjson.dumps(record) + b"\n" for record in records)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(lines)
            file.flush()
            os.fdatasync(file.fileno())
            size = file.tell()
        if size >= self._max_bytes:
            self._rotate(path)

    def _rotate(self, path: Path) -> None:
        at = datetime.fromtimestamp(self._now(), UTC)
        done = path.with_name(f"events-{at:%Y%m%dT%H%M%S%f}Z.jsonl")
        path.rename(done)
        _compress(done)
        for old in sorted(self._directory.glob("events-*.jsonl.zst"))[: -self._max_files]:
            old.unlink()


def _whole_lines(content: bytes) -> int:
    return content.rfind(b"\n") + 1


def _compress(path: Path) -> None:
    target = path.with_name(path.name + ".zst")
    temporary = target.with_name("." + target.name)
    with path.open("rb") as source, temporary.open("wb") as sink:
        zstandard.ZstdCompressor(level=6).copy_stream(source, sink)
        sink.flush()
        os.fsync(sink.fileno())
    temporary.rename(target)
    path.unlink()
