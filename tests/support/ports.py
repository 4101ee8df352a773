"""Ports for servers that are told by a command line where to listen, so that they can't be given any that is free.

Each process takes a range of its own while it lives, below those that the kernel gives to whoever asks for any port.
"""

import itertools
import socket
from collections.abc import Iterator
from functools import cache
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
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0heed-test-ports-{first}")  # a name and no file, which one user would leave to all others
        except OSError:
            claim.close()
        else:
            claim.detach()  # until this process ends
            return itertools.cycle(range(first, first + _PORTS))
    raise AssertionError("more processes than ranges of ports")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
