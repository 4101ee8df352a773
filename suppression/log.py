"""The suppression log: the one place where a suppression is put in force or lifted.

`append` returns after the commit and never before (S4). One transaction takes the head's lock, writes gapless positions
that are hash-chained, brings the state in force up to date, cancels what is queued (through the injected hook) and
hints at it by NOTIFY. An entry that is in force already is found, not written again, so every call may be repeated.
Appends that meet in a process share a transaction. Raises DatabaseUnavailable, after which the caller knows nothing.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from config.database import Database, DatabaseUnavailable, load_queries
from suppression.digest import Digest, Scope, effect_of
from suppression.entry import Action, Entry, NewEntry, chain, entry_of
from suppression.plan import Lift, joining, plan_lifts, plan_suppressions, signed_head

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

CHANNEL: Final = "heed_suppression"
SHARED_ENTRIES: Final = 500
"""A transaction takes no further callers when it has this many entries: the head's lock must be short."""

_QUERIES = load_queries("suppression", "log.sql")

Cancel = Callable[["PoolConnectionProxy", Sequence[Entry]], Awaitable[Sequence[int]]]
"""The hook that cancels queued recipients inside the transaction: entries without hashes in, a count for each out. It
must not wait for a row that somebody else has locked (SKIP LOCKED): the last check before the content covers those."""

Caller = tuple[tuple[NewEntry, ...], asyncio.Future[list[Entry]]]


async def _cancel_nothing(_connection: "PoolConnectionProxy", entries: Sequence[Entry]) -> Sequence[int]:
    return [0] * len(entries)


class SuppressionLog:
    """The log, and what of it is in force."""

    def __init__(
        self,
        database: Database,
        digest: Digest,
        cancel: Cancel = _cancel_nothing,
        on_appended: Callable[[Sequence[Entry]], None] | None = None,
    ) -> None:
        """`on_appended` gets the entries that are new, after each commit: it nudges this worker's own watch."""
        self._database = database
        self._digest = digest
        self._cancel = cancel
        self._on_appended = on_appended
        self._waiting: deque[Caller] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def append(self, entries: Sequence[NewEntry]) -> list[Entry]:
        """Put suppressions in force; one entry for each asked, in order, written or found (`already_in_force`).

        A caller that is cancelled does not undo what shares its transaction; what it asked for may still be written.
        """
        if not entries:
            return []
        answer: asyncio.Future[list[Entry]] = asyncio.get_running_loop().create_future()
        self._waiting.append((tuple(entries), answer))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_waiting(), name="suppression log")
        return await answer

    async def close(self) -> None:
        """Wait for what was asked to be written."""
        if self._writer is not None:
            await self._writer

    @asynccontextmanager
    async def appending(self) -> AsyncIterator["Appending"]:
        """A transaction that holds the head's lock, for who has more to commit with the entries. Keep it short."""
        async with self._database.transaction() as connection:
            (head,) = await connection.fetch(_QUERIES.lock_head)
            appending = Appending(
                connection, self._digest, self._cancel, head["position"], head["hash"], head["now"].timestamp()
            )
            yield appending
        if appending.written and self._on_appended is not None:
            self._on_appended(appending.written)

    async def read_after(self, position: int, limit: int) -> list[Entry]:
        """The entries behind a position, at most `limit`, in order."""
        return await self._read(_QUERIES.read_after, position, limit)

    async def read_person(self, person: int) -> list[Entry]:
        """Everything that was ever written about a person, in order."""
        return await self._read(_QUERIES.read_person, person)

    async def read_persons(self, persons: Sequence[int]) -> list[Entry]:
        """Everything that was ever written about some persons, in order."""
        return await self._read(_QUERIES.read_persons, persons)

    async def head(self) -> tuple[int, bytes]:
        """The newest position and its hash."""
        async with self._database.connection() as connection:
            (row,) = await connection.fetch(_QUERIES.head)
        return row["position"], row["hash"]

    async def hashes_at(self, positions: Sequence[int]) -> dict[int, bytes]:
        """The hashes of the entries at these positions, as far as there are such entries."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_QUERIES.hashes_at, positions)
        return {row["position"]: row["hash"] for row in rows}

    async def in_force(self, keys: Iterable[int]) -> list[Entry]:
        """The entries that are in force for these scope keys."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_QUERIES.in_force, list(keys))
            found = await connection.fetch(_QUERIES.entries_at, [row["position"] for row in rows])
        return [entry_of(row) for row in found]

    async def count_in_force(self) -> int:
        """How many suppressions are in force."""
        async with self._database.connection() as connection:
            count: int = await connection.fetchval(_QUERIES.count_in_force, timeout=60)
        return count

    async def first_out_of_force(self, upto: int) -> int | None:
        """The first entry, up to a position, that what is in force contradicts; None if all is well.

        Reads the whole log once; what changes meanwhile is left out.
        """
        async with self._database.connection() as connection:
            found: int | None = await connection.fetchval(_QUERIES.first_out_of_force, upto, timeout=600)
        return found

    async def first_join_out_of_force(self, upto: int) -> int | None:
        """Likewise the first entry that the table of the groups' members contradicts."""
        async with self._database.connection() as connection:
            found: int | None = await connection.fetchval(_QUERIES.first_join_out_of_force, upto, timeout=600)
        return found

    async def snapshot(self, sink: Callable[[bytes], None]) -> tuple[int, bytes]:
        """Stream all keys that are in force, as rows of PostgreSQL's binary COPY, and say up to which entry that is."""

        async def take(data: bytes) -> None:
            sink(data)

        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            (row,) = await connection.fetch(_QUERIES.head)
            await connection.copy_from_query(_QUERIES.copy_keys, output=take, format="binary", timeout=600)
        return row["position"], row["hash"]

    async def _read(self, query: str, *arguments: object) -> list[Entry]:
        async with self._database.connection() as connection:
            return [entry_of(row) for row in await connection.fetch(query, *arguments)]

    async def _write_waiting(self) -> None:
        try:
            while self._waiting:
                callers = self._next_callers()
                try:
                    async with self.appending() as appending:
                        written = await appending.suppress([entry for entries, _ in callers for entry in entries])
                except Exception as error:
                    _answer_all(callers, error)
                else:
                    _answer_each(callers, written)
        finally:
            self._writer = None

    def _next_callers(self) -> list[Caller]:
        callers, count = [], 0
        while self._waiting and count < SHARED_ENTRIES:
            callers.append(self._waiting.popleft())
            count += len(callers[-1][0])
        return callers


