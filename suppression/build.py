"""Building base files (format: base.py): from the database's keys, or from the last base file and what came since.

Everything here blocks and is called in a thread; memory is bounded by a few chunks, save for the first build from the
database, which sorts 8 bytes a key. The only module that needs numpy, and imported by the builder alone, because numpy
costs every process that loads it some 20 MB.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy
from numpy.typing import NDArray

from suppression.base import BITS_PER_START, HEADER, HEADER_BYTES, MAGIC, MAX_BITS, MIN_BITS, VERSION, Base

Keys = NDArray[numpy.int64]

BITS_PER_KEY = 6
"""At least so many bits of the map a key, at most twice as many: one question in seven to thirteen for a key that is
not there gets through the map, and both tables cost 1.5 to 3 bytes a key."""

_CHUNK_KEYS = 1 << 17

_COPY_SIGNATURE = b"PGCOPY\n\377\r\n\0"
_COPY_HEADER_BYTES = len(_COPY_SIGNATURE) + 8
_COPY_TRAILER = b"\xff\xff"
_COPY_ROW = numpy.dtype([("fields", ">i2"), ("length", ">i4"), ("key", ">i8")])


def write(path: Path, position: int, digest: bytes, chunks: Iterable[Keys], count_at_most: int) -> None:
    """Write a base file of ascending chunks of keys and put it in place, durably. OSError when that fails.

    `count_at_most` decides the size of the table only. Blocks: call it in a thread.
    """
    tables = _Tables(min(max((count_at_most * BITS_PER_KEY).bit_length(), MIN_BITS), MAX_BITS))
    checksum = hashlib.blake2b(digest_size=32)
    total = 0
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with temporary.open("wb") as file:
            file.write(bytes(HEADER_BYTES))
            for chunk in chunks:
                tables.add(chunk)
                total += len(chunk)
                data = chunk.tobytes()
                checksum.update(data)
                file.write(data)
            for table in tables.finished():
                checksum.update(table)
                file.write(table)
            header = HEADER.pack(MAGIC, VERSION, tables.bits, position, total, digest, checksum.digest())
            file.seek(0)
            file.write(header + hashlib.sha256(header).digest())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


class _Tables:
    """The map and the starts, from ascending chunks of keys."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self._bitmap = numpy.zeros(1 << (bits - 3), dtype=numpy.uint8)
        self._counts = numpy.zeros((1 << (bits - BITS_PER_START)) + 1, dtype=numpy.uint32)

    def add(self, chunk: Keys) -> None:
        if not len(chunk):
            return
        slots = chunk >> (64 - self.bits)
        places = slots >> 3
        first_of_place = numpy.flatnonzero(numpy.append([True], places[1:] != places[:-1]))
        masks = numpy.bitwise_or.reduceat(numpy.uint8(1) << (slots & 7).astype(numpy.uint8), first_of_place)
        self._bitmap[places[first_of_place]] |= masks
        starts, found = numpy.unique(slots >> BITS_PER_START, return_counts=True)
        self._counts[starts + len(self._counts) // 2 + 1] += found.astype(numpy.uint32)

    def finished(self) -> tuple[bytes, bytes]:
        return self._bitmap.tobytes(), numpy.cumsum(self._counts, dtype=numpy.uint32).tobytes()


def merged(base: Base, changes: Sequence[tuple[int, int]]) -> Iterator[Keys]:
    """The base's keys with changes (key, effect) laid over them, as ascending chunks: memory for a few chunks only."""
    changed = numpy.array(sorted(changes), dtype=numpy.int64).reshape(-1, 2)
    keys, effects = changed[:, 0], changed[:, 1]
    old = numpy.frombuffer(base.array, dtype=numpy.int64)
    begin = done = 0
    while begin < len(old) or done < len(keys):
        end = min(begin + _CHUNK_KEYS, len(old))
        # Changes up to the chunk's last key belong to it; those behind the last chunk come with that one.
        upto = len(keys) if end == len(old) else int(numpy.searchsorted(keys, old[end - 1], side="right"))
        yield _overlaid(old[begin:end], keys[done:upto], effects[done:upto])
        begin, done = end, upto


def _overlaid(old: Keys, keys: Keys, effects: Keys) -> Keys:
    """Both are ascending, and a key is in `old` with or without its lowest bit: found by bisection, not by sorting."""
    if not len(keys):
        return old
    kept = old
    if len(old):
        places = numpy.minimum(numpy.searchsorted(old, keys), len(old) - 1)
        kept = numpy.delete(old, places[old[places] & ~1 == keys])
    stopped = effects > 0
    added = keys[stopped] | (effects[stopped] == 2)
    return numpy.insert(kept, numpy.searchsorted(kept, added), added)


def deduplicated(keys: Keys) -> Iterator[Keys]:
    """Sort keys in place and yield them in chunks, each scope key once, with its lowest bit set if either had it."""
    keys.sort()
    for begin in range(0, len(keys), _CHUNK_KEYS):
        chunk, following = keys[begin : begin + _CHUNK_KEYS], keys[begin + 1 : begin + _CHUNK_KEYS + 1]
        last_of_its_key = numpy.ones(len(chunk), dtype=bool)
        last_of_its_key[: len(following)] = chunk[: len(following)] & ~1 != following & ~1
        yield chunk[last_of_its_key]


class CopiedKeys:
    """Collects keys from PostgreSQL's binary COPY of one bigint column: 14 bytes a row, in pieces of any size."""

    def __init__(self) -> None:
        self._keys = bytearray()
        self._rest = b""
        self._header = True

    def feed(self, data: bytes) -> None:
        """Take the next piece. ValueError for what is no such COPY."""
        data = self._rest + data
        if self._header:
            if len(data) < _COPY_HEADER_BYTES:
                self._rest = data
                return
            if not data.startswith(_COPY_SIGNATURE):
                raise ValueError("not a binary COPY")
            data, self._header = data[_COPY_HEADER_BYTES:], False
        whole = len(data) // _COPY_ROW.itemsize
        rows = numpy.frombuffer(data, dtype=_COPY_ROW, count=whole)
        if whole and not ((rows["fields"] == 1) & (rows["length"] == 8)).all():
            raise ValueError("not a COPY of one bigint column")
        self._keys += rows["key"].astype("<i8").tobytes()
        self._rest = data[whole * _COPY_ROW.itemsize :]

    def write(self, path: Path, position: int, digest: bytes) -> None:
        """Make a base file of what was collected; ValueError unless the COPY is complete."""
        if self._rest != _COPY_TRAILER:
            raise ValueError("the COPY is not complete")
        keys = numpy.frombuffer(self._keys, dtype=numpy.int64)
        write(path, position, digest, deduplicated(keys), len(keys))


def _sync_directory(path: Path) -> None:
    """Make the rename durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
