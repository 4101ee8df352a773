"""The door to PostgreSQL: whatever takes the database away has one name and comes in time; mistakes keep their own."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from config.database import Database, DatabaseUnavailable
from config.postgres import EmbeddedPostgres
from mta.order_store import OrderFeed
from suppression.feed import DatabaseFeed


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(database_url, size=2, application_name="test", command_timeout_seconds=2)
    yield database
    await database.close()


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A server that a test may kill."""
    server = EmbeddedPostgres(tmp_path / "data")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[psutil.Process]]:
    """The processes of own_server, to be filled by the test; those that it stops go on at its end."""
    found: list[psutil.Process] = []
    yield found
    for process in found:
        if process.is_running():
            process.resume()


def tree(data_dir: Path) -> list[psutil.Process]:
    pid = int((data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    postmaster = psutil.Process(pid)
    return [postmaster, *postmaster.children(recursive=True)]


async def names(database: Database) -> list[str]:
    async with database.connection() as connection:
        return [row["name"] for row in await connection.fetch("SELECT name FROM tenant ORDER BY name")]


async def add(connection: Any, name: str) -> None:
    await connection.execute("INSERT INTO tenant (name) VALUES ($1)", name)


async def test_a_transaction_is_committed_at_its_end(database: Database) -> None:
    async with database.transaction() as connection:
        await add(connection, "a")
    assert await names(database) == ["a"]


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, TimeoutError, OSError])
async def test_a_transaction_that_raises_is_undone(database: Database, error: type[BaseException]) -> None:
    with pytest.raises((error, DatabaseUnavailable)):
        async with database.transaction() as connection:
            await add(connection, "a")
            raise error
    assert await names(database) == []
    assert database.pool.get_size() - database.pool.get_idle_size() == 0


async def test_a_mistake_in_a_statement_keeps_its_name(database: Database) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        async with database.transaction() as connection:
            await add(connection, "a")
            await add(connection, "a")
    assert await names(database) == []


async def test_an_error_that_is_none_of_the_database_keeps_its_name(database: Database) -> None:
    with pytest.raises(FileNotFoundError):
        async with database.connection():
            raise FileNotFoundError


