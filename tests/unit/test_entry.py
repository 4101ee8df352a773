"""What people write into an entry is kept without addresses, in linear time."""

import time

import pytest

from suppression.entry import clean


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("bob@example.net asked", "<address> asked"),
        ('(<bob@example.net>, "bob"@b)', '(<<address>>, "bob"<address>)'),
        ("a@b@c a@@b @", "<address> <address> <address>"),
        ("by phone: +49 30 1", "by phone: +49 30 1"),
        ("a\0b\nc", "a b c"),
    ],
)
def test_nothing_that_looks_like_an_address_is_kept(said: str, kept: str) -> None:
    assert clean(said) == kept


@pytest.mark.parametrize("part", ["a", "a@", " @", "(a"])
def test_a_megabyte_takes_no_time_worth_mentioning(part: str) -> None:
    started = time.process_time()
    clean(part * (1_000_000 // len(part)))
    assert time.process_time() - started < 5
