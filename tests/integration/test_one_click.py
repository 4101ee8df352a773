"""The subscriber's HTTP over real sockets and a real PostgreSQL: what unsubscribes, what must not, honest failures."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from config.database import Database, DatabaseUnavailable
from suppression import web
from suppression.consent import Consents
from suppression.digest import Kind, Scope
from suppression.entry import Channel, Entry, NewEntry
from suppression.log import SuppressionLog
from suppression.page import Description
from suppression.tokens import Purpose, Token, Tokens, token_id
from suppression.web import MAX_BODY_BYTES, SubscriberPages, application, serve
from tests.support.suppressions import DIGEST, asked, keys_of, opened

TOKEN = Token(Purpose.ONE_CLICK, 7, 9, 11, 5, 1 << 40)


class Keys:
    """One key."""

    current_id = 1

    def token_key(self, key_id: int) -> bytes:
        return {1: b"k" * 32}[key_id]


TOKENS = Tokens(Keys())
GENUINE = TOKENS.issue(TOKEN)
URL = f"/u/{GENUINE}"


@dataclass
class Site:
    """A served application, and what a test looks at."""

    log: SuppressionLog
    http: aiohttp.ClientSession
    channels: list[Channel] = field(default_factory=list)
    failures: list[None] = field(default_factory=list)
    broken: list[Exception] = field(default_factory=list)

    async def in_force(self) -> list[Entry]:
        return await self.log.in_force(keys_of(5))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture
async def site(database: Database) -> AsyncIterator[Site]:
    log = SuppressionLog(database, DIGEST)
    async with made(log, database) as site:
        yield site


class made:  # noqa: N801  # reads as what it does: async with made(log, database)
    """A site on a free port for as long as the block takes."""

    def __init__(self, log: SuppressionLog, database: Database) -> None:
        self.log, self.database = log, database

    async def __aenter__(self) -> Site:
        async def describe(token: Token) -> Description | None:
            if broken:
                raise broken[0]
            return Description("ACME", "News", "b•••@example.com")

        channels: list[Channel] = []
        failures: list[None] = []
        broken: list[Exception] = []
        pages = SubscriberPages(
            TOKENS, self.log, Consents(self.database, self.log), describe=describe,
            on_unsubscribed=channels.append, on_failed=lambda: failures.append(None),
        )  # fmt: skip
        self.served = await serve(application(pages), "127.0.0.1", 0)
        self.http = aiohttp.ClientSession(f"http://127.0.0.1:{self.served.port}")
        return Site(self.log, self.http, channels, failures, broken)

    async def __aexit__(self, *error: object) -> None:
        await self.http.close()
        await self.served.close()


ONE_CLICK = b"List-Unsubscribe=One-Click"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (ONE_CLICK, "application/x-www-form-urlencoded"),
        (ONE_CLICK, "text/plain"),
        (
            b'--x\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
        (b"", None),
        (b"", "application/x-www-form-urlencoded"),
        (b"\xff\xfe%zz&&==", "application/x-www-form-urlencoded"),
        (b"choice=" + b"&a=b" * 100, "application/x-www-form-urlencoded"),
        (b"{", "application/json"),
        (b"--x", "multipart/form-data"),
        (b"x", "no/type; charset=nonsense"),
        (b"choice=nobody-knows", "application/x-www-form-urlencoded"),
    ],
)
async def test_a_post_unsubscribes_whatever_its_body(site: Site, body: bytes, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    async with site.http.post(URL, data=body, headers=headers, allow_redirects=False) as answer:
        text = await answer.text()
        assert answer.status == 200
        assert "You are unsubscribed" in text
        assert "Set-Cookie" not in answer.headers
    [entry] = await site.in_force()
    assert (entry.scope, entry.kind, entry.channel) == (Scope.LIST, Kind.UNSUBSCRIBE, "one-click")
    assert (entry.tenant_id, entry.list_id, entry.campaign_id, entry.message_id) == (7, 9, 11, 1 << 40)
    assert entry.actor == f"token:{token_id(GENUINE)}"
    assert site.channels == [Channel.ONE_CLICK]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "nonsense"])
async def test_a_post_unsubscribes_whatever_it_says_of_its_body_s_coding(site: Site, encoding: str) -> None:
    headers = {"Content-Encoding": encoding, "Content-Type": "application/x-www-form-urlencoded"}
    async with site.http.post(URL, data=b"\x1f\x8brubbish", headers=headers) as answer:
        assert answer.status == 200
    assert len(await site.in_force()) == 1


async def test_a_second_post_finds_the_first(site: Site) -> None:
    for expected in ("Recorded on", "in force since"):
        async with site.http.post(URL) as answer:
            assert answer.status == 200
            assert expected in await answer.text()
    assert (await site.log.head())[0] == 1
    assert site.channels == [Channel.ONE_CLICK]


async def test_the_token_may_come_in_any_case(site: Site) -> None:
    async with site.http.post(URL.replace(GENUINE, GENUINE.upper())) as answer:
        assert answer.status == 200
    assert len(await site.in_force()) == 1


async def test_a_scanner_s_storm_of_requests_changes_nothing(site: Site) -> None:
    """GET with every header that a prefetch or a scanner has, HEAD and OPTIONS, and the methods that are not there."""
    agents = ["Mozilla/5.0", "BarracudaCentral", "Google-Safety", ""]
    for method, status in [
        ("GET", 200),
        ("HEAD", 200),
        ("OPTIONS", 204),
        ("PUT", 405),
        ("DELETE", 405),
        ("PATCH", 405),
    ]:
        for agent in agents:
            for extra in ({}, {"Purpose": "prefetch", "Sec-Purpose": "prefetch"}, {"X-HTTP-Method-Override": "POST"}):
                async with site.http.request(method, URL, headers={"User-Agent": agent, **extra}) as answer:
                    assert answer.status == status
    async with site.http.get(URL + "?choice=everything&List-Unsubscribe=One-Click") as answer:
        assert answer.status == 200
    assert await site.log.head() == (0, bytes(32))


async def test_the_page_names_list_sender_and_masked_address(site: Site) -> None:
    async with site.http.get(URL, headers={"Accept-Language": "de-CH,fr;q=0.5"}) as answer:
        text = await answer.text()
        assert answer.headers["Content-Language"] == "de"
        assert answer.headers["Vary"] == "Accept-Language"
    assert "Von dieser Liste abmelden" in text
    assert all(part in text for part in ("ACME", "News", "b•••@example.com"))
    assert re.findall(r'value="([a-z-]+)"', text) == ["list", "tenant", "everything"]


async def test_every_answer_has_the_headers_that_keep_it_to_itself(site: Site) -> None:
    for method, path in [("GET", URL), ("POST", URL), ("GET", "/u/x"), ("GET", "/"), ("PUT", URL)]:
        async with site.http.request(method, path) as answer:
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Robots-Tag"] == "noindex, nofollow"
            assert answer.headers["Server"] == "heed"


@pytest.mark.parametrize(
    ("choice", "scope"), [("list", Scope.LIST), ("tenant", Scope.TENANT), ("everything", Scope.EVERYTHING)]
)
async def test_each_button_of_the_page(site: Site, choice: str, scope: Scope) -> None:
    async with site.http.post(URL, data={"choice": choice}) as answer:
        assert answer.status == 200
    [entry] = await site.in_force()
    assert (entry.scope, entry.channel) == (scope, "web")


async def test_a_token_without_a_list_means_the_sender(site: Site) -> None:
    async with site.http.post(f"/u/{TOKENS.issue(TOKEN._replace(list_id=0))}", data={"choice": "list"}) as answer:
        assert answer.status == 200
    [entry] = await site.in_force()
    assert entry.scope is Scope.TENANT


async def test_undo_is_a_recorded_consent_of_that_scope(site: Site, database: Database) -> None:
    for choice in ("list", "tenant", "undo-list"):
        async with site.http.post(URL, data={"choice": choice}) as answer:
            assert answer.status == 200
            text = await answer.text()
    assert "subscribed again" in text
    [entry] = await site.in_force()
    assert entry.scope is Scope.TENANT
    [consent] = await Consents(database, site.log).of_person(5)
    assert (consent.scope, consent.list_id, consent.actor) == (Scope.LIST, 9, f"token:{token_id(GENUINE)}")


async def test_undo_is_limited_so_that_one_token_can_not_fill_the_log(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "MAX_RETURNS_A_DAY", 2)
    for expected in (200, 200, 429):
        for choice in ("list", "undo-list"):
            async with site.http.post(URL, data={"choice": choice}) as answer:
                assert answer.status == (expected if choice == "undo-list" else 200)
    assert len(await site.in_force()) == 1
    assert (await site.log.head())[0] == 5


async def test_a_committed_unsubscribe_never_looks_failed_because_its_list_is_gone(site: Site) -> None:
    site.broken.append(KeyError("no such list"))
    for method in ("GET", "POST"):
        async with site.http.request(method, URL) as answer:
            assert answer.status == 200
    assert len(await site.in_force()) == 1
    assert site.failures == []


async def test_undo_lifts_no_complaint(site: Site) -> None:
    await site.log.append([asked(5, kind=Kind.COMPLAINT)])
    async with site.http.post(URL, data={"choice": "undo-list"}) as answer:
        assert "Nothing was changed" in await answer.text()
    assert [entry.kind for entry in await site.in_force()] == [Kind.COMPLAINT]


def forgeries() -> list[str]:
    foreign = Tokens(type("Other", (Keys,), {"token_key": lambda self, key_id: b"o" * 32})())
    unknown_key = Tokens(type("New", (Keys,), {"current_id": 2, "token_key": lambda self, key_id: b"k" * 32})())
    return [
        "a" * 63, GENUINE[:-1], GENUINE + "a", "test", "%00", "..%2f", GENUINE[:20] + "b" + GENUINE[21:],
        foreign.issue(TOKEN), unknown_key.issue(TOKEN), TOKENS.issue(TOKEN._replace(purpose=Purpose.RETURN_PATH)),
        TOKENS.issue(TOKEN._replace(purpose=Purpose.UNSUBSCRIBE_MAIL)), "%7B%7Bunsubscribe%7D%7D",
    ]  # fmt: skip


@pytest.mark.parametrize("text", forgeries())
async def test_a_token_that_is_not_ours_gets_an_honest_failure(site: Site, text: str) -> None:
    """A dummy token must never be told that it worked (listmonk 3063)."""
    answers = set()
    for method in ("GET", "POST"):
        async with site.http.request(method, f"/u/{text}") as answer:
            assert answer.status == 404
            answers.add(await answer.text())
    [page] = answers
    assert "This link is not valid" in page
    assert "You are unsubscribed" not in page
    assert (await site.log.head())[0] == 0


async def test_a_body_without_end_is_refused_and_changes_nothing(site: Site) -> None:
    async with site.http.post(URL, data=b"x" * (MAX_BODY_BYTES + 1)) as answer:
        assert answer.status == 413
    assert (await site.log.head())[0] == 0


class BrokenLog(SuppressionLog):
    """Appends fail as the test says."""

    error: Exception = DatabaseUnavailable("gone")

    async def append(self, entries: Sequence[NewEntry]) -> list[Entry]:
        raise self.error


@pytest.mark.parametrize("error", [DatabaseUnavailable("gone"), RuntimeError("a mistake with bob@example.com")])
async def test_without_a_commit_nobody_is_told_that_it_is_done(
    database: Database, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    log = BrokenLog(database, DIGEST)
    log.error = error
    async with made(log, database) as site, site.http.post(URL, headers={"Accept-Language": "es"}) as answer:
        text = await answer.text()
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert "No ha funcionado" in text
        assert "Se ha dado de baja" not in text
        assert 'value="list"' in text
        assert len(site.failures) == 1
    written = capsys.readouterr()
    assert GENUINE not in written.out + written.err
    assert "bob@" not in written.out + written.err


async def test_the_page_comes_without_a_database(database: Database) -> None:
    async with made(BrokenLog(database, DIGEST), database) as site, site.http.get(URL) as answer:
        assert answer.status == 200


async def test_the_answer_waits_for_the_commit(site: Site, database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("SELECT 1 FROM suppression_head FOR UPDATE")
        request = asyncio.create_task(site.http.post(URL).__aenter__())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(request), 0.2)
    answer = await request
    assert answer.status == 200
    answer.release()


async def test_a_client_that_hangs_up_early_is_still_unsubscribed(site: Site, database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("SELECT 1 FROM suppression_head FOR UPDATE")
        request = asyncio.create_task(site.http.post(URL).__aenter__())
        while not await waiting_for_a_lock(database):  # noqa: ASYNC110  # it is in PostgreSQL
            await asyncio.sleep(0.01)
        request.cancel()
    async with asyncio.timeout(5):
        while not await site.in_force():  # noqa: ASYNC110  # it is in PostgreSQL
            await asyncio.sleep(0.01)


async def waiting_for_a_lock(database: Database) -> Any:
    return await database.pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
