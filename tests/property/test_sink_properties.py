"""The test MX's dialogue, without a socket: packets may be cut anywhere, and nothing that a client says breaks it."""

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mta.maildir import Maildir, content, envelope_recipients, summary
from mta.sink import Sink
from mta.sink_dialogue import Dialogue
from tests.support.transport import FakeTransport, cut


class Taker:
    """A sink that takes all and keeps it."""

    tls: ssl.SSLContext | None = None
    delay_seconds = 0.0

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, tuple[bytes, ...], bytes]] = []

    def opened(self, dialogue: Dialogue) -> None: ...

    def closed(self, dialogue: Dialogue) -> None: ...

    def verdict(self, recipient: bytes) -> bytes | None:
        return b"550 5.1.1 no\r\n" if recipient.startswith(b"no") else None

    def take(self, sender: bytes, recipients: tuple[bytes, ...], content: bytearray) -> bytes:
        self.taken.append((sender, recipients, bytes(content)))
        return b"250 2.0.0 ok\r\n"


def converse(packets: Sequence[bytes]) -> tuple[Taker, bytes]:
    """What a sink took and answered."""
    taker, transport = Taker(), FakeTransport()
    dialogue = Dialogue(taker)

    async def run() -> None:
        dialogue.connection_made(transport)
        for packet in packets:
            if not transport.closed:
                dialogue.data_received(packet)
                await asyncio.sleep(0)

    asyncio.run(run())
    return taker, bytes(transport.written)


lines = st.lists(st.binary(max_size=20).filter(lambda line: not {10, 13} & set(line)), max_size=8)
cuts = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)
messages = st.lists(
    st.tuples(st.lists(st.sampled_from([b"b@example.net", b"no@example.net"]), max_size=3), lines), max_size=4
)


def wire(content: Sequence[bytes]) -> bytes:
    return b"".join(b"." * line.startswith(b".") + line + b"\r\n" for line in content) + b".\r\n"


@given(messages, cuts)
def test_however_it_is_cut_the_same_arrives(sent: list[tuple[list[bytes], list[bytes]]], places: list[int]) -> None:
    octets = b"EHLO a\r\n"
    expected = []
    for recipients, body in sent:
        octets += b"MAIL FROM:<a@example.com>\r\n" + b"".join(b"RCPT TO:<%b>\r\n" % r for r in recipients)
        accepted = tuple(r for r in recipients if not r.startswith(b"no"))
        if accepted:
            octets += b"DATA\r\n" + wire(body)
            expected.append((b"a@example.com", accepted, b"".join(line + b"\r\n" for line in body)))
        else:
            octets += b"DATA\r\nRSET\r\n"
    taker, replies = converse(cut(octets, places))
    assert taker.taken == expected
    assert replies == converse([octets])[1]


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"DATA\r\n", b".\r\n", b"MAIL FROM:<>\r\n", b"QUIT\r\n"])))
def test_nothing_said_breaks_the_dialogue(packets: list[bytes]) -> None:
    _, replies = converse(packets)
    assert all(line[:3].isdigit() for line in replies.split(b"\r\n") if line)


@given(
    lines.map(b"\r\n".join), st.lists(st.integers(0, 99).map(lambda n: b"r%d@example.net" % n), min_size=1, max_size=5)
)
def test_what_is_stored_comes_back(tmp_path_factory: object, body: bytes, recipients: list[bytes]) -> None:
    path: Path = tmp_path_factory.mktemp("mail")  # type: ignore[attr-defined]
    maildir = Maildir(path)
    maildir.open()
    file = path / "new" / maildir.store(b"a@example.com", recipients, b"Subject: x\r\n" + body)
    assert envelope_recipients(file) == recipients
    assert content(file) == b"Subject: x\r\n" + body
    assert summary(path).distinct_recipients == len(set(recipients))


@given(st.binary(min_size=1, max_size=40))
def test_a_recipient_stands_where_it_stood(recipient: bytes) -> None:
    first, second = Sink(), Sink()
    assert first._place(recipient) == second._place(recipient.upper())
    assert 0 <= first._place(recipient) < 1
