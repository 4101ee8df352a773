"""A transport without a socket, for tests of protocols, and a way to cut what they hear into packets."""

import asyncio
import itertools
from collections.abc import Sequence


class FakeTransport(asyncio.Transport):
    """Keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


def cut(octets: bytes, places: Sequence[int]) -> list[bytes]:
    """The octets in packets that end at the given places, each taken modulo the length; none is empty."""
    edges = [0, *sorted(place % (len(octets) + 1) for place in places), len(octets)]
    return [octets[start:end] for start, end in itertools.pairwise(edges) if start < end]
