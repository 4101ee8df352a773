"""The queue in PostgreSQL: the only module that knows its tables, and what each state means.

    state     on disk                                  after a crash
    queued    recipient row, state 0, due_at           claimed by any worker when due_at has come
    leased    recipient row, state 1, worker_id        the worker's journal is replayed, then back to queued
    held      recipient row, state 2                   stays held until its orders end (steward.py); expires like others
    final     event row, no recipient row              stays

A row that is leased is changed by its worker alone: every statement names the worker, and what matches no row any more
is reported as lost, never applied. All statements are single, or one short transaction. Raises DatabaseUnavailable.
"""

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Protocol

import orjson

from bounce.outcome import Outcome
from config.database import Database, load_queries
from mta.identifiers import lane_of, received_at
from suppression.digest import MessageClass
from suppression.prove import Attempt

_QUERIES: Final = load_queries("mta", "queue.sql")
# recipient.state, as stored
_QUEUED, _LEASED, _HELD = 0, 1, 2
# a message this young may be on its way in: its recipients are in the same transaction, but clocks differ
_SWEEP_AGE_SECONDS: Final = 300.0
# how much later than its id a message may say that it was received
_CLOCK_SECONDS: Final = 300.0


class Connection(Protocol):
    """What is used of a database connection, so that hooks can be given one."""

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """Rows of a query."""
        ...

    async def execute(self, query: str, *args: Any) -> str:
        """Status of a statement."""
        ...


class FinalState(IntEnum):
    """Final states, as stored in event.type."""

    DELIVERED = 1
    BOUNCED = 2
    EXPIRED = 3
    SUPPRESSED = 4
    CANCELLED = 5