async def test_no_free_connection_in_time_is_unavailable(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.database.ACQUIRE_TIMEOUT_SECONDS", 0.1)
    async with database.connection(), database.connection():
        with pytest.raises(DatabaseUnavailable):
            async with database.connection():
                pass
    assert await names(database) == []


async def test_a_backend_that_is_terminated_is_unavailable_and_replaced(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with database.transaction() as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert await names(database) == []


async def test_a_statement_that_takes_too_long_is_unavailable(database_url: str) -> None:
    database = await Database.open(database_url, size=1, application_name="test", command_timeout_seconds=0.2)
    with pytest.raises(DatabaseUnavailable):
        async with database.transaction() as connection:
            await connection.execute("SELECT pg_sleep(30)")
    assert await names(database) == []
    await database.close()


async def test_a_transaction_that_gives_way_in_a_deadlock_is_unavailable(database: Database) -> None:
    """Nothing of it is left, so that it can be tried again: that is what the name says."""
    async with database.connection() as connection:
        for name in ("one", "two"):
            await add(connection, name)
    both = asyncio.Barrier(2)

    async def rename(*order: str) -> None:
        async with database.transaction() as connection:
            for name in order:
                await connection.execute("UPDATE tenant SET name = name WHERE name = $1", name)
                if name == order[0]:
                    await both.wait()

    found = await asyncio.gather(rename("one", "two"), rename("two", "one"), return_exceptions=True)
    assert [type(each) for each in found if each] == [DatabaseUnavailable]


async def test_a_database_that_takes_no_writes_is_unavailable(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with database.transaction() as connection:
            await connection.execute("SET TRANSACTION READ ONLY")
            await add(connection, "a")


async def test_a_stand_by_is_not_connected_to(database_url: str, database: Database) -> None:
    name = database_url.split("?")[0].rpartition("/")[2]
    async with database.connection() as connection:
        await connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with pytest.raises(DatabaseUnavailable):
        await Database.open(database_url, size=1, application_name="test")


@pytest.mark.parametrize("change", [("/heed_test", "/none_heed_test"), ("postgresql://", "postgresql://nobody:x@")])
async def test_a_server_without_our_database_or_user_is_unavailable(database_url: str, change: tuple[str, str]) -> None:
    url = database_url.replace("//heed@", "//") if change[0] == "postgresql://" else database_url
    with pytest.raises(DatabaseUnavailable):
        await Database.open(url.replace(*change), size=1, application_name="test")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("127.0.0.1:1", "nothing listens there; is PostgreSQL running where database.url says"),
        ("localhost:1", "nothing listens there; is PostgreSQL running where database.url says"),
        ("nowhere.invalid", "its host has no address"),
        ("127.0.0.1:hunter2", "database.url is not written as it should be$"),
    ],
)
async def test_no_server_is_unavailable(place: str, said: str) -> None:
    with pytest.raises(DatabaseUnavailable, match=said) as refused:
        await Database.open(f"postgresql://x:hunter2@{place}/x", size=1, application_name="test")
    assert "hunter2" not in str(refused.value)


async def test_a_killed_server_is_unavailable_and_found_again(own_server: EmbeddedPostgres, tmp_path: Path) -> None:
    database = await Database.open(own_server.url, size=3, application_name="test")
    for _ in range(3):
        async with database.connection() as connection:
            await connection.fetchval("SELECT 1")
            os.kill(tree(tmp_path / "data")[0].pid, signal.SIGKILL)
        await asyncio.wait_for(own_server.watch(interval_seconds=0.01), 10)
        with pytest.raises(DatabaseUnavailable):
            async with database.transaction() as connection:
                await connection.fetchval("SELECT 1")
        await own_server.start()
        async with database.transaction() as connection:
            assert await connection.fetchval("SELECT 1") == 1
    await database.close()


async def test_a_server_that_hangs_is_unavailable_in_time(
    own_server: EmbeddedPostgres, tmp_path: Path, processes: list[psutil.Process]
) -> None:
    database = await Database.open(own_server.url, size=2, application_name="test", command_timeout_seconds=0.5)
    processes += tree(tmp_path / "data")
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # one that ends by itself
            process.suspend()
    for _ in range(3):  # a connection that hangs, then those that can't be made
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            async with database.transaction() as connection:
                await connection.fetchval("SELECT 1")
        assert time.monotonic() - began < 4
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # one that was on its way out when it was stopped
            process.resume()
    async with database.transaction() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await database.close()


async def test_a_dedicated_connection_hears_what_is_notified(database: Database) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    connection = await database.dedicated()
    await connection.add_listener("heed_test", lambda *arguments: heard.put_nowait(arguments[-1]))
    async with database.transaction() as other:
        await other.execute("SELECT pg_notify('heed_test', '42')")
    assert await asyncio.wait_for(heard.get(), 5) == "42"
    await connection.close()


@pytest.mark.parametrize("feed", [OrderFeed, DatabaseFeed])
@pytest.mark.parametrize("failure", [asyncpg.InternalClientError("x"), asyncpg.InterfaceError("x"), OSError()])
async def test_a_feed_whose_connection_ends_between_two_statements_is_unavailable(
    database: Database, feed: type[OrderFeed | DatabaseFeed], failure: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What asyncpg makes of a server's last words; once it ended the supervisor, and with it all workers of a node."""

    class Ended:
        async def fetch(self, *_: object) -> None:
            raise failure

    opened = await feed.open(database, answer_within_seconds=2.0)
    await opened.head()
    opened.close()
    monkeypatch.setattr(opened, "_connection", Ended())
    with pytest.raises(DatabaseUnavailable):
        await opened.head()


async def test_nothing_that_is_stored_is_in_the_text(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        async with database.transaction() as connection:
            await add(connection, "reader@example.net")
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert "reader" not in str(caught.value)
    assert "reader" not in repr(database)


@pytest.mark.parametrize("value", ["on", "local", "remote_apply"])
async def test_a_commit_that_waits_for_the_disk_will_do(database: Database, database_url: str, value: str) -> None:
    await _set_synchronous_commit(database, value)
    await (await Database.open(database_url, size=1, application_name="test")).close()


async def test_a_database_whose_commits_a_crash_may_undo_is_not_used(database: Database, database_url: str) -> None:
    await _set_synchronous_commit(database, "off")
    with pytest.raises(DatabaseUnavailable, match="synchronous_commit is off"):
        await Database.open(database_url, size=1, application_name="test")


async def _set_synchronous_commit(database: Database, value: str) -> None:
    async with database.connection() as connection:
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = {value}')
