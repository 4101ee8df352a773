"""The load client's session, without a socket: whatever a server says, every message is accounted for once."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from mta.filler import text
from mta.send_session import Login, Reply, Session, Work
from tests.support.transport import FakeTransport, cut


class ClosingTransport(FakeTransport):
    """Tells its protocol when it is closed, as a real one does."""

    def __init__(self) -> None:
        super().__init__()
        self.session: Session | None = None

    def abort(self) -> None:
        self.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.lost)

    def lost(self) -> None:
        assert self.session is not None
        self.session.connection_lost(None)


class Owner:
    """Three messages, and what became of them."""

    def __init__(self) -> None:
        self.waiting = [Work(n, "a@example.com", ["b@example.net", "c@example.net"], b"x\r\n") for n in range(3)]
        self.taken = 0
        self.returned: list[int] = []
        self.done: list[int] = []

    def take(self) -> Work | None:
        self.taken += bool(self.waiting)
        return self.waiting.pop(0) if self.waiting else None

    def give_back(self, work: Work) -> None:
        self.returned.append(work.number)

    def refused_recipient(self, reply: Reply) -> None: ...

    def finished(self, work: Work, reply: Reply | None) -> None:
        self.done.append(work.number)


async def converse(packets: list[bytes]) -> tuple[Owner, bytes]:
    """Hear what the server says, then the end of the connection."""
    owner, transport = Owner(), ClosingTransport()
    session = transport.session = Session(owner, Login(), 60)
    session.connection_made(transport)
    for packet in packets:
        if not transport.closed:
            session.data_received(packet)
            await asyncio.sleep(0)
    transport.close()
    await asyncio.gather(session.over, return_exceptions=True)
    return owner, bytes(transport.written)


GREETING = [b"220 hi\r\n", b"250-x\r\n250 PIPELINING\r\n"]
OTHERS = ["250 ok", "354 go", "450 4.2.1 no", "550 5.1.1 no", "421 bye", "221 bye", "250", "", "nonsense", "250-half"]
reply = st.sampled_from([f"{line}\r\n".encode() for line in OTHERS])
places = st.lists(st.integers(0, 2000), max_size=8)


@given(st.lists(reply | st.binary(max_size=30), max_size=40))
def test_every_message_is_accounted_for_once(said: list[bytes]) -> None:
    owner, _ = asyncio.run(converse(GREETING + said))
    assert sorted(owner.done + owner.returned) == list(range(owner.taken))


@given(places, st.booleans())
def test_however_replies_are_cut_the_same_is_sent(places: list[int], pipelining: bool) -> None:
    transaction = [b"250 ok\r\n", b"250 ok\r\n", b"550-5.1.1 a\r\n550 5.1.1 b\r\n", b"354 go\r\n", b"250 ok\r\n"]
    opening = GREETING if pipelining else [GREETING[0], b"250 x\r\n"]
    replies = [*opening, *transaction * 3, b"221 bye\r\n"]
    owner, sent = asyncio.run(converse([packet for reply in replies for packet in cut(reply, places)]))
    message = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nRCPT TO:<c@example.net>\r\nDATA\r\nx\r\n.\r\n"
    assert sent == b"EHLO localhost\r\n" + message * 3 + b"QUIT\r\n"
    assert owner.done == [0, 1, 2]


@given(st.integers(2, 3000), st.integers(0, 50))
def test_filler_has_its_length_and_needs_no_stuffing(size: int, seed: int) -> None:
    filler = text(size, seed)
    assert len(filler.encode()) == size
    assert "\n." not in filler
    assert not filler.startswith(".")
