"""The watch is never fooled: on a real PostgreSQL, with its NOTIFY, its connections and its log each gone wrong."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from config.database import Database, DatabaseUnavailable
from suppression import index as index_module
from suppression import keeper as keeper_module
from suppression import watch as watch_module
from suppression.digest import Kind, MessageClass, Scope
from suppression.entry import Action, Channel, Step
from suppression.feed import DatabaseFeed, Feed, Head
from suppression.gate import Gate, Verdict
from suppression.index import Index
from suppression.keeper import BaseKeeper
from suppression.log import SuppressionLog
from suppression.plan import Lift
from suppression.scopes import Member, Scopes
from suppression.watch import Watch
from tests.support.suppressions import DIGEST, asked, keys_of, opened

CAMPAIGN, TRANSACTIONAL = MessageClass.CAMPAIGN, MessageClass.TRANSACTIONAL
NEVER = 3600.0
SOON = 5.0


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture
def log(database: Database) -> SuppressionLog:
    return SuppressionLog(database, DIGEST)


@asynccontextmanager
async def watching(
    log: SuppressionLog,
    directory: Path,
    connect: Callable[[], Awaitable[Feed]],
    *,
    index: Index | None = None,
    scopes: Scopes | None = None,
    on_rebuilt: Callable[[float], None] | None = None,
    **options: Any,
) -> AsyncIterator[Watch]:
    """A worker's watch over an empty or a given index."""
    keeper = BaseKeeper(directory / "suppression.index", log, on_rebuilt=on_rebuilt)
    watch = Watch(index or Index(), connect, keeper, scopes or Scopes(DIGEST), **{"poll_seconds": 0.05, **options})
    await watch.start()
    try:
        yield watch
    finally:
        await watch.stop()


