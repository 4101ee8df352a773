"""The stream of events: what became of every message and recipient, read in an order that loses nothing.

Two sources make one stream: table `event` (written by the statements of mta/queue.sql, in the transaction of what
they are about) and the unsubscribes and complaints of the suppression log. A cursor names a place in both. An event's
position is the number of its transaction, and readers stop below the oldest transaction that is still open, so that
what commits late is never behind a cursor. The events of one recipient keep their order. Raises DatabaseUnavailable.
"""

import heapq
import itertools
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from config.database import Database, load_queries
from mta.queue import Connection

_QUERIES: Final = load_queries("mta", "events.sql")
# entries of the suppression log looked through in one read
_LOG_WINDOW: Final = 10_000
# transactions looked through in one read of all tenants' events
_WINDOW: Final = 5_000
# behind every event of a position
_LAST_ID: Final = 2**63 - 1
_BEFORE_ALL: Final = -1

TYPES: Final = {
    1: "Delivery",
    2: "Bounce",
    3: "Expiration",
    4: "Suppressed",
    5: "Cancelled",
    6: "Reception",
    7: "TransientFailure",
    8: "OOB",
    9: "Rejection",
}
"""Names of what table `event` holds; Unsubscribe and Feedback come out of the suppression log."""
WITHDRAWALS: Final = {1: "Unsubscribe", 2: "Feedback"}
ALL_TYPES: Final = (*TYPES.values(), *WITHDRAWALS.values())
OOB: Final = 8
REJECTION: Final = 9


class Cursor(NamedTuple):
    """A place in the stream: the last event taken, and the last entry of the suppression log."""

    position: int = 0
    event_id: int = 0
    log_position: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """One event, of either source. Ids are 0 and texts empty where they say nothing; times as the database has them."""

    uid: str
    type: str
    at: datetime
    tenant_id: int
    list_id: int
    campaign_id: int
    message_id: int
    person: int | None
    ordinal: int | None = None
    sealed_address: bytes | None = None
    message_class: int = 0
    received_at: datetime | None = None
    due_at: datetime | None = None
    recipients: int | None = None
    bytes: int | None = None
    attempt_ms: int | None = None
    attempts: int = 0
    reply_code: int = 0
    site: str = ""
    status: str = ""
    bounce_class: str = ""
    remote_mta: str = ""
    diagnostic: str = ""
    node: str = ""
    channel: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """An event that belongs to no other statement: a bounce that came later, a refused submission. Epoch seconds."""

    type: int
    at: float
    received_at: float
    message_id: int
    person: int | None
    tenant_id: int
    list_id: int
    campaign_id: int
    message_class: int = 0
    reply_code: int = 0
    site: str = ""
    status: str = ""
    bounce_class: str = ""
    remote_mta: str = ""
    diagnostic: str = ""
    recipients: int | None = None


