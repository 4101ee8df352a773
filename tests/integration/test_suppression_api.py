"""POST /v1/suppressions: what apps may report, and what they can't."""

import asyncio
import hashlib
import io
import json
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from config.database import Database, DatabaseUnavailable
from mta.subscriber_web import Callers
from suppression.api import MAX_BODY_BYTES, MAX_ENTRIES, Caller, SuppressionApi
from suppression.digest import Kind, MessageClass, Scope
from suppression.log import SuppressionLog
from suppression.prove import digest_text
from suppression.serving import serve
from tests.support.node import node
from tests.support.suppressions import DIGEST, keys_of, opened

BOB = DIGEST.person("bob@example.com")
AUTH = {"Authorization": "secret of tenant 7"}
PATH = "/v1/suppressions"


async def authenticate(field: str, _remote: str) -> Caller | None:
    return {"secret of tenant 7": Caller(7, "app-7"), "secret of tenant 8": Caller(8, "app-8")}.get(field)


async def list_id(tenant_id: int, name: str) -> int:
    if name != "news":
        raise ValueError("no such name")
    return 9


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture
def log(database: Database) -> SuppressionLog:
    return SuppressionLog(database, DIGEST)


@pytest.fixture
def counted() -> list[int]:
    return []


@pytest.fixture
async def http(log: SuppressionLog, counted: list[int]) -> AsyncIterator[aiohttp.ClientSession]:
    async for session in calling(
        SuppressionApi(
            log, DIGEST, authenticate=authenticate, list_id=list_id, require_tls=False, on_suppressed=counted.append
        )
    ):
        yield session


async def calling(api: SuppressionApi) -> AsyncGenerator[aiohttp.ClientSession]:
    app = web.Application()
    app.add_routes(api.routes())
    served = await serve(app, "127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{served.port}") as session:
            yield session
    finally:
        await served.close()


async def post(http: aiohttp.ClientSession, body: Any, path: str = PATH, **headers: str) -> tuple[int, dict[str, Any]]:
    data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    async with http.post(path, data=data, headers={**AUTH, **headers}) as answer:
        text = await answer.text()
        assert "@" not in text
        return answer.status, json.loads(text)


def entries(*items: dict[str, str]) -> dict[str, Any]:
    return {"entries": list(items)}


async def test_a_batch_is_in_force_when_it_is_answered(
    http: aiohttp.ClientSession, log: SuppressionLog, counted: list[int]
) -> None:
    status, told = await post(
        http,
        entries(
            {"address": "Bob@Example.com", "list": "news", "reason": "called as bob@example.com"},
            {"digest": digest_text(BOB), "kind": "complaint"},
        ),
    )
    assert status == 200
    assert [item["position"] for item in told["entries"]] == [1, 2]
    one, two = await log.in_force(keys_of(BOB))
    assert (one.scope, one.kind, one.channel, one.actor) == (Scope.LIST, Kind.UNSUBSCRIBE, "api", "app-7")
    assert one.reason == "called as <address>"
    assert (two.scope, two.kind, two.tenant_id) == (Scope.TENANT, Kind.COMPLAINT, 7)
    assert counted == [2]


async def test_the_same_key_gets_the_same_answer(
    http: aiohttp.ClientSession, log: SuppressionLog, counted: list[int]
) -> None:
    body = entries({"address": "bob@example.com"})
    first = await post(http, body, **{"Idempotency-Key": "k1"})
    assert await post(http, body, **{"Idempotency-Key": "k1"}) == first
    assert first[1]["entries"][0]["already_in_force"] is False
    assert (await post(http, body, **{"Idempotency-Key": "k2"}))[1]["entries"][0]["already_in_force"] is True
    assert (await log.head())[0] == 1
    assert counted == [1]


