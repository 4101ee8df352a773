"""Behind a real PgBouncer in transaction mode: LISTEN hears nothing, no session is ours, and the bound is kept."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.database import Database, DatabaseUnavailable, migrate, migrations
from mta.order_store import OrderFeed
from suppression.digest import MessageClass
from suppression.gate import Gate, Verdict
from suppression.log import SuppressionLog
from suppression.transfer import export
from tests.integration.test_suppression_watch import SOON, feed_of, watching
from tests.support.pooler import needs_pgbouncer, pooled
from tests.support.suppressions import DIGEST, asked, keys_of, opened

pytestmark = needs_pgbouncer
CAMPAIGN = MessageClass.CAMPAIGN
POLL_SECONDS = 0.2


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with pooled(database_url) as url, opened(url) as database:
        yield database


async def test_the_poll_alone_keeps_the_bound(database: Database, tmp_path: Path) -> None:
    """Nothing nudges this watch: what it learns, it learns by asking."""
    log = SuppressionLog(database, DIGEST)
    async with watching(log, tmp_path, feed_of(database), poll_seconds=POLL_SECONDS) as watch:
        await asyncio.wait_for(watch.caught_up(), SOON)
        gate = Gate(watch.index, watch)
        for person in range(1, 6):
            assert gate.allows(keys_of(person), CAMPAIGN) is Verdict.OPEN
            await log.append([asked(person)])
            async with asyncio.timeout(POLL_SECONDS + 1.0):
                while gate.allows(keys_of(person), CAMPAIGN) is not Verdict.SUPPRESSED:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        assert watch.trouble == ""


async def test_statements_of_many_clients_share_the_servers(database_url: str) -> None:
    """A statement that was prepared on one server is unknown on the next, or has the name of somebody else's there."""
    async with pooled(database_url, servers=2) as url, opened(url) as one, opened(url) as other:
        logs = [SuppressionLog(each, DIGEST) for each in (one, other)]

        async def suppress(person: int) -> None:
            log = logs[person % 2]
            await log.append([asked(person)])
            assert len(await log.in_force(keys_of(person))) == 1
            assert len(await log.read_person(person)) == 1

        await asyncio.gather(*(suppress(person) for person in range(1, 41)))
        lines: list[str] = []
        assert await export(other, lines.append) == 40
        assert len(lines) == 41
        assert (await logs[0].head())[0] == 40


async def test_orders_are_followed_by_asking(database: Database) -> None:
    feed = await OrderFeed.open(database, answer_within_seconds=2.0)
    await feed.listen(lambda: None)
    before = await feed.head()
    async with database.connection() as connection:
        await connection.execute("SELECT 1")
    assert await feed.head() == before
    feed.close()


async def test_nodes_migrate_through_it_and_leave_no_lock(empty_database_url: str) -> None:
    async with pooled(empty_database_url) as url:
        applied = await asyncio.gather(migrate(url), migrate(url))
        assert sum(map(len, applied)) == len(migrations())
        async with opened(empty_database_url) as direct, direct.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


async def test_without_a_pooler_statements_are_prepared(database_url: str) -> None:
    async with opened(database_url) as database, database.connection() as connection:
        await connection.fetchval("SELECT 1")
        assert await connection.fetchval("SELECT count(*) FROM pg_prepared_statements") == 2


async def test_commits_that_a_crash_may_undo_are_noticed(database_url: str) -> None:
    async with opened(database_url) as direct, direct.connection() as connection:
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    async with pooled(database_url) as url:
        with pytest.raises(DatabaseUnavailable, match="synchronous_commit is off"):
            await Database.open(url, size=1, application_name="test")
