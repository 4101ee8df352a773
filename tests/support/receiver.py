"""A webhook receiver that misbehaves to order, and checks signatures as any application would.

mode: "ok", "500" (takes nothing), "hang" (never answers), "slow" (answers after the body of a byte a moment), "refuse"
(413 above max_bytes) or "lie" (500 after having taken the batch). Everything taken is in `taken`, in order.
"""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from aiohttp import web


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> Any:
    """What an application does with a request: ten lines, without a library."""
    message_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if abs(now - int(timestamp)) > 300:
        raise ValueError("too old")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    if not any(hmac.compare_digest(part, f"v1,{expected}") for part in headers["webhook-signature"].split(" ")):
        raise ValueError("not signed by Heed")
    return json.loads(body)


class Receiver:
    """Listens on a port of its own."""

    def __init__(self, mode: str = "ok", max_bytes: int = 1 << 30) -> None:
        self.mode = mode
        self.max_bytes = max_bytes
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.taken: list[dict[str, Any]] = []
        self.url = ""
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.down()

    async def up(self) -> None:
        """Listen, on the same port as before."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}/"

    async def down(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def set(self, mode: str) -> None:
        """Behave otherwise from now on; who hangs is let go."""
        self.mode = mode
        async with self._changed:
            self._changed.notify_all()

    async def asked(self, requests: int, patience_seconds: float = 30) -> None:
        """Wait until so many requests came in all."""
        async with asyncio.timeout(patience_seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= requests)

    async def until(self, events: int, patience_seconds: float = 30) -> list[dict[str, Any]]:
        """Wait until so many different events were taken; returns each once, in the order of its first coming."""
        async with asyncio.timeout(patience_seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.unique()) >= events)
        return self.unique()

    def unique(self) -> list[dict[str, Any]]:
        """What was taken, without repetitions."""
        return list({event["id"]: event for event in reversed(self.taken)}.values())[::-1]

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append(({name.lower(): value for name, value in request.headers.items()}, body))
        mode = self.mode
        async with self._changed:
            self._changed.notify_all()
            if mode == "hang":
                await self._changed.wait_for(lambda: self.mode != "hang")
                return web.Response(status=503)
        if mode == "slow":
            return await self._drip(request)
        if mode == "500":
            return web.Response(status=500)
        if mode == "refuse" and len(body) > self.max_bytes:
            return web.Response(status=413)
        self.taken += json.loads(body)["events"]
        async with self._changed:
            self._changed.notify_all()
        return web.Response(status=500 if mode == "lie" else 204)

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        """Headers never come: the answer is not there before the sender's patience ends."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.mode != "slow")
        return web.Response(status=503)
