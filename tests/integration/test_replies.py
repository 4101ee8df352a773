"""Answers to campaign mail over a real listener and database: who is unsubscribed, what goes on, and who is asked."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bounce import mime
from mta.message import Message, parse
from mta.replies import tenant_address
from suppression.digest import Kind, MessageClass, Scope
from suppression.entry import Channel, NewEntry
from suppression.tokens import Purpose, Token
from tests.integration.test_inbound_mail import VACATION, deliver, inbound, log, report
from tests.support.client import Client, connected
from tests.support.node import MAIL_DOMAIN, Clock, Node, node

DELIVERED = 1
ANNA = "anna@example.net"
SERVICE = "service@acme.example"
QUOTE = (
    b"\r\nOn Mon, Feb 3, 2025 at 10:11 ACME <news@acme.example> wrote:\r\n> News!\r\n> To unsubscribe, press here.\r\n"
)
CLEAR = b"Please unsubscribe me.\r\nAnna\r\n"
UNCLEAR = b"I can't find how to unsubscribe. And where is my order?\r\n"
LETTER = b"Thank you, I like it a lot.\r\n"


def answer(text: bytes, *fields: bytes, sender: str = ANNA) -> bytes:
    head = [f"From: Anna Example <{sender}>".encode(), b"Subject: Re: News", b"Message-ID: <77@example.net>", *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + text + QUOTE


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def n(database_url: str, tmp_path: Path, clock: Clock) -> AsyncIterator[Node]:
    async with node(database_url, tmp_path, now=clock) as made:
        yield made


@pytest.fixture
async def client(n: Node) -> AsyncIterator[Client]:
    async with inbound(n) as port, connected(port) as made:
        await made.greet()
        yield made


class Acme:
    """A tenant with a list, and its tokens."""

    def __init__(self, n: Node, tenant_id: int, list_id: int) -> None:
        self.n, self.tenant_id, self.list_id = n, tenant_id, list_id

    def token(self, purpose: Purpose = Purpose.REPLY, address: str = ANNA, *, tenant_id: int = 0) -> str:
        token = Token(purpose, tenant_id or self.tenant_id, self.list_id, 3, self.n.person(address), 5)
        return f"{self.n.parts.tokens.issue(token)}@{MAIL_DOMAIN}"

    def unsubscribed(self, scope: Scope = Scope.LIST) -> tuple[int, int, int, int]:
        return (self.n.person(ANNA), int(scope), int(Kind.UNSUBSCRIBE), self.list_id)


@pytest.fixture
async def acme(n: Node) -> Acme:
    tenant = await n.parts.accounts.add_tenant("acme")
    await n.parts.accounts.set_reply_address("acme", SERVICE)
    return Acme(n, tenant.id, await n.parts.accounts.list_id(tenant.id, "news"))


async def sent(n: Node) -> list[tuple[str, str, Message]]:
    """(to, sender that is told of failures, content) of what was queued, in order."""
    query = """SELECT m.id, m.campaign_id, m.envelope, m.content, r.address, m.class
        FROM message m JOIN recipient r ON r.message_id = m.id ORDER BY m.id"""
    found = []
    for message_id, campaign_id, envelope, content, address, message_class in await n.rows(query):
        key = (await n.parts.accounts.campaign_by_id(campaign_id)).key
        opened = key.open_envelope(message_id, envelope)
        assert (message_class, opened.notice) == (MessageClass.TRANSACTIONAL, True)
        told = opened.sender if key.open_address(message_id, 0, address).notify != "NEVER" else ""
        found.append(
            (key.open_address(message_id, 0, address).address, told, parse(key.open_content(message_id, content)))
        )
    return found


async def recipients(n: Node) -> list[str]:
    return [to for to, _, _ in await sent(n)]


async def test_a_clear_answer_unsubscribes_from_its_list_and_goes_nowhere(n: Node, client: Client, acme: Acme) -> None:
    assert await deliver(client, answer(CLEAR), acme.token()) == "250 2.0.0 OK"
    assert await log(n) == [acme.unsubscribed()]
    assert [row[0] for row in await n.rows("SELECT channel FROM suppression_log")] == [Channel.REPLY]
    assert await sent(n) == []


async def test_it_needs_no_reply_address_for_that(n: Node, client: Client, acme: Acme) -> None:
    await n.parts.accounts.set_reply_address("acme", "")
    assert (await deliver(client, answer(CLEAR), acme.token().upper())).startswith("250")
    assert await log(n) == [acme.unsubscribed()]


async def test_all_mail_is_more_than_the_list(n: Node, client: Client, acme: Acme) -> None:
    assert (await deliver(client, answer(b"Unsubscribe me from all lists!\r\n"), acme.token())).startswith("250")
    assert await log(n) == [acme.unsubscribed(Scope.TENANT)]


async def test_an_alias_of_the_subscriber_s_counts_too(n: Node, client: Client, acme: Acme) -> None:
    assert (await deliver(client, answer(CLEAR, sender="a.b@work.example"), acme.token())).startswith("250")
    assert await log(n) == [acme.unsubscribed()]


async def test_a_letter_goes_on_as_it_came(n: Node, client: Client, acme: Acme) -> None:
    content = answer(LETTER)
    assert (await deliver(client, content, acme.token())).startswith("250")
    [(to, told, message)] = await sent(n)
    assert (to, told) == (SERVICE, ANNA)
    raw = b"".join(message.fields) + b"\r\n" + message.body
    assert raw == f"Delivered-To: {acme.token()}\r\n".encode() + content
    assert await log(n) == []


async def test_who_may_mean_it_is_asked_once_a_day(n: Node, client: Client, acme: Acme, clock: Clock) -> None:
    for _ in range(3):
        assert (await deliver(client, answer(UNCLEAR), acme.token())).startswith("250")
    assert sorted(await recipients(n)) == [ANNA, SERVICE, SERVICE, SERVICE]
    clock.seconds += 86_399
    await deliver(client, answer(UNCLEAR), acme.token())
    assert (await recipients(n)).count(ANNA) == 1
    clock.seconds += 2
    await deliver(client, answer(UNCLEAR), acme.token())
    assert (await recipients(n)).count(ANNA) == 2
    assert await log(n) == []


async def self_delivered(n: Node, address: str) -> str:
    async with inbound(n) as port, connected(port) as client:
        await client.greet()
        return await deliver(client, answer(UNCLEAR), address)


async def test_the_question_holds_over_nodes_and_restarts(
    n: Node, acme: Acme, database_url: str, tmp_path: Path, clock: Clock
) -> None:
    async with node(database_url, tmp_path, now=clock) as other:
        replies = await asyncio.gather(*(self_delivered(each, acme.token()) for each in (n, other)))
    assert [reply[:3] for reply in replies] == ["250", "250"]
    assert sorted(await recipients(n)) == [ANNA, SERVICE, SERVICE]


async def test_the_question_has_the_link_and_starts_no_loop(n: Node, client: Client, acme: Acme) -> None:
    await deliver(client, answer(b"Ich kann mich nicht abmelden, wie geht das?\r\n"), acme.token())
    question = next(message for to, _, message in await sent(n) if to == ANNA)
    fields = {name: question.values(name) for name in (b"Auto-Submitted", b"In-Reply-To", b"From", b"Subject")}
    assert fields[b"Auto-Submitted"] == [b"auto-replied"]
    assert fields[b"In-Reply-To"] == [b"<77@example.net>"]
    assert acme.token().encode() in fields[b"From"][0]
    text = mime.parse(b"".join(question.fields) + b"\r\n" + question.body).text()
    assert "weitergeleitet" in text
    link = re.search(r"/u/([a-z2-7]{63})\n", text)
    assert link is not None
    told = n.parts.tokens.read(link[1])
    assert told == Token(Purpose.ONE_CLICK, acme.tenant_id, acme.list_id, 3, n.person(ANNA), 5)
    # it comes back, as it left or answered by a machine: nobody is unsubscribed, nobody asked, nothing goes round
    came_back = b"".join(question.fields) + b"\r\n" + question.body
    before = len(await sent(n))
    assert (await deliver(client, came_back, acme.token(), sender="")).startswith("250")
    assert (await deliver(client, VACATION, acme.token(), sender="")).startswith("250")
    assert await log(n) == []
    assert [to for to, _, _ in (await sent(n))[before:]] == [SERVICE, SERVICE]


@pytest.mark.parametrize(
    "fields",
    [[b"Auto-Submitted: auto-replied"], [b"Auto-Submitted: auto-notified"], [b"Precedence: bulk"],
     [b"Precedence: junk"], [b"List-Id: <x.example.org>"], [b"X-Autoreply: yes"]],
)  # fmt: skip
@pytest.mark.parametrize("text", [CLEAR, UNCLEAR])
async def test_machines_unsubscribe_nobody_and_are_not_asked(
    n: Node, client: Client, acme: Acme, fields: list[bytes], text: bytes
) -> None:
    assert (await deliver(client, answer(text, *fields), acme.token())).startswith("250")
    assert await recipients(n) == [SERVICE]
    assert await log(n) == []


@pytest.mark.parametrize(
    ("content", "sender"),
    [(VACATION, ANNA), (VACATION, ""), (answer(CLEAR), ""), (answer(UNCLEAR), ""), (report("delayed", "4.4.1"), ""),
     (report("failed", "5.7.1"), "")],
)  # fmt: skip
async def test_reports_and_the_null_sender_neither(
    n: Node, client: Client, acme: Acme, content: bytes, sender: str
) -> None:
    assert (await deliver(client, content, acme.token(), sender=sender)).startswith("250")
    assert [(to, told) for to, told, _ in await sent(n)] == [(SERVICE, sender)]
    assert await log(n) == []


async def test_a_complaint_that_comes_here_counts_as_one(n: Node, client: Client, acme: Acme) -> None:
    complaint = (
        b"From: fbl@example.net\r\nSubject: complaint\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/report; report-type=feedback-report; boundary=cut\r\n\r\n--cut\r\n\r\nunsubscribe\r\n"
        b"--cut\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: x/1\r\n"
        b"Version: 1\r\nOriginal-Rcpt-To: anna@example.net\r\n\r\n--cut--\r\n"
    )
    assert (await deliver(client, complaint, acme.token(), sender="fbl@example.net")).startswith("250")
    assert await log(n) == [(n.person(ANNA), int(Scope.TENANT), int(Kind.COMPLAINT), 0)]
    assert await recipients(n) == [SERVICE]


async def test_a_loop_is_refused_and_goes_no_further(n: Node, client: Client, acme: Acme) -> None:
    await deliver(client, answer(LETTER), acme.token())
    [(_, _, forwarded)] = await sent(n)
    content = b"".join(forwarded.fields) + b"\r\n" + forwarded.body
    for address in (acme.token(), acme.token(Purpose.UNSUBSCRIBE_MAIL), tenant_address(n.parts, acme.tenant_id)):
        assert (await deliver(client, content, address)).startswith("554 5.4.6 ")
    circles = b"Received: by a.example\r\n" * 120 + answer(CLEAR)
    assert (await deliver(client, circles, acme.token())).startswith("554 5.4.6 ")
    campaign = f"List-Unsubscribe: <mailto:{acme.token(Purpose.UNSUBSCRIBE_MAIL)}>\r\n".encode() + answer(b"stop\r\n")
    assert (await deliver(client, campaign, acme.token(Purpose.UNSUBSCRIBE_MAIL))).startswith("554 5.4.6 ")
    assert await log(n) == []
    assert len(await sent(n)) == 1


@pytest.mark.parametrize(("content", "sender"), [(answer(LETTER), ANNA), (answer(UNCLEAR), ANNA), (VACATION, "")])
@pytest.mark.parametrize("why", ["none", "suppressed"])
async def test_without_a_place_to_go_an_answer_is_refused(
    n: Node, client: Client, acme: Acme, content: bytes, sender: str, why: str
) -> None:
    if why == "none":
        await n.parts.accounts.set_reply_address("acme", "")
    else:
        bounced = NewEntry(
            n.person(SERVICE), Scope.TENANT, Kind.HARD_BOUNCE, acme.tenant_id, 0, Channel.BOUNCE, "delivery"
        )
        await n.parts.log.append([bounced])
    assert (await deliver(client, content, acme.token(), sender=sender)).startswith("550 5.7.1 ")
    assert await sent(n) == []


async def test_nobody_else_is_asked(n: Node, client: Client, acme: Acme) -> None:
    """A From field may be anybody's: the question goes only to whom the mail was sent."""
    for author in ("victim@example.org", "nonsense", "anna@example.net, victim@example.org"):
        assert (
            await deliver(client, answer(UNCLEAR, sender=author), acme.token(address="eva@example.net"))
        ).startswith("250")
    await deliver(client, answer(UNCLEAR, b"X-Auto-Response-Suppress: All"), acme.token())
    assert set(await recipients(n)) == {SERVICE}


