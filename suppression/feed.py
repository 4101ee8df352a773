"""The feed: one dedicated connection on which the log is followed.

Hints (NOTIFY) and reading share the connection on purpose: a read that is answered in time proves that the connection
lives, and one that is not ends it. A hint costs one question: in a busy worker each answer has to wait for its turn.
Every failure leaves as DatabaseUnavailable; a feed that raised is good for nothing but `close`, which is immediate.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from config.database import FEED_LOST, Database, DatabaseUnavailable, load_queries
from suppression.entry import GENESIS, Step
from suppression.log import CHANNEL
from suppression.scopes import Member

if TYPE_CHECKING:
    from asyncpg import Connection

_HEAD_COLUMNS: Final = 4
_QUERIES = load_queries("suppression", "feed.sql")


class Head(NamedTuple):
    """The newest position and its hash; `joined`: the position at which a tenant last joined a group, 0 for never."""

    position: int
    hash: bytes
    joined: int


class Feed(Protocol):
    """What the watch needs of the database."""

    async def listen(self, hint: Callable[[], None]) -> None:
        """Call `hint` when the log may have grown, or the connection is lost."""
        ...

    async def head(self) -> Head:
        """How far the log is."""
        ...

    async def members(self) -> list[Member]:
        """Which tenants are in which groups."""
        ...

    async def news(self, position: int, limit: int) -> tuple[Head, list[Step]]:
        """How far the log is, and the next entries behind a position, at most `limit`: both of one moment."""
        ...

    async def hash_at(self, position: int) -> bytes | None:
        """The hash of an entry; None when there is no such entry."""
        ...

    def close(self) -> None:
        """Let go of the connection at once."""
        ...


class DatabaseFeed:
    """A feed on a connection of its own."""

    def __init__(self, connection: "Connection", answer_within_seconds: float) -> None:
        self._connection = connection
        self._within = answer_within_seconds

    @classmethod
    async def open(cls, database: Database, *, answer_within_seconds: float) -> "DatabaseFeed":
        """Connect. A connection that then leaves a read without an answer for this long is taken for dead."""
        try:
            async with asyncio.timeout(answer_within_seconds):
                return cls(await database.dedicated(), answer_within_seconds)
        except TimeoutError:
            raise DatabaseUnavailable("no connection in time") from None

    async def listen(self, hint: Callable[[], None]) -> None:
        """See `Feed`."""
        async with self._answered():
            self._connection.add_termination_listener(lambda *_: hint())
            await self._connection.add_listener(CHANNEL, lambda *_: hint())

    async def head(self) -> Head:
        """See `Feed`."""
        return (await self.news(0, 0))[0]

    async def news(self, position: int, limit: int) -> tuple[Head, list[Step]]:
        """See `Feed`; a standby is no database."""
        async with self._answered():
            rows = await self._connection.fetch(_QUERIES.news, position, limit)
        newest, digest, joined, standby, *_ = rows[0]
        if standby:
            raise DatabaseUnavailable("the database is a standby")
        return Head(newest, digest, joined), [Step(*row[_HEAD_COLUMNS:]) for row in rows if row[_HEAD_COLUMNS]]

    async def members(self) -> list[Member]:
        """See `Feed`."""
        async with self._answered():
            return [Member(*row) for row in await self._connection.fetch(_QUERIES.members)]

    async def hash_at(self, position: int) -> bytes | None:
        """See `Feed`; position 0 is before the first entry."""
        if position == 0:
            return GENESIS
        async with self._answered():
            digest: bytes | None = await self._connection.fetchval(_QUERIES.hash_at, position)
        return digest

    def close(self) -> None:
        """See `Feed`."""
        self._connection.terminate()

    @asynccontextmanager
    async def _answered(self) -> AsyncIterator[None]:
        """Whatever goes wrong here, the way out is the same: a new connection. So one name for all of it."""
        try:
            async with asyncio.timeout(self._within):
                yield
        except FEED_LOST as error:
            raise DatabaseUnavailable(f"the log can't be followed: {type(error).__name__}") from error
