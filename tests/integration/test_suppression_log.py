"""The log on a real PostgreSQL: positions, chain, state in force, cancellation, and what goes wrong."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from config.database import Database, DatabaseUnavailable
from suppression.digest import Effect, Kind, Scope
from suppression.entry import GENESIS, Action, Channel, Entry
from suppression.log import SuppressionLog
from suppression.plan import Lift
from tests.support.suppressions import DIGEST, asked, keys_of, opened


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture
def log(database: Database) -> SuppressionLog:
    return SuppressionLog(database, DIGEST)


def assert_chained(entries: Sequence[Entry]) -> None:
    previous = GENESIS
    for position, entry in enumerate(entries, 1):
        assert (entry.position, entry.previous) == (position, previous)
        assert entry.hash == entry.computed_hash()
        previous = entry.hash


async def test_an_entry_is_in_the_log_and_in_force_when_append_returns(log: SuppressionLog) -> None:
    [entry] = await log.append([asked(5, campaign_id=3, message_id=1 << 40, reason="wrong bob@example.com")])
    assert (entry.position, entry.already_in_force, entry.cancelled) == (1, False, 0)
    assert entry.reason == "wrong <address>"
    assert await log.read_after(0, 10) == [entry]
    assert await log.in_force(keys_of(5)) == [entry]
    assert await log.in_force(keys_of(6)) == []
    assert await log.head() == (1, entry.hash)
    assert await log.count_in_force() == 1
    assert_chained([entry])


async def test_the_same_again_is_found_and_not_written(log: SuppressionLog) -> None:
    [first] = await log.append([asked(5)])
    [again] = await log.append([asked(5, channel=Channel.WEB)])
    assert again.already_in_force
    assert (again.position, again.channel) == (first.position, "one-click")
    assert (await log.head())[0] == 1


async def test_the_same_twice_in_one_call(log: SuppressionLog) -> None:
    one, two = await log.append([asked(5), asked(5)])
    assert (one.position, one.already_in_force) == (1, False)
    assert (two.position, two.already_in_force) == (1, True)


async def test_another_scope_or_kind_is_another_entry(log: SuppressionLog) -> None:
    entries = await log.append(
        [asked(5), asked(5, scope=Scope.TENANT), asked(5, scope=Scope.EVERYTHING), asked(5, kind=Kind.COMPLAINT)]
    )
    assert [entry.effect for entry in entries] == [Effect.CAMPAIGN, Effect.CAMPAIGN, Effect.ALL, Effect.ALL]
    assert len({entry.key for entry in entries}) == 3
    assert {entry.key for entry in entries} == set(keys_of(5))


async def test_concurrent_appends_share_transactions_and_each_gets_its_own_answer(database: Database) -> None:
    transactions: list[int] = []

    async def cancel(connection: Any, entries: Sequence[Entry]) -> Sequence[int]:
        transactions.append(len(entries))
        return [entry.person for entry in entries]

    log = SuppressionLog(database, DIGEST, cancel)
    answers = await asyncio.gather(*(log.append([asked(person), asked(person + 1000)]) for person in range(1, 101)))
    assert [[entry.person for entry in pair] for pair in answers] == [[n, n + 1000] for n in range(1, 101)]
    assert all(entry.cancelled == entry.person for pair in answers for entry in pair)
    assert len(transactions) <= 3
    assert_chained(await log.read_after(0, 1000))


async def test_two_workers_at_once_leave_one_gapless_chain(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as other:
        logs = [SuppressionLog(one, DIGEST), SuppressionLog(other, DIGEST)]

        async def append(number: int) -> None:
            await logs[number % 2].append([asked(number // 2 + 1)])
            await asyncio.sleep(0)

        await asyncio.gather(*(append(number) for number in range(200)))
        entries = await logs[0].read_after(0, 1000)
    assert len(entries) == 100
    assert_chained(entries)


async def test_a_failed_cancellation_writes_nothing(database: Database) -> None:
    async def cancel(connection: Any, entries: Sequence[Entry]) -> Sequence[int]:
        raise DatabaseUnavailable("gone")

    log = SuppressionLog(database, DIGEST, cancel)
    with pytest.raises(DatabaseUnavailable):
        await log.append([asked(5)])
    assert await log.head() == (0, GENESIS)
    assert await SuppressionLog(database, DIGEST).append([asked(5)])


async def test_nothing_is_answered_before_the_commit(database: Database) -> None:
    committed: list[Entry] = []
    log = SuppressionLog(database, DIGEST, on_appended=committed.extend)
    async with database.transaction() as connection:
        await connection.execute("SELECT 1 FROM suppression_head FOR UPDATE")
        waiting = asyncio.create_task(log.append([asked(5)]))
        await database.pool.fetchval("SELECT 1")
        assert not waiting.done()
        assert not committed
    [entry] = await waiting
    assert committed == [entry]


async def test_a_caller_that_gives_up_does_not_take_others_with_it(database: Database) -> None:
    log = SuppressionLog(database, DIGEST)
    async with database.transaction() as connection:
        await connection.execute("SELECT 1 FROM suppression_head FOR UPDATE")
        impatient, patient = asyncio.create_task(log.append([asked(5)])), asyncio.create_task(log.append([asked(6)]))
        await asyncio.sleep(0)
        impatient.cancel()
    [entry] = await patient
    assert entry.person == 6
    await log.close()
    assert impatient.cancelled()


async def test_without_a_database_the_caller_is_told(database_url: str) -> None:
    async with opened(database_url) as database:
        log = SuppressionLog(database, DIGEST)
        await log.append([asked(4)])
    with pytest.raises(DatabaseUnavailable):
        await log.append([asked(5)])


@pytest.mark.parametrize(
    "statement",
    ["UPDATE suppression_log SET kind = 4", "DELETE FROM suppression_log", "TRUNCATE suppression_log"],
)
async def test_the_log_is_append_only_for_the_database_too(
    log: SuppressionLog, database: Database, statement: str
) -> None:
    await log.append([asked(5)])
    with pytest.raises(asyncpg.RaiseError, match="append-only"):
        await database.pool.execute(statement)


async def test_an_operator_lifts_one_kind_and_the_others_stay(log: SuppressionLog) -> None:
    await log.append([asked(5), asked(5, kind=Kind.COMPLAINT)])
    lift = Lift(5, Scope.LIST, frozenset({Kind.COMPLAINT, Kind.LEGAL}), 7, 9, Channel.CLI, "root", "a mistake")
    async with log.appending() as appending:
        [lifted] = await appending.lift([lift], Action.LIFT_BY_OPERATOR)
    assert (lifted.action, lifted.kind, lifted.effect) == (Action.LIFT_BY_OPERATOR, Kind.COMPLAINT, Effect.CAMPAIGN)
    assert [entry.kind for entry in await log.in_force(keys_of(5))] == [Kind.UNSUBSCRIBE]
    [again] = await log.append([asked(5, kind=Kind.COMPLAINT)])
    assert (again.position, again.already_in_force) == (4, False)
    assert_chained(await log.read_after(0, 10))


async def test_several_writes_in_one_transaction_follow_each_other(log: SuppressionLog) -> None:
    async with log.appending() as appending:
        await appending.suppress([asked(5)])
        [found] = await appending.suppress([asked(5)])
        await appending.suppress([asked(6)])
    assert found.already_in_force
    assert_chained(await log.read_after(0, 10))
    assert (await log.head())[0] == 2


async def test_the_time_never_goes_back(log: SuppressionLog, database: Database) -> None:
    """A clock that is set back, or a failover to a host whose clock is behind."""
    await database.pool.execute("UPDATE suppression_head SET at = now() + interval '1 hour'")
    [one] = await log.append([asked(5)])
    [two] = await log.append([asked(6)])
    assert two.at >= one.at
    assert_chained([one, two])


async def test_the_story_of_a_person(log: SuppressionLog) -> None:
    await log.append([asked(5), asked(6), asked(5, scope=Scope.EVERYTHING)])
    assert [entry.position for entry in await log.read_person(5)] == [1, 3]


async def test_the_snapshot_streams_what_is_in_force(log: SuppressionLog) -> None:
    entries = await log.append([asked(person) for person in range(1, 301)] + [asked(7, kind=Kind.LEGAL)])
    data = bytearray()
    assert await log.snapshot(data.extend) == (301, entries[-1].hash)
    assert len(data) == 19 + 301 * 14 + 2
