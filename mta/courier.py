"""Sends webhooks: one task for each webhook that this process holds the lease of, and nothing that mail waits for.

A batch is sent, and only when the receiver has said 2xx the cursor moves; then comes the next. So everything arrives at
least once, in order, and a receiver that is down, slow or wrong holds up nobody but itself. Deliveries that fail are
tried again with a growing wait, for ever: what is lost is only what has left the database by then (events.retention).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import aiohttp
import orjson

from config.database import DatabaseUnavailable
from config.log import LOG
from metrics import registry
from mta.event_records import Records
from mta.events import Cursor, Event, Events
from mta.webhooks import Webhook, Webhooks, signed_headers

BATCH: Final = 500
LEASE_SECONDS: Final = 20.0
# a delivery ends well within the lease that it was begun under
TIMEOUT_SECONDS: Final = 10.0
_WAITS_SECONDS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
_POLL_SECONDS: Final = 0.5
_RENEW_SECONDS: Final = 5.0


class Refused(Exception):
    """A delivery that failed; the text is for the operator."""


class Courier:
    """Sends for all webhooks that it can lease, until it is stopped."""

    def __init__(
        self,
        webhooks: Webhooks,
        events: Events,
        records: Records,
        *,
        batch: int = BATCH,
        timeout_seconds: float = TIMEOUT_SECONDS,
        waits_seconds: Sequence[float] = _WAITS_SECONDS,
        poll_seconds: float = _POLL_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._webhooks = webhooks
        self._events = events
        self._records = records
        self._batch = batch
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._waits = waits_seconds
        self._poll = poll_seconds
        self._sleep = sleep
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled; then every lease is given up."""
        async with _session(self._timeout) as session:
            try:
                while True:
                    with suppress(DatabaseUnavailable):
                        for webhook in await self._webhooks.lease(LEASE_SECONDS):
                            self._spawn(self._follow(session, webhook))
                    await self._sleep(self._poll)
            finally:
                for task in list(self._tasks):
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                with suppress(DatabaseUnavailable):
                    await self._webhooks.release()

    async def _follow(self, session: aiohttp.ClientSession, webhook: Webhook) -> None:
        """Send what there is for a webhook, then what comes, as long as the lease is ours and nothing fails."""
        size = self._batch
        # in the cursor, but not worth a write of its own: nothing of it was for this webhook
        ahead, renewed = webhook.cursor, time.monotonic()
        try:
            while True:
                events, behind = await self._events.of_tenant(webhook.tenant_id, ahead, size)
                wanted = [event for event in events if not webhook.types or event.type in webhook.types]
                if wanted:
                    if not await self._deliver(session, webhook, wanted):
                        if len(wanted) == 1:
                            raise Refused("HTTP 413 to a single event")
                        size = len(events) // 2
                        continue
                    size = min(self._batch, size * 2)
                if wanted or time.monotonic() - renewed > _RENEW_SECONDS:
                    if not await self._webhooks.advance(webhook, behind, sent=len(wanted), seconds=LEASE_SECONDS):
                        return
                    renewed = time.monotonic()
                    webhook = replace(webhook, cursor=behind, failures=0 if wanted else webhook.failures)
                ahead = behind
                if not events:
                    await self._sleep(self._poll)
        except Refused as error:
            await self._put_off(webhook, str(error))
        except DatabaseUnavailable:
            await self._sleep(self._poll)  # the lease runs out, if it could not be given up

    async def _deliver(self, session: aiohttp.ClientSession, webhook: Webhook, events: Sequence[Event]) -> bool:
        """Send a batch; False when it was too large to be taken. Raises Refused."""
        records = await self._records.records(events, addresses=webhook.addresses)
        body = orjson.dumps({"webhook": webhook.id, "events": records})
        status = await self.post(session, webhook, f"{webhook.id}-{events[0].uid}-{events[-1].uid}", body)
        if status == 413:
            return False
        if not 200 <= status < 300:
            raise Refused(f"HTTP {status}")
        registry.webhook_events.inc(len(events))
        return True

    async def post(self, session: aiohttp.ClientSession, webhook: Webhook, request_id: str, body: bytes) -> int:
        """Send one signed request and return the status; raises Refused when there is none. Follows no redirect."""
        headers = signed_headers(webhook.secret, request_id, int(time.time()), body)
        headers |= {"Content-Type": "application/json", "User-Agent": "heed"}
        try:
            async with session.post(webhook.url, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except TimeoutError:
            raise Refused("no answer in time") from None
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise Refused(f"no connection: {type(error).__name__}") from None
        except (aiohttp.InvalidURL, UnicodeError) as error:
            raise Refused(f"no request can go to its URL: {type(error).__name__}") from None
        except aiohttp.ClientError as error:
            raise Refused(f"no HTTP answer: {type(error).__name__}") from None

    async def _put_off(self, webhook: Webhook, error: str) -> None:
        wait = self._waits[min(webhook.failures, len(self._waits) - 1)]
        registry.webhook_failures.inc()
        LOG.warning("a webhook failed", webhook=webhook.id, error=error, again_in_seconds=wait)
        with suppress(DatabaseUnavailable):
            await self._webhooks.failed(webhook, error, wait)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # its lease runs out, and the webhook is tried again
            LOG.error("a webhook's task failed", error=type(error).__name__)


def _session(timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
    """For the requests of all webhooks: nothing of one is kept for another, and one that hangs holds up no other at its
    host. Each sends one request at a time, which bounds the connections.
    """
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=0)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout)


async def send_test(courier: Courier, webhook: Webhook) -> int:
    """One signed request without events, for `heed webhook test`; its status. Raises Refused."""
    async with _session(aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session:
        body = orjson.dumps({"webhook": webhook.id, "test": True, "events": []})
        return await courier.post(session, webhook, f"{webhook.id}-test-{time.time_ns()}", body)


__all__ = ["BATCH", "LEASE_SECONDS", "TIMEOUT_SECONDS", "Courier", "Cursor", "Refused", "send_test"]
