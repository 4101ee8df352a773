"""Delivery as in a worker, inside the test's process: real database, scripted peers, a clock that a test sets."""

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from mta.connector import Connector
from mta.contents import Contents
from mta.delivery import Delivery, Limits
from mta.dispatch import Room
from mta.intake import Intake, Recipient, Submission
from mta.journal import Journal
from mta.lease import RetryPolicy
from mta.outcomes import Outcomes
from mta.routing import NextHop, Router
from mta.vault import Address, Envelope
from suppression.digest import MessageClass
from tests.support.node import HOSTNAME, Clock, Node, eventually

MESSAGE = b"From: News <news@example.com>\r\nSubject: x\r\n\r\nhello\r\n"
SITE = "127.0.0.1:{}"


class Engine:
    """One worker's delivery. `claim` takes what is due by the clock, once."""

    def __init__(self, node: Node, clock: Clock, routes: Mapping[str, int], *, create_keys: bool = True,
                 room: tuple[int, int] = (1_000, 1_000), tls: ssl.SSLContext | None = None, tls_required: bool = False,
                 **limits: Any) -> None:  # fmt: skip
        self.node, self.clock = node, clock
        parts = node.parts
        self.room = Room(*room, now=clock)
        self.contents = Contents(
            parts.queue, parts.accounts, parts.dkim_keys, parts.renderer(),
            max_bytes=10_000_000, signing_required=True, create_keys=create_keys,
        )  # fmt: skip
        values: dict[str, Any] = {
            "connections_per_site": 2, "messages_per_connection": 100, "idle_seconds": 30.0, "memory_per_site": 100,
            "claim_batch": 50, "poll_seconds": 1.0,
        }  # fmt: skip
        hops = {domain: NextHop("127.0.0.1", port) for domain, port in routes.items()}
        router = Router(None, routes=hops, allow_private=True, now=clock)
        connector = Connector(HOSTNAME, 5.0, tls, tls_required)
        self.delivery = Delivery(
            parts.queue, parts.accounts, self.contents, router, connector, node.gate, parts.scopes, self.room,
            RetryPolicy([60.0, 300.0], 0.0, 1e9, notices=False), Limits(**{**values, **limits}),
            now=clock, chance=lambda: 0.5,
        )  # fmt: skip
        self.journal = Journal(parts.paths.journals, parts.queue.worker_id)
        self.outcomes = Outcomes(parts.recorder(parts.queue), self.journal, on_settled=self.delivery.settled)
        self.delivery.attach(self.outcomes)
        self.intake = Intake(
            parts.queue, parts.ids, lifetime_seconds=3_600.0, batch=100, reserve=self.room.reserve,
            on_stored=self.delivery.stored, on_failed=self.room.give,
            site_of=self.delivery.site_of, now=clock,
        )  # fmt: skip

    async def submit(
        self,
        *recipients: str,
        raw: bytes = MESSAGE,
        list_name: str = "",
        campaign: str = "",
        message_class: MessageClass = MessageClass.CAMPAIGN,
        envelope: Envelope | None = None,
    ) -> int:
        """Commit a message as the submission listener does; delivery begins at once."""
        accounts = self.node.parts.accounts
        tenant = await accounts.add_tenant("acme", exist_ok=True)
        people = [Recipient(Address(recipient), self.node.person(recipient)) for recipient in recipients]
        return await self.intake.submit(
            Submission(
                await accounts.campaign(tenant.id, campaign), await accounts.list_id(tenant.id, list_name),
                message_class, envelope or Envelope("news@example.com"), people, raw,
            )
        )  # fmt: skip

    async def claim(self) -> None:
        """What is due now."""
        await self.delivery.claims.claim_round()

    async def settled(self) -> None:
        """Wait until nothing is held in memory: every recipient is final, or back in the queue."""
        await eventually(self._nothing_held)

    async def _nothing_held(self) -> bool:
        return not self.room.held and not self.outcomes.waiting

    async def states(self) -> list[tuple[int, int]]:
        """State and attempts of what is in the queue (0 queued, 1 leased)."""
        return [(a, b) for a, b in await self.node.rows("SELECT state, attempts FROM recipient ORDER BY 1, 2")]

    async def finals(self) -> dict[int, int]:
        """How many recipients came to each final state."""
        return dict(await self.node.rows("SELECT state, count(*) FROM outcome GROUP BY state"))

    async def due(self) -> Sequence[float]:
        """Seconds until each queued recipient is due, by the clock."""
        rows = await self.node.rows(
            "SELECT extract(epoch FROM due_at)::float8 FROM recipient WHERE state = 0 ORDER BY 1"
        )
        return [round(row[0] - self.clock(), 3) for row in rows]


@asynccontextmanager
async def engine(node: Node, clock: Clock, routes: Mapping[str, int], **changes: Any) -> AsyncIterator[Engine]:
    """An engine for the time of a block."""
    made = Engine(node, clock, routes, **changes)
    try:
        yield made
    finally:
        await made.delivery.drain(0.01)
        made.journal.close()
