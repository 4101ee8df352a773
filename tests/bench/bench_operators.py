"""How long operators wait with a million recipients queued: every command, and a pause until nothing of it is queued.

    python -m tests.bench.bench_operators --rows 1000000

Commands are timed from the start of their process to its end. The first line is what every one of them spends before
it does anything: Python's start, imports, and the connection.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from config.database import Database, migrate
from config.keyring import Keyring
from config.postgres import EmbeddedPostgres
from mta.order_store import OrderStore, Target
from mta.orders import Book, Reach, State
from mta.parts import Paths
from mta.steward import Steward
from mta.summary import Summary
from tests.support.daemon import Daemon
from tests.support.queue import fill, names

COMMANDS = (
    ("tenant", "list"),
    ("queue",),
    ("queue", "--campaign", "c0"),
    ("queue", "--state", "queued", "--json"),
    ("campaign", "list"),
    ("campaign", "show", "c0"),
    ("explain", "c0"),
    ("explain", "mx1.example.net"),
    ("campaign", "pause", "c0", "--reason", "measured"),
    ("campaign", "resume", "c0"),
)


async def prepare(url: str, rows: int) -> Database:
    """So many recipients in ten campaigns, most of them at sites that are known."""
    await migrate(url)
    database = await Database.open(url, size=4, application_name="bench", command_timeout_seconds=600)
    for number in range(10):
        ids = await names(database, "acme", f"c{number}", f"list{number}")
        site = f"mx{number}.example.net" if number else None
        await fill(database, ids, rows // 10, first=1 + number * rows, site=site, due_seconds=60.0 * number)
    await database.pool.execute("VACUUM ANALYZE", timeout=600)
    return database


async def measure_commands(url: str, directory: Path) -> None:
    """Each command, three times; the slowest counts."""
    daemon = Daemon(directory / "node", url)
    for arguments in COMMANDS:
        slowest = 0.0
        for _ in range(1 if "--reason" in arguments or "resume" in arguments else 3):
            began = time.perf_counter()
            done = await asyncio.to_thread(daemon.command, *arguments)
            slowest = max(slowest, time.perf_counter() - began)
            if done.returncode:
                print(f"heed {' '.join(arguments)}: exit code {done.returncode}: {done.stderr.strip()}")
                break
        print(f"heed {' '.join(arguments):45} {slowest:6.2f} s")


async def measure_pause(database: Database) -> None:
    """One campaign's rows set aside, and queued again."""
    store, book = OrderStore(database, time.time), Book()
    campaign_id = await database.pool.fetchval("SELECT id FROM campaign WHERE name = 'c0'")
    target = Target(Reach.CAMPAIGN, campaign_id, "", "c0")
    steward = Steward(book, store, Summary(database))
    for state in (State.PAUSED, State.RUNNING):
        await store.set_state(target, state, "measured", "bench")
        book.replace(await store.orders())
        began = time.perf_counter()
        await steward.tend(slow_round=False)
        seconds = time.perf_counter() - began
        held = await database.pool.fetchval("SELECT count(*) FROM recipient WHERE state = 2")
        print(f"{state.name.lower():10} {seconds:6.2f} s until nothing is left to move ({held} held then)")


async def main(rows: int) -> None:
    """Prepare and measure."""
    with tempfile.TemporaryDirectory(prefix="heed-bench-") as text:
        directory = Path(text)
        server = EmbeddedPostgres(directory / "database")
        await server.start()
        try:
            began = time.perf_counter()
            database = await prepare(server.url, rows)
            Paths(directory / "node").make()
            Keyring.load_or_create(Paths(directory / "node").keys)
            print(f"{rows} recipients stored in {time.perf_counter() - began:.0f} s")
            began = time.perf_counter()
            await Summary(database).refresh()
            print(f"{'count of the queue, by one node at a time':50} {time.perf_counter() - began:6.2f} s")
            await measure_commands(server.url, directory)
            await measure_pause(database)
            await database.close()
        finally:
            await server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="recipients in the queue")
    asyncio.run(main(parser.parse_args().rows))
