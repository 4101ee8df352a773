"""A worker's outcome journal (D3): what a peer answered is on file before the next command goes out.

Appends are plain writes without fsync: they survive the death of the process, which is all that a journal is for. The
file is locked by its worker; a file whose lock is free belongs to a dead one, and is replayed before the leases of that
worker go back to the queue. Each line begins with its newline: one that a full disk or a death has torn costs no other.
It is ignored, because its outcome was not yet acted on.
"""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from mta.queue import Completion

_NAME: Final = re.compile(r"worker-(\d+)\.journal")
# past this size the file is written anew with what is not committed yet; where that is most of it, at twice its size
_CUT_BYTES: Final = 1 << 20


class Journal:
    """The journal of a living worker. Completions stay in it until they are committed."""

    def __init__(self, directory: Path, worker_id: int) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = directory / f"worker-{worker_id}.journal"
        self._file = _locked(self.path)
        self._open: dict[tuple[int, int], Completion] = {}
        self._size = 0
        self._cut_at = _CUT_BYTES

    def append(self, completion: Completion) -> None:
        """Write one completion. Raises OSError, whereupon the worker must send nothing more."""
        self._size += _write(self._file, _line(completion))
        self._open[completion.key] = completion

    def committed(self, completions: Iterable[Completion]) -> None:
        """These are in the database, and needed here no more."""
        for completion in completions:
            # a recipient that came back to this worker meanwhile has a newer one there
            if self._open.get(completion.key) == completion:
                del self._open[completion.key]
        if self._size > self._cut_at:
            self._cut()

    def close(self) -> None:
        """Give the file up; an empty or wholly committed one is removed."""
        if not self._open:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _cut(self) -> None:
        """Put a file with the open ones in the place of this one: under a steady load there is always one open."""
        successor = self.path.with_suffix(".new")
        file = -1
        try:
            successor.unlink(missing_ok=True)
            file = _locked(successor)
            size = _write(file, b"".join(map(_line, self._open.values())))
            successor.replace(self.path)
        except OSError:
            # no room for it: what is there stays whole, and an append will say so soon enough
            self._cut_at *= 2
            if file >= 0:
                os.close(file)
            return
        os.close(self._file)
        self._file, self._size = file, size
        self._cut_at = max(_CUT_BYTES, 2 * size)


class DeadJournal:
    """A journal whose worker is gone, held locked until it is closed."""

    def __init__(self, path: Path, worker_id: int, descriptor: int) -> None:
        self.path = path
        self.worker_id = worker_id
        self._descriptor = descriptor

    @property
    def written_at(self) -> float:
        """When the last line was written, or the file made."""
        return os.fstat(self._descriptor).st_mtime

    def completions(self) -> list[Completion]:
        """What the worker had learnt, the last word on each recipient only."""
        latest: dict[tuple[int, int], Completion] = {}
        for line in _content(self._descriptor).split(b"\n"):
            try:
                completion = Completion.from_json(line)
            except ValueError:
                continue
            latest[completion.key] = completion
        return list(latest.values())

    def close(self, *, replayed: bool) -> None:
        """Release the file, and remove it when all of it is in the database."""
        if replayed:
            self.path.with_suffix(".new").unlink(missing_ok=True)
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
        # a living worker may have removed or replaced the file between open and lock
        if not _is_at(descriptor, path):
            os.close(descriptor)
            continue
        yield DeadJournal(path, int(match[1]), descriptor)


def _locked(path: Path) -> int:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise
    return file


def _line(completion: Completion) -> bytes:
    return b"\n" + completion.to_json()


def _write(file: int, data: bytes) -> int:
    written = 0
    while written < len(data):
        written += os.write(file, data[written:])
    return written


def _content(file: int) -> bytes:
    with os.fdopen(os.dup(file), "rb") as reader:
        reader.seek(0)
        return reader.read()


def _is_at(file: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(file), there)
