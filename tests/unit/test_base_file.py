"""Base files: whole or refused, and what the index makes of them."""

import hashlib
import struct
from pathlib import Path

import numpy
import pytest

from suppression import build
from suppression.base import HEADER_BYTES, Base, BaseFileError

KEYS = [-(2**63), -9_000_000_000_000_000_000, -8, -5, 0, 7, 10, 9_000_000_000_000_000_000, 2**63 - 1]


def written(path: Path, keys: list[int], position: int = 77) -> Base:
    build.write(path, position, b"h" * 32, [numpy.array(keys, dtype=numpy.int64)], len(keys))
    return Base.load(path)


def copy_rows(keys: list[int]) -> bytes:
    rows = b"".join(struct.pack(">hiq", 1, 8, key) for key in keys)
    return b"PGCOPY\n\377\r\n\0" + bytes(8) + rows + b"\xff\xff"


def test_a_file_reads_as_it_was_written(tmp_path: Path) -> None:
    base = written(tmp_path / "base", KEYS)
    assert (base.position, base.hash, list(base.array), len(base)) == (77, b"h" * 32, KEYS, len(KEYS))
    assert [name.name for name in tmp_path.iterdir()] == ["base"]


def test_the_table_leads_to_every_key(tmp_path: Path) -> None:
    base = written(tmp_path / "base", KEYS)
    for place, key in enumerate(KEYS):
        start = (key >> base.start_shift) + base.start_half
        assert base.starts[start] <= place < base.starts[start + 1]
        assert base.bitmap[key >> base.byte_shift] >> (key >> base.bit_shift & 7) & 1
    assert sum(byte.bit_count() for byte in base.bitmap) <= len(KEYS)


def test_an_empty_file_is_one(tmp_path: Path) -> None:
    assert len(written(tmp_path / "base", [])) == 0
    assert len(Base.empty()) == 0


@pytest.mark.parametrize("place", [0, 23, 30, 40, 100, HEADER_BYTES, HEADER_BYTES + 9, -1])
def test_one_changed_byte_anywhere_that_counts_is_found(tmp_path: Path, place: int) -> None:
    path = tmp_path / "base"
    written(path, KEYS)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(BaseFileError):
        Base.load(path)


@pytest.mark.parametrize("length", [0, 10, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 8, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "base"
    written(path, KEYS)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(BaseFileError):
        Base.load(path)


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "base"
    written(path, KEYS)
    data = bytearray(path.read_bytes())
    data[24:28] = struct.pack("<I", 2)
    path.write_bytes(data)
    with pytest.raises(BaseFileError, match="version"):
        Base.load(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    written(tmp_path / "base", KEYS)

    def breaks() -> object:
        yield numpy.array([1], dtype=numpy.int64)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        build.write(tmp_path / "base", 78, b"i" * 32, breaks(), 1)  # type: ignore[arg-type]
    assert [name.name for name in tmp_path.iterdir()] == ["base"]
    assert Base.load(tmp_path / "base").position == 77


def test_changes_are_laid_over_the_base(tmp_path: Path) -> None:
    base = written(tmp_path / "base", [2, 5, 8, 11])
    chunks = build.merged(base, [(2, 0), (4, 1), (8, 2), (-4, 2), (20, 1), (30, 0)])
    assert numpy.concatenate(list(chunks)).tolist() == [-3, 4, 9, 11, 20]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_chunks_make_no_difference(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_CHUNK_KEYS", size)
    base = written(tmp_path / "base", [2, 5, 8, 11])
    merged = numpy.concatenate(list(build.merged(base, [(2, 0), (4, 1), (8, 2), (-4, 2), (20, 1), (30, 0)])))
    assert merged.tolist() == [-3, 4, 9, 11, 20]
    doubled = numpy.array([8, 9, 2, 2, -3, -4, 4], dtype=numpy.int64)
    assert numpy.concatenate(list(build.deduplicated(doubled))).tolist() == [-3, 2, 4, 9]


@pytest.mark.parametrize("size", [1, 5, 19, 20, 1000])
def test_a_copy_of_the_database_is_read_in_pieces_of_any_size(tmp_path: Path, size: int) -> None:
    data = copy_rows([8, 9, -4, 2, 2])
    copied = build.CopiedKeys()
    for begin in range(0, len(data), size):
        copied.feed(data[begin : begin + size])
    copied.write(tmp_path / "base", 5, b"h" * 32)
    assert list(Base.load(tmp_path / "base").array) == [-4, 2, 9]


@pytest.mark.parametrize("data", [b"x" * 40, copy_rows([1])[:-1], copy_rows([1])[:20], b""])
def test_half_a_copy_makes_no_file(tmp_path: Path, data: bytes) -> None:
    def build_from(data: bytes) -> None:
        copied = build.CopiedKeys()
        copied.feed(data)
        copied.write(tmp_path / "base", 5, b"h" * 32)

    with pytest.raises(ValueError, match="COPY"):
        build_from(data)
    assert not list(tmp_path.iterdir())


def test_the_checksum_is_over_what_is_there(tmp_path: Path) -> None:
    """The format is stable: another implementation can check a file."""
    written(tmp_path / "base", KEYS)
    data = (tmp_path / "base").read_bytes()
    assert data[:22] == b"heed suppression index"
    assert hashlib.blake2b(data[HEADER_BYTES:], digest_size=32).digest() == data[80:112]
    assert hashlib.sha256(data[:112]).digest() == data[112:144]
