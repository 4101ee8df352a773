"""Counts of events by campaign, hour, provider and class, which reports and usage are made of, and which outlive them.

Each event is counted once: the counts and the cursor behind them are one transaction, and whoever counts holds the
cursor's row. Providers are a bounded set, so that the counts of a campaign are bounded too. Raises DatabaseUnavailable.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

from config.database import Database, load_queries
from mta.events import TYPES, WITHDRAWALS, Cursor, Events

_QUERIES: Final = load_queries("mta", "tally.sql")
NAME: Final = "tally"
# transactions counted in one transaction of ours
_WINDOW: Final = 2_000
_LOG_WINDOW: Final = 10_000

OTHER: Final = "other"
_PROVIDERS: Final = {
    "google.com": "Google",
    "googlemail.com": "Google",
    "outlook.com": "Microsoft",
    "hotmail.com": "Microsoft",
    "yahoodns.net": "Yahoo",
    "icloud.com": "Apple",
    "apple.com": "Apple",
    "gmx.net": "GMX and Web.de",
    "web.de": "GMX and Web.de",
    "t-online.de": "T-Online",
    "comcast.net": "Comcast",
    "yandex.net": "Yandex",
    "yandex.ru": "Yandex",
    "mail.ru": "Mail.ru",
    "orange.fr": "Orange",
    "free.fr": "Free",
    "laposte.net": "La Poste",
    "libero.it": "Libero",
    "zoho.com": "Zoho",
    "protonmail.ch": "Proton",
    "pphosted.com": "Proofpoint",
    "mimecast.com": "Mimecast",
    "qq.com": "Tencent",
    "163.com": "NetEase",
    "netease.com": "NetEase",
}


def provider_of(site: str) -> str:
    """The mailbox provider behind a site key, or `other`."""
    host = site.partition(",")[0].partition(":")[0]
    labels = host.lower().rstrip(".").split(".")
    return _PROVIDERS.get(".".join(labels[-2:]), OTHER)


class Cell(NamedTuple):
    """What is counted apart. channel is that of an Unsubscribe or Feedback."""

    tenant_id: int
    campaign_id: int
    hour: datetime
    type: str
    provider: str = ""
    bounce_class: str = ""
    channel: str = ""


class Tallies:
    """Keeps the counts and reads them."""

    def __init__(self, database: Database, events: Events) -> None:
        self._db = database
        self._events = events

    async def catch_up(self) -> bool:
        """Count what has happened up to now; False when another process is at it."""
        upto = await self._events.now()
        while True:
            async with self._db.transaction() as connection:
                row = await connection.fetchrow(_QUERIES.cursor, NAME)
                if row is None:
                    return False
                cursor = Cursor(*row)
                behind = await self._count(connection, cursor, upto)
                if behind == cursor:
                    return True
                await connection.execute(_QUERIES.move, NAME, *behind)

    async def campaign(self, tenant_id: int, campaign_id: int) -> list[dict[str, Any]]:
        """All counts of a campaign."""
        return await self._rows(_QUERIES.campaign, campaign_id, tenant_id)

    async def campaign_id(self, tenant_id: int, name: str) -> int | None:
        """The id of a campaign by its name."""
        rows = await self._rows(_QUERIES.find_campaign, tenant_id, name)
        return int(rows[0]["id"]) if rows else None

    async def usage(self, tenant_id: int, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """What tenants have used, by month; tenant 0: all."""
        return await self._rows(_QUERIES.usage, tenant_id, since, until)

    async def _count(self, connection: Any, cursor: Cursor, upto: Cursor) -> Cursor:
        """Count one window; the cursor behind it, which is the one given when nothing is left."""
        last = min(upto.position, cursor.position + _WINDOW)
        rows = await connection.fetch(_QUERIES.counts, cursor.position, last, timeout=60)
        if not rows and last < upto.position:  # a long stretch of other people's transactions
            first = await connection.fetchval(_QUERIES.next_position, last, upto.position, timeout=60)
            last = upto.position if first is None else first - 1
        log_last = min(upto.log_position, cursor.log_position + _LOG_WINDOW)
        entries = await connection.fetch(_QUERIES.withdrawals, cursor.log_position, log_last, timeout=60)
        await _add(connection, rows, entries)
        return Cursor(max(last, cursor.position), cursor.event_id, max(log_last, cursor.log_position))

    async def _rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        async with self._db.connection() as connection:
            return [dict(row) for row in await connection.fetch(query, *arguments, timeout=60)]


async def _add(connection: Any, rows: Iterable[Any], entries: Iterable[Any]) -> None:
    recipients: Counter[Cell] = Counter()
    messages: Counter[Cell] = Counter()
    size: Counter[Cell] = Counter()
    for row in rows:
        provider = provider_of(row["site"]) if row["site"] else ""
        cell = Cell(row["tenant_id"], row["campaign_id"], row["hour"], TYPES[row["type"]], provider, row["class"])
        recipients[cell] += row["recipients"]
        messages[cell] += row["messages"]
        size[cell] += row["bytes"]
    for row in entries:
        kind = WITHDRAWALS[row["kind"]]
        cell = Cell(row["tenant_id"], row["campaign_id"], row["hour"], kind, channel=row["channel"])
        recipients[cell] += row["recipients"]
        messages[cell] += row["recipients"]
    if recipients:
        cells = sorted(recipients)
        columns = [list(column) for column in zip(*cells, strict=True)]
        counts = [[counter[cell] for cell in cells] for counter in (recipients, messages, size)]
        await connection.execute(_QUERIES.add, *columns, *counts)
