"""Questions about line ends, asked of whole messages as vectors: what searching takes 15 us for at 10 kB takes 4 here.

Plain functions on octets that nobody changes meanwhile; in blocks, so that a large message costs no memory.
"""

from collections.abc import Iterator

import numpy
import numpy.typing

Octets = numpy.typing.NDArray[numpy.uint8]

_LF, _CR, _DOT = b"\n\r."
_BLOCK = 1 << 18


def has_bare_line_ends(text: bytes | bytearray | memoryview) -> bool:
    """True when a CR or LF is not half of a CRLF: what one server reads as text ends the message at another (M2)."""
    if not text:
        return False
    if text[0] == _LF or text[-1] == _CR:
        return True
    return any(_unpaired(block) for _, block in _blocks(text))


def first_leading_dot(text: bytes | bytearray | memoryview) -> int:
    """Where the first dot is that follows an LF; -1 without any. A dot that begins the text follows none."""
    for start, block in _blocks(text):
        found = block[1:] == _DOT
        found &= block[:-1] == _LF
        place = int(found.argmax()) if len(found) else 0
        if len(found) and found[place]:
            return start + place + 1
    return -1


def _blocks(text: bytes | bytearray | memoryview) -> Iterator[tuple[int, Octets]]:
    """Blocks that overlap by one octet, so that each pair of neighbours is whole in one of them."""
    octets = numpy.frombuffer(text, numpy.uint8)
    for start in range(0, len(octets), _BLOCK):
        yield start, octets[start : start + _BLOCK + 1]


def _unpaired(octets: Octets) -> bool:
    returns: bytes = (octets[:-1] == _CR).tobytes()
    feeds: bytes = (octets[1:] == _LF).tobytes()
    return returns != feeds
