"""Ports for servers that are told by a command line where to listen, so that they can't be given any that is free.

Each process takes a range of its own while it lives, below those that the kernel gives to whoever asks for any port.
"""

import fcntl
import itertools
import os
import socket
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

_FIRST: Final = 12_000
_PORTS: Final = 1_000
_RANGES: Final = 20


def free_port() -> int:
    """A loopback port that nobody listens on, and that is not given a second time soon."""
    return next(filter(_is_free, _candidates()))


@cache
def _candidates() -> Iterator[int]:
    for first in range(_FIRST, _FIRST + _RANGES * _PORTS, _PORTS):
        claim = os.open(Path(tempfile.gettempdir()) / f"heed-test-ports-{first}", os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends
        except BlockingIOError:
            os.close(claim)
        else:
            return itertools.cycle(range(first, first + _PORTS))
    raise AssertionError("more processes than ranges of ports")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