class Events:
    """Reads and keeps the stream."""

    def __init__(self, database: Database, node: str = "") -> None:
        self._db = database
        self._node = node
        self._marks: deque[tuple[int, int]] = deque(maxlen=10_000)
        self._log_upto = 0

    async def of_tenant(self, tenant_id: int, cursor: Cursor, limit: int) -> tuple[list[Event], Cursor]:
        """The next events of a tenant in their order, `limit` at the most, and the cursor behind them."""
        async with self._db.connection() as connection:
            horizon, log_upto = await self._horizon(connection)
            rows = await connection.fetch(
                _QUERIES.of_tenant, tenant_id, cursor.position, cursor.event_id, limit, horizon
            )
            return await _with_withdrawals(connection, tenant_id, rows, cursor, log_upto, limit)

    async def of_all(self, cursor: Cursor, limit: int) -> tuple[list[Event], Cursor]:
        """The next events of all tenants, likewise; fewer than there are, where transactions were many."""
        async with self._db.connection() as connection:
            horizon, log_upto = await self._horizon(connection)
            rows = await self._window(connection, cursor, cursor.position, limit, horizon)
            if not rows:
                first = await connection.fetchval(_QUERIES.next_position, cursor.position, horizon)
                rows = [] if first is None else await self._window(connection, cursor, first, limit, horizon)
            return await _with_withdrawals(connection, 0, rows, cursor, log_upto, limit)

    async def _window(self, connection: Connection, cursor: Cursor, begin: int, limit: int, horizon: int) -> list[Any]:
        return await connection.fetch(
            _QUERIES.of_all, begin, cursor.position, cursor.event_id, limit, begin + _WINDOW, horizon
        )

    async def _horizon(self, connection: Connection) -> tuple[int, int]:
        """Where to stop in the events and in the log.

        An entry of the log may be shown when all that was committed before it can be: when every transaction that was
        open at a time at which the entry was there already has ended.
        """
        (row,) = await connection.fetch(_QUERIES.horizon)
        self._marks.append((row["newest"], row["log_position"]))
        log_upto = 0
        while self._marks and self._marks[0][0] <= row["position"]:
            log_upto = self._marks.popleft()[1]
        self._log_upto = max(self._log_upto, log_upto)
        return row["position"], self._log_upto

    async def now(self) -> Cursor:
        """The end of the stream."""
        async with self._db.connection() as connection:
            (row,) = await connection.fetch(_QUERIES.horizon)
        return Cursor(row["position"] - 1, _LAST_ID, row["log_position"])

    async def since(self, at: datetime) -> Cursor:
        """A cursor behind which is everything that happened from a time on (and perhaps a little more)."""
        async with self._db.connection() as connection:
            (row,) = await connection.fetch(_QUERIES.position_at, at, timeout=300)
        return Cursor(row["position"], _LAST_ID, row["log_position"])

    async def span(
        self, since: datetime, until: datetime, *, tenant_id: int, campaign_id: int, limit: int
    ) -> AsyncIterator[list[Event]]:
        """What happened in a span of time, in order of time, in pages; tenant 0 or campaign 0: of all."""
        only = (tenant_id, campaign_id, limit)
        after, log_position = (since, _BEFORE_ALL), (await self.since(since)).log_position
        while True:
            async with self._db.connection() as connection:
                rows = await connection.fetch(_QUERIES.of_span, since, until, *after, *only, timeout=300)
                entries = await connection.fetch(_QUERIES.withdrawals_of_span, log_position, until, *only, timeout=300)
            # what follows a page that is full may come before the rest of the other one
            upto = min((page[-1]["at"] for page in (rows, entries) if len(page) == limit), default=until)
            rows = [row for row in rows if row["at"] <= upto]
            entries = [entry for entry in entries if entry["at"] <= upto]
            if not rows and not entries:
                return
            yield list(heapq.merge(map(_event, rows), map(_withdrawal, entries), key=lambda event: event.at))
            after = (rows[-1]["at"], rows[-1]["id"]) if rows else after
            log_position = entries[-1]["position"] if entries else log_position

    async def addresses(self, tenant_id: int, events: Sequence[Event]) -> dict[tuple[int, int], tuple[int, int, bytes]]:
        """Campaign, ordinal and sealed address by message and person, for events that do not hold them."""
        persons = [event.person for event in events]
        async with self._db.connection() as connection:
            rows = await connection.fetch(
                _QUERIES.addresses, persons, [event.message_id for event in events], tenant_id
            )
        return {
            (row["message_id"], row["person"]): (row["campaign_id"], row["ordinal"], row["address"]) for row in rows
        }

    async def note(self, notes: Sequence[Note]) -> None:
        """Commit events that belong to no other statement."""
        columns: list[list[Any]] = [
            [n.type for n in notes],
            [n.at for n in notes],
            [n.received_at for n in notes],
            [n.message_id for n in notes],
            [n.person for n in notes],
            [n.tenant_id for n in notes],
            [n.list_id for n in notes],
            [n.campaign_id for n in notes],
            [n.message_class for n in notes],
            [n.reply_code for n in notes],
            [n.site for n in notes],
            [n.status for n in notes],
            [n.bounce_class for n in notes],
            [n.remote_mta for n in notes],
            [n.diagnostic for n in notes],
            [n.recipients for n in notes],
        ]
        if notes:
            async with self._db.connection() as connection:
                await connection.execute(_QUERIES.note, *columns, self._node)

    async def cursor(self, name: str) -> Cursor:
        """How far a follower of all events has come; a new one begins at the end of the stream."""
        begin = await self.now()
        async with self._db.connection() as connection:
            await connection.execute(_QUERIES.new_cursor, name, *begin)
            (row,) = await connection.fetch(_QUERIES.cursor, name)
        return Cursor(*row)

    async def move(self, name: str, cursor: Cursor) -> None:
        """Note how far a follower has come."""
        async with self._db.connection() as connection:
            await connection.execute(_QUERIES.move, name, *cursor)

    async def keep(self, retention_days: int) -> list[str]:
        """Partitions of the days to come; returns the names of those that were dropped for their age.

        That a delivery cleared what was counted against a person outlives it. Raises asyncpg's LockNotAvailableError
        where another session has a partition for itself.
        """
        # a transaction of its own, or its locks would be in the way of the other
        async with self._db.transaction() as connection:
            await connection.execute(_QUERIES.wait_little)
            await connection.execute(_QUERIES.clear_counts, retention_days, timeout=60)
        async with self._db.transaction() as connection:
            return list(await connection.fetchval(_QUERIES.keep, retention_days, timeout=60))

    async def check_era(self) -> bool:
        """Go on above all positions in a server that a dump was restored into; whether that was needed.

        What was given ids since a backup isn't in it, and whether this is one can't always be told: ids jump each time.
        """
        async with self._db.connection() as connection:
            restored = not await connection.fetchval(_QUERIES.era)
            if restored:
                await connection.execute(_QUERIES.new_era, timeout=600)
            await connection.execute(_QUERIES.new_ids)
        return restored


