"""A headless Chromium, led by its DevTools protocol: opens pages, presses what is on them, looks at them.

Tests skip where CHROMIUM or AXE is missing. Clicks are real ones, in the middle of an element: they work without
JavaScript, and miss what lies under something else.
"""

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.daemon import ROOT

CHROMIUM = shutil.which("chromium")
AXE = ROOT / ".venv/axe/node_modules/axe-core/axe.min.js"
"""Put there by .ci/run: npm install --prefix .venv/axe axe-core"""

_START_SECONDS = 30
_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.requested: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def close(self) -> None:
        """Stop listening."""
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader
        await self._socket.close()

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        number = len(self._waiting) + 1
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(self._waiting[number], _START_SECONDS)
        assert "error" not in answer, f"{method}: {answer}"
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, url: str) -> None:
        """Go there, and wait until it is shown."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), _START_SECONDS)

    async def press(self, selector: str, *, leads_on: bool = True) -> None:
        """Click in the middle of an element; wait for the page it leads to."""
        document = await self.call("DOM.getDocument")
        found = await self.call("DOM.querySelector", nodeId=document["root"]["nodeId"], selector=selector)
        assert found["nodeId"], f"no {selector}"
        await self.call("DOM.scrollIntoViewIfNeeded", nodeId=found["nodeId"])
        corners = (await self.call("DOM.getBoxModel", nodeId=found["nodeId"]))["model"]["content"]
        x, y = sum(corners[0::2]) / 4, sum(corners[1::2]) / 4
        self._loaded.clear()
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        if leads_on:
            await asyncio.wait_for(self._loaded.wait(), _START_SECONDS)

    async def text(self) -> str:
        """The document as HTML."""
        document = await self.call("DOM.getDocument")
        return str((await self.call("DOM.getOuterHTML", nodeId=document["root"]["nodeId"]))["outerHTML"])

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        result = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def violations(self) -> Sequence[str]:
        """What axe-core finds wrong, best practices included."""
        await self.evaluate(AXE.read_text("utf-8"))
        found = json.loads(await self.evaluate("axe.run().then(r => JSON.stringify(r.violations))"))
        return [f"{each['id']}: {node['html']}" for each in found for node in each["nodes"]]

    async def picture(self) -> bytes:
        """A screenshot of the whole page, as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", captureBeyondViewport=True))["data"])

    async def _read(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._waiting[said["id"]].set_result(said)
            elif said["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif said["method"] == "Network.requestWillBeSent":
                self.requested.append(said["params"]["request"]["url"])


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Page]:
    """A browser with one tab, ended with the block."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}", "about:blank",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        port = await asyncio.wait_for(_port(process), _START_SECONDS)
        async with aiohttp.ClientSession() as http:
            page = Page(await http.ws_connect(await _tab(http, port), max_msg_size=0))
            for domain in ("Page", "DOM", "Network", "Runtime"):
                await page.call(f"{domain}.enable")
            yield page
            await page.close()
    finally:
        process.terminate()
        await process.communicate()


async def _port(process: asyncio.subprocess.Process) -> int:
    assert process.stderr is not None
    async for line in process.stderr:
        if b"DevTools listening on" in line:
            return int(line.rpartition(b"127.0.0.1:")[2].partition(b"/")[0])
    raise AssertionError("Chromium did not start")


async def _tab(http: aiohttp.ClientSession, port: int) -> str:
    while True:
        async with http.get(f"http://127.0.0.1:{port}/json/list") as answer:
            tabs = [each for each in await answer.json() if each["type"] == "page"]
        if tabs:
            return str(tabs[0]["webSocketDebuggerUrl"])
