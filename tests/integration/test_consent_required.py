"""Tenants that require a consent: who gave none is refused at RCPT or withheld, only that recipient."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.database import DatabaseUnavailable
from mta.order_store import OrderStore
from mta.order_watch import OrderWatch
from mta.orders import Book
from mta.submission import protocols
from suppression import consenting as consenting_module
from suppression.consent import Consent, Consents
from suppression.consenting import Consenting
from suppression.digest import MessageClass, Scope
from tests.integration.test_cli import Installation
from tests.support.client import connected
from tests.support.node import Node, listening, node

NO_CONSENT = "550 5.7.1 Recipient has not consented to this mail"
TEXT = b"From: news@example.com\r\nList-Id: <%s>\r\n\r\nHello\r\n.\r\n"


@pytest.fixture
async def n(database_url: str, tmp_path: Path) -> AsyncIterator[Node]:
    async with node(database_url, tmp_path) as made:
        tenant = await made.parts.accounts.add_tenant("acme")
        made.orders.replace((), frozenset({tenant.id}))
        yield made


async def consent(n: Node, address: str, list_name: str = "") -> None:
    parts = n.parts
    tenant = await parts.accounts.tenant("acme")
    list_id = await parts.accounts.list_id(tenant.id, list_name)
    scope = Scope.LIST if list_id else Scope.TENANT
    wish = Consent(n.person(address), scope, tenant.id, list_id, "double opt-in", "form", "test")
    await Consents(parts.database, parts.log).record([wish])


async def submit(n: Node, *recipients: str, list_id: bytes = b"news.example.com",
                 trusted: MessageClass = MessageClass.CAMPAIGN) -> list[str]:  # fmt: skip
    """The replies to each RCPT, and to the content where it was asked for."""
    door = await n.door(trusted=trusted)
    async with listening(protocols(door)) as port, connected(port) as client:
        await client.greet()
        await client.say("MAIL FROM:<news@example.com>")
        client.send(b"".join(b"RCPT TO:<%s>\r\n" % recipient.encode() for recipient in recipients))
        replies = [await client.hear() for _ in recipients]
        if any(reply.startswith("250") for reply in replies):
            assert (await client.say("DATA")).startswith("354")
            client.send(TEXT % list_id if trusted is MessageClass.CAMPAIGN else TEXT.replace(b"List-Id: <%s>\r\n", b""))
            replies.append((await client.hear())[:9])
    return replies


async def test_only_the_recipient_without_a_consent_is_refused(n: Node) -> None:
    await consent(n, "anna@example.net")
    await consent(n, "eva@example.net", "news.example.com")
    replies = await submit(n, "anna@example.net", "bob@example.net", "eva@example.net")
    assert replies == ["250 2.1.5 OK", NO_CONSENT, "250 2.1.5 OK", "250 2.0.0"]
    persons = {row[0] for row in await n.rows("SELECT person FROM recipient")}
    assert persons == {n.person("anna@example.net"), n.person("eva@example.net")}


async def test_a_consent_to_another_list_is_withheld_when_the_list_is_known(n: Node) -> None:
    await consent(n, "anna@example.net")
    await consent(n, "bob@example.net", "other.example.com")
    assert await submit(n, "anna@example.net", "bob@example.net") == ["250 2.1.5 OK"] * 2 + ["250 2.0.0"]
    told = await n.rows("SELECT person, type, status, diagnostic FROM event WHERE type = 4")
    assert told == [(n.person("bob@example.net"), 4, "5.7.1", "no consent is recorded")]
    assert await submit(n, "bob@example.net") == ["250 2.1.5 OK", "550 5.7.1"]
    await consent(n, "bob@example.net", "news.example.com")  # what is not known is asked again
    assert await submit(n, "bob@example.net") == ["250 2.1.5 OK", "250 2.0.0"]


async def test_neither_transactional_mail_nor_other_tenants_are_asked_for_a_consent(n: Node) -> None:
    assert await submit(n, "bob@example.net", trusted=MessageClass.TRANSACTIONAL) == ["250 2.1.5 OK", "250 2.0.0"]
    n.orders.replace(())
    assert await submit(n, "bob@example.net") == ["250 2.1.5 OK", "250 2.0.0"]


async def test_without_an_answer_from_the_database_it_is_temporary(n: Node) -> None:
    tenant = await n.parts.accounts.tenant("acme")
    door = await n.door()
    door.consenting = Consenting(Consents(n.database, n.parts.log), answer_within_seconds=0.1)
    async with listening(protocols(door)) as port, connected(port) as client:
        await client.greet()
        await client.say("MAIL FROM:<news@example.com>")
        async with n.database.transaction() as connection:
            await connection.execute("LOCK TABLE consent IN ACCESS EXCLUSIVE MODE")
            assert (await client.say("RCPT TO:<bob@example.net>")).startswith("451 4.3.0")
        await consent(n, "bob@example.net")
        await until_known(door.consenting, n.person("bob@example.net"), tenant.id)
        assert (await client.say("RCPT TO:<bob@example.net>")).startswith("250")


async def until_known(consenting: Consenting, person: int, tenant_id: int) -> None:
    while await consenting.lacking([person], tenant_id):  # noqa: ASYNC110  # the first question may be on its way
        await asyncio.sleep(0.01)


async def test_orders_that_are_not_known_to_be_current_make_it_temporary(n: Node) -> None:
    seconds = 0.0
    n.orders = Book(5.0, clock=lambda: seconds)
    door = await n.door()
    async with listening(protocols(door)) as port, connected(port) as client:
        await client.greet()
        await client.say("MAIL FROM:<news@example.com>")
        assert (await client.say("RCPT TO:<bob@example.net>")).startswith("250")
        seconds = 6.0
        assert (await client.say("RCPT TO:<eva@example.net>")).startswith("451 4.3.0")


async def test_many_who_ask_at_once_share_a_question(n: Node) -> None:
    await consent(n, "anna@example.net")
    tenant = await n.parts.accounts.tenant("acme")
    consents, asked = Consents(n.database, n.parts.log), []
    lists_of = consents.lists_of

    async def counted(pairs: list[tuple[int, int]]) -> dict[tuple[int, int], set[int]]:
        asked.append(len(pairs))
        return await lists_of(pairs)

    consents.lists_of = counted  # type: ignore[method-assign,assignment]
    consenting, anna = Consenting(consents), n.person("anna@example.net")
    answers = await asyncio.gather(*(consenting.lacking([each], tenant.id) for each in (anna, *range(1, 100))))
    assert answers == [set(), *({each} for each in range(1, 100))]
    assert asked == [100]
    assert await consenting.lacking([anna], tenant.id) == set()
    assert asked == [100]  # a yes is kept
    assert await consenting.lacking([1], tenant.id) == {1}
    assert asked == [100, 1]  # a no is not
    await n.database.close()
    with pytest.raises(DatabaseUnavailable):
        await consenting.lacking([1], tenant.id)


async def test_an_answer_counts_even_when_there_is_no_room_to_keep_it(n: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message to more consenting persons than are kept: the first ones were refused as if they had not consented."""
    monkeypatch.setattr(consenting_module, "_KEPT", 2)
    names = [f"reader{number}@example.net" for number in range(4)]
    for name in names:
        await consent(n, name)
    tenant = await n.parts.accounts.tenant("acme")
    consenting = Consenting(Consents(n.database, n.parts.log))
    assert await consenting.lacking([n.person(name) for name in names], tenant.id) == set()


