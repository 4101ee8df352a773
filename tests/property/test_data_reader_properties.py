"""However the network cuts a message up, reading it gives what a naive reading of the whole gives."""

import itertools
import re

from hypothesis import example, given
from hypothesis import strategies as st

from mta.data_reader import DataError, DataReader

PIECES = st.sampled_from([b"\r\n", b"\r\n.", b"\r\n.\r\n", b"\r", b"\n", b".", b"..", b"a", b"bc", b"\0", b"\r\n.\n"])
WIRES = st.lists(PIECES, max_size=25).map(b"".join) | st.binary(max_size=40)
PROPER = st.lists(st.sampled_from([b"\r\n", b"\r\n.", b".", b"a", b"bcd", b"\r\n.."]), max_size=40).map(b"".join)
LIMIT = 24


def naive(wire: bytes) -> tuple[bytes, bytes] | str | None:
    """Content and rest, the reason of a refusal, or None when there is no end yet."""
    text = b"\r\n" + wire
    end = text.find(b"\r\n.\r\n")
    seen = text if end < 0 else text[: end + 5]
    # a CR that is the last octet so far may still become a CRLF
    if re.search(rb"\r(?!\n|\Z)|(?<!\r)\n", seen) or (end >= 0 and re.search(rb"\r(?!\n)", seen)):
        return "bare-newline"
    if b"\0" in seen:
        return "nul"
    if end < 0:
        return None
    content = text[2 : end + 2]
    if len(content) > LIMIT:
        return "oversize"
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n")[2:], text[end + 5 :]


def chunked(wire: bytes, cuts: list[int]) -> tuple[bytes, bytes] | str | None:
    reader = DataReader(LIMIT)
    places = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        try:
            done = reader.feed(wire[start:end])
        except DataError as error:
            known = error.rest is None or error.rest + wire[end:] == (b"\r\n" + wire).split(b"\r\n.\r\n", 1)[1]
            return error.reason if known else "wrong rest"
        assert reader.buffered <= LIMIT + len(wire) + 9
        if done is not None:
            return done[0], done[1] + wire[end:]
    return None


def same(one: object, other: object) -> bool:
    """Whether a NUL or a bare newline is seen first depends on where the chunks end: both are refused for good."""
    fatal = {"nul", "bare-newline"}
    return one == other or (isinstance(one, str) and isinstance(other, str) and {one, other} <= fatal)


@given(WIRES, st.lists(st.integers(0, 200), max_size=12))
@example(b"\r\n.\r\n", [1, 2, 3, 4])
@example(b".\r\n.\r\n", [1, 2])
def test_any_chunking_reads_as_the_naive_reading_of_the_whole(wire: bytes, cuts: list[int]) -> None:
    assert same(chunked(wire, cuts), naive(wire))


@given(PROPER, st.lists(st.integers(0, 200), max_size=12), st.binary(max_size=6))
def test_proper_lines_of_any_length_in_any_chunks(lines: bytes, cuts: list[int], after: bytes) -> None:
    wire = lines + b"\r\n.\r\n" + after
    assert chunked(wire, cuts) == naive(wire)
