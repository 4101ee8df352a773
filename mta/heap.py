"""Gives memory that is free back to the system: after a flood, glibc keeps what lies between small things in use.

A worker that held much for a moment would stay as large until it ends, and a busy machine needs the room elsewhere.
Connections that are gone may refer to themselves, and hold their buffers until a full collection, which is rare by
itself. It is quick here, because what a worker consists of is set aside once. Without glibc nothing is given back.
"""

import asyncio
import ctypes
import gc
from collections.abc import Callable
from typing import Final

_EVERY_SECONDS: Final = 30.0


def set_aside() -> None:
    """What is there now stays, and is looked at by no collection any more."""
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Once; some 0.2 ms for each MB that there is to give, and a few for the things made since `set_aside`."""
    gc.collect()
    if _TRIM is not None:
        _TRIM(0)


async def give_back_for_ever() -> None:
    """Again and again."""
    set_aside()
    while True:
        await asyncio.sleep(_EVERY_SECONDS)
        give_back()


def _trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None


_TRIM: Final = _trim()
