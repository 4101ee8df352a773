"""An outbound connection and whatever a peer may do to it, from the connection to the reply to the dot."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from bounce.outcome import Action, BounceClass, Outcome, Stage, Trouble
from mta import session as session_module
from mta.session import PeerProtocol, Session, SessionLost, Withheld
from tests.support.client import trusting
from tests.support.node import server_tls, until
from tests.support.peer import CAPABILITIES, Connection, Peer
from tests.support.script import Script, close, hold, ignore, proceed, raw, reply, reset, take
from tests.support.transport import FakeTransport

SENDER, RECIPIENT = "bounce@mail.example.org", "anna@example.net"
WIRE = b"Subject: x\r\n\r\nhello\r\n..dot\r\n"
CLASSIC = tuple(capability for capability in CAPABILITIES if capability != "PIPELINING")


@asynccontextmanager
async def session_with(peer: Peer, tls: ssl.SSLContext | None = None, required: bool = False) -> AsyncIterator[Session]:
    session = await Session.connect(
        "mx.example.net", peer.host, peer.port, hostname="mx.example.org", connect_seconds=5, tls=tls,
        tls_required=required,
    )  # fmt: skip
    try:
        yield session
    finally:
        session.abort()


async def offer(
    session: Session,
    recipient: str = RECIPIENT,
    wire: bytes = WIRE,
    *,
    sender: str = SENDER,
    smtputf8: bool = False,
    check: Callable[[], Withheld | None] = lambda: None,
) -> Outcome:
    return await session.transact(sender, recipient, wire, eight_bit=True, smtputf8=smtputf8, check=check)


async def lost(peer: Peer, **changes: object) -> SessionLost:
    """What is raised when a message is offered on a first connection."""
    with pytest.raises(SessionLost) as caught:
        async with session_with(peer) as session:
            await offer(session)
    return caught.value


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wait for a peer is short."""
    for name in ("GREETING", "MAIL", "RCPT", "DATA", "DOT", "QUIT"):
        monkeypatch.setattr(session_module, f"{name}_SECONDS", 0.2)


@pytest.mark.parametrize("capabilities", [CAPABILITIES, CLASSIC])
async def test_several_messages_on_one_connection(capabilities: tuple[str, ...]) -> None:
    async with Peer(capabilities=capabilities) as peer, session_with(peer) as session:
        for number in range(3):
            outcome = await offer(session, f"reader-{number}@example.net")
            assert (outcome.action, outcome.reply_code, outcome.stage) == (Action.DELIVERED, 250, Stage.DOT)
            received = await peer.message()
            assert (received.sender, received.recipients) == (SENDER, (f"reader-{number}@example.net",))
            assert received.content == b"Subject: x\r\n\r\nhello\r\n.dot\r\n"
            assert set(received.parameters) == {f"SIZE={len(WIRE)}", "BODY=8BITMIME"}
        await session.quit()
        (connection,) = peer.connections
        assert connection.violations == []
        assert connection.counts["RSET"] == 0
        assert connection.counts["QUIT"] == 1


async def test_a_peer_without_extensions_gets_plain_commands() -> None:
    async with Peer(Script().on("EHLO", reply("502 5.5.1 what?"))) as peer, session_with(peer) as session:
        assert (await offer(session)).action is Action.DELIVERED
        (connection,) = peer.connections
        assert connection.commands[:2] == ["EHLO mx.example.org", "HELO mx.example.org"]
        assert (await peer.message()).parameters == ()
        assert connection.violations == []


@pytest.mark.parametrize("capabilities", [CAPABILITIES, CLASSIC])
@pytest.mark.parametrize(
    ("stage", "answer", "action", "where"),
    [
        ("MAIL", "550 5.1.8 no such sender", Action.FAILED, Stage.MAIL),
        ("MAIL", "451 4.3.0 later", Action.DELAYED, Stage.MAIL),
        ("RCPT", "550 5.1.1 unknown user", Action.FAILED, Stage.RCPT),
        ("RCPT", "450-4.2.1 not\n450 4.2.1 now", Action.DELAYED, Stage.RCPT),
        ("DATA", "451 4.3.0 later", Action.DELAYED, Stage.DATA),
        ("DATA", "554 5.7.1 no", Action.FAILED, Stage.DATA),
        ("DOT", "554 5.6.0 no", Action.FAILED, Stage.DOT),
        ("DOT", "452 4.3.1 full", Action.DELAYED, Stage.DOT),
    ],
)
async def test_a_refusal_leaves_the_connection_for_the_next(
    capabilities: tuple[str, ...], stage: str, answer: str, action: Action, where: Stage
) -> None:
    script = Script().on(stage, reply(answer), times=1)
    async with Peer(script, capabilities=capabilities) as peer, session_with(peer) as session:
        outcome = await offer(session, "first@example.net")
        assert (outcome.action, outcome.stage) == (action, where)
        assert session.usable
        assert (await offer(session, "second@example.net")).action is Action.DELIVERED
        assert peer.deliveries() == {"second@example.net": 1}
        assert peer.connections[0].counts["RSET"] == (stage != "DOT")
        assert len(peer.connections) == 1


