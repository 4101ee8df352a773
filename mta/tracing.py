"""What happened to a message or a person's mail, and what still waits: rows for `heed trace` and `heed explain`.

Addresses stay sealed here; masked() and the campaign's key show them. Raises DatabaseUnavailable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from bounce.outcome import Outcome
from config.database import Database, load_queries
from mta.events import TYPES
from mta.identifiers import lane_of, queue_id, received_at
from mta.summary import STATES

_QUERIES: Final = load_queries("mta", "tracing.sql")
_MOST: Final = 1_000
# how much later than its id the first event of a message may say that it happened, and the other way round
_CLOCK_SECONDS: Final = 300.0
# recipients of some sites that are looked at for what those said last
_LOST_LOOKED_AT: Final = 10_000
_SITE_OUTCOMES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Happened:
    """One event of a trace. Texts are empty and numbers None where they say nothing."""

    at: datetime
    type: str
    message_id: int
    ordinal: int | None
    campaign_id: int
    attempts: int
    reply_code: int
    status: str
    bounce_class: str
    site: str
    remote_mta: str
    diagnostic: str
    node: str
    attempt_ms: int | None
    due_at: datetime | None
    recipients: int | None
    sealed_address: bytes | None
    tenant_id: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the address."""
        names = ("at", "type", "ordinal", "attempts", "reply_code", "status", "bounce_class", "site", "remote_mta",
                 "diagnostic", "node", "attempt_ms", "due_at", "recipients")  # fmt: skip
        found = {name: getattr(self, name) for name in names}
        told = {name: value for name, value in found.items() if value not in (None, "", 0) or name == "ordinal"}
        return {"queue_id": queue_id(self.message_id), **told}


@dataclass(frozen=True, slots=True)
class Waits:
    """A recipient that is not final yet."""

    message_id: int
    ordinal: int
    person: int
    state: str
    transactional: bool
    attempts: int
    due_at: datetime
    expires_at: datetime
    received_at: datetime
    site: str
    last_outcome: Outcome | None
    worker_id: int
    node: str
    tenant_id: int
    list_id: int
    campaign_id: int
    sealed_address: bytes

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, without address and digest."""
        return {
            "queue_id": queue_id(self.message_id),
            "ordinal": self.ordinal,
            "state": self.state,
            "attempts": self.attempts,
            "due_at": self.due_at,
            "expires_at": self.expires_at,
            "site": self.site,
            "worker": self.worker_id,
            "last_outcome": self.last_outcome.as_dict() if self.last_outcome else None,
        }


class Tracing:
    """Reads traces."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def of_message(self, message_id: int, ordinal: int = -1) -> tuple[list[Happened], list[Waits]]:
        """What happened to a message, and who of it still waits; ordinal: one recipient's only, or -1."""
        since = received_at(message_id) - _CLOCK_SECONDS
        events = await self._rows(_QUERIES.of_message, message_id, since, ordinal, _MOST)
        waiting = await self._rows(_QUERIES.waiting_of_message, lane_of(message_id), message_id, ordinal, _MOST)
        return [_happened(row) for row in events], [_waits(row) for row in waiting]

    async def of_person(self, person: int) -> tuple[list[Happened], list[Waits]]:
        """What happened to a person's mail, and what of it still waits."""
        events = await self._rows(_QUERIES.of_person, person, _MOST)
        waiting = await self._rows(_QUERIES.waiting_of_person, person, _MOST)
        return [_happened(row) for row in reversed(events)], [_waits(row) for row in waiting]

    async def site_outcomes(self, sites: Sequence[str]) -> dict[str, Outcome]:
        """What sites said last to somebody who still waits for them, as far as it is found without a long search."""
        rows = await self._rows(_QUERIES.site_outcomes, list(sites), _SITE_OUTCOMES)
        return {row[0]: Outcome.from_dict(orjson.loads(row[1])) for row in rows}

    async def lost_outcome(self, campaign_id: int) -> Outcome | None:
        """Why it is not known where some of a campaign's queued mail goes; None where that is known, or not tried."""
        rows = await self._rows(_QUERIES.lost_outcome, campaign_id, _LOST_LOOKED_AT)
        return Outcome.from_dict(orjson.loads(rows[0][0])) if rows else None

    async def _rows(self, query: str, *arguments: Any) -> list[Any]:
        async with self._db.connection() as connection:
            return list(await connection.fetch(query, *arguments))


def masked(address: str) -> str:
    """An address by which its owner would know it, and nobody else: the first character and the domain."""
    local, _, domain = address.rpartition("@")
    return f"{local[:1]}…@{domain}"


def _happened(row: Any) -> Happened:
    return Happened(
        row["at"], TYPES[row["type"]], row["message_id"], row["ordinal"], row["campaign_id"], row["attempts"],
        row["reply_code"], row["status"], row["class"], row["site"] or "", row["remote_mta"], row["diagnostic"],
        row["node"], row["attempt_ms"], row["due_at"], row["recipients"], row["address"],
        row["tenant_id"],
    )  # fmt: skip


def _waits(row: Any) -> Waits:
    outcome = Outcome.from_dict(orjson.loads(row["last_outcome"])) if row["last_outcome"] else None
    return Waits(
        row["message_id"], row["ordinal"], row["person"], STATES[row["state"]], row["class"] == 1, row["attempts"],
        row["due_at"], row["expires_at"], row["received_at"], row["site"] or "", outcome, row["worker_id"] or 0,
        row["node"] or "", row["tenant_id"], row["list_id"], row["campaign_id"], row["address"],
    )  # fmt: skip