def _answer_all(callers: list[Caller], error: Exception) -> None:
    for _, answer in callers:
        if not answer.done():
            # One exception object must not be raised in several tasks: each would add to its traceback.
            answer.set_exception(DatabaseUnavailable(str(error)) if isinstance(error, DatabaseUnavailable) else error)


def _answer_each(callers: list[Caller], written: list[Entry]) -> None:
    begin = 0
    for entries, answer in callers:
        if not answer.done():
            answer.set_result(written[begin : begin + len(entries)])
        begin += len(entries)


class Appending:
    """An open transaction that holds the head's lock. `position`, `hash`: the newest entry; `written`: the new ones."""

    def __init__(
        self,
        connection: "PoolConnectionProxy",
        digest: Digest,
        cancel: Cancel,
        position: int,
        hash_: bytes,
        now: float,
    ) -> None:
        self.connection = connection
        self.now = now
        self.written: list[Entry] = []
        self._digest = digest
        self._cancel = cancel
        self.position = position
        self.hash = hash_

    async def suppress(self, asked: Sequence[NewEntry]) -> list[Entry]:
        """Put suppressions in force; one entry for each asked, written or found."""
        keys = [self._digest.key(entry.scope, entry.person, entry.tenant_id, entry.list_id) for entry in asked]
        rows = await self.connection.fetch(_QUERIES.in_force, keys)
        plan = plan_suppressions(asked, keys, rows, self.position, self.now)
        found = await self.connection.fetch(_QUERIES.entries_at, plan.found) if plan.found else []
        written = await self._cancelled(plan.new)
        by_position = {entry.position: entry for entry in await self._write(written)}
        by_position |= {row["position"]: entry_of(row, already_in_force=True) for row in found}
        return [
            by_position[position]._replace(already_in_force=True) if repeated else by_position[position]
            for position, repeated in plan.answers
        ]

    async def lift(self, lifts: Sequence[Lift], action: Action) -> list[Entry]:
        """Lift what of this is in force; one entry for each kind that was."""
        keys = [self._digest.key(lift.scope, lift.person, lift.tenant_id, lift.list_id) for lift in lifts]
        rows = await self.connection.fetch(_QUERIES.in_force_since, keys)
        return await self._write(plan_lifts(lifts, keys, rows, action, self.position, self.now))

    async def sign(self, reason: str) -> Entry:
        """Write a signed head; `reason` has the signature over `position` and `hash` as they are."""
        [entry] = await self._write([signed_head(self.position + 1, self.now, reason)])
        return entry

    async def join(self, tenant_id: int, group_id: int, actor: str, reason: str) -> Entry | None:
        """Let a tenant join a group, for ever; None when it has joined that one already.

        ValueError when it is in another: what was said there would have to go on binding it too.
        """
        rows = await self.connection.fetch(_QUERIES.group_of, tenant_id)
        if rows and rows[0]["group_id"] == group_id:
            return None
        if rows:
            raise ValueError("the tenant is in another group, and that is for ever")
        key = self._digest.key(Scope.GROUP, 0, 0, group_id)
        entry = joining(tenant_id, group_id, key, actor, reason, self.position + 1, self.now)
        await self.connection.execute(_QUERIES.join, tenant_id, group_id, entry.position)
        return (await self._write([entry]))[0]

    async def _cancelled(self, entries: list[Entry]) -> list[Entry]:
        if not entries:
            return entries
        counts = await self._cancel(self.connection, entries)
        return [entry._replace(cancelled=count) for entry, count in zip(entries, counts, strict=True)]

    async def _write(self, entries: list[Entry]) -> list[Entry]:
        if not entries:
            return []
        chained = chain(entries, self.hash)
        await self.connection.execute(_QUERIES.write, *_columns(chained))
        self.position, self.hash = chained[-1].position, chained[-1].hash
        self.written += chained
        return chained


def _columns(entries: Sequence[Entry]) -> list[list[Any]]:
    """The columns of the query `write`, in its order."""
    rows = [
        (
            entry.position, datetime.fromtimestamp(entry.at, UTC), entry.action, entry.scope or 0, entry.kind or 0,
            entry.effect, entry.tenant_id, entry.list_id, entry.campaign_id, entry.cancelled, entry.message_id,
            entry.person, entry.key, entry.channel, entry.actor, entry.reason, entry.previous, entry.hash,
            effect_of(entry.scope, entry.kind) if entry.scope and entry.kind else 0,
        )
        for entry in entries
    ]  # fmt: skip
    return [list(column) for column in zip(*rows, strict=True)]
