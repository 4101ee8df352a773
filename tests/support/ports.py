"""Ports for servers that are told by a command line where to listen, so that they can't be given any that is free."""

import itertools
import os
import socket
from typing import Final

# Below those that the kernel gives to whoever asks for any; each process that runs tests beside others counts through
# a range of its own.
_PORTS: Final = 2_000
_FIRST: Final = 12_000 + _PORTS * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10)
_candidates: Final = (_FIRST + number % _PORTS for number in itertools.count(os.getpid()))


def free_port() -> int:
    """A loopback port that nobody listens on, and that is not given a second time soon."""
    return next(filter(_is_free, _candidates))


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