async def test_the_setting_is_followed(n: Node) -> None:
    store, changed = OrderStore(n.database, n.parts.now), asyncio.Event()
    book = Book()
    watch = OrderWatch(book, n.database, on_change=changed.set, poll_seconds=0.02)
    following = asyncio.create_task(watch.follow_for_ever())
    await watch.known()
    assert book.consent_required == frozenset()
    target = await store.find("", "", "acme", "")
    for required in (True, False):
        await store.require_consent(target, required, "law", "operator")
        async with asyncio.timeout(5):
            # the orders, which are read first, are told on their own
            while book.consent_required != (frozenset({target.id}) if required else frozenset()):
                changed.clear()
                await changed.wait()
    assert [row["action"] for row in await store.history(target)] == ["require no consent", "require consent"]
    following.cancel()


@pytest.fixture
def installation(database_url: str, tmp_path: Path) -> Installation:
    return Installation(database_url, tmp_path)


def test_consents_on_the_command_line(installation: Installation, tmp_path: Path) -> None:
    installation.text("tenant", "add", "acme")
    assert "needs a recorded consent" in installation.text("tenant", "set", "acme", "--require-consent")
    assert installation.json("tenant", "list")[0]["consent_required"] is True
    for person in ("anna", "bob"):
        arguments = ("suppress", "add", f"{person}@example.com", "--tenant", "acme", "--kind", "unsubscribe")
        installation.text(*arguments, "--list", "news")
    file = tmp_path / "consents.csv"
    file.write_text(
        "Email;Opt-in at;List;Basis;Source;Reference\n"
        "anna@example.com;2020-01-01T10:00:00Z;news;double opt-in;form;ticket 1\n"
        "bob@example.com;2026-01-01T10:00:00;news;double opt-in;form;no zone\n"
        "eva@example.com;2999-01-01T10:00:00Z;news;double opt-in;form;the future\n"
        "max@example.com;2020-01-01T10:00:00Z;news;;form;no basis\n"
        "nobody;2020-01-01T10:00:00Z;news;double opt-in;form;\n"
    )
    assert installation.json("consent", "import", str(file), "--tenant", "acme") == {
        "read": 5,
        "added": 1,
        "refused": 4,
    }
    again = installation.json("consent", "import", str(file), "--tenant", "acme")
    assert again == {"read": 5, "added": 1, "refused": 4}
    story = installation.json("prove", "anna@example.com")
    assert [consent["evidence"] for consent in story["consents"]] == ["ticket 1"]
    assert (
        installation.run("suppress", "check", "anna@example.com", "--tenant", "acme", "--list", "news").returncode == 0
    )
