"""Webhooks of tenants: who is told, what of, and how far each has come. The store; mta/courier.py sends.

One process at a time sends for a webhook: it holds a lease, which ends by itself when that process dies. The cursor
moves after the receiver has said 2xx, so that everything arrives at least once. Requests are signed as the Standard
Webhooks specification says: HMAC-SHA256 over id, timestamp and body. Raises DatabaseUnavailable, WebhookError.
"""

import base64
import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from config.database import Database, load_queries
from config.failure import Failed, WrongUse
from config.keyring import Keyring, KeyringError
from config.log import LOG
from mta.domain import normalised_domain
from mta.events import ALL_TYPES, Cursor

_QUERIES: Final = load_queries("mta", "webhooks.sql")
_PURPOSE: Final = "webhook"
_PREFIX: Final = "whsec_"
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class WebhookError(Failed):
    """A request that can't be met; the text says why."""


class MalformedWebhook(WebhookError, WrongUse):
    """A URL that no webhook could have, or a type that no event has."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook as it is stored; secret is that of the signature, opened."""

    id: int
    tenant_id: int
    url: str
    secret: bytes = field(repr=False)
    types: frozenset[str]
    addresses: bool
    cursor: Cursor
    failures: int


class Webhooks:
    """The webhooks of an installation. holder: this process, as a lease names it."""

    def __init__(self, database: Database, keyring: Keyring, holder: str = "") -> None:
        self._db = database
        self._keyring = keyring
        self._holder = holder
        self._sealed: set[int] = set()

    async def add(
        self, tenant_id: int, url: str, cursor: Cursor, *, types: Sequence[str], addresses: bool
    ) -> tuple[int, str]:
        """A new webhook's id and the secret of its signatures, which is shown this once. Raises WebhookError."""
        check(url, types)
        secret = secrets.token_bytes(32)
        sealed = self._keyring.seal(_PURPOSE, secret)
        rows = await self._fetch(_QUERIES.add, tenant_id, url, sealed, list(types), addresses, *cursor)
        return int(rows[0]["id"]), _PREFIX + base64.b64encode(secret).decode()

    async def listed(self, tenant_id: int = 0) -> list[dict[str, Any]]:
        """Webhooks without their secrets."""
        return [dict(row) for row in await self._fetch(_QUERIES.listed, tenant_id)]

    async def one(self, webhook_id: int) -> Webhook:
        """A webhook by its id; raises WebhookError."""
        rows = await self._fetch(_QUERIES.one, webhook_id)
        if not rows:
            raise WebhookError(f"there is no webhook {webhook_id}; `heed webhook list` shows them all")
        return self._webhook(rows[0])

    async def remove(self, webhook_id: int) -> None:
        """Forget a webhook; raises WebhookError."""
        if not await self._fetch(_QUERIES.remove, webhook_id):
            raise WebhookError(f"there is no webhook {webhook_id}; `heed webhook list` shows them all")

    async def rewind(self, webhook_id: int, cursor: Cursor) -> None:
        """Send everything behind a cursor, again too, and nothing less than was due; raises WebhookError."""
        if not await self._fetch(_QUERIES.rewind, webhook_id, *cursor):
            raise WebhookError(f"there is no webhook {webhook_id}; `heed webhook list` shows them all")

    async def lease(self, seconds: float) -> list[Webhook]:
        """Take what is due and nobody's; not what can't be signed here, which is for a node that has the key.

        Measures on the way how long the one that is worst off has been failing.
        """
        from metrics import registry  # commands, which lease nothing, don't wait for it

        registry.webhook_failing.set((await self._fetch(_QUERIES.failing))[0][0])
        taken = []
        for row in await self._fetch(_QUERIES.lease, self._holder, seconds, list(self._sealed)):
            try:
                taken.append(self._webhook(row))
            except KeyringError as error:
                LOG.error("a webhook's secret can't be opened by this node", webhook=row["id"], reason=str(error))
                self._sealed.add(row["id"])
                await self._fetch(_QUERIES.leave, self._holder, row["id"])
        return taken

    async def advance(self, webhook: Webhook, cursor: Cursor, *, sent: int, seconds: float) -> bool:
        """Move the cursor from where it was; False when the webhook is another's by now, or was sent back."""
        rows = await self._fetch(_QUERIES.advance, webhook.id, self._holder, *cursor, seconds, sent, *webhook.cursor)
        return bool(rows)

    async def failed(self, webhook: Webhook, error: str, wait_seconds: float) -> None:
        """Try again later."""
        await self._fetch(_QUERIES.failed, webhook.id, self._holder, error[:200], wait_seconds)

    async def release(self) -> None:
        """Let go of all."""
        await self._fetch(_QUERIES.release, self._holder)

    def _webhook(self, row: Any) -> Webhook:
        return Webhook(
            row["id"],
            row["tenant_id"],
            row["url"],
            self._keyring.open(_PURPOSE, row["secret"]),
            frozenset(row["types"]),
            row["addresses"],
            Cursor(row["position"], row["event_id"], row["log_position"]),
            row["failures"],
        )

    async def _fetch(self, query: str, *arguments: Any) -> list[Any]:
        async with self._db.connection() as connection:
            return list(await connection.fetch(query, *arguments))


def signed_headers(secret: bytes, request_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The header fields by which a receiver knows that a request is ours, whole and new (Standard Webhooks)."""
    signed = b"%s.%d.%s" % (request_id.encode(), timestamp, body)
    signature = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    return {"webhook-id": request_id, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{signature}"}


def check(url: str, types: Sequence[str]) -> None:
    """Raises WebhookError for what can't be a webhook's: a URL that no request can go to, or an unknown type."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # half of an IPv6 address, a port that is none
        parts, host, port = urlsplit(""), "", None
    written = url.isprintable() and " " not in url and "@" not in parts.netloc
    if parts.scheme not in ("https", "http") or not written or port == 0 or not _is_host(host):
        raise MalformedWebhook("a webhook's URL is like https://app.example.com/mail-events, without a password in it")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise MalformedWebhook("recipients' addresses are in webhooks: use https, except on the loopback interface")
    unknown = sorted(set(types) - set(ALL_TYPES))
    if unknown:
        raise MalformedWebhook(f"unknown event type {', '.join(unknown)}; known are {', '.join(ALL_TYPES)}")


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        labels = (normalised_domain(text) or "-").split(".")
        return not labels[-1].isdigit() and not any(label.startswith("-") or label.endswith("-") for label in labels)
    return True