@pytest.mark.parametrize("path", [PATH, "/v1/consents"])
async def test_a_key_that_comes_twice_at_once_acts_once(
    log: SuppressionLog, database: Database, counted: list[int], path: str
) -> None:
    """An app that gave up waiting asks another node while the first still works: both tell what one of them did."""
    given = {"address": "bob@example.com"} | ({} if path == PATH else {"basis": "form", "source": "shop"})
    nodes = [
        SuppressionApi(each, DIGEST, authenticate=authenticate, list_id=list_id, require_tls=False,
                       on_suppressed=counted.append)
        for each in (log, SuppressionLog(database, DIGEST))
    ]  # fmt: skip
    async with aclosing(calling(nodes[0])) as one, aclosing(calling(nodes[1])) as other:
        callers = [await anext(one), await anext(other)]
        answers = await asyncio.gather(*(
            post(callers[number % 2], entries(given), path, **{"Idempotency-Key": "k1"}) for number in range(8)
        ))  # fmt: skip
    assert answers[0][0] == 200
    assert answers == answers[:1] * 8
    assert counted == ([1] if path == PATH else [])
    async with database.connection() as connection:
        acted = "suppression_log" if path == PATH else "consent"
        assert await connection.fetchval(f"SELECT count(*) FROM {acted}") == 1


async def test_what_is_kept_of_a_request_tells_no_address(http: aiohttp.ClientSession, database: Database) -> None:
    body = json.dumps(entries({"address": "bob@example.com"})).encode()
    await post(http, body, **{"Idempotency-Key": "stop bob@example.com"})
    async with database.connection() as connection:
        [kept] = await connection.fetch("SELECT * FROM suppression_request")
    assert "bob" not in str(dict(kept))
    assert kept["request_sha256"] != hashlib.sha256(body).digest()


async def test_a_key_is_not_used_for_another_request(http: aiohttp.ClientSession, log: SuppressionLog) -> None:
    await post(http, entries({"address": "bob@example.com"}), **{"Idempotency-Key": "k1"})
    status, _ = await post(http, entries({"address": "eva@example.com"}), **{"Idempotency-Key": "k1"})
    assert status == 409
    assert (await log.head())[0] == 1


async def test_another_tenant_s_key_is_another_key(http: aiohttp.ClientSession, log: SuppressionLog) -> None:
    body = entries({"address": "bob@example.com"})
    await post(http, body, **{"Idempotency-Key": "k1"})
    status, told = await post(http, body, **{"Idempotency-Key": "k1", "Authorization": "secret of tenant 8"})
    assert (status, told["entries"][0]["already_in_force"]) == (200, False)
    assert {entry.tenant_id for entry in await log.read_after(0, 9)} == {7, 8}


@pytest.mark.parametrize(
    ("item", "error"),
    [
        ({}, "address or a digest"),
        ({"address": "bob"}, "not a mail address"),
        ({"digest": "xyz"}, "16 hex digits"),
        ({"address": "bob@example.com", "digest": "0" * 16}, "address or a digest"),
        ({"address": "bob@example.com", "kind": "whim"}, "kind is one of"),
        ({"address": "bob@example.com", "scope": "everything"}, "unknown fields"),
        ({"address": "bob@example.com", "list": "bob@example.com"}, "not an entry"),
        ({"address": 5}, "object of strings"),
        (5, "object of strings"),
    ],
)
async def test_one_bad_entry_refuses_all_and_is_named(
    http: aiohttp.ClientSession, log: SuppressionLog, item: Any, error: str
) -> None:
    status, told = await post(http, {"entries": [{"address": "eva@example.com"}, item]})
    assert (status, told["entry"]) == (400, 1)
    assert error in told["error"]
    assert (await log.head())[0] == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"[]", 400), (b"{}", 400), (b'{"entries": []}', 400), (b'{"entries": {}}', 400),
        (json.dumps({"entries": [{}] * (MAX_ENTRIES + 1)}).encode(), 400), (b" " * (MAX_BODY_BYTES + 1), 413),
    ],
)  # fmt: skip
async def test_what_is_no_request_is_refused(http: aiohttp.ClientSession, body: bytes, status: int) -> None:
    assert (await post(http, body))[0] == status


async def test_nobody_unknown_may_call(http: aiohttp.ClientSession, log: SuppressionLog) -> None:
    async with http.post(PATH, json=entries({"address": "bob@example.com"})) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert (await log.head())[0] == 0


