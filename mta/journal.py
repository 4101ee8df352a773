"""A worker's outcome journal (D3): what a peer answered is on file before the next command goes out.

Appends are plain writes without fsync: they survive the death of the process, which is all that a journal is for. The
file is locked by its worker; a file whose lock is free belongs to a dead one, and is replayed before the leases of that
worker go back to the queue. A torn last line is ignored: its outcome was not yet acted on.
"""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from mta.queue import Completion

_NAME: Final = re.compile(r"worker-(\d+)\.journal")
# past this size the file is cut as soon as everything in it is committed
_CUT_BYTES: Final = 1 << 20


class Journal:
    """The journal of a living worker. Completions stay in it until they are committed."""

    def __init__(self, directory: Path, worker_id: int) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = directory / f"worker-{worker_id}.journal"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self.path, flags, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._open: set[tuple[int, int]] = set()
        self._size = 0

    def append(self, completion: Completion) -> None:
        """Write one completion. Raises OSError, whereupon the worker must send nothing more."""
        line = completion.to_json() + b"\n"
        written = os.write(self._file, line)
        while written < len(line):
            written += os.write(self._file, line[written:])
        self._size += len(line)
        self._open.add(completion.key)

    def committed(self, completions: Iterable[Completion]) -> None:
        """These are in the database; the file is cut when nothing in it is needed any more."""
        for completion in completions:
            self._open.discard(completion.key)
        if not self._open and self._size > _CUT_BYTES:
            os.ftruncate(self._file, 0)
            self._size = 0

    def close(self) -> None:
        """Give the file up; an empty or wholly committed one is removed."""
        if not self._open:
            self.path.unlink(missing_ok=True)
        os.close(self._file)


class DeadJournal:
    """A journal whose worker is gone, held locked until it is closed."""

    def __init__(self, path: Path, worker_id: int, descriptor: int) -> None:
        self.path = path
        self.worker_id = worker_id
        self._descriptor = descriptor

    def completions(self) -> list[Completion]:
        """What the worker had learnt, the last word on each recipient only."""
        latest: dict[tuple[int, int], Completion] = {}
        for line in self.path.read_bytes().split(b"\n"):
            try:
                completion = Completion.from_json(line)
            except ValueError:
                continue
            latest[completion.key] = completion
        return list(latest.values())

    def close(self, *, replayed: bool) -> None:
        """Release the file, and remove it when all of it is in the database."""
        if replayed:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


def dead_journals(directory: Path) -> Iterator[DeadJournal]:
    """The journals whose workers are gone, each locked for the caller."""
    for path in sorted(directory.glob("worker-*.journal")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        yield DeadJournal(path, int(match[1]), descriptor)
