"""A queue that is full already: rows with real ciphertext, put into a daemon's database past its front door.

One message for a thousand recipients, all of one campaign, sealed with its key as submission would have done. What is
due can be claimed, opened, rendered and delivered like any other mail.
"""

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

from config.database import Database
from config.keyring import Keyring
from config.postgres import EmbeddedPostgres
from mta.accounts import Accounts, Campaign
from mta.identifiers import LANES, MessageIds, lane_of
from mta.vault import Address, Envelope
from suppression.digest import Digest, MessageClass
from tests.bench.bench_render import sample

# of the message ids made here; no worker has that number
_WORKER: Final = 1_023
_RECIPIENTS: Final = 1_000
_LIFETIME: Final = timedelta(days=5)
_TENANT: Final = "sandbox"
_MESSAGE_COLUMNS: Final = (
    "lane", "id", "tenant_id", "list_id", "campaign_id", "class", "received_at", "expires_at", "envelope", "content",
)  # fmt: skip
_RECIPIENT_COLUMNS: Final = (
    "lane", "message_id", "ordinal", "state", "class", "due_at", "expires_at", "person", "address", "site",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Backlog:
    """What to queue. due_within: from now on, evenly spread; later than that: due_from. site: where all of it goes,
    as is known of a domain that had mail before; sites: of how many names it takes turns with instead."""

    recipients: int
    campaign: str = "backlog"
    domain: str = "example.net"
    due_from: timedelta = timedelta()
    due_within: timedelta = timedelta()
    site: str = ""
    sites: int = 0
    size: int = 10_000


class Store:
    """A running daemon's database, seen from beside it."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self.database = database
        self.accounts = Accounts(database, keyring)
        self._digest = Digest(keyring.digest_key)
        self._ids = MessageIds(_WORKER)

    @classmethod
    @asynccontextmanager
    async def of(cls, data_dir: Path) -> AsyncIterator[Self]:
        """Of the daemon with this data directory and its embedded PostgreSQL."""
        server = EmbeddedPostgres(data_dir)
        await server.start()  # it runs: adopted
        try:
            database = await Database.open(server.url, size=3, application_name="bench", command_timeout_seconds=600)
            try:
                yield cls(database, Keyring.load(data_dir / "keys" / "master.key"))
            finally:
                await database.close()
        finally:
            await server.stop()

    async def fill(self, backlog: Backlog) -> None:
        """Queue all of it in one transaction, so that nobody claims before everything is there."""
        tenant = await self.accounts.add_tenant(_TENANT, exist_ok=True)
        campaign = await self.accounts.campaign(tenant.id, backlog.campaign)
        counts = [_RECIPIENTS] * (backlog.recipients // _RECIPIENTS)
        if rest := backlog.recipients % _RECIPIENTS:
            counts.append(rest)
        now = datetime.now(UTC)
        ids = [self._ids.next(number % LANES) for number in range(len(counts))]
        async with self.database.transaction() as connection:
            await connection.copy_records_to_table(
                "message", columns=_MESSAGE_COLUMNS, records=_messages(campaign, ids, backlog, now), timeout=600
            )
            await connection.copy_records_to_table(
                "recipient", columns=_RECIPIENT_COLUMNS, records=self._recipients(campaign, ids, counts, backlog, now),
                timeout=600,
            )  # fmt: skip
        await self.execute("ANALYZE recipient")

    async def clear(self, campaign: str) -> None:
        """Take what is left of a campaign out of the queue, and what that leaves out of the tables."""
        await self.execute(
            "DELETE FROM recipient r USING message m, campaign c WHERE m.lane = r.lane AND m.id = r.message_id"
            " AND c.id = m.campaign_id AND c.name = $1",
            campaign,
        )
        await self.execute("VACUUM recipient")

    async def queued(self) -> int:
        """Recipients that are not final."""
        return int(await self.value("SELECT count(*) FROM recipient"))

    async def value(self, query: str, *arguments: object) -> Any:
        """The first value of a query's answer."""
        async with self.database.connection() as connection:
            return await connection.fetchval(query, *arguments)

    async def rows(self, query: str, *arguments: object) -> Sequence[Any]:
        """The rows of a query's answer."""
        async with self.database.connection() as connection:
            return list(await connection.fetch(query, *arguments))

    async def execute(self, statement: str, *arguments: object) -> None:
        """Run a statement."""
        async with self.database.connection() as connection:
            await connection.execute(statement, *arguments)

    @asynccontextmanager
    async def held_transaction(self) -> AsyncIterator[None]:
        """A transaction that stays open for the time of a block, with a snapshot that keeps every dead row."""
        async with self.database.transaction() as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await connection.fetchval("SELECT count(*) FROM worker")
            yield

    def _recipients(
        self, campaign: Campaign, ids: Sequence[int], counts: Sequence[int], backlog: Backlog, now: datetime
    ) -> Iterator[tuple[Any, ...]]:
        step = backlog.due_within / max(1, backlog.recipients)
        number = 0
        for message_id, count in zip(ids, counts, strict=True):
            for ordinal in range(count):
                address = Address(f"reader-{number}@{backlog.domain}")
                due_at = now + backlog.due_from + step * number
                yield (
                    lane_of(message_id), message_id, ordinal, 0, int(MessageClass.CAMPAIGN), due_at, due_at + _LIFETIME,
                    self._digest.person(address.address), campaign.key.seal_address(message_id, ordinal, address),
                    f"mx{number % backlog.sites}.example.org" if backlog.sites else backlog.site or None,
                )  # fmt: skip
                number += 1


def _messages(campaign: Campaign, ids: Sequence[int], backlog: Backlog, now: datetime) -> Iterator[tuple[Any, ...]]:
    raw, envelope = sample(backlog.size), Envelope("news@example.com", eight_bit=True)
    for message_id in ids:
        yield (
            lane_of(message_id), message_id, campaign.tenant_id, 0, campaign.id, int(MessageClass.CAMPAIGN), now,
            now + backlog.due_from + backlog.due_within + _LIFETIME, campaign.key.seal_envelope(message_id, envelope),
            campaign.key.seal_content(message_id, raw),
        )  # fmt: skip


def seconds_of(started: float) -> str:
    """How long something took, for a line of progress."""
    return f"{time.perf_counter() - started:.1f} s"