# --- answers that a tenant's own mail system redirects


async def test_a_redirected_answer_is_known_by_our_message_id(n: Node, client: Client, acme: Acme) -> None:
    redirected = tenant_address(n.parts, acme.tenant_id)
    for number, name in enumerate((b"In-Reply-To", b"References")):
        field = name + b": <1@acme.example>\r\n <" + acme.token().encode() + b">"
        assert (await deliver(client, answer(CLEAR, field), redirected, sender="srs@acme.example")).startswith("250")
        assert await log(n) == [acme.unsubscribed()], number
    assert await sent(n) == []


async def test_another_tenant_s_message_id_proves_nothing(n: Node, client: Client, acme: Acme) -> None:
    field = b"In-Reply-To: <" + acme.token(tenant_id=acme.tenant_id + 1).encode() + b">"
    assert (await deliver(client, answer(CLEAR, field), tenant_address(n.parts, acme.tenant_id))).startswith("250")
    assert await log(n) == []
    assert await recipients(n) == [SERVICE]


async def test_where_nothing_proves_who_answers_the_author_is_asked(n: Node, client: Client, acme: Acme) -> None:
    redirected = tenant_address(n.parts, acme.tenant_id)
    assert (await deliver(client, answer(CLEAR), redirected)).startswith("250")
    assert await recipients(n) == [SERVICE], "never written to"
    columns = "message_id, ordinal, tenant_id, list_id, campaign_id, message_class, person, received_at, at, type"
    await n.execute(
        f"INSERT INTO event ({columns}) VALUES (9, 0, $1, $2, 3, 0, $3, now(), now(), {DELIVERED})",
        acme.tenant_id, acme.list_id, n.person(ANNA),
    )  # fmt: skip
    assert (await deliver(client, answer(CLEAR), redirected)).startswith("250")
    assert sorted(await recipients(n)) == [ANNA, SERVICE, SERVICE]
    assert await log(n) == []