async def test_replies_in_pieces() -> None:
    pieces = [raw(bytes([octet])) for octet in b"250-2.1.5 an\r\n250 2.1.5 na\r\n"]

    async def accept(connection: Connection) -> None:
        connection.recipients.append(RECIPIENT)
        for piece in pieces:
            await piece(connection)
            await asyncio.sleep(0)

    async with Peer(Script().on("RCPT", accept)) as peer, session_with(peer) as session:
        assert (await offer(session)).action is Action.DELIVERED


@pytest.mark.parametrize("capabilities", [CAPABILITIES, CLASSIC])
@pytest.mark.parametrize("how", [close, reset])
@pytest.mark.parametrize("stage", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "CONTENT", "DOT"])
async def test_a_connection_that_breaks(how: Callable[[], object], stage: str, capabilities: tuple[str, ...]) -> None:
    async with Peer(Script().on(stage, how()), capabilities=capabilities) as peer:  # type: ignore[arg-type]
        error = await lost(peer)
    assert error.outcome.action is Action.DELAYED
    early = stage in ("GREETING", "EHLO")
    assert error.outcome.trouble is (Trouble.SITE if early else Trouble.SESSION)
    assert peer.messages == [] or not peer.messages[0].accepted


@pytest.mark.parametrize("stage", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "DOT"])
async def test_421_anywhere_ends_the_connection_and_is_temporary(stage: str) -> None:
    async with Peer(Script().on(stage, reply("421 4.3.2 going down"), close())) as peer:
        error = await lost(peer)
    assert error.outcome.action is Action.DELAYED
    assert error.outcome.reply_code == 421


