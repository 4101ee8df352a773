"""The submission listener's dialogue: order of commands, pipelining, STARTTLS, wrong input, and how connections end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import pytest

from mta.door import Door
from mta.submission import MAX_LINE, SubmissionProtocol, protocols
from suppression.digest import MessageClass
from tests.support.client import Client, connected, trusting
from tests.support.node import Node, listening, node, server_tls, until

MESSAGE = b"From: news@example.com\r\nSubject: x\r\n\r\nhello\r\n"
ENVELOPE = b"MAIL FROM:<news@example.com>\r\nRCPT TO:<anna@example.net>\r\nDATA\r\n"


@pytest.fixture
async def n(database_url: str, tmp_path: Path) -> AsyncIterator[Node]:
    async with node(database_url, tmp_path) as made:
        yield made


@pytest.fixture
async def door(n: Node) -> Door:
    return await n.door(idle_timeout_seconds=300.0)


@pytest.fixture
async def client(door: Door) -> AsyncIterator[Client]:
    async with listening(protocols(door)) as port, connected(port) as made:
        yield made


async def test_an_ordinary_message_is_committed_before_its_250(n: Node, client: Client) -> None:
    offered = (await client.greet()).splitlines()
    assert {line[4:] for line in offered[1:]} == {
        "PIPELINING", "SIZE 100000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "STARTTLS",
    }  # fmt: skip
    assert await client.say("MAIL FROM:<news@example.com>") == "250 2.1.0 OK"
    assert await client.say("RCPT TO:<anna@example.net>") == "250 2.1.5 OK"
    assert (await client.say("DATA")).startswith("354 ")
    client.send(MESSAGE + b".\r\n")
    reply = await client.hear()
    assert reply.startswith("250 2.0.0 ")
    assert len(reply.split()[2]) == 13
    assert await n.rows("SELECT state, person FROM recipient") == [(0, n.person("anna@example.net"))]
    assert await client.say("QUIT") == "221 2.0.0 Bye"
    assert await client.rest() == b""


async def test_several_messages_and_quit_in_one_packet(n: Node, client: Client) -> None:
    await client.greet()
    client.send(2 * (ENVELOPE + MESSAGE + b".\r\n") + b"NOOP\r\nQUIT\r\n")
    assert await client.codes(10) == [250, 250, 354, 250, 250, 250, 354, 250, 250, 221]
    assert await n.messages() == 2


async def test_everything_an_octet_at_a_time(n: Node, client: Client) -> None:
    client.writer.get_extra_info("socket").setsockopt(6, 1, 1)  # no delay: each octet is a packet of its own
    await client.greet()
    for octet in ENVELOPE + MESSAGE + b".\r\n":
        client.send(bytes([octet]))
        await asyncio.sleep(0)
    assert await client.codes(4) == [250, 250, 354, 250]
    assert await n.messages() == 1


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        (["MAIL FROM:<a@example.com>"], "503 5.5.1"),
        (["EHLO"], "501 5.5.4"),
        (["HELO"], "501 5.5.4"),
        (["EHLO x", "RCPT TO:<a@example.com>"], "503 5.5.1"),
        (["EHLO x", "DATA"], "503 5.5.1"),
        (["EHLO x", "MAIL FROM:<a@example.com>", "DATA"], "554 5.5.1"),
        (["EHLO x", "MAIL FROM:<a@example.com>", "MAIL FROM:<a@example.com>"], "503 5.5.1"),
        (["EHLO x", "MAIL FROM:<a@example.com>", "RSET", "RCPT TO:<a@example.com>"], "503 5.5.1"),
        (["EHLO x", "MAIL FROM:<a@example.com>", "EHLO x", "RCPT TO:<a@example.com>"], "503 5.5.1"),
        (["EHLO x", "MAIL FROM:<a@example.com>", "RCPT TO:<a@example.com>", "DATA now"], "501 5.5.4"),
        (["HELO x", "MAIL FROM:<>"], "250 2.1.0"),
        (["ehlo x", "mail from:<>"], "250 2.1.0"),
        (["EHLO x", "MAIL FROM: <a@example.com>"], "250 2.1.0"),
        (["EHLO x", "MAIL LALA:<a@example.com>"], "501 5.5.4"),
        (["EHLO x", "MAIL FROM:"], "501 5.5.4"),
        (["EHLO x", "MAIL FROM:a@example.com"], "501 5.5.4"),
        (["EHLO x", "MAIL FROM:<a@example.com"], "501 5.5.4"),
        (["EHLO x", "MAIL FROM:<pepe>"], "501 5.1.3"),
        (["EHLO x", "MAIL FROM:<a@example.com> FROG=1"], "555 5.5.4"),
        (["EHLO x", "MAIL FROM:<a@example.com> SIZE=1 SIZE=1"], "501 5.5.4"),
        (["EHLO x", "MAIL FROM:<a@example.com> SIZE=x"], "501 5.5.4"),
        (["EHLO x", "MAIL FROM:<a@example.com> SIZE=100000"], "250 2.1.0"),
        (["EHLO x", "MAIL FROM:<a@example.com> SIZE=100001"], "552 5.3.4"),
        (["EHLO x", "MAIL FROM:<a@example.com> BODY=BINARYMIME"], "501 5.5.4"),
        (["EHLO x", "MAIL FROM:<a@example.com> RET=HALF"], "501 5.5.4"),
        (["EHLO x", "MAIL FROM:<a@example.com> RET=HDRS ENVID=a+2Bb"], "250 2.1.0"),
        (["EHLO x", "MAIL FROM:<ä@example.com>"], "553 5.6.7"),
        (["EHLO x", "MAIL FROM:<ä@example.com> SMTPUTF8"], "250 2.1.0"),
        (["EHLO x", "MAIL FROM:<>", "RCPT TO:<b@example.net> NOTIFY=NEVER,DELAY"], "501 5.5.4"),
        (["EHLO x", "MAIL FROM:<>", "RCPT TO:<b@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@example.net"], "250"),
        (["EHLO x", "MAIL FROM:<>", "RCPT TO:<@relay.example.org:b@example.net>"], "250 2.1.5"),
        (["EHLO x", "MAIL FROM:<>", 'RCPT TO:<"a>b"@example.net>'], "250 2.1.5"),
        (["EHLO x", "MAIL FROM:<>", "RCPT TO:<>"], "501 5.1.3"),
        (["EHLO x", "MAIL FROM:<>", "RCPT TO:<b@[192.0.2.1]>"], "250 2.1.5"),
        (["EHLO x", "MAIL FROM:<>", f"RCPT TO:<{'a' * 65}@example.net>"], "501 5.1.3"),
        (["EHLO x", "MAIL FROM:<>", f"RCPT TO:<a@{'b.' * 130}net>"], "501 5.1.3"),
        (["VRFY anna"], "252 2.5.2"),
        (["HELP"], "214 2.0.0"),
        (["NOOP whatever"], "250 2.0.0"),
        (["RSET now"], "501 5.5.4"),
        (["STARTTLS now"], "501 5.5.4"),
        (["EXPN x"], "500 5.5.1"),
        (["BDAT 3 LAST"], "500 5.5.1"),
        ([""], "500 5.5.1"),
        (["XÄ"], "500 5.5.2"),
        (["GET / HTTP/1.1"], "500 5.5.1"),
    ],
)
async def test_order_and_syntax(client: Client, lines: list[str], last: str) -> None:
    await client.hear()
    for line in lines[:-1]:
        assert (await client.say(line)).startswith("250")
    assert (await client.say(lines[-1])).startswith(last)


async def test_a_refused_recipient_does_not_spoil_the_others(n: Node, client: Client) -> None:
    await client.greet()
    client.send(b"MAIL FROM:<>\r\nRCPT TO:<bad>\r\nRCPT TO:<anna@example.net>\r\nDATA\r\n" + MESSAGE + b".\r\n")
    assert await client.codes(5) == [250, 501, 250, 354, 250]
    assert await n.rows("SELECT person FROM recipient") == [(n.person("anna@example.net"),)]


async def test_rset_forgets_recipients(n: Node, client: Client) -> None:
    await client.greet()
    client.send(b"MAIL FROM:<>\r\nRCPT TO:<anna@example.net>\r\nRSET\r\n")
    client.send(b"MAIL FROM:<>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n" + MESSAGE + b".\r\n")
    assert await client.codes(7) == [250, 250, 250, 250, 250, 354, 250]
    assert await n.rows("SELECT person FROM recipient") == [(n.person("bob@example.net"),)]


async def test_nothing_of_a_message_reaches_the_next(n: Node, client: Client) -> None:
    await client.greet()
    client.send(ENVELOPE + MESSAGE + b".\r\nRCPT TO:<bob@example.net>\r\n")
    assert await client.codes(5) == [250, 250, 354, 250, 503]


# --- lines


@pytest.mark.parametrize("line", [b"NOOP\n", b"NO\rOP\r\n", b"NOOP \0\r\n", b"NOOP\r\r\n", b"\nNOOP\r\n"])
async def test_command_lines_end_in_crlf_and_hold_no_other(client: Client, line: bytes) -> None:
    await client.greet()
    client.send(line)
    assert (await client.hear()).startswith("500 5.5.2 ")


async def test_a_line_as_long_as_allowed(client: Client) -> None:
    await client.greet()
    assert await client.say("NOOP " + "x" * (MAX_LINE - 7)) == "250 2.0.0 OK"
    assert (await client.say("NOOP " + "x" * (MAX_LINE - 6))).startswith("500 5.5.2 ")
    assert await client.say("NOOP") == "250 2.0.0 OK"


async def test_an_endless_line_ends_the_connection(door: Door, client: Client) -> None:
    await client.greet()
    client.send(b"x" * 1_000_000)
    assert await client.rest() == b"500 5.5.2 Line too long\r\n"


async def test_too_many_errors_end_the_connection(client: Client) -> None:
    await client.greet()
    client.send(b"FROG\r\n" * 200)
    assert await client.codes(21) == [500] * 21
    assert await client.rest() == b"421 4.7.0 Too many errors\r\n"


async def test_octets_of_other_protocols(client: Client) -> None:
    await client.hear()
    client.send(bytes(range(256)) * 100 + b"\r\n" * 100)
    assert (await client.rest()).endswith(b"421 4.7.0 Too many errors\r\n")


# --- STARTTLS


async def test_tls_from_the_start(n: Node) -> None:
    door = await n.door(tls=None)
    async with listening(protocols(door), server_tls()) as port, connected(port, trusting()) as client:
        offered = await client.greet()
        assert "AUTH PLAIN LOGIN" in offered
        assert "STARTTLS" not in offered
        client.send(ENVELOPE + MESSAGE + b".\r\n")
        assert await client.codes(4) == [250, 250, 354, 250]


# --- ends


async def test_an_idle_client_is_let_go(n: Node) -> None:
    door = await n.door(idle_timeout_seconds=0.05)
    async with listening(protocols(door)) as port, connected(port) as client:
        await client.hear()
        assert await client.rest() == b"421 4.4.2 mx.example.org Idle for too long\r\n"
        await until(lambda: not door.connections)


async def test_more_clients_than_allowed_are_told_so(n: Node) -> None:
    door = await n.door(max_connections=1)
    async with listening(protocols(door)) as port, connected(port) as first, connected(port) as second:
        assert (await first.hear()).startswith("220 ")
        assert await second.rest() == b"421 4.7.0 mx.example.org Too many connections\r\n"
        first.close()
        await until(lambda: not door.connections)
        async with connected(port) as third:
            assert (await third.hear()).startswith("220 ")


async def test_shutting_down_lets_go_of_idle_clients(door: Door, client: Client) -> None:
    await client.greet()
    door.close()
    assert await client.rest() == b"421 4.3.2 mx.example.org Shutting down\r\n"


async def test_without_auth_or_a_trusted_network_nothing_is_relayed(n: Node) -> None:
    door = await n.door(trusted=None)
    async with listening(protocols(door)) as port, connected(port) as client:
        await client.greet()
        client.send(ENVELOPE)
        assert await client.codes(3) == [530, 503, 503]


async def test_transactional_networks_submit_no_list_mail(n: Node) -> None:
    door = await n.door(trusted=MessageClass.TRANSACTIONAL)
    async with listening(protocols(door)) as port, connected(port) as client:
        await client.greet()
        client.send(ENVELOPE + b"List-Id: <news.example.com>\r\n" + MESSAGE + b".\r\n")
        assert await client.codes(4) == [250, 250, 354, 550]
        client.send(ENVELOPE + MESSAGE + b".\r\n")
        assert await client.codes(4) == [250, 250, 354, 250]
    assert await n.rows("SELECT class FROM message") == [(1,)]


async def test_starttls_begins_anew(client: Client) -> None:
    await client.greet()
    await client.say("MAIL FROM:<a@example.com>")
    await client.start_tls(trusting())
    assert (await client.say("MAIL FROM:<a@example.com>")).startswith("503 5.5.1 EHLO")
    offered = await client.say("EHLO app.example.com")
    assert "AUTH PLAIN LOGIN" in offered
    assert "STARTTLS" not in offered
    assert (await client.say("STARTTLS")).startswith("503 ")
    assert (await client.say("RCPT TO:<a@example.com>")).startswith("503 ")
    assert (await client.say("MAIL FROM:<a@example.com>")).startswith("250 ")


async def test_plain_text_after_starttls_is_never_heard(door: Door, client: Client) -> None:
    await client.greet()
    client.send(b"STARTTLS\r\nEHLO injected.example.com\r\nMAIL FROM:<a@example.com>\r\n")
    assert (await client.hear()).startswith("220 ")
    await client.writer.start_tls(trusting())
    # were the injected EHLO heard, MAIL would be allowed, or its answer be the first one here
    assert await client.say("MAIL FROM:<a@example.com>") == "503 5.5.1 EHLO first"


@pytest.mark.parametrize("what", ["end", "reset", "garbage"])
async def test_a_failed_handshake_gives_the_connection_back(door: Door, client: Client, what: str) -> None:
    await client.greet()
    await client.say("STARTTLS")
    if what == "garbage":
        client.send(b"EHLO plain.example.com\r\n" * 10)
    elif what == "reset":
        client.reset()
    else:
        client.half_close()
    await until(lambda: not door.connections)


async def test_a_client_that_leaves_in_its_content(n: Node, door: Door, client: Client) -> None:
    await client.greet()
    client.send(ENVELOPE)
    await client.codes(3)
    client.send(MESSAGE * 100)
    await until(lambda: door.content_room.octets > 0)
    client.reset()
    await until(lambda: not door.connections)
    assert door.content_room.octets == 0
    assert await n.messages() == 0


async def test_a_client_that_stops_in_its_content_is_let_go(n: Node) -> None:
    door = await n.door(idle_timeout_seconds=0.3)
    async with listening(protocols(door)) as port, connected(port) as client:
        await client.greet()
        client.send(ENVELOPE + MESSAGE)
        await client.codes(3)
        assert (await client.hear()).startswith("421 4.4.2 ")
        await until(lambda: not door.connections)
        assert door.content_room.octets == 0


async def test_content_counts_as_held_until_it_is_committed(n: Node) -> None:
    door = await n.door(max_bytes_in_memory=1_000)
    async with listening(protocols(door)) as port, connected(port) as client, connected(port) as other:
        await client.greet()
        await other.greet()
        async with n.database.connection() as connection, connection.transaction():
            await connection.execute("LOCK TABLE message IN ACCESS EXCLUSIVE MODE")
            client.send(ENVELOPE + MESSAGE + b"x" * 1_000 + b"\r\n.\r\n")
            assert await client.codes(3) == [250, 250, 354]
            await until(lambda: door.content_room.octets > 1_000)
            other.send(ENVELOPE)
            assert await other.codes(3) == [452, 503, 503]
        assert await client.codes(1) == [250]
        assert door.content_room.octets == 0
        other.send(ENVELOPE)
        assert await other.codes(3) == [250, 250, 354]


async def test_many_that_began_in_time_hold_no_more_than_allowed(n: Node) -> None:
    door = await n.door(max_bytes_in_memory=50_000)
    most = MESSAGE + (b"x" * 70 + b"\r\n") * 800
    async with listening(protocols(door)) as port, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(port)) for _ in range(5)]
        for client in clients:
            await client.greet()
            client.send(ENVELOPE)
            assert await client.codes(3) == [250, 250, 354]
        first, *others = clients
        first.send(most)
        await until(lambda: door.content_room.octets > 50_000)
        held = door.content_room.octets
        for client in others:
            client.send(most + b".\r\n")
            assert await client.codes(1) == [452]
        assert door.content_room.octets == held
        first.send(b".\r\n")
        assert await first.codes(1) == [250]
        others[0].send(ENVELOPE + most + b".\r\n")
        assert await others[0].codes(4) == [250, 250, 354, 250]
    assert await n.messages() == 2


async def test_a_flood_of_commands_leaves_others_their_turns(client: Client) -> None:
    await client.greet()
    client.send(b"NOOP\r\n" * 20_000 + b"QUIT\r\n")
    client.half_close()
    answered = asyncio.create_task(client.codes(20_001))
    turns = 0
    while not answered.done():
        await asyncio.sleep(0)
        turns += 1
    assert await answered == [250] * 20_000 + [221]
    assert turns >= 100


async def test_half_closed_clients_get_all_their_answers(n: Node, client: Client) -> None:
    await client.greet()
    client.send(3 * (ENVELOPE + MESSAGE + b".\r\n"))
    client.half_close()
    assert await client.codes(12) == [250, 250, 354, 250] * 3
    assert await client.rest() == b""
    assert await n.messages() == 3


async def test_a_client_that_never_reads_is_not_read_either(n: Node, door: Door) -> None:
    async with listening(protocols(door)) as port, connected(port) as client:
        await client.greet()
        transport = cast("SubmissionProtocol", next(iter(door.connections)))._transport
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(200):
            client.send(b"NOOP\r\n" * 20_000)
            await asyncio.sleep(0)
        await until(lambda: not transport.is_reading())
        assert transport.get_write_buffer_size() < 2_000_000