async def test_credentials_in_clear_are_refused(log: SuppressionLog) -> None:
    async for http in calling(SuppressionApi(log, DIGEST, authenticate=authenticate, list_id=list_id)):
        assert (await post(http, entries({"address": "bob@example.com"})))[0] == 403


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}])
async def test_without_a_database_nothing_is_said_to_be_done(database: Database, headers: dict[str, str]) -> None:
    class Gone(SuppressionLog):
        def appending(self) -> Any:
            raise DatabaseUnavailable("gone")

    api = SuppressionApi(Gone(database, DIGEST), DIGEST, authenticate=authenticate, list_id=list_id, require_tls=False)
    async for http in calling(api):
        status, told = await post(http, entries({"address": "bob@example.com"}), **headers)
        assert status == 503
        assert "not recorded" in told["error"]


async def test_consents_are_recorded_and_lift_what_is_older(log: SuppressionLog, http: aiohttp.ClientSession) -> None:
    await http.post(PATH, json={"entries": [{"address": "bob@example.com", "list": "news"}]}, headers=AUTH)
    assert len(await log.in_force(keys_of(BOB))) == 1
    given = {"digest": digest_text(BOB), "list": "news", "basis": "double opt-in", "source": "form", "evidence": "7"}
    headers = {**AUTH, "Idempotency-Key": "c1"}
    answers = []
    for _ in range(2):
        async with http.post("/v1/consents", json={"entries": [given]}, headers=headers) as answer:
            assert answer.status == 200
            answers.append(await answer.json())
    assert answers[0] == answers[1]
    assert answers[0]["entries"][0]["lifted_by_position"] == 2
    assert await log.in_force(keys_of(BOB)) == []
    older = {**given, "at": "2020-01-01T00:00:00Z"}
    async with http.post("/v1/consents", json={"entries": [older]}, headers=AUTH) as answer:
        assert (await answer.json())["entries"][0]["lifted_by_position"] is None


@pytest.mark.parametrize(
    "entry",
    [
        {"address": "bob@example.com"},
        {"address": "bob@example.com", "basis": "double opt-in"},
        {"address": "bob@example.com", "basis": "b", "source": "s", "at": "2026-01-01T00:00:00"},
        {"address": "bob@example.com", "basis": "b", "source": "s", "at": "yesterday"},
        {"address": "bob@example.com", "basis": "b", "source": "s", "at": "2999-01-01T00:00:00Z"},
        {"address": "bob@example.com", "basis": "b", "source": "s", "kind": "complaint"},
        {"address": "nobody", "basis": "b", "source": "s"},
    ],
)
async def test_what_is_no_consent_changes_nothing(
    log: SuppressionLog, http: aiohttp.ClientSession, entry: dict[str, str]
) -> None:
    await http.post(PATH, json={"entries": [{"address": "bob@example.com"}]}, headers=AUTH)
    async with http.post("/v1/consents", json={"entries": [entry]}, headers=AUTH) as answer:
        assert answer.status == 400
        assert "bob" not in await answer.text()
    assert len(await log.in_force(keys_of(BOB))) == 1


async def test_a_stranger_that_guesses_locks_nobody_else_out(database_url: str, tmp_path: Path) -> None:
    async with node(database_url, tmp_path, submission={"auth_failures_per_minute": 1}) as n:
        await n.parts.accounts.add_tenant("acme")
        await n.parts.accounts.add_credential("acme", "app", MessageClass.CAMPAIGN, "right-password")
        callers = Callers(n.parts)
        wrong, right = (f"Basic {b64encode(f'app:{word}'.encode()).decode()}" for word in ("wrong", "right-password"))
        assert await callers.authenticate(wrong, "192.0.2.1") is None
        assert await callers.authenticate(right, "192.0.2.1") is None
        assert await callers.authenticate(right, "192.0.2.2") is not None
        # nor by names that nobody has, each of which costs as much
        for number in range(10):
            assert await callers.authenticate(f"Basic {b64encode(b'%d:x' % number).decode()}", "192.0.2.2") is None
        assert await callers.authenticate(right, "192.0.2.2") is None
        assert await callers.authenticate(right, "192.0.2.3") is not None