@dataclass(frozen=True, slots=True)
class NewRecipient:
    """A recipient to be stored; worker_id 0: queued, else born leased."""

    ordinal: int
    person: int
    sealed_address: bytes
    worker_id: int
    why: str = ""  # it is withheld, where that is not by a suppression
    site: str = ""  # where it will go, if that is known already


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be stored. Times in epoch seconds; the lane is that of its id."""

    id: int
    tenant_id: int
    list_id: int
    campaign_id: int
    message_class: MessageClass
    received_at: float
    expires_at: float
    sealed_envelope: bytes
    sealed_content: bytes
    recipients: Sequence[NewRecipient]
    submitted_bytes: int = -1  # of the content as submitted; -1: no tenant's mail but a notice of ours
    due_at: float = 0.0  # of recipients that are not born leased; 0: at once
    held: bool = False  # they are set aside, because an operator's order says so
    withheld: Sequence[NewRecipient] = ()  # suppressed before the message was taken: events, and nothing else


@dataclass(frozen=True, slots=True)
class ClaimedRow:
    """A row of the queue that this worker has leased just now."""

    message_id: int
    ordinal: int
    message_class: MessageClass
    attempts: int
    delay_reported: bool
    expires_at: float
    received_at: float
    person: int
    sealed_address: bytes
    tenant_id: int
    list_id: int
    campaign_id: int
    last_outcome: Outcome | None
    site: str  # where it goes, as far as is known
    due_at: float  # as stored while it is leased, which tells this lease from others of the same recipient


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """Content and envelope of a message, still sealed."""

    tenant_id: int
    list_id: int
    campaign_id: int
    message_class: MessageClass
    received_at: float
    expires_at: float
    sealed_envelope: bytes
    sealed_content: bytes


@dataclass(frozen=True, slots=True)
class Completion:
    """What an attempt came to: a final state, or None with the time of the next attempt. Goes through the journal.

    outcome is None only for a recipient that was given back without an attempt, or whose first attempt never came.
    """

    message_id: int
    ordinal: int
    state: FinalState | None
    attempts: int
    at: float
    outcome: Outcome | None = None
    site: str = ""
    due_at: float = 0.0
    delay_reported: bool = False
    notice: str = ""  # action of the DSN that the envelope sender is owed; "" for none
    tenant_id: int = 0
    list_id: int = 0
    campaign_id: int = 0
    person: int = 0
    received_at: float = 0.0
    tried: bool = False  # whether a peer, or the lack of one, has answered
    attempt_seconds: float = 0.0
    held: bool = False  # of no final state: set aside instead of queued, because an operator's order says so
    was_due_at: float = 0.0  # which lease this is about: ClaimedRow.due_at

    @property
    def key(self) -> tuple[int, int]:
        """Message id and ordinal."""
        return self.message_id, self.ordinal

    def to_json(self) -> bytes:
        """One line for the journal, without its end."""
        state = None if self.state is None else int(self.state)
        return orjson.dumps(
            (self.message_id, self.ordinal, state, self.attempts, self.at,
             self.outcome and self.outcome.as_dict(), self.site, self.due_at, self.delay_reported, self.notice,
             self.tenant_id, self.list_id, self.campaign_id, self.person, self.received_at, self.tried,
             round(self.attempt_seconds, 3), self.held, self.was_due_at)
        )  # fmt: skip

    @classmethod
    def from_json(cls, line: bytes) -> "Completion":
        """Read a journal line; raises ValueError for anything else."""
        try:
            message_id, ordinal, state, attempts, at, outcome, *rest = orjson.loads(line)
            final = None if state is None else FinalState(state)
            return cls(message_id, ordinal, final, attempts, at, outcome and Outcome.from_dict(outcome), *rest)
        except (KeyError, TypeError) as error:
            raise ValueError("not a journal line") from error


class Queue:
    """The queue as one worker sees it. worker_id is the lease holder; 0 for tools that lease nothing.

    node: what events say of where they happened.
    """

    def __init__(self, database: Database, worker_id: int = 0, node: str = "") -> None:
        self._db = database
        self.worker_id = worker_id
        self._node = node

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """A transaction in which several of the calls below can share a connection."""
        return self._db.transaction()

    async def insert(self, messages: Sequence[NewMessage], connection: Connection | None = None) -> None:
        """Commit messages of one lane and all their recipients, or none."""
        rows = [(m, r) for m in messages for r in m.recipients]
        arguments = (
            lane_of(messages[0].id),
            [m.id for m in messages],
            [m.tenant_id for m in messages],
            [m.list_id for m in messages],
            [m.campaign_id for m in messages],
            [int(m.message_class) for m in messages],
            [m.received_at for m in messages],
            [m.expires_at for m in messages],
            [m.sealed_envelope for m in messages],
            [m.sealed_content for m in messages],
            [m.id for m, _ in rows],
            [r.ordinal for _, r in rows],
            [int(m.message_class) for m, _ in rows],
            [r.worker_id or None for _, r in rows],
            [m.due_at or m.received_at for m, _ in rows],
            [m.expires_at for m, _ in rows],
            [r.person for _, r in rows],
            [r.sealed_address for _, r in rows],
            [m.submitted_bytes >= 0 for m in messages],
            [len(m.recipients) for m in messages],
            [m.submitted_bytes for m in messages],
            *_lone_recipients(messages),
            self._node,
            [_LEASED if r.worker_id else _HELD if m.held else _QUEUED for m, r in rows],
            [r.site or None for _, r in rows],
        )
        withheld = [(m, r) for m in messages for r in m.withheld]
        if not withheld:
            await self._execute(_QUERIES.insert, arguments, connection)
        elif connection is not None:
            await self._execute(_QUERIES.insert, arguments, connection)
            await self._execute(_QUERIES.insert_withheld, self._withheld(withheld), connection)
        else:
            async with self._db.transaction() as own:
                await own.execute(_QUERIES.insert, *arguments)
                await own.execute(_QUERIES.insert_withheld, *self._withheld(withheld))

    def _withheld(self, withheld: Sequence[tuple[NewMessage, NewRecipient]]) -> tuple[Any, ...]:
        return (
            [m.id for m, _ in withheld],
            [m.tenant_id for m, _ in withheld],
            [m.list_id for m, _ in withheld],
            [m.campaign_id for m, _ in withheld],
            [int(m.message_class) for m, _ in withheld],
            [m.received_at for m, _ in withheld],
            [r.ordinal for _, r in withheld],
            [r.person for _, r in withheld],
            [r.sealed_address for _, r in withheld],
            self._node,
            [r.why or "the recipient is suppressed" for _, r in withheld],
        )

    async def due_lanes(self, now: float) -> list[tuple[int, MessageClass]]:
        """The lanes in which recipients of a class are due."""
        rows = await self._fetch(_QUERIES.due_lanes, (now,), None)
        return [(row[0], MessageClass(row[1])) for row in rows]

    async def claim(self, lane: int, message_class: MessageClass, limit: int, now: float) -> list[ClaimedRow]:
        """Lease up to limit due recipients of a lane."""
        async with self._db.connection() as connection:
            rows = await connection.fetch(_QUERIES.claim, lane, int(message_class), now, limit, self.worker_id)
        return [
            ClaimedRow(
                row["message_id"],
                row["ordinal"],
                MessageClass(row["class"]),
                row["attempts"],
                row["delay_reported"],
                row["expires_at"].timestamp(),
                row["received_at"].timestamp(),
                row["person"],
                row["address"],
                row["tenant_id"],
                row["list_id"],
                row["campaign_id"],
                _outcome(row["last_outcome"]),
                row["site"] or "",
                row["due_at"].timestamp(),
            )
            for row in rows
        ]

    async def put_off(
        self, lane: int, message_class: MessageClass, most: int, now: float, spans: Sequence[tuple[str, float, float]]
    ) -> dict[str, int]:
        """Let those of the first `most` due recipients of a lane that are for these sites be due again later.

        spans: of each site from when until when. Returns how many were put off, by site.
        """
        sites, first, last = (list(column) for column in zip(*spans, strict=True))
        rows = await self._fetch(_QUERIES.put_off, (lane, int(message_class), now, most, sites, first, last), None)
        return {row[0]: row[1] for row in rows}

    async def disown(self, known: Sequence[tuple[int, int]], before_id: int, now: float) -> int:
        """Give back what this worker leases of messages with smaller ids; how many recipients.

        known: message id and ordinal of those that it keeps.
        """
        ids, ordinals = [key[0] for key in known], [key[1] for key in known]
        async with self._db.connection() as connection:
            return _count(await connection.execute(_QUERIES.disown, self.worker_id, before_id, ids, ordinals, now))

    async def content(self, message_id: int) -> StoredMessage | None:
        """The stored message, or None when it is gone."""
        async with self._db.connection() as connection:
            rows = await connection.fetch(_QUERIES.content, lane_of(message_id), message_id)
        if not rows:
            return None
        row = rows[0]
        return StoredMessage(
            row["tenant_id"],
            row["list_id"],
            row["campaign_id"],
            MessageClass(row["class"]),
            row["received_at"].timestamp(),
            row["expires_at"].timestamp(),
            row["envelope"],
            row["content"],
        )

    async def addresses(self, message_id: int, ordinals: Sequence[int]) -> dict[int, bytes]:
        """The sealed addresses of recipients that are not final, by ordinal."""
        rows = await self._fetch(_QUERIES.addresses, (lane_of(message_id), message_id, list(ordinals)), None)
        return {row[0]: row[1] for row in rows}

    async def person_of(self, message_id: int, person: int) -> tuple[int, bytes] | None:
        """Ordinal and sealed address of a person among a message's recipients, while it is not final."""
        rows = await self._fetch(_QUERIES.person_of, (lane_of(message_id), message_id, person), None)
        return (rows[0][0], rows[0][1]) if rows else None

    async def finish(self, done: Sequence[Completion], connection: Connection | None = None) -> set[tuple[int, int]]:
        """Make recipients final. Returns the keys of those that were still this worker's."""
        if not done:
            return set()
        arguments = (
            [lane_of(c.message_id) for c in done],
            [c.message_id for c in done],
            [c.ordinal for c in done],
            [int(c.state or 0) for c in done],
            [c.attempts for c in done],
            [c.at for c in done],
            [c.site or None for c in done],
            [c.outcome.status if c.outcome else "" for c in done],
            [c.outcome.reply_code if c.outcome else 0 for c in done],
            [str(c.outcome.bounce_class) if c.outcome else "" for c in done],
            [c.outcome.remote_mta if c.outcome else "" for c in done],
            [c.outcome.diagnostic if c.outcome else "" for c in done],
            [c.tenant_id for c in done],
            [c.list_id for c in done],
            [c.campaign_id for c in done],
            [c.received_at for c in done],
            [_milliseconds(c) for c in done],
            self.worker_id,
            self._node,
        )
        rows = await self._fetch(_QUERIES.finish, arguments, connection)
        return {(row[0], row[1]) for row in rows}

    async def defer(
        self, given_back: Sequence[Completion], connection: Connection | None = None
    ) -> set[tuple[int, int]]:
        """Give recipients back with their next attempt. Returns the keys of those that were still this worker's."""
        if not given_back:
            return set()
        arguments = (
            [lane_of(c.message_id) for c in given_back],
            [c.message_id for c in given_back],
            [c.ordinal for c in given_back],
            [c.attempts for c in given_back],
            [c.due_at for c in given_back],
            [c.site or None for c in given_back],
            [orjson.dumps(c.outcome.as_dict()).decode() if c.outcome else None for c in given_back],
            [c.delay_reported for c in given_back],
            self.worker_id,
            [c.tried for c in given_back],
            [c.at for c in given_back],
            [c.outcome.status if c.outcome else "" for c in given_back],
            [c.outcome.reply_code if c.outcome else 0 for c in given_back],
            [str(c.outcome.bounce_class) if c.outcome else "" for c in given_back],
            [c.outcome.remote_mta if c.outcome else "" for c in given_back],
            [c.outcome.diagnostic if c.outcome else "" for c in given_back],
            [c.tenant_id for c in given_back],
            [c.list_id for c in given_back],
            [c.campaign_id for c in given_back],
            [c.received_at for c in given_back],
            [_milliseconds(c) for c in given_back],
            self._node,
            [_HELD if c.held else _QUEUED for c in given_back],
            [c.was_due_at for c in given_back],
        )
        rows = await self._fetch(_QUERIES.defer, arguments, connection)
        return {(row[0], row[1]) for row in rows}

    async def sweep(self, message_ids: Sequence[int]) -> None:
        """Drop the content of those messages that have no recipient left."""
        if message_ids:
            await self._execute(_QUERIES.sweep_messages, ([lane_of(m) for m in message_ids], list(message_ids)), None)

    async def sweep_leftovers(self, lane: int, now: float) -> None:
        """Drop content that a crash left behind in a lane."""
        await self._execute(_QUERIES.sweep_lane, (lane, now - _SWEEP_AGE_SECONDS), None)

    async def abandon(self, message_ids: Sequence[int]) -> None:
        """Take back messages whose commit is in doubt, even where it is still under way or has yet to begin."""
        if not message_ids:
            return
        made_at = [received_at(m) for m in message_ids]
        lanes, ids = [lane_of(m) for m in message_ids], list(message_ids)
        async with self._db.transaction() as connection:
            await connection.execute(_QUERIES.bar, lanes, ids, max(made_at))
            await connection.execute(_QUERIES.abandon, lanes, ids, min(made_at) - _CLOCK_SECONDS)

    async def attempts_of(self, person: int) -> list[Attempt]:
        """What became of a person's mail, in order of time."""
        rows = await self._fetch(_QUERIES.attempts_of, (person,), None)
        return [_attempt(row, FinalState(row["state"])) for row in rows]

    async def lists_of(self, person: int, tenant_id: int) -> list[tuple[int, str]]:
        """Id and name of every list of a tenant that ever sent to a person."""
        return [(row[0], row[1]) for row in await self._fetch(_QUERIES.lists_of, (person, tenant_id), None)]

    async def delivered_between(self, since: float, until: float) -> list[tuple[int, Attempt]]:
        """Deliveries of a span of time, each with its person."""
        rows = await self._fetch(_QUERIES.delivered_since, (since, until), None)
        return [(row["person"], _attempt(row, FinalState.DELIVERED)) for row in rows]

    async def delivered_of(self, persons: Sequence[int], message_ids: Sequence[int]) -> list[tuple[int, Attempt]]:
        """Deliveries of some messages to some persons, each with its person."""
        rows = await self._fetch(_QUERIES.delivered_of, (list(persons), list(message_ids)), None)
        return [(row["person"], _attempt(row, FinalState.DELIVERED)) for row in rows]

    async def register(self, node: str) -> int:
        """A new worker id."""
        rows = await self._fetch(_QUERIES.register, (node,), None)
        return int(rows[0][0])

    async def heartbeat(self, lease_timeout_seconds: float) -> list[int] | None:
        """Say that this worker lives; the ids of all living ones, or None when others have buried this one."""
        async with self._db.connection() as connection:
            if not await connection.fetch(_QUERIES.heartbeat, self.worker_id):
                return None
            return [row[0] for row in await connection.fetch(_QUERIES.workers, lease_timeout_seconds)]

    async def bury(self, worker_ids: Iterable[int], now: float, *, started_before: float = math.inf) -> int:
        """Forget workers that are known dead; what they leased is queued again. Returns how many recipients.

        started_before: one that started later, by the database's clock, is another of the same id.
        """
        async with self._db.transaction() as connection:
            await connection.fetch(_QUERIES.bury, list(worker_ids), started_before)
            return _count(await connection.execute(_QUERIES.reclaim, now))

    async def silent(self, silent_seconds: float) -> tuple[float, bool]:
        """The time by the database's clock, and whether a worker, of any node, gave no heartbeat for so long."""
        [row] = await self._fetch(_QUERIES.silent, (silent_seconds,), None)
        return row[0], row[1]

    async def bury_silent(self, silent_seconds: float, now: float) -> int:
        """Bury those that still are silent; returns how many recipients are queued again."""
        async with self._db.transaction() as connection:
            if not await connection.fetch(_QUERIES.bury_silent, silent_seconds):
                return 0
            return _count(await connection.execute(_QUERIES.reclaim, now))

    async def _fetch(self, query: str, arguments: Sequence[Any], connection: Connection | None) -> list[Any]:
        if connection is not None:
            return await connection.fetch(query, *arguments)
        async with self._db.connection() as own:
            return list(await own.fetch(query, *arguments))

    async def _execute(self, query: str, arguments: Sequence[Any], connection: Connection | None) -> None:
        if connection is not None:
            await connection.execute(query, *arguments)
            return
        async with self._db.connection() as own:
            await own.execute(query, *arguments)


