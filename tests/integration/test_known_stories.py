"""Stories of other systems that went wrong, told again: each ends as a subscriber may expect.

Two more are told where their parts are tested: a dummy token at the public URL (test_one_click.py), and an import that
overwrites (test_transfer.py).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from mta.accounts import Accounts
from mta.submission import protocols
from mta.subscriber_web import subscriber_web
from suppression.digest import MessageClass
from suppression.feed import DatabaseFeed, Feed
from suppression.gate import Gate, Verdict
from suppression.index import Index
from suppression.keeper import BaseKeeper
from suppression.serving import serve
from suppression.tokens import Purpose, Token
from suppression.watch import Watch
from tests.integration.test_submission_content import deliver
from tests.support.client import connected
from tests.support.node import Node, listening, node, until

ANNA = "anna@example.net"
NEWS = b"From: news@example.com\r\nList-Id: <News.Example.com>\r\nSubject: news\r\n\r\nhello\r\n"
PASSWORD = b"From: shop@example.com\r\nSubject: your new password\r\n\r\nhello\r\n"
CAMPAIGN, TRANSACTIONAL = MessageClass.CAMPAIGN, MessageClass.TRANSACTIONAL


@dataclass
class World:
    """A node whose gate is a real one, and its public web."""

    n: Node
    index: Index
    gate: Gate
    http: aiohttp.ClientSession
    tenant_id: int = 0
    list_id: int = 0

    async def submit(self, content: bytes, message_class: MessageClass) -> str:
        door = await self.n.door(trusted=message_class)
        async with listening(protocols(door)) as port, connected(port) as client:
            await client.greet()
            return await deliver(client, content, f"<{ANNA}>")

    async def queued(self) -> list[int]:
        """The classes of the mail that waits for Anna."""
        query = "SELECT class FROM recipient WHERE person = $1 ORDER BY class"
        return [row[0] for row in await self.n.rows(query, self.n.person(ANNA))]

    def token(self) -> str:
        return self.n.parts.tokens.issue(
            Token(Purpose.ONE_CLICK, self.tenant_id, self.list_id, 1, self.n.person(ANNA), 5)
        )

    async def unsubscribe(self) -> None:
        """One-click, and wait until this worker knows."""
        before = self.index.position
        async with self.http.post(f"/u/{self.token()}", data=b"List-Unsubscribe=One-Click") as answer:
            assert answer.status == 200
        await until(lambda: self.index.position > before)

    def verdict(self, message_class: MessageClass) -> Verdict:
        """What the last check says."""
        keys = self.n.parts.scopes.keys(self.n.person(ANNA), self.tenant_id, self.list_id)
        return self.gate.allows(keys, message_class)


def feed_of(n: Node) -> Callable[[], Awaitable[Feed]]:
    async def connect() -> Feed:
        return await DatabaseFeed.open(n.database, answer_within_seconds=2.0)

    return connect


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with node(database_url, tmp_path) as n:
        index = Index()
        keeper = BaseKeeper(n.parts.paths.index, n.parts.log)
        watch = Watch(index, feed_of(n), keeper, n.parts.scopes, poll_seconds=0.05)
        await watch.start()
        await watch.caught_up()
        n.gate = Gate(index, watch)  # type: ignore[assignment]  # in place of the one that a test sets
        served = await serve(subscriber_web(n.parts), "127.0.0.1", 0)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{served.port}") as http:
            world = World(n, index, n.gate, http)
            assert (await world.submit(NEWS, CAMPAIGN)).startswith("250")
            [(world.tenant_id, world.list_id)] = await n.rows("SELECT tenant_id, id FROM list")
            yield world
        await served.close()
        await watch.stop()


async def test_a_newsletter_s_unsubscribe_leaves_the_password_mail_alive(world: World) -> None:
    assert (await world.submit(PASSWORD, TRANSACTIONAL)).startswith("250")
    assert await world.queued() == [CAMPAIGN, TRANSACTIONAL]
    await world.unsubscribe()
    assert await world.queued() == [TRANSACTIONAL]
    assert world.verdict(CAMPAIGN) is Verdict.SUPPRESSED
    assert world.verdict(TRANSACTIONAL) is Verdict.OPEN
    await world.submit(NEWS, CAMPAIGN)
    assert (await world.submit(PASSWORD, TRANSACTIONAL)).startswith("250")
    assert await world.queued() == [TRANSACTIONAL, TRANSACTIONAL]


async def test_a_deleted_list_does_not_resume_mail(world: World) -> None:
    """A list that is deleted, made anew and filled again would know nothing of who had left it."""
    await world.unsubscribe()
    for attempt in ("DELETE FROM list", "UPDATE list SET name = 'old'", "TRUNCATE list CASCADE", "DELETE FROM tenant"):
        with pytest.raises((asyncpg.RaiseError, asyncpg.ForeignKeyViolationError)):
            await world.n.execute(attempt)
    # what knows no list yet: another node, or this one after a restart
    world.n.parts.accounts = Accounts(world.n.database, world.n.parts.keyring)
    await world.submit(NEWS.replace(b"News.Example.com", b"NEWS.example.COM"), CAMPAIGN)
    assert await world.queued() == []
    assert world.verdict(CAMPAIGN) is Verdict.SUPPRESSED


async def test_a_scanner_that_opens_everything_changes_nothing(world: World) -> None:
    """Link scanners open each link of each mail, some of them many times, before anybody reads it."""
    paths = [f"/{place}/{world.token()}" for place in "up"]

    async def scan(method: str, path: str) -> int:
        headers = {"User-Agent": "Scanner/1.0", "Sec-Purpose": "prefetch"}
        async with world.http.request(method, path, headers=headers) as answer:
            await answer.read()
            return answer.status

    storm = [scan(method, path) for path in paths for method in ("GET", "HEAD", "OPTIONS") for _ in range(30)]
    statuses = set(await asyncio.gather(*storm))
    assert statuses <= {200, 204, 405}
    assert await world.queued() == [CAMPAIGN]
    assert await world.n.rows("SELECT * FROM suppression_log") == []
    assert await world.n.rows("SELECT * FROM consent") == []
    assert world.verdict(CAMPAIGN) is Verdict.OPEN
