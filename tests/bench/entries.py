"""A suppression log that is long already: entries that were never asked for, put into a database past its front door.

The chain, the table of what is in force and the head are as the log would have left them; persons and keys are random.
"""

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import asyncpg

from suppression.digest import Effect, Kind, Scope
from suppression.entry import GENESIS, Action, Channel, Entry

_AT_ONCE: Final = 100_000
_LOG_COLUMNS: Final = Entry._fields[:-1]


async def fill(url: str, count: int) -> None:
    """Add entries to a log that is empty."""
    chance, at, previous = random.Random(1), time.time(), GENESIS
    connection = await asyncpg.connect(url)
    try:
        for begin in range(0, count, _AT_ONCE):
            entries = list(_entries(chance, at, previous, range(begin + 1, min(begin + _AT_ONCE, count) + 1)))
            previous = entries[-1].hash
            async with connection.transaction():
                await _copy(connection, entries)
        await connection.execute("ANALYZE suppression, suppression_log")
    finally:
        await connection.close()


async def _copy(connection: "asyncpg.Connection", entries: list[Entry]) -> None:
    written_at = datetime.fromtimestamp(entries[0].at, UTC)
    logged = ((entry.position, written_at, *entry[2:-1]) for entry in entries)
    await connection.copy_records_to_table("suppression_log", columns=_LOG_COLUMNS, records=logged, timeout=600)
    in_force = [(entry.key, entry.kind, entry.effect, entry.position) for entry in entries]
    await connection.copy_records_to_table("suppression", records=in_force, timeout=600)
    await connection.execute(
        "UPDATE suppression_head SET position = $1, hash = $2, at = $3",
        entries[-1].position, entries[-1].hash, written_at,
    )  # fmt: skip


def _entries(chance: random.Random, at: float, previous: bytes, positions: range) -> Iterator[Entry]:
    for position in positions:
        person, key = chance.getrandbits(63), chance.getrandbits(64) - 2**63 & ~1
        entry = Entry(
            position, at, Action.SUPPRESS, Scope.LIST, Kind.UNSUBSCRIBE, Effect.CAMPAIGN, 7, 9, 0, 0, 0, person, key,
            Channel.ONE_CLICK, "bench", "", previous, b"",
        )  # fmt: skip
        entry = entry._replace(hash=entry.computed_hash())
        previous = entry.hash
        yield entry
