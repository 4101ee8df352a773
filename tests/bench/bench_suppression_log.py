"""What the log costs: `python -m tests.bench.bench_suppression_log [--rows 200000] [--appends 1000] [--url URL]`.

Imports rows, verifies the log, starts a watch from nothing, and then measures single unsubscribes: from the call to the
answer (the commit), and from the answer until the entry is in force in a watched index. Without a URL, an embedded
PostgreSQL is started.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from config.database import Database, migrate
from config.postgres import EmbeddedPostgres
from suppression.digest import Digest, Kind, MessageClass, Scope
from suppression.entry import Channel, NewEntry
from suppression.feed import DatabaseFeed
from suppression.index import Index
from suppression.keeper import BaseKeeper
from suppression.log import SuppressionLog
from suppression.scopes import Scopes
from suppression.transfer import Importer, ImportOrder
from suppression.verify import verify_log
from suppression.watch import Watch

DIGEST = Digest(bytes(32))


@asynccontextmanager
async def postgres(url: str | None) -> AsyncIterator[str]:
    """The given database, or an embedded one."""
    if url:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="heed-bench-") as directory:
        server = EmbeddedPostgres(Path(directory))
        await server.start()
        try:
            yield server.url
        finally:
            await server.stop()


async def import_rows(database: Database, log: SuppressionLog, count: int, directory: Path) -> None:
    """Import a file of that many addresses."""
    path = directory / "list.csv"
    with path.open("w") as file:
        file.write("email,name\n")
        file.writelines(f"person{number}@example.com,Person {number}\n" for number in range(count))
    begun = time.perf_counter()
    await Importer(database, log, DIGEST).run(ImportOrder(path, Scope.TENANT, Kind.UNSUBSCRIBE, 7, 0, "bench"))
    report("import, rows/s", count / (time.perf_counter() - begun))


async def verify(log: SuppressionLog, count: int) -> None:
    """Check all of it."""
    begun = time.perf_counter()
    result = await verify_log(log, DIGEST)
    assert result.intact
    report("verify, entries/s", count / (time.perf_counter() - begun))


async def unsubscribe(database: Database, log: SuppressionLog, appends: int, directory: Path) -> None:
    """Start a watch, then append one entry after the other and see when it is in force there."""

    async def connect() -> DatabaseFeed:
        return await DatabaseFeed.open(database, answer_within_seconds=2)

    index = Index()
    watch = Watch(index, connect, BaseKeeper(directory / "suppression.index", log), Scopes(DIGEST))
    begun = time.perf_counter()
    await watch.start()
    await watch.caught_up()
    report("watch from nothing, s", time.perf_counter() - begun)
    answers, effects = [], []
    for number in range(appends):
        person = number + 1
        keys = DIGEST.keys(person, 7, 9)
        entry = NewEntry(person, Scope.LIST, Kind.UNSUBSCRIBE, 7, 9, Channel.ONE_CLICK, "bench")
        begun = time.perf_counter()
        await log.append([entry])
        answered = time.perf_counter()
        while not index.blocks(keys, MessageClass.CAMPAIGN):  # noqa: ASYNC110  # finer than any event could tell
            await asyncio.sleep(0.0002)
        answers.append(answered - begun)
        effects.append(time.perf_counter() - answered)
    for name, values in (("answer", answers), ("in force", effects)):
        values.sort()
        report(f"{name} p50, ms", values[len(values) // 2] * 1e3)
        report(f"{name} p99, ms", values[int(len(values) * 0.99)] * 1e3)
        report(f"{name} max, ms", values[-1] * 1e3)
    begun = time.perf_counter()
    await asyncio.gather(*(
        log.append([NewEntry(-number, Scope.LIST, Kind.UNSUBSCRIBE, 7, 9, Channel.ONE_CLICK, "bench")])
        for number in range(1, 5001)
    ))  # fmt: skip
    report("concurrent appends/s", 5000 / (time.perf_counter() - begun))
    await watch.stop()


def report(name: str, value: float) -> None:
    """One figure."""
    print(f"{name:28} {value:12,.2f}", flush=True)


async def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--appends", type=int, default=1_000)
    parser.add_argument("--url")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        async with postgres(arguments.url) as url:
            await migrate(url)
            database = await Database.open(url, size=4, application_name="bench")
            log = SuppressionLog(database, DIGEST)
            await import_rows(database, log, arguments.rows, Path(directory))
            await verify(log, arguments.rows)
            await unsubscribe(database, log, arguments.appends, Path(directory))
            await database.close()


if __name__ == "__main__":
    asyncio.run(main())
