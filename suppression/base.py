"""Base files of the index: a sorted array of keys that every worker of a node maps, with a table to find the place.

    header   4,096 bytes: magic, version, bits of the table, position, count, hash of the entry, checksum, header's own
    keys     count × i64, ascending; the lowest bit of a key says that it stops transactional mail too
    starts   (2^bits + 1) × u32: where the keys begin whose upper bits are n

Little endian, as on every machine that is supported. A file is written beside its place, fsynced and renamed: it is
there whole or not at all (build.py). `Base.load` checks every byte and raises `BaseFileError` for a file that is
damaged, foreign or of another version; such a file is ignored and built anew from the database.
"""

import hashlib
import mmap
import os
import struct
import sys
from pathlib import Path

MAGIC = b"heed suppression index\0\0"
VERSION = 1
HEADER_BYTES = 4096
HEADER = struct.Struct("<24sIIqq32s32s")
MIN_BITS, MAX_BITS = 4, 26


class BaseFileError(Exception):
    """The file can't be used as a base; the text says why."""


class Base:
    """A mapped base file; immutable."""

    def __init__(
        self, position: int, digest: bytes, array: "memoryview[int]", starts: "memoryview[int]", bits: int
    ) -> None:
        self.position = position
        self.hash = digest
        self.array = array
        self.starts = starts
        self.shift = 64 - bits
        self.half = 1 << (bits - 1)

    def __len__(self) -> int:
        return len(self.array)

    @classmethod
    def empty(cls) -> "Base":
        """No entries, before the first position of a log."""
        return cls(0, bytes(32), memoryview(b"").cast("q"), memoryview(bytes(4 * 17)).cast("I"), MIN_BITS)

    @classmethod
    def load(cls, path: Path) -> "Base":
        """Map a file and check all of it. Blocks for the time it takes to read it: call it in a thread.

        FileNotFoundError when there is none, `BaseFileError` when it can't be trusted.
        """
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < HEADER_BYTES:
                raise BaseFileError("shorter than its header")
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        magic, version, bits, position, count, digest, checksum = HEADER.unpack_from(view)
        if magic != MAGIC or version != VERSION or sys.byteorder != "little":
            raise BaseFileError("not a base file of this version")
        if view[HEADER.size : HEADER.size + 32] != hashlib.sha256(view[: HEADER.size]).digest():
            raise BaseFileError("its header is damaged")
        middle = HEADER_BYTES + count * 8
        if len(view) != middle + ((1 << bits) + 1) * 4:
            raise BaseFileError("not as long as its header says")
        if hashlib.blake2b(view[HEADER_BYTES:], digest_size=32).digest() != checksum:
            raise BaseFileError("its checksum is wrong")
        return cls(position, digest, view[HEADER_BYTES:middle].cast("q"), view[middle:].cast("I"), bits)
