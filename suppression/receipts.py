"""Receipts: what this node has seen of the log, in a file of its own, so that an older database resurrects nobody (S5).

Each record is an entry with its hashes, and proves itself. The file is fsynced after each batch; a torn end is cut off
by the next append. At every connection the watch compares the newest receipt with the database's log: a database that
lacks it was restored from an older backup, and nothing is sent until `replay` has brought back what was lost. The
workers of a node share the file; whoever has its lock appends.

    record: u32 length of the encoding, 32 bytes previous hash, 32 bytes hash, the encoding (entry.py), the length again
"""

import asyncio
import fcntl
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from config.database import DatabaseUnavailable
from config.log import LOG
from suppression.entry import Action, Channel, Entry, NewEntry, decoded
from suppression.log import SuppressionLog
from suppression.plan import Lift

BATCH_ENTRIES: Final = 2_000
WRITE_SECONDS: Final = 1.0
MAX_ENCODING_BYTES: Final = 64 * 1024

_LENGTH = struct.Struct(">I")
_HASHES: Final = 64


class ReceiptFile:
    """The file. Everything here blocks, though never for long save for `entries`."""

    def __init__(self, path: Path) -> None:
        """`path`: in a directory that exists; the file need not."""
        self._path = path

    def last(self) -> tuple[int, bytes] | None:
        """Position and hash of the newest entry; None without any. OSError."""
        try:
            with self._path.open("rb") as file:
                found = _last_record(file)
        except FileNotFoundError:
            return None
        return (found[0].position, found[0].hash) if found else None

    def append(self, entries: Iterable[Entry]) -> None:
        """Add entries durably, behind the last whole record. OSError. The caller has the lock."""
        with self._path.open("r+b" if self._path.exists() else "w+b") as file:
            found = _last_record(file)
            file.truncate(found[1] if found else 0)
            file.seek(0, os.SEEK_END)
            file.write(b"".join(map(_record, entries)))
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> Iterator[Entry]:
        """All entries, in the order of their writing, up to the first that is not whole."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            while (entry := _read_record(file)) is not None:
                yield entry

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Whether this process may append; the lock ends with the block, or with the process."""
        lock_path = self._path.with_name(self._path.name + ".lock")
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)


def _record(entry: Entry) -> bytes:
    encoding = entry.encoded()
    length = _LENGTH.pack(len(encoding))
    return length + entry.previous + entry.hash + encoding + length


def _read_record(file: BinaryIO) -> Entry | None:
    """The record at the file's position; None at its end, and for one that is not whole."""
    prefix = file.read(_LENGTH.size)
    length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else 0
    if not 0 < length <= MAX_ENCODING_BYTES:
        return None
    body = file.read(_HASHES + length + _LENGTH.size)
    try:
        entry = decoded(body[_HASHES : _HASHES + length], body[:32], body[32:_HASHES])
    except ValueError:
        return None
    return entry if body[_HASHES + length :] == prefix else None


def _last_record(file: BinaryIO) -> tuple[Entry, int] | None:
    """The last whole record and where it ends: read from the end, or, where that is torn, from the beginning."""
    size = file.seek(0, os.SEEK_END)
    if size > _LENGTH.size:
        file.seek(size - _LENGTH.size)
        begin = size - 2 * _LENGTH.size - _HASHES - _LENGTH.unpack(file.read(_LENGTH.size))[0]
        if begin >= 0:
            file.seek(begin)
            entry = _read_record(file)
            if entry is not None and file.tell() == size:
                return entry, size
    file.seek(0)
    found: tuple[Entry, int] | None = None
    while (entry := _read_record(file)) is not None:
        found = entry, file.tell()
    return found


