"""Filler is of the length asked for, in lines that SMTP takes, and compresses like text."""

import zlib

import pytest

from mta.filler import text


@pytest.mark.parametrize("size", [2, 3, 50, 71, 72, 73, 74, 75, 1000, 10_000, 100_000])
def test_it_is_as_long_as_asked_and_in_lines(size: int) -> None:
    filler = text(size)
    assert len(filler) == len(filler.encode()) == size
    assert filler.endswith("\r\n")
    assert "\n" not in filler.replace("\r\n", "")
    assert max(len(line) for line in filler.split("\r\n")) < 100
    assert not any(line.startswith(".") for line in filler.split("\r\n"))


def test_it_is_the_same_for_the_same_seed_only() -> None:
    assert text(500, 1) == text(500, 1)
    assert text(500, 1) != text(500, 2)


def test_it_compresses_like_text() -> None:
    ratio = 50_000 / len(zlib.compress(text(50_000).encode()))
    assert 2 < ratio < 4