async def cancel_suppressed(
    connection: Connection, stops: Sequence[tuple[int, int, int, int, bool]], now: float
) -> list[int]:
    """Make final what is queued for suppressed persons, in the transaction that suppresses them.

    stops: (person, scope, tenant id, list or group id, whether transactional mail is stopped too). Returns how many
    recipients each of them cancelled.
    """
    numbers = list(range(len(stops)))
    columns = list(zip(*stops, strict=True)) if stops else [(), (), (), (), ()]
    persons, scopes, tenants, lists, transactional = (list(column) for column in columns)
    classes = [1 if flag else 0 for flag in transactional]
    rows = await connection.fetch(_QUERIES.cancel, numbers, persons, scopes, tenants, lists, classes, now)
    counts = {row[0]: row[1] for row in rows}
    return [counts.get(number, 0) for number in numbers]


def _lone_recipients(messages: Sequence[NewMessage]) -> tuple[list[int | None], list[bytes | None]]:
    """Ordinal and sealed address where a message has one recipient, about whom its reception then is.

    The person is left out: an index entry for each reception would cost more than the rest of it.
    """
    lone = [m.recipients[0] if len(m.recipients) == 1 else None for m in messages]
    return [r.ordinal if r else None for r in lone], [r.sealed_address if r else None for r in lone]


def _milliseconds(completion: Completion) -> int | None:
    return round(completion.attempt_seconds * 1000) if completion.tried else None


def _attempt(row: Any, state: FinalState) -> Attempt:
    return Attempt(
        row["at"].timestamp(),
        state.name.lower(),
        row["tenant_id"],
        row["list_id"],
        row["campaign_id"],
        row["message_id"],
        MessageClass(row["message_class"]),
        row["status"],
    )


def _outcome(text: str | None) -> Outcome | None:
    return Outcome.from_dict(orjson.loads(text)) if text else None


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