def feed_of(database: Database, seconds: float = 2.0) -> Callable[[], Awaitable[Feed]]:
    async def connect() -> Feed:
        return await DatabaseFeed.open(database, answer_within_seconds=seconds)

    return connect


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other tasks bring about; the test fails when that takes long."""
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110  # what is waited for is in PostgreSQL, which sets no event
            await asyncio.sleep(0.005)


class Tampered:
    """A feed in front of a real one, whose parts a test can replace."""

    def __init__(self, real: Feed) -> None:
        self.real = real

    async def listen(self, hint: Callable[[], None]) -> None:
        await self.real.listen(hint)

    async def head(self) -> Head:
        return await self.real.head()

    async def members(self) -> list[Member]:
        return await self.real.members()

    async def news(self, position: int, limit: int) -> tuple[Head, list[Step]]:
        return await self.real.news(position, limit)

    async def hash_at(self, position: int) -> bytes | None:
        return await self.real.hash_at(position)

    def close(self) -> None:
        self.real.close()


async def test_what_was_there_before_the_start_is_in_force_after_it(
    log: SuppressionLog, database: Database, tmp_path: Path
) -> None:
    await log.append([asked(5), asked(6, kind=Kind.COMPLAINT)])
    async with watching(log, tmp_path, feed_of(database)) as watch:
        gate = Gate(watch.index, watch)
        assert gate.allows(keys_of(7), CAMPAIGN) is Verdict.STALE
        await asyncio.wait_for(watch.caught_up(), SOON)
        assert watch.watermark.position == 2
        assert gate.allows(keys_of(5), CAMPAIGN) is Verdict.SUPPRESSED
        assert gate.allows(keys_of(5), TRANSACTIONAL) is Verdict.OPEN
        assert gate.allows(keys_of(6), TRANSACTIONAL) is Verdict.SUPPRESSED
        assert gate.allows(keys_of(7), CAMPAIGN) is Verdict.OPEN


async def test_a_hint_alone_brings_an_entry_within_milliseconds(
    log: SuppressionLog, database: Database, tmp_path: Path
) -> None:
    seconds: list[float] = []
    async with watching(
        log, tmp_path, feed_of(database), poll_seconds=NEVER, on_applied=seconds.append, max_staleness_seconds=2 * NEVER
    ) as watch:
        await asyncio.wait_for(watch.caught_up(), SOON)
        for person in range(1, 21):
            await log.append([asked(person)])
            await until(lambda person=person: watch.index.blocks(keys_of(person), CAMPAIGN))  # type: ignore[misc]
    assert len(seconds) == 20
    assert sorted(seconds)[10] < 0.25


async def test_a_lost_notify_costs_no_more_than_the_poll(
    log: SuppressionLog, database: Database, tmp_path: Path
) -> None:
    class Deaf(Tampered):
        async def listen(self, hint: Callable[[], None]) -> None:
            """Subscribed, but nothing ever comes."""

    async def connect() -> Feed:
        return Deaf(await feed_of(database)())

    async with watching(log, tmp_path, connect) as watch:
        await asyncio.wait_for(watch.caught_up(), SOON)
        await log.append([asked(5)])
        await until(lambda: watch.index.blocks(keys_of(5), CAMPAIGN))


async def test_a_listen_that_is_refused_leaves_the_poll(
    log: SuppressionLog, database: Database, tmp_path: Path
) -> None:
    class Pooled(Tampered):
        async def listen(self, hint: Callable[[], None]) -> None:
            raise DatabaseUnavailable("LISTEN is not allowed behind a transaction pooler")

    async def connect() -> Feed:
        return Pooled(await feed_of(database)())

    async with watching(log, tmp_path, connect) as watch:
        await log.append([asked(5)])
        await until(lambda: watch.index.blocks(keys_of(5), CAMPAIGN))
        assert watch.fresh()


async def test_a_database_that_is_not_there_at_start_keeps_the_gate_closed_until_it_is(
    log: SuppressionLog, database: Database, tmp_path: Path
) -> None:
    refusals = 3

    async def connect() -> Feed:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise DatabaseUnavailable("connection refused")
        return await feed_of(database)()

    async with watching(log, tmp_path, connect) as watch:
        await until(lambda: "refused" in watch.trouble)
        assert not watch.fresh()
        assert watch.age_seconds == float("inf")
        await asyncio.wait_for(watch.caught_up(), SOON)
        assert watch.fresh()
        assert watch.trouble == ""


async def test_a_killed_backend_is_replaced(log: SuppressionLog, database: Database, tmp_path: Path) -> None:
    async with watching(log, tmp_path, feed_of(database)) as watch:
        await asyncio.wait_for(watch.caught_up(), SOON)
        for person in (5, 6, 7):
            await database.pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query ILIKE '%suppression_head%' AND pid <> pg_backend_pid()"
            )
            while True:
                try:
                    await log.append([asked(person)])
                    break
                except DatabaseUnavailable:
                    continue
            await until(lambda person=person: watch.index.blocks(keys_of(person), CAMPAIGN))  # type: ignore[misc]


async def test_a_half_open_connection_goes_stale_and_is_then_replaced(
    log: SuppressionLog, database: Database, tmp_path: Path
) -> None:
    """The peer is gone and nobody says so: reads hang. The time-out of the read ends the connection."""
    now = 1000.0
    hanging = asyncio.Event()
    closed: list[Feed] = []

    class HalfOpen(Tampered):
        async def news(self, position: int, limit: int) -> tuple[Head, list[Step]]:
            if hanging.is_set() and not closed:
                try:
                    async with asyncio.timeout(0.2):
                        await asyncio.Event().wait()
                except TimeoutError:
                    raise DatabaseUnavailable("no answer") from None
            return await super().news(position, limit)

        def close(self) -> None:
            closed.append(self)
            super().close()

    async def connect() -> Feed:
        return HalfOpen(await feed_of(database)())

    async with watching(log, tmp_path, connect, clock=lambda: now) as watch:
        await asyncio.wait_for(watch.caught_up(), SOON)
        assert watch.fresh()
        hanging.set()
        now += 5.1
        await until(lambda: not watch.fresh() or bool(closed))
        await log.append([asked(5)])
        await until(lambda: watch.index.blocks(keys_of(5), CAMPAIGN))
        assert closed
        assert watch.fresh()


async def test_a_real_connection_that_falls_silent_ends_at_its_time_out(
    log: SuppressionLog, database: Database, tmp_path: Path
) -> None:
    """The table is locked, so the backend answers nothing: to the watch this is what a half-open connection is."""
    async with watching(log, tmp_path, feed_of(database, seconds=0.2)) as watch:
        await asyncio.wait_for(watch.caught_up(), SOON)
        async with database.transaction() as connection:
            await connection.execute("LOCK TABLE suppression_head IN ACCESS EXCLUSIVE MODE")
            await until(lambda: "Unavailable" in watch.trouble)
        await log.append([asked(5)])
        await until(lambda: watch.index.blocks(keys_of(5), CAMPAIGN))
        assert watch.trouble == ""


async def test_the_watermark_is_as_old_as_the_question_not_as_the_answer(
    log: SuppressionLog, database: Database, tmp_path: Path
) -> None:
    now = 1000.0

    class Slow(Tampered):
        async def news(self, position: int, limit: int) -> tuple[Head, list[Step]]:
            nonlocal now
            answer = await super().news(position, limit)
            now += 4.0
            return answer

    async def connect() -> Feed:
        return Slow(await feed_of(database)())

    async with watching(log, tmp_path, connect, clock=lambda: now, poll_seconds=NEVER) as watch:
        await asyncio.wait_for(watch.caught_up(), SOON)
        assert watch.watermark.confirmed_at == 1000.0
        assert watch.age_seconds == 4.0
        assert watch.fresh()
        now += 1.1
        assert not watch.fresh()


async def test_a_database_restored_from_an_older_backup_is_not_followed(
    log: SuppressionLog, database: Database, tmp_path: Path
) -> None:
    """The same connection even: a pooler may have changed the server behind it."""
    async with watching(log, tmp_path, feed_of(database)) as watch:
        await asyncio.wait_for(watch.caught_up(), SOON)
        first, second = await log.append([asked(5), asked(6)])
        await until(lambda: watch.watermark.position == 2)
        await restore(database, first.position, first.hash)
        await until(lambda: "Diverged" in watch.trouble)
        assert not watch.fresh()
        await log.append([asked(8), asked(9)])
        await until(lambda: "does not hold entry 2" in watch.trouble)
        assert not watch.fresh()
        assert watch.index.blocks(keys_of(6), CAMPAIGN)
        assert not watch.index.blocks(keys_of(8), CAMPAIGN)
        assert second.position == 2


async def restore(database: Database, position: int, digest: bytes) -> None:
    """What an older backup looks like: the log and its head end earlier."""
    async with database.transaction() as connection:
        await connection.execute("ALTER TABLE suppression_log DISABLE TRIGGER USER")
        await connection.execute("DELETE FROM suppression_log WHERE position > $1", position)
        await connection.execute("ALTER TABLE suppression_log ENABLE TRIGGER USER")
        await connection.execute("DELETE FROM suppression WHERE position > $1", position)
        await connection.execute("UPDATE suppression_head SET position = $1, hash = $2", position, digest)


async def test_a_base_file_of_another_log_is_not_followed(
    log: SuppressionLog, database: Database, tmp_path: Path
) -> None:
    from suppression import build

    build.write(tmp_path / "suppression.index", 1, b"x" * 32, [], 0)
    await log.append([asked(5), asked(6)])
    async with watching(log, tmp_path, feed_of(database)) as watch:
        await until(lambda: "does not hold entry 1" in watch.trouble)
        assert not watch.fresh()


async def test_a_standby_proves_nothing(log: SuppressionLog, database: Database, tmp_path: Path) -> None:
    class Standby(Tampered):
        async def news(self, position: int, limit: int) -> tuple[Head, list[Step]]:
            await super().news(position, limit)
            raise DatabaseUnavailable("the database is a standby")

    async def connect() -> Feed:
        return Standby(await feed_of(database)())

    async with watching(log, tmp_path, connect) as watch:
        await until(lambda: "standby" in watch.trouble)
        assert not watch.fresh()


async def test_a_mistake_in_the_watch_fails_closed_and_it_goes_on(
    log: SuppressionLog, database: Database, tmp_path: Path
) -> None:
    broken = True

    class Broken(Tampered):
        async def news(self, position: int, limit: int) -> tuple[Head, list[Step]]:
            head, steps = await super().news(position, limit)
            if broken and steps:
                raise struct.error("what nobody thought of")
            return head, steps

    async def connect() -> Feed:
        return Broken(await feed_of(database)())

    async with watching(log, tmp_path, connect) as watch:
        await asyncio.wait_for(watch.caught_up(), SOON)
        await log.append([asked(5)])
        await until(lambda: "nobody thought of" in watch.trouble)
        assert not watch.fresh()
        broken = False
        await until(watch.fresh)
        assert watch.index.blocks(keys_of(5), CAMPAIGN)


async def test_what_is_known_of_and_not_applied_yet_is_the_lag(
    log: SuppressionLog, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "STEPS_AT_ONCE", 10)
    lags: list[int] = []

    class Seen(Tampered):
        async def news(self, position: int, limit: int) -> tuple[Head, list[Step]]:
            lags.append(watch.lag_entries)
            return await super().news(position, limit)

    async def connect() -> Feed:
        return Seen(await feed_of(database)())

    await log.append([asked(person) for person in range(1, 36)])
    async with watching(log, tmp_path, connect, poll_seconds=NEVER) as watch:
        await asyncio.wait_for(watch.caught_up(), SOON)
        assert lags == [35, 25, 15, 5]
        assert watch.lag_entries == 0


async def test_a_lift_reaches_the_index(log: SuppressionLog, database: Database, tmp_path: Path) -> None:
    async with watching(log, tmp_path, feed_of(database)) as watch:
        await log.append([asked(5)])
        await until(lambda: watch.index.blocks(keys_of(5), CAMPAIGN))
        lift = Lift(5, Scope.LIST, frozenset(Kind), 7, 9, Channel.CLI, "root", "a mistake")
        async with log.appending() as appending:
            await appending.lift([lift], Action.LIFT_BY_OPERATOR)
        await until(lambda: not watch.index.blocks(keys_of(5), CAMPAIGN))


async def test_far_behind_the_state_is_read_at_once_by_one_worker_for_all(
    log: SuppressionLog, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "REPLAY_AT_MOST", 10)
    monkeypatch.setattr(keeper_module, "_LOOK_AGAIN_SECONDS", 0.01)
    await log.append([asked(person, kind=Kind.HARD_BOUNCE) for person in range(1, 101)])
    async with (
        watching(log, tmp_path, feed_of(database)) as one,
        watching(log, tmp_path, feed_of(database)) as other,
    ):
        for watch in (one, other):
            await asyncio.wait_for(watch.caught_up(), SOON)
            assert (watch.index.base_position, watch.index.delta_entries) == (100, 0)
            assert all(watch.index.blocks(keys_of(person), TRANSACTIONAL) for person in range(1, 101))
            assert not watch.index.blocks(keys_of(101), CAMPAIGN)
        await log.append([asked(101)])
        await until(lambda: one.index.blocks(keys_of(101), CAMPAIGN) and other.index.blocks(keys_of(101), CAMPAIGN))


@pytest.mark.parametrize("damage", [b"", b"garbage" * 1000])
async def test_a_damaged_file_is_built_anew(
    log: SuppressionLog, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    monkeypatch.setattr(keeper_module, "REPLAY_AT_MOST", 10)
    (tmp_path / "suppression.index").write_bytes(damage)
    await log.append([asked(person) for person in range(1, 101)])
    async with watching(log, tmp_path, feed_of(database)) as watch:
        await asyncio.wait_for(watch.caught_up(), SOON)
        assert watch.index.base_position == 100


async def test_a_grown_delta_becomes_a_new_file_that_other_workers_take_over(
    log: SuppressionLog, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "MIN_DELTA_ENTRIES", 50)
    monkeypatch.setattr(index_module, "_PRUNE_AT_ONCE", 100)
    rebuilt: list[float] = []
    async with (
        watching(log, tmp_path, feed_of(database), on_rebuilt=rebuilt.append) as one,
        watching(log, tmp_path, feed_of(database), on_rebuilt=rebuilt.append) as other,
    ):
        await log.append([asked(person) for person in range(1, 61)])
        await until(lambda: one.index.base_position == other.index.base_position == 60)
        await log.append([asked(person) for person in range(61, 131)])
        await until(lambda: one.index.base_position == other.index.base_position == 130)
        await until(lambda: one.index.delta_entries == other.index.delta_entries == 0)
        assert len(rebuilt) == 2
        assert all(0 < seconds < SOON for seconds in rebuilt)
        for watch in (one, other):
            assert all(watch.index.blocks(keys_of(person), CAMPAIGN) for person in range(1, 131))
    async with watching(log, tmp_path, feed_of(database)) as restarted:
        await asyncio.wait_for(restarted.caught_up(), SOON)
        assert (restarted.index.base_position, restarted.index.delta_entries) == (130, 0)


async def test_a_disk_that_takes_no_file_costs_no_entry(
    log: SuppressionLog, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "MIN_DELTA_ENTRIES", 5)
    async with watching(log, tmp_path / "missing", feed_of(database)) as watch:
        await log.append([asked(person) for person in range(1, 61)])
        await until(lambda: watch.index.position == 60)
        await log.append([asked(61)])
        await until(lambda: watch.index.blocks(keys_of(61), CAMPAIGN))
        assert watch.fresh()


async def test_a_hold_closes_the_gate_for_what_it_says(log: SuppressionLog, database: Database, tmp_path: Path) -> None:
    async with watching(log, tmp_path, feed_of(database)) as watch:
        await asyncio.wait_for(watch.caught_up(), SOON)
        gate = Gate(watch.index, watch)
        gate.hold("the way out is broken", campaigns_only=True)
        assert gate.allows(keys_of(5), CAMPAIGN) is Verdict.STALE
        assert gate.allows(keys_of(5), TRANSACTIONAL) is Verdict.OPEN
        gate.hold("receipts")
        assert gate.allows(keys_of(5), TRANSACTIONAL) is Verdict.STALE
        assert gate.holds == ("the way out is broken", "receipts")
        gate.release("receipts")
        gate.release("the way out is broken")
        assert gate.allows(keys_of(5), CAMPAIGN) is Verdict.OPEN
