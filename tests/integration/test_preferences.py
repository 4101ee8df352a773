"""The preference page: lists left and kept one by one, and only what was shown."""

import re
from collections.abc import AsyncIterator, Sequence

import aiohttp
import pytest

from config.database import Database
from suppression.consent import Consents
from suppression.digest import Scope
from suppression.log import SuppressionLog
from suppression.preferences import Election, PreferencePages, elect
from suppression.scopes import Scopes
from suppression.tokens import Purpose
from suppression.web import SubscriberPages, application, serve
from tests.integration.test_one_click import TOKEN, TOKENS
from tests.support.suppressions import DIGEST, asked, opened

PATH = f"/p/{TOKENS.issue(TOKEN._replace(purpose=Purpose.PREFERENCES))}"


async def lists_of(person: int, tenant_id: int) -> Sequence[tuple[int, str]]:
    return [(9, "News"), (10, "Offers"), (11, "Events")] if (person, tenant_id) == (5, 7) else []


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture
def log(database: Database) -> SuppressionLog:
    return SuppressionLog(database, DIGEST)


@pytest.fixture
async def http(database: Database, log: SuppressionLog) -> AsyncIterator[aiohttp.ClientSession]:
    consents = Consents(database, log)
    pages = SubscriberPages(TOKENS, log, consents, preferences=True)
    preferences = PreferencePages(pages, log, consents, DIGEST, Scopes(DIGEST), lists_of)
    served = await serve(application(pages, preferences.routes()), "127.0.0.1", 0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{served.port}") as session:
        yield session
    await served.close()


async def shown(http: aiohttp.ClientSession) -> dict[int, bool]:
    async with http.get(PATH) as answer:
        assert answer.status == 200
        found = re.findall(r'value="(\d+)"( checked)?', await answer.text())
    return {int(number): bool(checked) for number, checked in found}


async def save(http: aiohttp.ClientSession, *keep: int, shown: str = "9,10,11") -> str:
    data = [("shown", shown), *(("keep", str(each)) for each in keep), ("choice", "save")]
    async with http.post(PATH, data=data) as answer:
        assert answer.status == 200
        return await answer.text()


@pytest.mark.parametrize(
    ("on_page", "keep", "left", "election"),
    [
        ({9, 10}, {9, 10}, set(), Election((), ())),
        ({9, 10}, {9}, set(), Election((10,), ())),
        ({9, 10}, set(), {9}, Election((10,), ())),
        ({9, 10}, {9}, {9}, Election((10,), (9,))),
        ({9}, {9, 10}, {10}, Election((), ())),
        ({9, 99}, {98}, {97}, Election((9,), ())),
    ],
)
def test_only_what_was_shown_and_is_theirs_changes(
    on_page: set[int], keep: set[int], left: set[int], election: Election
) -> None:
    assert elect(on_page, keep, {9, 10, 11}, left) == election


async def test_lists_are_left_and_rejoined(http: aiohttp.ClientSession, log: SuppressionLog) -> None:
    assert await shown(http) == {9: True, 10: True, 11: True}
    assert "Your choice is saved" in await save(http, 9)
    assert await shown(http) == {9: True, 10: False, 11: False}
    assert "Your choice is saved" in await save(http, 9, 10)
    assert await shown(http) == {9: True, 10: True, 11: False}
    assert "Nothing was changed" in await save(http, 9, 10)
    assert [entry.action.name for entry in await log.read_after(0, 9)] == ["SUPPRESS", "SUPPRESS", "LIFT_BY_CONSENT"]


async def test_keeping_one_list_after_leaving_the_sender_brings_back_that_one_alone(
    http: aiohttp.ClientSession, log: SuppressionLog
) -> None:
    await log.append([asked(5, scope=Scope.TENANT)])
    assert await shown(http) == {9: False, 10: False, 11: False}
    await save(http, 10)
    assert await shown(http) == {9: False, 10: True, 11: False}


async def test_a_complaint_is_not_lifted_here(http: aiohttp.ClientSession, log: SuppressionLog) -> None:
    from suppression.digest import Kind

    await log.append([asked(5, kind=Kind.COMPLAINT)])
    assert "Nothing was changed" in await save(http, 9, 10, 11)
    assert (await shown(http))[9] is False


async def test_another_s_list_is_not_touched(http: aiohttp.ClientSession, log: SuppressionLog) -> None:
    await save(http, 9, 10, 11, shown="9,10,11,77")
    assert (await log.head())[0] == 0


async def test_the_wider_choices_are_there_too(http: aiohttp.ClientSession, log: SuppressionLog) -> None:
    async with http.post(PATH, data={"choice": "everything"}) as answer:
        assert "any sender of this service" in await answer.text()
    [entry] = await log.read_after(0, 9)
    assert entry.scope is Scope.EVERYTHING


@pytest.mark.parametrize("body", [b"", b"choice=nothing", b"choice=save&shown=x", b"\xff", b"choice=save&keep=x"])
async def test_rubbish_changes_nothing(http: aiohttp.ClientSession, log: SuppressionLog, body: bytes) -> None:
    async with http.post(PATH, data=body) as answer:
        assert answer.status == 400
    assert (await log.head())[0] == 0


async def test_looking_changes_nothing_and_a_forgery_sees_nothing(
    http: aiohttp.ClientSession, log: SuppressionLog
) -> None:
    for method in ("GET", "HEAD"):
        async with http.request(method, PATH) as answer:
            assert answer.status == 200
    for method in ("GET", "POST"):
        async with http.request(method, f"/p/{'a' * 63}") as answer:
            assert answer.status == 404
    assert (await log.head())[0] == 0


async def test_the_page_that_asks_links_to_it(http: aiohttp.ClientSession) -> None:
    one_click = TOKENS.issue(TOKEN)
    async with http.get(f"/u/{one_click}") as answer:
        assert f'href="/p/{one_click}"' in await answer.text()