async def test_answers_to_two_tenants_come_one_by_one(n: Node, client: Client, acme: Acme) -> None:
    await n.parts.accounts.add_tenant("other")
    await client.say(f"MAIL FROM:<{ANNA}>")
    assert (await client.say(f"RCPT TO:<{acme.token()}>")).startswith("250")
    assert (await client.say(f"RCPT TO:<{acme.token(address='eva@example.net')}>")).startswith("250")
    assert (await client.say(f"RCPT TO:<{acme.token(tenant_id=acme.tenant_id + 1)}>")).startswith("452 4.5.3 ")


async def test_several_addresses_of_one_tenant_get_one_copy(n: Node, client: Client, acme: Acme) -> None:
    addresses = [acme.token(), acme.token(address="eva@example.net"), tenant_address(n.parts, acme.tenant_id)]
    assert (await deliver(client, answer(LETTER), *addresses)).startswith("250")
    assert await recipients(n) == [SERVICE]


async def test_a_database_that_is_down_is_temporary(n: Node, client: Client, acme: Acme) -> None:
    await n.database.close()
    for text in (CLEAR, LETTER):
        assert (await deliver(client, answer(text), acme.token())).startswith("451 4.3.0 ")


async def test_the_address_is_not_in_the_database_in_clear(n: Node, acme: Acme) -> None:
    [(sealed,)] = await n.rows("SELECT reply_address FROM tenant WHERE name = 'acme'")
    assert b"acme.example" not in sealed
    assert await n.parts.accounts.reply_address(acme.tenant_id) == SERVICE
