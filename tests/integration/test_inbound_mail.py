"""The inbound listener: which mail suppresses whom, which does nothing, and what clients may try."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from metrics import registry
from mta.answers import Answers
from mta.inbound import Inbound
from suppression.digest import Kind, Scope
from suppression.tokens import Purpose, Token
from tests.support.client import Client, connected, trusting
from tests.support.node import MAIL_DOMAIN, Node, node, server_tls, until

TENANT, LIST = 7, 9
PLEASE = b"From: anna@example.net\r\nSubject: unsubscribe\r\n\r\nplease\r\n"
HELLO = b"From: anna@example.net\r\nSubject: Thank you!\r\n\r\nA lovely letter, that.\r\n"


def report(action: str, status: str, words: str = "not delivered") -> bytes:
    """A notice as Postfix writes it."""
    return "\r\n".join(
        [
            "From: MAILER-DAEMON@mx.example.net", "Subject: Undelivered Mail", "Auto-Submitted: auto-replied",
            "MIME-Version: 1.0", 'Content-Type: multipart/report; report-type=delivery-status; boundary="cut"', "",
            "--cut", "Content-Type: text/plain", "", "about your mail",
            "--cut", "Content-Type: message/delivery-status",
            "", "Reporting-MTA: dns; mx.example.net", "", "Final-Recipient: rfc822; anna@example.net",
            f"Action: {action}", f"Status: {status}", f"Diagnostic-Code: smtp; {status[0]}50 {status} {words}",
            "", "--cut--", "",
        ]
    ).encode()  # fmt: skip


VACATION = (
    b"From: anna@example.net\r\nSubject: Out of office: unsubscribe\r\nAuto-Submitted: auto-replied\r\n\r\nAway.\r\n"
)


@pytest.fixture
async def n(database_url: str, tmp_path: Path) -> AsyncIterator[Node]:
    async with node(database_url, tmp_path, inbound={"max_message_bytes": 65_536, "max_connections": 3}) as made:
        yield made


@asynccontextmanager
async def inbound(n: Node) -> AsyncIterator[int]:
    server = await Inbound(n.parts, server_tls()).listen("127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture
async def client(n: Node) -> AsyncIterator[Client]:
    async with inbound(n) as port, connected(port) as made:
        await made.greet()
        yield made


def token(n: Node, purpose: Purpose, person: int = 42, *, list_id: int = LIST, tenant_id: int = TENANT) -> str:
    text = n.parts.tokens.issue(Token(purpose, tenant_id, list_id, 3, person, 5))
    return f"{text}@{MAIL_DOMAIN}"


async def deliver(client: Client, content: bytes, *recipients: str, sender: str = "anna@example.net") -> str:
    """The last reply: to the content, or to what was refused before it."""
    reply = await client.say(f"MAIL FROM:<{sender}>")
    for recipient in recipients:
        reply = await client.say(f"RCPT TO:<{recipient}>")
        if not reply.startswith("250"):
            return reply
    assert (await client.say("DATA")).startswith("354")
    client.send(content + b".\r\n")
    return await client.hear()


async def log(n: Node) -> list[tuple[int, int, int, int]]:
    """(person, scope, kind, list) of what was suppressed."""
    query = "SELECT person, scope, kind, list_id FROM suppression_log ORDER BY position"
    return [(a, b, c, d) for a, b, c, d in await n.rows(query)]


UNSUBSCRIBED = (42, int(Scope.LIST), int(Kind.UNSUBSCRIBE), LIST)


@pytest.mark.parametrize("content", [PLEASE, HELLO, b"From: anna@example.net\r\n\r\n", b"\r\n", b""])
async def test_whatever_a_person_sends_to_the_unsubscribe_address_unsubscribes(
    n: Node, client: Client, content: bytes
) -> None:
    assert await deliver(client, content, token(n, Purpose.UNSUBSCRIBE_MAIL)) == "250 2.0.0 OK"
    assert await log(n) == [UNSUBSCRIBED]


async def test_the_address_works_in_any_case_and_twice(n: Node, client: Client) -> None:
    address = token(n, Purpose.UNSUBSCRIBE_MAIL)
    assert (await deliver(client, PLEASE, address.upper())).startswith("250")
    assert (await deliver(client, PLEASE, address)).startswith("250")
    assert await log(n) == [UNSUBSCRIBED]


async def test_mail_without_a_list_unsubscribes_from_the_tenant(n: Node, client: Client) -> None:
    assert (await deliver(client, PLEASE, token(n, Purpose.UNSUBSCRIBE_MAIL, list_id=0))).startswith("250")
    assert await log(n) == [(42, int(Scope.TENANT), int(Kind.UNSUBSCRIBE), 0)]


@pytest.mark.parametrize(
    ("content", "sender"),
    [
        (VACATION, "anna@example.net"),
        (VACATION, ""),
        (PLEASE, ""),
        (report("failed", "5.1.1"), ""),
        (report("delayed", "4.4.1"), ""),
    ],
)
async def test_machines_do_not_unsubscribe_anybody(n: Node, client: Client, content: bytes, sender: str) -> None:
    reply = await deliver(client, content, token(n, Purpose.UNSUBSCRIBE_MAIL), sender=sender)
    assert reply.startswith("250")
    assert await log(n) == []


async def test_a_notice_of_an_unknown_user_suppresses(n: Node, client: Client) -> None:
    anna = n.person("anna@example.net")
    notice = report("failed", "5.1.1", "User unknown")
    assert (await deliver(client, notice, token(n, Purpose.RETURN_PATH, anna), sender="")).startswith("250")
    assert await log(n) == [(anna, int(Scope.TENANT), int(Kind.HARD_BOUNCE), 0)]


async def test_a_notice_about_somebody_else_does_not(n: Node, client: Client) -> None:
    notice = report("failed", "5.1.1", "User unknown")
    assert (await deliver(client, notice, token(n, Purpose.RETURN_PATH), sender="")).startswith("250")
    assert await log(n) == []


async def test_a_flood_of_notices_shares_statements(n: Node) -> None:
    answers, people = Answers(n.parts), [f"anna{number}@example.net" for number in range(40)]
    asked = [
        answers.take(
            [Token(Purpose.RETURN_PATH, TENANT, LIST, 3, n.person(address), number)],
            report("failed", "5.1.1", "User unknown").replace(b"anna@example.net", address.encode()),
            sender="",
            forward=False,
        )
        for number, address in enumerate(people)
    ]
    assert set(await asyncio.gather(*asked)) == {"250 2.0.0 OK"}
    assert {person for person, *_ in await log(n)} == {n.person(address) for address in people}
    for table in ("suppression_log", "event"):
        [(rows, transactions)] = await n.rows(f"SELECT count(*), count(DISTINCT xmin::text) FROM {table}")
        assert rows >= 40
        assert transactions <= 5


async def test_a_notice_that_anybody_may_have_written_is_counted_and_passed_on(
    database_url: str, tmp_path: Path
) -> None:
    async with node(database_url, tmp_path, inbound={"forward_to": "postmaster@example.com"}) as n:
        before = registry.answers.labels("bounce")._value.get()
        async with inbound(n) as port, connected(port) as client:
            await client.greet()
            notice = report("failed", "5.1.1", "User unknown")
            assert (await deliver(client, notice, f"abuse@{MAIL_DOMAIN}", sender="")).startswith("250")
        assert registry.answers.labels("bounce")._value.get() == before + 1
        assert await log(n) == []
        assert await n.rows("SELECT FROM bounce_count") == []
        assert len(await n.rows("SELECT FROM message")) == 1


async def test_what_goes_round_in_circles_is_not_passed_on_again(database_url: str, tmp_path: Path) -> None:
    async with node(database_url, tmp_path, inbound={"forward_to": "postmaster@example.com"}) as n:
        async with inbound(n) as port, connected(port) as client:
            await client.greet()
            for hops, reply in ((100, "250"), (101, "554 5.4.6")):
                content = b"Received: by mx.example.com\r\n" * hops + HELLO
                assert (await deliver(client, content, f"abuse@{MAIL_DOMAIN}")).startswith(reply)
        assert len(await n.rows("SELECT FROM message")) == 1


async def test_of_a_notice_about_several_only_ours_counts(n: Node, client: Client) -> None:
    anna = n.person("anna@example.net")
    bobs = b"Final-Recipient: rfc822; bob@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n"
    for message in (11, 12, 13, 14):
        text = n.parts.tokens.issue(Token(Purpose.RETURN_PATH, TENANT, LIST, 3, anna, message))
        notice = report("failed", "5.7.1", "spam").replace(b"--cut--", bobs + b"--cut--")
        assert (await deliver(client, notice, f"{text}@{MAIL_DOMAIN}", sender="")).startswith("250")
    assert await log(n) == []
    assert await n.rows("SELECT FROM bounce_count") == []


@pytest.mark.parametrize(
    "content",
    [
        report("delayed", "4.4.1"), report("failed", "4.4.7"), report("failed", "5.2.2"), report("failed", "5.7.1"),
        report("delivered", "2.0.0"), report("relayed", "2.0.0"), VACATION, PLEASE, HELLO,
    ],
)  # fmt: skip
async def test_other_mail_to_a_return_path_suppresses_nobody(n: Node, client: Client, content: bytes) -> None:
    await deliver(client, content, token(n, Purpose.RETURN_PATH, n.person("anna@example.net")), sender="")
    assert await log(n) == []


async def test_a_letter_to_a_return_path_is_sent_back(n: Node, client: Client) -> None:
    assert (await deliver(client, HELLO, token(n, Purpose.RETURN_PATH))).startswith("550 5.7.1 ")


async def test_two_recipients_two_suppressions(n: Node, client: Client) -> None:
    addresses = [token(n, Purpose.UNSUBSCRIBE_MAIL, person) for person in (42, 43)]
    assert (await deliver(client, PLEASE, *addresses)).startswith("250")
    assert sorted(await log(n)) == [UNSUBSCRIBED, (43, *UNSUBSCRIBED[1:])]


async def test_only_addresses_of_ours_are_taken(n: Node, client: Client) -> None:
    genuine = token(n, Purpose.UNSUBSCRIBE_MAIL)
    local = genuine.partition("@")[0]
    flipped = ("b" if local[20] == "a" else "a") + local[1:] if local[0] != "b" else "c" + local[1:]
    for address, reply in (
        (f"{flipped}@{MAIL_DOMAIN}", "550 5.1.1"),
        (f"{local[:-1]}@{MAIL_DOMAIN}", "550 5.1.1"),
        (f"{local}a@{MAIL_DOMAIN}", "550 5.1.1"),
        (f"{local[:40]}{'a' * 23}@{MAIL_DOMAIN}", "550 5.1.1"),
        (f"{'a' * 63}@{MAIL_DOMAIN}", "550 5.1.1"),
        (f"somebody@{MAIL_DOMAIN}", "550 5.1.1"),
        (f"postmaster@{MAIL_DOMAIN}", "550 5.1.1"),
        (f"{local}@example.net", "550 5.7.1"),
        ("anna@example.net", "550 5.7.1"),
        (f"anna%example.net@{MAIL_DOMAIN}", "550 5.1.1"),
    ):
        await client.say("RSET")
        assert (await deliver(client, PLEASE, address)).startswith(reply), address
    assert await log(n) == []


async def test_rset_forgets_the_recipients(n: Node, client: Client) -> None:
    await client.say("MAIL FROM:<anna@example.net>")
    await client.say(f"RCPT TO:<{token(n, Purpose.UNSUBSCRIBE_MAIL, 41)}>")
    assert (await client.say("RSET")).startswith("250")
    assert (await client.say("DATA")).startswith("503")
    assert (await deliver(client, PLEASE, token(n, Purpose.UNSUBSCRIBE_MAIL))).startswith("250")
    assert await log(n) == [UNSUBSCRIBED]


async def test_ehlo_forgets_them_too(n: Node, client: Client) -> None:
    await client.say("MAIL FROM:<anna@example.net>")
    await client.say(f"RCPT TO:<{token(n, Purpose.UNSUBSCRIBE_MAIL, 41)}>")
    await client.say("EHLO again.example.net")
    assert (await deliver(client, PLEASE, token(n, Purpose.UNSUBSCRIBE_MAIL))).startswith("250")
    assert await log(n) == [UNSUBSCRIBED]


async def test_pipelined_commands_and_content(n: Node, client: Client) -> None:
    first, second = (token(n, Purpose.UNSUBSCRIBE_MAIL, person) for person in (42, 43))
    for address in (first, second):
        client.send(f"MAIL FROM:<anna@example.net>\r\nRCPT TO:<{address}>\r\nDATA\r\n".encode() + PLEASE + b".\r\n")
    client.send(b"NOOP\r\nQUIT\r\n")
    assert await client.codes(10) == [250, 250, 354, 250, 250, 250, 354, 250, 250, 221]
    assert len(await log(n)) == 2


async def test_a_database_that_is_down_is_temporary_at_once(n: Node, client: Client) -> None:
    address = token(n, Purpose.UNSUBSCRIBE_MAIL)
    await n.database.close()
    assert (await deliver(client, PLEASE, address)).startswith("451 4.3.0 ")


@pytest.mark.parametrize("last", ["QUIT\r\n", ""])
async def test_a_client_that_is_done_still_gets_its_replies(n: Node, client: Client, last: str) -> None:
    first, second = (token(n, Purpose.UNSUBSCRIBE_MAIL, person) for person in (42, 43))
    for address in (first, second):
        client.send(f"MAIL FROM:<anna@example.net>\r\nRCPT TO:<{address}>\r\nDATA\r\n".encode() + PLEASE + b".\r\n")
    client.send(last.encode())
    client.half_close()
    said = [int(line[:3]) for line in (await client.rest()).splitlines()]
    assert said == [250, 250, 354, 250, 250, 250, 354, 250, *([221] if last else [])]
    assert len(await log(n)) == 2


async def test_content_without_its_end_is_no_mail(n: Node, client: Client) -> None:
    address = token(n, Purpose.UNSUBSCRIBE_MAIL)
    client.send(f"MAIL FROM:<anna@example.net>\r\nRCPT TO:<{address}>\r\nDATA\r\n".encode() + PLEASE)
    client.half_close()
    assert [line[:3] for line in (await client.rest()).splitlines()] == [b"250", b"250", b"354"]
    assert await log(n) == []


# --- as the large mail programs send it, at the press of their button


def gmail(to: str) -> bytes:
    """Its own subject, and a body of its own in two forms."""
    return (
        f"MIME-Version: 1.0\r\nDate: Mon, 3 Feb 2025 10:11:12 +0100\r\nMessage-ID: <CAF=x@mail.example.net>\r\n"
        f"Subject: unsubscribe\r\nFrom: Anna Example <anna@example.net>\r\nTo: {to}\r\n"
        'Content-Type: multipart/alternative; boundary="00000000"\r\n\r\n--00000000\r\n'
        'Content-Type: text/plain; charset="UTF-8"\r\n\r\nThis message was automatically generated by the mail '
        'program.\r\n\r\n--00000000\r\nContent-Type: text/html; charset="UTF-8"\r\n\r\n<div>This message was '
        "automatically generated by the mail program.</div>\r\n\r\n--00000000--\r\n"
    ).encode()


def apple_mail(to: str) -> bytes:
    """An empty subject, and an empty body."""
    return (
        f"Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n"
        f"From: Anna Example <anna@example.net>\r\nMime-Version: 1.0 (1.0)\r\nDate: Mon, 3 Feb 2025 10:11:12 +0100\r\n"
        f"Subject: \r\nMessage-Id: <A1B2@example.net>\r\nTo: {to}\r\nX-Mailer: iPhone Mail (22A0)\r\n\r\n\r\n"
    ).encode()


def outlook(to: str) -> bytes:
    """No subject at all, although the link has one, and a body that nobody wrote."""
    return (
        f"From: Anna Example <anna@example.net>\r\nTo: <{to}>\r\nDate: Mon, 3 Feb 2025 10:11:12 +0100\r\n"
        "Message-ID: <DB9P@example.net>\r\nX-MS-Has-Attach:\r\nX-MS-TNEF-Correlator:\r\nMIME-Version: 1.0\r\n"
        'Content-Type: text/html; charset="us-ascii"\r\n\r\n<html><body><p class=MsoNormal>&nbsp;</p></body></html>\r\n'
    ).encode()


@pytest.mark.parametrize("program", [gmail, apple_mail, outlook])
@pytest.mark.parametrize("change", [str, str.upper, str.title], ids=["as sent", "upper case", "mixed case"])
async def test_the_button_of_a_mail_program_unsubscribes(
    n: Node, client: Client, program: Callable[[str], bytes], change: Callable[[str], str]
) -> None:
    address = change(token(n, Purpose.UNSUBSCRIBE_MAIL))
    assert await deliver(client, program(address), address) == "250 2.0.0 OK"
    assert await log(n) == [UNSUBSCRIBED]


COMPLAINT = (
    b"From: feedback@example.net\r\nSubject: complaint about message from 192.0.2.1\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/report; report-type=feedback-report; boundary=cut\r\n\r\n--cut\r\n\r\nunsubscribe\r\n"
    b"--cut\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: x\r\nVersion: 1\r\n\r\n"
    b"--cut\r\nContent-Type: message/rfc822\r\n\r\nSubject: unsubscribe\r\n\r\nx\r\n--cut--\r\n"
)


@pytest.mark.parametrize(
    "content",
    [COMPLAINT, *(field + b"\r\n" + PLEASE for field in (
        b"Auto-Submitted: auto-replied", b"Auto-Submitted: auto-generated", b"Auto-Submitted: auto-notified (x)",
        b"Precedence: bulk", b"Precedence: junk", b"X-Autoreply: yes", b"List-Id: <other.example.org>",
    ))],
)  # fmt: skip
async def test_reports_responders_and_lists_unsubscribe_nobody(n: Node, client: Client, content: bytes) -> None:
    address = token(n, Purpose.UNSUBSCRIBE_MAIL)
    assert (await deliver(client, content, address, sender="robot@example.net")).startswith("250")
    assert await log(n) == []


async def test_our_own_mail_that_comes_back_unsubscribes_nobody(n: Node, client: Client) -> None:
    """Whoever subscribes an unsubscribe address, or lets a mailbox redirect to it, sends us round in circles."""
    address = token(n, Purpose.UNSUBSCRIBE_MAIL)
    for field in (f"List-Unsubscribe: <mailto:{address}>", f"Message-ID: <{token(n, Purpose.REPLY)}>"):
        assert (await deliver(client, f"{field}\r\n".encode() + PLEASE, address)).startswith("554 5.4.6 ")
    circles = b"Received: from a.example by b.example\r\n" * 101 + PLEASE
    assert (await deliver(client, circles, address)).startswith("554 5.4.6 ")
    assert await log(n) == []


async def test_not_submitted_automatically_is_by_hand(n: Node, client: Client) -> None:
    content = b"Auto-Submitted: no\r\n" + PLEASE
    assert (await deliver(client, content, token(n, Purpose.UNSUBSCRIBE_MAIL))).startswith("250")
    assert await log(n) == [UNSUBSCRIBED]


# --- what clients may try


async def test_only_what_is_there_is_offered(n: Node) -> None:
    async with inbound(n) as port, connected(port) as client:
        offered = {line[4:] for line in (await client.greet()).splitlines()[1:]}
        expected = {"SIZE 65536", "8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES", "HELP"}
        assert offered == expected | {"STARTTLS"}
        await client.start_tls(trusting())
        offered = {line[4:] for line in (await client.say("EHLO app.example.com")).splitlines()[1:]}
        assert offered == expected
        assert (await client.say("AUTH PLAIN AGEAYg==")).startswith("50")


async def test_mail_over_tls(n: Node, client: Client) -> None:
    await client.start_tls(trusting())
    await client.say("EHLO app.example.com")
    assert (await deliver(client, PLEASE, token(n, Purpose.UNSUBSCRIBE_MAIL))).startswith("250")


@pytest.mark.parametrize("line", [b"a\nb\r\n", b"a\rb\r\n", b"\n.\n", b"\n.\r\n", b"\r.\r"])
async def test_nothing_is_smuggled_past_a_bare_line_end(n: Node, client: Client, line: bytes) -> None:
    address = token(n, Purpose.UNSUBSCRIBE_MAIL)
    smuggled = f"MAIL FROM:<eve@example.com>\r\nRCPT TO:<{address}>\r\nDATA\r\n".encode() + PLEASE + b".\r\n"
    await client.say("MAIL FROM:<anna@example.net>")
    await client.say(f"RCPT TO:<{token(n, Purpose.RETURN_PATH)}>")
    await client.say("DATA")
    client.send(PLEASE + line + smuggled + b"x" * 300_000 + smuggled)
    said = await client.rest()
    assert said.startswith(b"550 5.5.2 ")
    assert said.count(b"\r\n") == 1
    assert await log(n) == []


async def test_content_that_is_too_large(n: Node, client: Client) -> None:
    address = token(n, Purpose.UNSUBSCRIBE_MAIL)
    assert (await deliver(client, PLEASE + b"x" * 70_000 + b"\r\n", address)).startswith("552 5.3.4 ")
    assert (await client.say("MAIL FROM:<a@example.net> SIZE=70000")).startswith("552")
    assert (await deliver(client, PLEASE, address)).startswith("250")
    assert await log(n) == [UNSUBSCRIBED]


async def test_a_failure_of_ours_ends_the_transaction(n: Node, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("anything")

    with monkeypatch.context() as patched:
        patched.setattr(n.parts.hygiene, "append", fail)
        assert (await deliver(client, PLEASE, token(n, Purpose.UNSUBSCRIBE_MAIL))).startswith("451 ")
    # were the recipients kept, this would be answered with 354, and then with 250 though nobody is suppressed
    assert (await client.say("DATA")).startswith("503")


@pytest.mark.parametrize("how", ["garbage", "reset", "end"])
async def test_connections_are_counted_right_whatever_becomes_of_tls(
    n: Node, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gauge = registry.clients.labels("inbound")
    before = gauge._value.get()
    async with inbound(n) as port, connected(port) as client:
        await client.greet()
        await client.say("STARTTLS")
        if how == "garbage":
            client.send(b"EHLO plain.example.net\r\n" * 10)
        elif how == "reset":
            client.reset()
        else:
            client.half_close()
        await until(lambda: gauge._value.get() <= before)
        async with connected(port) as other:
            await other.greet()
            assert gauge._value.get() == before + 1
        await until(lambda: gauge._value.get() <= before)
    assert gauge._value.get() == before
    assert "failed" not in "".join(capsys.readouterr())  # anybody can do that, as often as they like


async def test_many_that_began_in_time_hold_no_more_than_allowed(database_url: str, tmp_path: Path) -> None:
    most = PLEASE + (b"x" * 998 + b"\r\n") * 9_000
    async with node(database_url, tmp_path, queue={"max_bytes_in_memory": 16_777_216}) as n:
        listener = Inbound(n.parts, server_tls())
        server = await listener.listen("127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        begin = f"MAIL FROM:<>\r\nRCPT TO:<{token(n, Purpose.UNSUBSCRIBE_MAIL)}>\r\nDATA\r\n".encode()
        async with connected(port) as a, connected(port) as b, connected(port) as c:
            for client in (a, b, c):
                await client.greet()
                client.send(begin)
                assert await client.codes(3) == [250, 250, 354]
            for client in (a, b):
                client.send(most)
            await until(listener.connections.content_room.full)
            c.send(most + b".\r\n" + begin + b"RSET\r\n")
            assert await c.codes(5) == [452, 250, 250, 452, 250]
            for client in (a, b):
                client.send(b".\r\n")
                assert await client.codes(1) == [250]
            c.send(begin + PLEASE + b".\r\n")
            assert await c.codes(4) == [250, 250, 354, 250]
        server.close()


async def test_what_was_said_before_tls_does_not_count_after_it(n: Node, client: Client) -> None:
    client.send(b"STARTTLS\r\nEHLO plain.example.net\r\nMAIL FROM:<plain@example.net>\r\n")
    assert (await client.hear()).startswith("220")
    await client.writer.start_tls(trusting())
    assert (await client.say("MAIL FROM:<>")).startswith("503")
    assert "STARTTLS" not in await client.say("EHLO mx.example.net")
    assert (await client.say("STARTTLS")).startswith("503")
    assert (await deliver(client, PLEASE, token(n, Purpose.UNSUBSCRIBE_MAIL))).startswith("250")


async def test_more_connections_than_allowed_are_told_so(n: Node) -> None:
    async with inbound(n) as port, connected(port) as a, connected(port) as b, connected(port) as c:
        for client in (a, b, c):
            await client.greet()
        async with connected(port) as d:
            assert await d.rest() == b"421 4.7.0 mx.example.org Too many connections\r\n"
        a.close()
        gauge = registry.clients.labels("inbound")
        await until(lambda: gauge._value.get() <= 2)
        async with connected(port) as e:
            assert (await e.hear()).startswith("220")


async def test_a_flood_of_commands_leaves_others_their_turns(n: Node, client: Client) -> None:
    client.send(b"NOOP\r\n" * 5_000)
    answered = asyncio.create_task(client.codes(5_000))
    turns = 0
    while not answered.done():
        await asyncio.sleep(0)
        turns += 1
    assert set(await answered) == {250}
    assert turns > 5_000


async def test_too_long_a_line(n: Node, client: Client) -> None:
    client.send(b"NOOP " + b"x" * 100_000 + b"\r\n")
    assert (await client.hear()).startswith("500 ")
    assert (await client.say("NOOP")).startswith("250")


async def test_a_null_sender_with_parameters(n: Node, client: Client) -> None:
    assert (await client.say("MAIL FROM:<> SIZE=100 BODY=8BITMIME SMTPUTF8")).startswith("250")
