"""Serves /metrics (sum over all workers), /healthz (the process runs), /readyz (mail is taken and sent), and what the
node says of itself: /state for commands, /status for people.

The probes answer 200 or 503 with one JSON object; what is not ready is named in it.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from metrics.status_page import CONTENT_SECURITY_POLICY

Status = Callable[[], Awaitable[str]]
Readiness = Callable[[], Awaitable[dict[str, Any]]]


def application(directory: str, readiness: Readiness, state: Readiness, status: Status) -> web.Application:
    """The web application; readiness returns a mapping whose `ready` is a bool, state any mapping, status a page."""

    async def metrics(_request: web.Request) -> web.Response:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_request: web.Request) -> web.Response:
        return _json({"healthy": True}, 200)

    async def readyz(_request: web.Request) -> web.Response:
        state = await readiness()
        return _json(state, 200 if state["ready"] else 503)

    async def show_state(_request: web.Request) -> web.Response:
        return _json(await state(), 200)

    async def show_status(_request: web.Request) -> web.Response:
        headers = {
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        return web.Response(text=await status(), content_type="text/html", headers=headers)

    app = web.Application()
    app.router.add_get("/state", show_state)
    app.router.add_get("/status", show_status)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app


def _json(value: dict[str, Any], status: int) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")
