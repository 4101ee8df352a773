"""The load client against the test MX, and against a peer that misbehaves."""

import ssl

import pytest
import trustme

from mta.send import Campaign, Result, send
from mta.send_session import Login
from mta.sink import Behaviour, Sink
from tests.support.peer import CAPABILITIES, Peer
from tests.support.script import Action, Script, close, ignore, proceed, raw, reply, reset, take


@pytest.fixture
def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def client_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


AUTHORITY = trustme.CA()


async def run(peer: Peer | Sink, campaign: Campaign, connections: int = 1, login: Login | None = None) -> Result:
    return await send(campaign, peer.host, peer.port, connections=connections, login=login, timeout_seconds=5)


async def test_every_recipient_is_another_reader_and_gets_one_message() -> None:
    shown: list[int] = []
    async with Sink(keep=1000) as sink:
        campaign = Campaign(200, size_octets=3000, recipients_per_message=3)
        result = await send(
            campaign, sink.host, sink.port, connections=7, progress=lambda r: shown.append(r.done), progress_seconds=0
        )
    assert (result.accepted, result.accepted_recipients, result.done, result.unsent) == (200, 600, 200, 0)
    assert not result.refused
    assert not result.failures
    recipients = [recipient.decode() for delivery in sink.received for recipient in delivery.recipients]
    assert sorted(recipients) == sorted(f"reader-{n}@example.net" for n in range(1, 601))
    assert sink.counts.connections == 7
    assert shown == sorted(shown)
    assert shown[-1] == 200
    assert result.accepted_per_second > 0


async def test_a_message_is_what_a_newsletter_would_send() -> None:
    async with Sink(keep=1) as sink:
        await run(sink, Campaign(1, size_octets=10_000, campaign="spring"))
    content = sink.received[0].content
    header, _, body = content.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in header.split(b"\r\n"))
    assert fields[b"List-Id"] == b"Weekly letter <weekly.example.com>"
    assert fields[b"X-Campaign"] == b"spring"
    assert fields[b"To"] == b"reader-1@example.net"
    assert {b"From", b"Subject", b"Date", b"Message-ID", b"MIME-Version", b"Content-Type"} <= fields.keys()
    assert abs(len(content) - 10_000) < 50
    assert max(len(line) for line in body.split(b"\r\n")) < 100
    assert body.endswith(b"\r\n")


async def test_what_is_refused_is_counted_by_reply_and_names_nobody() -> None:
    behaviour = Behaviour(refuse_share=0.25, defer_share=0.25, seed=3)
    async with Sink(behaviour=behaviour) as sink:
        result = await run(sink, Campaign(200, size_octets=100, recipients_per_message=2), connections=4)
    assert set(result.refused) == {"550 5.1.1", "450 4.2.1"}
    assert result.accepted_recipients == sink.counts.recipients == 400 - result.refused.total()
    assert result.accepted == sink.counts.messages
    assert result.done == 200
    assert "@" not in repr(result)


async def test_without_pipelining_nothing_is_pipelined() -> None:
    capabilities = [word for word in CAPABILITIES if word != "PIPELINING"]
    async with Peer(capabilities=capabilities) as peer:
        result = await run(peer, Campaign(3, recipients_per_message=2))
    assert result.accepted == 3
    assert peer.connections[0].violations == []


async def test_with_pipelining_groups_end_where_they_must() -> None:
    async with Peer() as peer:
        result = await run(peer, Campaign(3, recipients_per_message=2))
    assert result.accepted == 3
    assert peer.connections[0].violations == []
    assert peer.connections[0].commands[-1] == "QUIT"


@pytest.mark.parametrize(
    ("stage", "text", "refused"),
    [
        ("MAIL", "451 4.3.0 later", "451 4.3.0"),
        ("RCPT", "550-5.7.1 no\n550 5.7.1 way", "550 5.7.1"),
        ("DATA", "452 4.3.1 full", "452 4.3.1"),
        ("DOT", "554 no", "554"),
    ],
)
async def test_a_refusal_at_each_stage_leaves_the_session_in_order(stage: str, text: str, refused: str) -> None:
    async with Peer(Script().on(stage, reply(text), times=1)) as peer:
        result = await run(peer, Campaign(3))
    assert result.refused == {refused: 1}
    assert (result.accepted, result.done) == (2, 3)
    assert len(peer.connections) == 1
    assert peer.deliveries() == {"reader-2@example.net": 1, "reader-3@example.net": 1}


async def test_354_without_a_recipient_is_answered_by_a_dot() -> None:
    script = Script().on("RCPT", reply("550 5.1.1 who?"), times=1).on("DATA", reply("354 all the same"), times=1)
    async with Peer(script) as peer:
        result = await run(peer, Campaign(2))
    assert next(message.content for message in peer.messages) == b""
    assert result.refused == {"550 5.1.1": 1}
    assert (result.accepted, result.done) == (1, 2)


@pytest.mark.parametrize("action", [reset(), close()])
async def test_a_message_that_broke_off_before_its_content_goes_again(action: Action) -> None:
    async with Peer(Script().on("RCPT", action, times=1)) as peer:
        result = await run(peer, Campaign(3, size_octets=100))
    assert (result.accepted, result.unanswered, result.done) == (3, 0, 3)
    assert peer.deliveries().total() == 3
    assert result.failures == {"ConnectionResetError": 1}


