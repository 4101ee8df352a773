"""The subscriber's pages in the browser that most people use: pressed through, at a phone's width, accessible."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from mta.forwarding import Forwarding
from mta.subscriber_web import subscriber_web
from suppression.digest import Scope
from suppression.page import LANGUAGES
from suppression.serving import serve
from suppression.tokens import Purpose, Token
from tests.support.browser import AXE, CHROMIUM, Page, browser
from tests.support.node import Node, node

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
needs_axe = pytest.mark.skipif(not AXE.exists(), reason="axe-core is not in .venv/axe (see .ci/run)")

PHONE = {"width": 320, "height": 640, "deviceScaleFactor": 2, "mobile": True}
DESK = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
LONG = "A list whose name is as long as names can be, Donaudampfschifffahrtsgesellschaftskapitänsmützen included"
PICTURES = os.environ.get("HEED_TEST_PICTURES")
"""A directory for screenshots, for those who want to look at them."""


@dataclass
class Site:
    """What is served, and a page to look at it."""

    n: Node
    page: Page
    origin: str
    token: str

    async def look(
        self, path: str, language: str = "en", size: Mapping[str, object] = PHONE, scheme: str = "light"
    ) -> None:
        """Open a page as somebody sees it."""
        await self.page.call("Emulation.setDeviceMetricsOverride", **size)
        await self.page.call("Network.setExtraHTTPHeaders", headers={"Accept-Language": language})
        scheme_feature = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.page.call("Emulation.setEmulatedMedia", features=scheme_feature)
        await self.page.open(self.origin + path)

    async def says(self, text: str, language: str = "en") -> bool:
        return LANGUAGES[language][text] in await self.page.text()

    async def entries(self) -> list[tuple[str, int, int]]:
        """(action, scope, list) of the log."""
        names = {1: "suppress", 2: "lift"}
        rows = await self.n.rows("SELECT action, scope, list_id FROM suppression_log ORDER BY position")
        return [(names[action], scope, list_id) for action, scope, list_id in rows]


@pytest.fixture
async def site(database_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with node(database_url, tmp_path) as n, browser(tmp_path / "profile") as page:
        tenant = await n.parts.accounts.add_tenant("acme")
        lists = [await n.parts.accounts.list_id(tenant.id, name) for name in ("News", LONG)]
        # who is queued is shown masked, and what was delivered makes the preference page
        await Forwarding(n.parts).send(tenant.id, "anna@example.net", b"From: a@example.com\r\n\r\nx\r\n")
        [(message_id, campaign_id)] = await n.rows("SELECT id, campaign_id FROM message")
        person = n.person("anna@example.net")
        columns = "message_id, ordinal, tenant_id, list_id, campaign_id, message_class, person, received_at, at, type"
        for each in lists:
            values = "9, 0, $1, $2, 3, 0, $3, now(), now(), 1"
            await n.execute(f"INSERT INTO event ({columns}) VALUES ({values})", tenant.id, each, person)
        served = await serve(subscriber_web(n.parts), "127.0.0.1", 0)
        token = Token(Purpose.ONE_CLICK, tenant.id, lists[0], campaign_id, person, message_id)
        yield Site(n, page, f"http://127.0.0.1:{served.port}", n.parts.tokens.issue(token))
        await served.close()


@needs_chromium
@pytest.mark.parametrize("script", [True, False], ids=["with JavaScript", "without"])
async def test_every_button_does_what_it_says(site: Site, script: bool) -> None:
    page = site.page
    await page.call("Emulation.setScriptExecutionDisabled", value=not script)
    await site.look(f"/u/{site.token}")
    assert await site.says("ask_heading")
    assert "a•••@example.net" in await page.text()
    await page.press("button[value=list]")
    assert await site.says("done_list")
    await page.press("button[value=undo-list]")
    assert await site.says("undone_heading")
    await site.look(f"/u/{site.token}")
    await page.press("a")
    assert await site.says("preferences_heading")
    assert LONG in await page.text()
    await page.press("label:nth-of-type(2)", leads_on=False)
    await page.press("button[value=save]")
    assert await site.says("saved_heading")
    await site.look(f"/p/{site.token}")
    await page.press("button[value=everything]")
    assert await site.says("done_everything")
    news = int((await site.n.rows("SELECT id FROM list WHERE name = 'News'"))[0][0])
    assert sorted(row[:2] for row in await site.entries()) == sorted(
        [("suppress", Scope.LIST), ("lift", Scope.LIST), ("suppress", Scope.LIST), ("suppress", Scope.EVERYTHING)]
    )
    assert [row for row in await site.entries() if row[0] == "lift"] == [("lift", Scope.LIST, news)]
    assert len(await site.n.rows("SELECT 1 FROM consent")) == 1
    assert {url.rpartition("/")[0] for url in page.requested} <= {f"{site.origin}/u", f"{site.origin}/p", site.origin}


@needs_chromium
async def test_showing_a_page_does_nothing_and_no_script_in_it_can_ask_for_anything(site: Site) -> None:
    for path in (f"/u/{site.token}", f"/p/{site.token}") * 2:
        await site.look(path)
        for method in ("GET", "POST"):
            attempt = f"fetch(location.href, {{method: '{method}'}}).then(() => 'sent', () => 'refused')"
            assert await site.page.evaluate(attempt) == "refused"
    assert await site.entries() == []


@needs_chromium
@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_is_accessible_and_fits_a_phone(site: Site, scheme: str) -> None:
    languages = list(LANGUAGES) if scheme == "light" else ["en"]
    for language in languages:
        await site.look(f"/u/{site.token}", language, scheme=scheme)
        assert await site.says("ask_heading", language)
        await judged(site, f"{scheme}-{language}-ask")
        await site.page.press("button[value=list]")
        await judged(site, f"{scheme}-{language}-done")
        await site.page.press("button[value=undo-list]")
        await judged(site, f"{scheme}-{language}-undone")
        await site.look(f"/p/{site.token}", language, scheme=scheme)
        await judged(site, f"{scheme}-{language}-preferences")
        await site.page.press("label:nth-of-type(2)", leads_on=False)
        await site.page.press("button[value=save]")
        await judged(site, f"{scheme}-{language}-saved")
        await site.look(f"/u/{'a' * 63}", language, scheme=scheme)
        assert await site.says("unknown_heading", language)
        await judged(site, f"{scheme}-{language}-unknown")
    await site.look(f"/u/{site.token}", size=DESK, scheme=scheme)
    await judged(site, f"{scheme}-desk")
    await site.n.database.close()
    await site.page.press("button[value=list]")
    assert await site.says("failed_heading")
    await judged(site, f"{scheme}-failed")


async def judged(site: Site, name: str) -> None:
    """No violation, nothing wider than the screen; a picture for who wants to see it."""
    assert await site.page.violations() == [], name
    assert await site.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    if PICTURES:
        await asyncio.to_thread(Path(PICTURES, f"{name}.png").write_bytes, await site.page.picture())
