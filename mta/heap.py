"""Gives memory that is free back to the system: after a flood, glibc keeps what lies between small things in use.

A worker that held much for a moment would stay as large until it ends, and a busy machine needs the room elsewhere.
Without glibc nothing is done.
"""

import asyncio
import ctypes
from collections.abc import Callable
from typing import Final

_EVERY_SECONDS: Final = 30.0


def give_back() -> None:
    """Once; takes some 0.2 ms for each MB that there is to give, and next to nothing when there is none."""
    if _TRIM is not None:
        _TRIM(0)


async def give_back_for_ever() -> None:
    """Again and again."""
    while True:
        await asyncio.sleep(_EVERY_SECONDS)
        give_back()


def _trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None


_TRIM: Final = _trim()
