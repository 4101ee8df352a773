"""Messages that someone wrote to hurt: 10 MB of what is slow elsewhere, read without an error in bounded time."""

import time
from collections.abc import Callable

import pytest

from bounce.answer import answer_of
from bounce.reader import read
from tests.support.hostile import HOSTILE

SECONDS = 0.1
ATTEMPTS = 5
"""The best of several: this is about the reader, not about what else the machine does."""


def slow_machine_seconds() -> float:
    """What 100 ms are on a machine that is slower now, or shared: eight times a loop that takes some 12 ms there."""
    started = time.process_time()
    sum(range(1_000_000))
    return 8 * (time.process_time() - started)


def cpu_seconds(reader: Callable[[bytes], object], message: bytes) -> float:
    started = time.process_time()
    reader(message)
    return time.process_time() - started


@pytest.mark.parametrize("reader", [read, answer_of])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_messages_take_bounded_time(name: str, reader: Callable[[bytes], object]) -> None:
    make: Callable[[], bytes] = HOSTILE[name]
    message = make()
    reader(b"From: warm@example.com\nSubject: up\n\nup")
    seconds, allowed = 9.0, SECONDS
    for _ in range(ATTEMPTS):
        allowed = max(allowed, slow_machine_seconds())
        seconds = min(seconds, cpu_seconds(reader, message))
        if seconds <= allowed:
            break
    assert seconds <= allowed
