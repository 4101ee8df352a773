"""Message ids: 63 bits, made without asking anybody, ordered by time, unlike over all workers and nodes.

    milliseconds since 2024 (41 bits) | worker id modulo 1024 (10) | number within the millisecond (8) | lane (4)

The lane is part of the id, so that a message names the part of the queue it is in.
"""

import time
from collections.abc import Callable
from typing import Final

LANES: Final = 16
_EPOCH_MS: Final = 1_704_067_200_000
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32


class MessageIds:
    """Makes the ids of one worker's messages."""

    def __init__(self, worker_id: int, now: Callable[[], float] = time.time) -> None:
        self._worker = (worker_id % 1024) << 12
        self._now = now
        self._last = 0

    def next(self, lane: int) -> int:
        """A new id in a lane; greater than all before it, even when the clock goes back."""
        slot = max((int(self._now() * 1000) - _EPOCH_MS) << 8, self._last + 1)
        self._last = slot
        return (slot >> 8) << 22 | self._worker | (slot & 0xFF) << 4 | lane


def first_id_at(seconds: float) -> int:
    """What the ids of messages since this time (epoch seconds) are not smaller than."""
    return max(0, int(seconds * 1000) - _EPOCH_MS) << 22


def lane_of(message_id: int) -> int:
    """The lane in which a message is queued."""
    return message_id % LANES


def received_at(message_id: int) -> float:
    """Epoch seconds at which an id was made; it may be ahead of the clock where many were made at once."""
    return ((message_id >> 22) + _EPOCH_MS) / 1000


def queue_id(message_id: int) -> str:
    """The id as people see it: 13 characters without I, L, O, U."""
    return "".join([_ALPHABET[message_id >> shift & 31] for shift in range(60, -1, -5)])


def message_id_of(text: str) -> int:
    """The id that queue_id() wrote, in either case; raises ValueError."""
    if len(text) != 13 or not text.isascii() or text[0] not in "01234567":
        raise ValueError("a queue id has 13 characters, and 63 bits")
    value = 0
    for character in text.upper():
        value = value << 5 | _ALPHABET.index(character)
    return value