class ReceiptKeeper:
    """Writes the node's receipts while the daemon runs: as many workers as like may try, one does."""

    def __init__(self, file: ReceiptFile, log: SuppressionLog, *, write_seconds: float = WRITE_SECONDS) -> None:
        self._file = file
        self._suppression_log = log
        self._write_seconds = write_seconds
        self._trouble = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> str:
        """Why receipts are not written now; empty when they are."""
        return self._trouble

    async def start(self) -> None:
        """Begin to write; returns at once."""
        self._task = asyncio.create_task(self._write_for_ever(), name="suppression receipts")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def write(self) -> int:
        """Write what is new; how many entries that was, 0 when another process has the lock.

        Raises DatabaseUnavailable, OSError, and ValueError for a log that doesn't continue the receipts.
        """
        with self._file.lock() as mine:
            if not mine:
                return 0
            last = await asyncio.to_thread(self._file.last)
            if last is None:
                # The node's first receipt is the newest entry: what is older is the backups' and the base file's.
                head, _ = await self._suppression_log.head()
                entries = await self._suppression_log.read_after(head - 1, 1) if head else []
            else:
                entries = await self._suppression_log.read_after(last[0], BATCH_ENTRIES)
                if await self._suppression_log.hashes_at([last[0]]) != {last[0]: last[1]}:
                    raise ValueError(f"the log does not continue receipt {last[0]}")
            if entries:
                await asyncio.to_thread(self._file.append, entries)
            return len(entries)

    async def _write_for_ever(self) -> None:
        while True:
            written = 0
            try:
                written = await self.write()
                self._trouble = ""
            except (DatabaseUnavailable, OSError, ValueError) as error:
                trouble = f"{type(error).__name__}: {error}"
                if trouble != self._trouble:
                    LOG.error("suppression receipts are not written", reason=trouble)
                self._trouble = trouble
            if written < BATCH_ENTRIES:
                await asyncio.sleep(self._write_seconds)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did: receipts read, entries that the database had lost, suppressions and lifts brought back."""

    read: int
    lost: int
    suppressed: int
    lifted: int


async def replay(
    file: ReceiptFile, log: SuppressionLog, actor: str, progress: Callable[[int], None] | None = None
) -> Replayed:
    """Bring back into the database what this node knows and the database has lost; may be repeated.

    For each scope and kind the newest receipt counts, if it is a lost one. A lost lift lifts only what is older than
    it, so that an unsubscribe of after the restore stays. Raises DatabaseUnavailable and OSError, and RuntimeError when
    another process has the lock.
    """
    with file.lock() as mine:
        if not mine:
            raise RuntimeError("another process writes to the receipts; try again")
        read = lost_count = common = 0
        lost: dict[tuple[int, int, int], Entry] = {}
        reader = file.entries()
        while batch := await asyncio.to_thread(_next_batch, reader):
            held = await log.hashes_at([entry.position for entry in batch])
            for entry in batch:
                if held.get(entry.position) == entry.hash:
                    common = max(common, entry.position)
                    lost.pop(_subject(entry), None)
                else:
                    lost_count += 1
                    lost[_subject(entry)] = entry
            read += len(batch)
            if progress is not None:
                progress(read)
        suppressed, lifted = await _restore(log, list(lost.values()), actor)
        if lost_count:
            await _follow(file, log, common)
    return Replayed(read, lost_count, suppressed, lifted)


async def _follow(file: ReceiptFile, log: SuppressionLog, position: int) -> None:
    """Write the database's log behind a position, so that the receipts end as it does, with what was replayed."""
    while entries := await log.read_after(position, BATCH_ENTRIES):
        await asyncio.to_thread(file.append, entries)
        position = entries[-1].position


def _next_batch(reader: Iterator[Entry]) -> list[Entry]:
    return list(islice(reader, BATCH_ENTRIES))


async def _restore(log: SuppressionLog, lost: Sequence[Entry], actor: str) -> tuple[int, int]:
    suppressed = lifted = 0
    for begin in range(0, len(lost), BATCH_ENTRIES):
        batch = lost[begin : begin + BATCH_ENTRIES]
        async with log.appending() as appending:
            again = [_again(entry, actor) for entry in batch if entry.action is Action.SUPPRESS]
            if again:
                suppressed += sum(not entry.already_in_force for entry in await appending.suppress(again))
            for entry in batch:
                if entry.action is Action.JOIN:
                    await appending.join(entry.tenant_id, entry.list_id, actor, _reason(entry))
            for action in (Action.LIFT_BY_CONSENT, Action.LIFT_BY_OPERATOR):
                lifts = [_lift_again(entry, actor) for entry in batch if entry.action is action]
                if lifts:
                    lifted += len(await appending.lift(lifts, action))
    return suppressed, lifted


def _subject(entry: Entry) -> tuple[int, int, int]:
    """What a newer entry takes the place of an older one for."""
    return entry.key, entry.kind or 0, entry.tenant_id if entry.action is Action.JOIN else 0


def _reason(entry: Entry) -> str:
    return f"replayed: was entry {entry.position} by {entry.channel}, {entry.actor}: {entry.reason}"


def _again(entry: Entry, actor: str) -> NewEntry:
    if entry.scope is None or entry.kind is None:
        raise ValueError("an entry without a scope can't be replayed")
    return NewEntry(
        entry.person, entry.scope, entry.kind, entry.tenant_id, entry.list_id, Channel.RECEIPTS, actor,
        entry.campaign_id, entry.message_id, _reason(entry),
    )  # fmt: skip


def _lift_again(entry: Entry, actor: str) -> Lift:
    if entry.scope is None or entry.kind is None:
        raise ValueError("an entry without a scope can't be replayed")
    return Lift(
        entry.person, entry.scope, frozenset({entry.kind}), entry.tenant_id, entry.list_id, Channel.RECEIPTS, actor,
        _reason(entry), older_than=entry.at,
    )  # fmt: skip
