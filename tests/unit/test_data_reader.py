"""The end of DATA is CRLF.CRLF and nothing else; what could be taken for it by others is refused."""

import pytest

from mta.data_reader import DataError, DataReader


def read(*chunks: bytes, max_bytes: int = 1_000) -> tuple[bytes, bytes] | None:
    reader = DataReader(max_bytes)
    done = None
    for chunk in chunks:
        assert done is None
        done = reader.feed(chunk)
    return done


@pytest.mark.parametrize(
    ("wire", "content", "rest"),
    [
        (b".\r\n", b"", b""),
        (b"\r\n.\r\n", b"\r\n", b""),
        (b"a\r\n.\r\nQUIT\r\n", b"a\r\n", b"QUIT\r\n"),
        (b"..\r\n.\r\n", b".\r\n", b""),
        (b"a\r\n..b\r\n.c\r\n...\r\n.\r\n", b"a\r\n.b\r\nc\r\n..\r\n", b""),
        (b"a.\r\n.\r\n.\r\n", b"a.\r\n", b".\r\n"),
        # what follows the end is not content, whatever it is
        (b"a\r\n.\r\n\n\r\0", b"a\r\n", b"\n\r\0"),
    ],
)
def test_content_ends_at_a_lone_dot_and_loses_its_stuffing(wire: bytes, content: bytes, rest: bytes) -> None:
    assert read(wire) == (content, rest)
    octets = [wire[at : at + 1] for at in range(len(wire) - len(rest))]
    assert read(*octets) == (content, b"")


@pytest.mark.parametrize(
    "end",
    [
        b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\r\n.\r\n",
        b"\r\n.\r\r\n", b"\n\r\n.\r\n", b"\r\n\n.\r\n",
    ],
)  # fmt: skip
def test_no_other_end_smuggles_a_second_message(end: bytes) -> None:
    """CVE-2023-51764 and its kin: the content must not be taken with a part that others would execute."""
    smuggled = b"Subject: a\r\n\r\nb" + end + b"MAIL FROM:<admin@example.com>\r\n.\r\n"
    with pytest.raises(DataError) as refused:
        read(smuggled)
    assert refused.value.reply[:3] == "550"
    assert refused.value.rest is None
    for at in range(len(smuggled)):
        with pytest.raises(DataError):
            read(smuggled[:at], smuggled[at:])


def test_a_cr_at_the_end_of_a_chunk_may_still_get_its_lf() -> None:
    assert read(b"a\r", b"\n.\r\n") == (b"a\r\n", b"")
    with pytest.raises(DataError):
        read(b"a\r", b"b")


def test_a_bare_newline_is_refused_at_once() -> None:
    reader = DataReader(1_000)
    with pytest.raises(DataError) as refused:
        reader.feed(b"a\nb")
    assert (refused.value.reason, refused.value.rest) == ("bare-newline", None)


def test_a_nul_is_refused() -> None:
    with pytest.raises(DataError) as refused:
        read(b"a\0b")
    assert refused.value.reason == "nul"


@pytest.mark.parametrize("max_bytes", [8, 100])
def test_the_limit_is_exact(max_bytes: int) -> None:
    fits = b"x" * (max_bytes - 2) + b"\r\n"
    assert read(fits + b".\r\n", max_bytes=max_bytes) == (fits, b"")
    for more in (1, 2, 3, 500):
        with pytest.raises(DataError) as refused:
            read(b"x" * more + fits + b".\r\nNOOP\r\n", max_bytes=max_bytes)
        assert refused.value.reply.startswith("552 5.3.4")
        assert refused.value.rest == b"NOOP\r\n"


def test_what_is_too_large_is_read_to_its_end_but_not_kept() -> None:
    reader = DataReader(1_000)
    for _ in range(1_000):
        assert reader.feed(b"x" * 998 + b"\r\n") is None
        assert reader.buffered <= 2_100
    for chunk in (b".", b"\r"):
        assert reader.feed(chunk) is None
    with pytest.raises(DataError) as refused:
        reader.feed(b"\nRSET\r\n")
    assert (refused.value.reason, refused.value.rest) == ("oversize", b"RSET\r\n")


def test_bare_newlines_are_seen_in_what_is_too_large() -> None:
    reader = DataReader(10)
    reader.feed(b"x" * 100)
    with pytest.raises(DataError) as refused:
        reader.feed(b"y\nz")
    assert refused.value.rest is None


def test_what_is_given_up_is_read_to_its_end_and_not_kept() -> None:
    reader = DataReader(1_000)
    reader.feed(b"a\r\n")
    reader.give_up("452 4.3.1 No room", "memory")
    reader.feed(b"b" * 500)
    assert reader.buffered == 0
    with pytest.raises(DataError) as refused:
        reader.feed(b"\r\n.\r\nQUIT\r\n")
    assert (refused.value.reply, refused.value.reason, refused.value.rest) == (
        "452 4.3.1 No room",
        "memory",
        b"QUIT\r\n",
    )