@pytest.mark.parametrize("stage", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "DOT"])
@pytest.mark.parametrize("octets", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x01\r\n", b"25\r\n", b"\0\r\n"])
async def test_garbage_is_a_temporary_failure(stage: str, octets: bytes) -> None:
    async with Peer(Script().on(stage, raw(octets))) as peer:
        error = await lost(peer)
    assert error.outcome.action is Action.DELAYED
    assert "HTTP" not in str(error)


@pytest.mark.parametrize("answer", ["250 mx.example.net", "200 hello", "354 go on", "199 x", "600 x"])
@pytest.mark.parametrize("stage", ["GREETING", "EHLO"])
async def test_the_wrong_success_before_mail_delivers_nothing(stage: str, answer: str) -> None:
    answer = answer.replace("250", "251" if stage == "EHLO" else "250")
    async with Peer(Script().on(stage, raw(answer.encode() + b"\r\n"))) as peer:
        error = await lost(peer)
    assert (error.outcome.action, error.outcome.trouble) == (Action.DELAYED, Trouble.SITE)


@pytest.mark.parametrize("stage", ["GREETING", "EHLO", "RCPT", "DOT"])
async def test_an_endless_reply_is_cut_off(stage: str) -> None:
    async with Peer(Script().on(stage, raw(b"250-and so on\r\n" * 10_000))) as peer:
        error = await lost(peer)
        assert error.outcome.action is Action.DELAYED


async def test_a_long_reply_costs_the_same_in_however_small_pieces() -> None:
    protocol = PeerProtocol()
    protocol.begin_transactions()
    started = time.process_time()
    for octet in b"550-n\r\n" * 4_000 + b"550 that is all\r\n":
        protocol.data_received(bytes([octet]))
    assert time.process_time() - started < 3
    answer = await protocol.reply(1)
    assert (answer.code, answer.text.count("\n"), answer.text[-11:]) == (550, 4_000, "that is all")
    protocol.data_received(b"550-half\r\n")
    assert not protocol.in_step


async def test_a_greeting_in_thousands_of_pieces_is_cut_off() -> None:
    protocol, transport = PeerProtocol(), FakeTransport()
    protocol.connection_made(transport)
    for _ in range(1_000):
        protocol.data_received(b"220-n\r\n")
    assert not transport.closed
    protocol.data_received(b"220-n\r\n")
    assert transport.closed


async def test_a_peer_that_wants_content_for_nobody_gets_none() -> None:
    script = Script().on("RCPT", reply("550 5.1.1 unknown user")).on("DATA", raw(b"354 go on\r\n"))
    async with Peer(script) as peer:
        error = await lost(peer)
        await peer.connections[0].closed()
    assert (error.outcome.action, error.outcome.bounce_class) == (Action.FAILED, BounceClass.UNKNOWN_USER)
    assert peer.messages == []
    assert not any("Subject" in line for line in peer.connections[0].commands)


@pytest.mark.parametrize(("stage", "answer"), [("MAIL", "354 go on"), ("RCPT", "354 go on"), ("DATA", "250 ok")])
async def test_the_right_digit_in_the_wrong_place_ends_the_connection(stage: str, answer: str) -> None:
    async with Peer(Script().on(stage, raw(answer.encode() + b"\r\n"))) as peer:
        error = await lost(peer)
    assert error.outcome.action is Action.DELAYED
    assert peer.messages == []


@pytest.mark.parametrize("stale", [True, False])
async def test_no_octet_of_content_goes_out_when_the_check_says_no(stale: bool) -> None:
    async with Peer() as peer, session_with(peer) as session:
        with pytest.raises(Withheld) as caught:
            await offer(session, check=lambda: Withheld(stale=stale))
        assert caught.value.stale is stale
        (connection,) = peer.connections
        await connection.closed()
        assert connection.counts["DATA"] == 1
        assert connection.commands[-1] == "DATA"
        assert bytes(connection._buffer) == b""
        assert not session.usable


async def test_check_and_content_are_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    async with Peer() as peer, session_with(peer) as session:
        transport = session._protocol.transport
        write = transport.write  # type: ignore[union-attr]

        def note(data: bytes) -> None:
            steps.append("content" if b"Subject" in data else "commands")
            write(data)

        def check() -> None:
            steps.append("check")
            # were there an await between check and write, this would come between them
            asyncio.get_running_loop().call_soon(steps.append, "somebody else")

        monkeypatch.setattr(transport, "write", note)
        await offer(session, check=check)
        await peer.message()
    assert steps == ["commands", "check", "content", "somebody else"]


async def test_content_and_final_dot_are_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    async with Peer() as peer, session_with(peer) as session:
        transport = session._protocol.transport
        write = transport.write  # type: ignore[union-attr]

        def note(data: bytes) -> None:
            written.append(data)
            write(data)

        monkeypatch.setattr(transport, "write", note)
        await offer(session)
    assert written[-1] == WIRE + b".\r\n"


async def test_a_reply_that_nobody_asked_for_is_no_answer_to_the_content() -> None:
    """Were it taken for one, a message that the peer then refuses would count as delivered."""
    script = Script().on("DATA", proceed(), raw(b"250 2.0.0 ok already\r\n")).on("DOT", reply("554 5.6.0 no"))
    async with Peer(script) as peer:
        error = await lost(peer)
        await peer.connections[0].closed()
    assert error.outcome.action is Action.DELAYED
    assert peer.messages == []


@pytest.mark.parametrize("octets", [b"250 2.0.0 by the way\r\n", b"421 4.4.2 idle\r\n", b"25"])
async def test_a_reply_to_nothing_makes_a_kept_connection_useless(octets: bytes) -> None:
    async with Peer() as peer, session_with(peer) as session:
        await offer(session)
        await peer.connections[0].send(octets)
        await until(lambda: not session.usable)
        with pytest.raises(SessionLost) as caught:
            await offer(session)
        assert not caught.value.touched
        assert peer.connections[0].counts["MAIL"] == 1


@pytest.mark.parametrize("how", [close, reset])
async def test_a_kept_connection_that_the_peer_closed_is_no_attempt(how: Callable[[], object]) -> None:
    async with Peer() as peer, session_with(peer) as session:
        await offer(session)
        await how()(peer.connections[0])  # type: ignore[operator]
        with pytest.raises(SessionLost) as caught:
            await offer(session)
        assert (caught.value.touched, caught.value.outcome.trouble) == (False, Trouble.SESSION)


async def test_a_connection_that_is_closed_at_the_next_mail_is_no_attempt() -> None:
    script = Script().on("MAIL", reply("421 4.4.2 enough"), close(), nth=2)
    async with Peer(script) as peer, session_with(peer) as session:
        await offer(session)
        with pytest.raises(SessionLost) as caught:
            await offer(session)
        assert (caught.value.touched, caught.value.outcome.trouble) == (False, Trouble.SESSION)


@pytest.mark.parametrize("capabilities", [CAPABILITIES, CLASSIC])
async def test_a_peer_that_ignores_rset(impatient: None, capabilities: tuple[str, ...]) -> None:
    script = Script().on("RCPT", reply("550 5.1.1 unknown user"), times=1).on("RSET", ignore())
    async with Peer(script, capabilities=capabilities) as peer, session_with(peer) as session:
        assert (await offer(session)).permanent
        with pytest.raises(SessionLost) as caught:
            await offer(session, "second@example.net")
        assert caught.value.outcome.action is Action.DELAYED
        assert peer.messages == []


@pytest.mark.parametrize("answer", ["500 5.5.2 what?", "421 4.3.2 enough", "550 5.7.1 never"])
@pytest.mark.parametrize("capabilities", [CAPABILITIES, CLASSIC])
async def test_a_refusal_of_rset_is_nobodys_bounce(answer: str, capabilities: tuple[str, ...]) -> None:
    script = Script().on("RCPT", reply("550 5.1.1 unknown user"), times=1).on("RSET", reply(answer))
    async with Peer(script, capabilities=capabilities) as peer, session_with(peer) as session:
        assert (await offer(session)).permanent
        with pytest.raises(SessionLost) as caught:
            await offer(session, "second@example.net")
        outcome = caught.value.outcome
        assert (outcome.action, outcome.trouble, caught.value.touched) == (Action.DELAYED, Trouble.SESSION, False)


@pytest.mark.parametrize("stage", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "DOT"])
async def test_a_silent_peer_is_given_up(impatient: None, stage: str) -> None:
    async with Peer(Script().on(stage, ignore())) as peer:
        error = await lost(peer)
    assert error.outcome.action is Action.DELAYED
    assert error.outcome.bounce_class is BounceClass.NETWORK