async def _with_withdrawals(
    connection: Connection, tenant_id: int, rows: Sequence[Any], cursor: Cursor, log_upto: int, limit: int
) -> tuple[list[Event], Cursor]:
    """Put what the log says among the events: of both together the first, as many as a page may have."""
    upto = min(log_upto, cursor.log_position + _LOG_WINDOW)
    entries: Sequence[Any] = []
    if upto > cursor.log_position:
        entries = await connection.fetch(_QUERIES.withdrawals, cursor.log_position, upto, tenant_id, limit)
    # a beginning of each, whatever their clocks say: that is what a cursor can name
    both = heapq.merge(map(_event, rows), map(_withdrawal, entries), key=lambda event: event.at)
    taken = list(itertools.islice(both, limit))
    events = [event for event in taken if event.type not in WITHDRAWALS.values()]
    withdrawals = [event for event in taken if event.type in WITHDRAWALS.values()]
    if events:
        last = rows[len(events) - 1]
        cursor = cursor._replace(position=last["position"], event_id=last["id"])
    if len(withdrawals) < len(entries) or len(entries) == limit:
        upto = entries[len(withdrawals) - 1]["position"] if withdrawals else cursor.log_position
    return _merged(events, withdrawals), cursor._replace(log_position=max(upto, cursor.log_position))


def _event(row: Any) -> Event:
    return Event(
        f"e{row['id']}", TYPES[row["type"]], row["at"], row["tenant_id"], row["list_id"], row["campaign_id"],
        row["message_id"], row["person"], row["ordinal"], row["address"], row["message_class"], row["received_at"],
        row["due_at"], row["recipients"], row["bytes"], row["attempt_ms"], row["attempts"], row["reply_code"],
        row["site"] or "", row["status"], row["class"], row["remote_mta"], row["diagnostic"], row["node"],
    )  # fmt: skip


def _withdrawal(row: Any) -> Event:
    # positions of the log are given again after a restore, but not with the same hash
    return Event(
        f"s{row['position']}-{row['hash'][:8].hex()}", WITHDRAWALS[row["kind"]], row["at"], row["tenant_id"],
        row["list_id"], row["campaign_id"], row["message_id"], row["person"], channel=row["channel"],
        reason=row["reason"],
    )  # fmt: skip


def _merged(events: list[Event], withdrawals: list[Event]) -> list[Event]:
    """By time, and never against a recipient's own order, which clocks of several nodes may disagree with."""
    latest: dict[tuple[int, int | None], datetime] = {}
    keyed: list[tuple[datetime, Event]] = []
    for event in events:
        key = (event.message_id, event.ordinal)
        at = latest[key] = max(event.at, latest.get(key, event.at))
        keyed.append((at, event))
    keyed += [(event.at, event) for event in withdrawals]
    keyed.sort(key=lambda pair: pair[0])
    return [event for _, event in keyed]
