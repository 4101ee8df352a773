"""Base files of the index: a sorted array of keys that every worker of a node maps, and two tables to find a key.

    header   4,096 bytes: magic, version, bits of the map, position, count, hash of the entry, checksum, header's own
    keys     count × i64, ascending; the lowest bit of a key says that it stops transactional mail too
    map      2^bits bits: whether there is a key that has these upper bits. Most persons are not suppressed, and here
             most questions end, at one access to memory. Bit n is that of keys whose upper bits, signed, are n or
             n - 2^bits: Python's negative indices lead there.
    starts   (2^(bits - 5) + 1) × u32: where the keys begin whose upper bits, from the lowest negative on, are n

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
MIN_BITS, MAX_BITS = 10, 30
BITS_PER_START = 5


class BaseFileError(Exception):
    """The file can't be used as a base; the text says why."""


class Base:
    """A mapped base file; immutable. `bitmap[key >> byte_shift]`, `starts[(key >> start_shift) + start_half]`."""

    def __init__(
        self,
        position: int,
        digest: bytes,
        bits: int,
        array: "memoryview[int]",
        bitmap: "memoryview[int]",
        starts: "memoryview[int]",
    ) -> None:
        self.position = position
        self.hash = digest
        self.array = array
        self.bitmap = bitmap
        self.starts = starts
        self.bit_shift = 64 - bits
        self.byte_shift = self.bit_shift + 3
        self.start_shift = self.bit_shift + BITS_PER_START
        self.start_half = 1 << (bits - BITS_PER_START - 1)

    def __len__(self) -> int:
        return len(self.array)

    @classmethod
    def empty(cls) -> "Base":
        """No entries, before the first position of a log."""
        bitmap, starts = bytes(1 << (MIN_BITS - 3)), bytes(4 * ((1 << (MIN_BITS - BITS_PER_START)) + 1))
        keys = memoryview(b"").cast("q")
        return cls(0, bytes(32), MIN_BITS, keys, memoryview(bitmap), memoryview(starts).cast("I"))

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
        keys_end = HEADER_BYTES + count * 8
        map_end = keys_end + (1 << (bits - 3))
        if len(view) != map_end + ((1 << (bits - BITS_PER_START)) + 1) * 4:
            raise BaseFileError("not as long as its header says")
        if hashlib.blake2b(view[HEADER_BYTES:], digest_size=32).digest() != checksum:
            raise BaseFileError("its checksum is wrong")
        keys, starts = view[HEADER_BYTES:keys_end].cast("q"), view[map_end:].cast("I")
        return cls(position, digest, bits, keys, view[keys_end:map_end], starts)
