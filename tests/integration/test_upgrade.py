"""An upgrade under load: workers of the version before go on while the schema moves under them; nothing is lost."""

import asyncio
import itertools
import time
from pathlib import Path

import asyncpg

from config.database import _parse_queries, migrate, migrations

OLD = _parse_queries((Path(__file__).parents[1] / "support" / "previous.sql").read_text("utf-8"), "previous.sql")
LAST_OLD_MIGRATION = 3
BATCH = 20


class OldWorker:
    """Stores, claims, defers and finishes in the statements of the version before."""

    def __init__(self, connection: asyncpg.Connection, worker_id: int) -> None:
        self.connection = connection
        self.worker_id = worker_id
        self.stored: list[int] = []
        self.finished: set[int] = set()

    async def store(self, ids: list[int]) -> None:
        now, count = time.time(), len(ids)
        await self.connection.execute(
            OLD["insert"], 3, ids, [1] * count, [1] * count, [1] * count, [0] * count, [now] * count,
            [now + 900] * count, [b"e"] * count, [b"c"] * count, ids, [0] * count, [0] * count, [None] * count,
            [now - 1] * count, [now + 900] * count, ids, [b"a"] * count,
        )  # fmt: skip
        self.stored += ids

    async def attempt(self) -> int:
        """Claim what is due; defer a first attempt, finish a second."""
        rows = await self.connection.fetch(OLD["claim"], 3, 0, time.time(), BATCH, self.worker_id)
        first = [row["message_id"] for row in rows if row["attempts"] == 0]
        second = [row["message_id"] for row in rows if row["attempts"] > 0]
        if first:
            n = len(first)
            columns = ([3] * n, first, [0] * n, [1] * n, [time.time() - 1] * n, ["mx"] * n, [None] * n, [False] * n)
            assert len(await self.connection.fetch(OLD["defer"], *columns, self.worker_id)) == n
        if second:
            n, now = len(second), time.time()
            done_columns = (
                [3] * n, second, [0] * n, [1] * n, [2] * n, [now] * n, ["mx"] * n, ["2.0.0"] * n, [250] * n,
                ["none"] * n, [""] * n, ["ok"] * n, [1] * n, [1] * n, [1] * n, [now] * n,
            )  # fmt: skip
            done = await self.connection.fetch(OLD["finish"], *done_columns, self.worker_id)
            self.finished |= {row[0] for row in done}
        return len(rows)


async def connected(url: str) -> asyncpg.Connection:
    return await asyncpg.connect(url, command_timeout=5)


async def migrate_as_before(url: str) -> None:
    """The schema of the version before, with the record of its migrations."""
    connection = await connected(url)
    await connection.execute(
        "CREATE TABLE migration (number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )
    for step in migrations()[:LAST_OLD_MIGRATION]:
        await connection.execute(step.sql)
        await connection.execute(
            "INSERT INTO migration (number, name, sha256) VALUES ($1, $2, $3)", step.number, step.name, step.sha256
        )
    await connection.execute("INSERT INTO tenant (name) VALUES ('acme')")
    await connection.close()


async def test_old_workers_go_on_while_a_new_node_migrates(empty_database_url: str) -> None:
    url = empty_database_url
    await migrate_as_before(url)
    numbers, stop = itertools.count(1), asyncio.Event()
    begun = asyncio.Semaphore(0)

    async def work() -> OldWorker:
        connection = await connected(url)
        worker_id = await connection.fetchval("INSERT INTO worker (node) VALUES ('old') RETURNING id")
        worker = OldWorker(connection, worker_id)
        try:
            while not stop.is_set():
                await worker.store([next(numbers) * 16 + 3 for _ in range(BATCH)])
                await worker.attempt()
                await worker.attempt()
                begun.release()
            while await worker.attempt():
                pass
        finally:
            await connection.close()
        return worker

    tasks = [asyncio.create_task(work()) for _ in range(3)]
    for _ in range(6):
        await begun.acquire()
    applied = await migrate(url)
    assert [name[:4] for name in applied] == [f"{step.number:04}" for step in migrations()[LAST_OLD_MIGRATION:]]
    for _ in range(6):
        await begun.acquire()
    stop.set()
    workers = await asyncio.gather(*tasks)
    connection = await connected(url)
    last = OldWorker(connection, workers[0].worker_id)
    while await last.attempt():
        pass
    stored = {message for worker in workers for message in worker.stored}
    events = await connection.fetch("SELECT message_id, count(*) FROM event WHERE type = 1 GROUP BY 1")
    seen = await connection.fetchval("SELECT count(*) FROM outcome")
    left = await connection.fetchval("SELECT count(*) FROM recipient")
    await connection.close()
    assert left == 0
    assert {row[0] for row in events} == stored
    assert {row[1] for row in events} == {1}
    assert seen == len(stored)