async def test_content_that_broke_off_may_have_arrived() -> None:
    async with Peer(Script().on("CONTENT", take(4), reset(), times=1)) as peer:
        result = await run(peer, Campaign(3))
    assert (result.accepted, result.unanswered, result.done) == (2, 1, 3)


async def test_an_unanswered_dot_is_counted_apart_and_not_repeated() -> None:
    async with Peer(Script().on("DOT", close(), times=1)) as peer:
        result = await run(peer, Campaign(3))
    assert (result.accepted, result.unanswered, result.done) == (2, 1, 3)
    assert len(peer.messages) == 3


async def test_421_ends_the_session_and_the_next_one_goes_on() -> None:
    async with Peer(Script().on("DOT", reply("421 4.3.2 restart"), close(), times=1)) as peer:
        result = await run(peer, Campaign(3))
    assert result.refused == {"421 4.3.2": 1}
    assert result.failures == {"session: 421 4.3.2": 1}
    assert result.accepted == 2


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        (Script().on("GREETING", reply("554 5.7.1 go away")), "greeting: 554 5.7.1"),
        (Script().on("EHLO", reply("502 what")), "EHLO: 502"),
        (Script().on("EHLO", raw(b"nonsense\r\n")), "EHLO: 0"),
        (Script().on("EHLO", raw(b"x" * 200_000)), "ValueError"),
        (Script().on("MAIL", raw(b"421 4.4.2 bye\r\n" * 9)), "DATA"),
    ],
)
async def test_a_server_that_takes_nothing_is_given_up(script: Script, failure: str) -> None:
    async with Peer(script, capabilities=()) as peer:
        result = await run(peer, Campaign(5))
        attempts = len(peer.connections)
    assert attempts >= 3
    assert result.accepted == 0
    assert result.failures.total() >= 3
    assert failure == "DATA" or set(result.failures) == {failure}


async def test_a_port_without_a_server_is_a_result_too() -> None:
    async with Peer() as peer:
        pass
    result = await run(peer, Campaign(5), connections=2)
    assert result.failures == {"ConnectionRefusedError": 6}
    assert (result.done, result.unsent) == (0, 5)


async def test_a_silent_server_is_given_up() -> None:
    async with Peer(Script().on("EHLO", ignore())) as peer:
        result = await send(Campaign(1), peer.host, peer.port, timeout_seconds=0.01)
    assert result.failures == {"TimeoutError": 3}


async def test_starttls_and_login(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    login = Login("starttls", client_tls, "127.0.0.1", "app", "secret")
    async with Peer(tls=server_tls) as peer:
        result = await run(peer, Campaign(2), login=login)
    assert result.accepted == 2
    assert peer.connections[0].tls
    assert peer.connections[0].commands[:4] == [
        "EHLO localhost",
        "STARTTLS",
        "EHLO localhost",
        "AUTH PLAIN AGFwcABzZWNyZXQ=",
    ]
    assert "secret" not in repr(login)


async def test_implicit_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with Peer(tls=server_tls, implicit_tls=True) as peer:
        result = await run(peer, Campaign(2), login=Login("implicit", client_tls, "127.0.0.1"))
    assert result.accepted == 2
    assert "STARTTLS" not in peer.connections[0].commands


async def test_an_untrusted_certificate_ends_the_session(server_tls: ssl.SSLContext) -> None:
    for implicit, login in ((False, Login("starttls", server_name="127.0.0.1")), (True, Login("implicit"))):
        async with Peer(tls=server_tls, implicit_tls=implicit) as peer:
            result = await run(peer, Campaign(2), login=login)
        assert result.failures == {"SSLCertVerificationError": 3}
        assert result.unsent == 2


async def test_a_handshake_that_breaks_off_ends_the_session(client_tls: ssl.SSLContext) -> None:
    script = Script().on("STARTTLS", reply("220 go"), raw(b"no tls at all\r\n"), close())
    async with Peer(script) as peer:
        result = await run(peer, Campaign(2), login=Login("starttls", client_tls, "127.0.0.1"))
    assert result.failures.total() == 3
    assert result.unsent == 2


async def test_a_refused_login_is_told(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    login = Login("starttls", client_tls, "127.0.0.1", "app", "secret")
    async with Peer(Script().on("AUTH", reply("535 5.7.8 no")), tls=server_tls) as peer:
        result = await run(peer, Campaign(2), login=login)
    assert result.failures == {"AUTH: 535 5.7.8": 3}


async def test_a_close_after_each_message_costs_connections_only() -> None:
    async with Peer(Script().on("DOT", proceed(), close())) as peer:
        result = await run(peer, Campaign(4))
    assert (result.accepted, result.unanswered) == (4, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Campaign(-1),
        lambda: Campaign(1, recipients_per_message=0),
        lambda: Login(tls="maybe"),
        lambda: Login(user="app", password="secret"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: type[Campaign]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 – the texts are for people
        wrong()  # type: ignore[call-arg]