async def test_an_octet_now_and_then_does_not_keep_a_wait_alive(impatient: None) -> None:
    async def drip(connection: Connection) -> None:
        while connection.open and not connection.writer.is_closing():
            await connection.send(b"2")
            await asyncio.sleep(0.05)

    async with Peer(Script().on("RCPT", drip)) as peer:
        async with asyncio.timeout(3):
            error = await lost(peer)
    assert error.outcome.action is Action.DELAYED


async def test_a_peer_that_does_not_read(impatient: None) -> None:
    gate = asyncio.Event()
    async with Peer(Script().on("CONTENT", hold(gate)), read_limit_octets=4096) as peer:
        with pytest.raises(SessionLost) as caught:
            async with session_with(peer) as session:
                await offer(session, wire=b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" * 3_000_000)
        gate.set()
        assert caught.value.outcome.stage is Stage.DOT


async def test_half_the_content_and_a_reset() -> None:
    async with Peer(Script().on("CONTENT", take(100_000), reset())) as peer:
        with pytest.raises(SessionLost) as caught:
            async with session_with(peer) as session:
                await offer(session, wire=b"Subject: x\r\n\r\n" + b"x\r\n" * 1_000_000)
        assert caught.value.outcome.action is Action.DELAYED


async def test_a_message_larger_than_the_peer_takes_is_not_offered() -> None:
    async with Peer(capabilities=("PIPELINING", "SIZE 20")) as peer, session_with(peer) as session:
        outcome = await offer(session)
        assert (outcome.permanent, outcome.bounce_class) == (True, BounceClass.TOO_LARGE)
        assert peer.connections[0].counts["MAIL"] == 0
        assert session.usable


@pytest.mark.parametrize("offered", ["SIZE", "SIZE 0", "SIZE many", "SIZE -1", f"SIZE {'9' * 5_000}"])
async def test_a_peer_that_names_no_limit(offered: str) -> None:
    async with Peer(capabilities=("PIPELINING", offered)) as peer, session_with(peer) as session:
        assert (await offer(session)).action is Action.DELIVERED


async def test_an_internationalised_message_needs_smtputf8() -> None:
    async with Peer(capabilities=CLASSIC[:1]) as peer, session_with(peer) as session:
        outcome = await offer(session, "ännä@example.net", smtputf8=True)
        assert (outcome.permanent, outcome.status) == (True, "5.6.7")
        assert peer.connections[0].counts["MAIL"] == 0
    async with Peer() as peer, session_with(peer) as session:
        assert (await offer(session, "ännä@example.net", smtputf8=True)).action is Action.DELIVERED
        received = await peer.message()
        assert received.recipients == ("ännä@example.net",)
        assert "SMTPUTF8" in received.parameters


@pytest.mark.parametrize(
    "address",
    [
        "anna@example.net>\r\nRCPT TO:<eve@example.net", "anna\r@example.net", "anna@exam\nple.net",
        "anna\0@example.net", '"anna\r\n"@example.net', '"anna\0"@example.net', '"anna"@example.net> NOTIFY=NEVER',
        '"anna"@exam ple.net', "an na@example.net", "<anna@example.net", '"an\x7fna"@example.net',
        "anna\udce4@example.net",
    ],
)  # fmt: skip
async def test_no_address_can_break_out_of_its_command(address: str) -> None:
    async with Peer() as peer, session_with(peer) as session:
        for sender, recipient in ((SENDER, address), (address, RECIPIENT)):
            outcome = await offer(session, recipient, sender=sender)
            assert outcome.action is Action.DELAYED
        # the connection is none the worse for it
        assert (await offer(session, '"an na"@example.net')).action is Action.DELIVERED
        assert peer.connections[0].counts["MAIL"] == 1


async def test_what_a_peer_says_is_kept_printable_and_without_the_address() -> None:
    script = Script().on("DOT", raw(b"250 2.0.0 \x1b[31m\0queued for anna@example.net\xff as 1\r\n"))
    async with Peer(script) as peer, session_with(peer) as session:
        outcome = await offer(session)
        assert outcome.action is Action.DELIVERED
        assert "anna" not in outcome.diagnostic
    script = Script().on("DOT", raw(b"250-2.0.0 \x1b[31m\0ok\r\n250 2.0.0 fine\r\n"))
    async with Peer(script) as peer, session_with(peer) as session:
        assert (await offer(session)).diagnostic.isprintable()


# --- TLS


async def test_tls_where_it_is_offered() -> None:
    async with Peer(tls=server_tls()) as peer, session_with(peer, trusting()) as session:
        assert (await offer(session)).action is Action.DELIVERED
        (connection,) = peer.connections
        assert connection.tls
        assert connection.violations == []
        assert [c.split()[0] for c in connection.commands[:4]] == ["EHLO", "STARTTLS", "EHLO", "MAIL"]


async def test_tls_that_must_be_and_is_not_offered() -> None:
    async with Peer() as peer:
        with pytest.raises(SessionLost) as caught:
            async with session_with(peer, trusting(), required=True):
                pass
        assert caught.value.outcome.bounce_class is BounceClass.TLS_REQUIRED
        assert caught.value.outcome.action is Action.DELAYED


@pytest.mark.parametrize(
    "broken",
    [
        (reply("454 4.7.0 no TLS now"),), (reply("501 what?"),), (reply("220 go"), raw(b"no handshake\r\n")),
        (reply("220 go"), close()), (close(),), (reset(),), (raw(b"garbage\r\n"),),
    ],
)  # fmt: skip
async def test_starttls_that_fails_is_told_from_other_trouble(broken: tuple[object, ...]) -> None:
    """By its stage: the engine then tries without."""
    async with Peer(Script().on("STARTTLS", *broken), tls=server_tls()) as peer:  # type: ignore[arg-type]
        with pytest.raises(SessionLost) as caught:
            async with session_with(peer, trusting()):
                pass
        assert (caught.value.outcome.stage, caught.value.outcome.action) == (Stage.STARTTLS, Action.DELAYED)


async def test_plain_text_injected_before_tls_is_not_believed() -> None:
    async def inject(connection: Connection) -> None:
        connection.writer.write(b"220 go\r\n250-injected.example.net\r\n250 SIZE 1\r\n")
        await connection.writer.start_tls(server_tls())
        connection.tls = True

    async with Peer(Script().on("STARTTLS", inject), tls=server_tls()) as peer:
        try:
            async with session_with(peer, trusting()) as session:
                # the injected SIZE 1 would make every message too large
                assert (await offer(session)).action is Action.DELIVERED
        except SessionLost as error:
            assert error.outcome.action is Action.DELAYED  # noqa: PT017 - either way is right


async def test_nobody_listens() -> None:
    peer = Peer()
    await peer.start()
    await peer.stop()
    error = await lost(peer)
    assert (error.outcome.stage, error.outcome.trouble) == (Stage.CONNECT, Trouble.SITE)
