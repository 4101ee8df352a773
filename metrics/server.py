"""Serves /metrics (sum over all workers), /healthz (the process runs) and /readyz (mail is taken and sent).

The probes answer 200 or 503 with one JSON object; what is not ready is named in it.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

Readiness = Callable[[], Awaitable[dict[str, Any]]]


def application(directory: str, readiness: Readiness) -> web.Application:
    """The web application; readiness returns a mapping whose `ready` is a bool."""

    async def metrics(_request: web.Request) -> web.Response:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_request: web.Request) -> web.Response:
        return _json({"healthy": True}, 200)

    async def readyz(_request: web.Request) -> web.Response:
        state = await readiness()
        return _json(state, 200 if state["ready"] else 503)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app


def _json(value: dict[str, Any], status: int) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")
