"""How long operators wait with a million recipients queued: every command, a pause until nothing of it is queued, and
until the last message of it has come to the peer.

    python -m tests.bench.bench_operators --rows 1000000

Commands are timed from the start of their process to its end. The first line is what every one of them spends before
it does anything: Python's start, imports, and the connection.
"""

import argparse
import asyncio
import resource
import tempfile
import time
from pathlib import Path

from config.database import Database, migrate
from config.keyring import Keyring
from config.postgres import EmbeddedPostgres
from mta.accounts import Accounts
from mta.identifiers import first_id_at, queue_id
from mta.installation import Paths
from mta.order_store import OrderStore, Target
from mta.orders import Book, Reach, State
from mta.steward import Steward
from mta.summary import Summary
from tests.bench.backlog import Backlog
from tests.bench.fleet import Fleet
from tests.support.daemon import Daemon, founded
from tests.support.queue import fill, names

# messages by which a delivery is seen to be under way, and the silence after which it has ended
_UNDER_WAY = 300
_QUIET_SECONDS = 5.0
_POLL_SECONDS = 0.004
COMMANDS = (
    ("tenant", "list"),
    ("queue",),
    ("queue", "--campaign", "c0"),
    ("queue", "--state", "queued", "--json"),
    ("campaign", "list"),
    ("campaign", "show", "c0"),
    ("explain", "c0"),
    ("explain", "mx1.example.net"),
    ("trace", "{message}"),
    ("trace", "{person}"),
    ("explain", "{person}", "--kind", "recipient"),
    ("top", "--json"),
    ("campaign", "pause", "c0", "--reason", "measured"),
    ("campaign", "resume", "c0"),
)


async def prepare(url: str, rows: int, keyring: Keyring) -> Database:
    """So many recipients in ten campaigns, most of them at sites that are known."""
    await migrate(url)
    database = await Database.open(url, size=4, application_name="bench", command_timeout_seconds=600)
    accounts = Accounts(database, keyring)
    tenant = await accounts.add_tenant("acme")
    for number in range(10):
        await accounts.campaign(tenant.id, f"c{number}")  # with a key, as submission makes it
        ids = await names(database, "acme", f"c{number}", f"list{number}")
        site = f"mx{number}.example.net" if number else None
        await fill(database, ids, rows // 10, first=1 + number * rows, site=site, due_seconds=60.0 * number)
    await database.pool.execute("VACUUM ANALYZE", timeout=600)
    return database


async def remember(database: Database, rows: int) -> str:
    """A delivery of the last hour for each of so many recipients; the queue id of one of them."""
    began, now = time.time() - 3_600, time.time()
    first, last = first_id_at(began), first_id_at(now)
    await database.pool.execute(
        "INSERT INTO event (at, received_at, message_id, person, ordinal, tenant_id, list_id, campaign_id, type,"
        " message_class, site, status, reply_code) SELECT t, t,"
        " $4::bigint + n * $5::bigint, n * 1000, 0, 1, 1, 1, 1, 0, 'mx1.example.net', '2.0.0', 250"
        " FROM generate_series(1, $1::bigint) AS n, to_timestamp($2::float8 + n * $3::float8) AS t",
        rows, began, (now - began) / rows, first, (last - first) // rows, timeout=600,
    )  # fmt: skip
    await database.pool.execute("VACUUM ANALYZE event", timeout=600)
    return queue_id(first + rows // 2 * ((last - first) // rows))


async def measure_commands(url: str, directory: Path, known: str) -> None:
    """Each command, three times; the slowest counts, and the CPU of one. known: the queue id of a delivered message."""
    daemon = Daemon(founded(directory / "node"), url)
    for command in COMMANDS:
        arguments = [argument.format(message=known, person=f"{1_000 * 1_000:016x}") for argument in command]
        slowest, before = 0.0, _cpu_seconds()
        times = 1 if "--reason" in arguments or "resume" in arguments else 3
        for _ in range(times):
            began = time.perf_counter()
            done = await asyncio.to_thread(daemon.command, *arguments)
            slowest = max(slowest, time.perf_counter() - began)
            if done.returncode:
                print(f"heed {' '.join(arguments)}: exit code {done.returncode}: {done.stderr.strip()}")
                break
        cpu = (_cpu_seconds() - before) / times
        print(f"heed {' '.join(arguments):45} {slowest:6.2f} s, {cpu:.2f} s of CPU")


def _cpu_seconds() -> float:
    """What commands have used so far; the database's part is not in it."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


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


async def measure_pause_at_the_sink(rows: int) -> None:
    """From the start of the command to the last message that a sink takes of a campaign that is being delivered."""
    async with Fleet(Path("/var/tmp")) as fleet:
        member = await fleet.member("heed")
        await member.store.fill(Backlog(rows, campaign="flood", size=2_000))
        sink = fleet.sink
        await sink.reached(sink.count() + _UNDER_WAY)
        command = ("campaign", "pause", "flood", "--reason", "measured")
        for number in range(1, 4):
            count = sink.count()
            began = time.perf_counter()
            done = await asyncio.to_thread(member.daemon.command, *command)
            returned = last = time.perf_counter()
            if done.returncode:
                print(f"heed {' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
                return
            at_return = seen = sink.count()
            while time.perf_counter() < last + _QUIET_SECONDS:
                if (now := sink.count()) != seen:
                    seen, last = now, time.perf_counter()
                await asyncio.sleep(_POLL_SECONDS)
            left = await member.store.queued()
            print(
                f"pause {number}: in force {last - began:.2f} s after its command began, {last - returned:.2f} after"
                f" the end ({at_return - count} messages meanwhile, {seen - at_return} after it; {left} are queued)"
            )
            await asyncio.to_thread(member.daemon.command, "campaign", "resume", "flood")
            await sink.reached(seen + _UNDER_WAY)


async def main(rows: int) -> None:
    """Prepare and measure."""
    with tempfile.TemporaryDirectory(prefix="heed-bench-") as text:
        directory = Path(text)
        server = EmbeddedPostgres(directory / "database")
        await server.start()
        try:
            began = time.perf_counter()
            paths = Paths(directory / "node")
            paths.make()
            database = await prepare(server.url, rows, Keyring.load_or_create(paths.keys))
            print(f"{rows} recipients stored in {time.perf_counter() - began:.0f} s")
            began = time.perf_counter()
            await Summary(database).refresh()
            print(f"{'count of the queue, by one node at a time':50} {time.perf_counter() - began:6.2f} s")
            await measure_commands(server.url, directory, await remember(database, rows))
            await measure_pause(database)
            await database.close()
        finally:
            await server.stop()
    await measure_pause_at_the_sink(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="recipients in the queue")
    asyncio.run(main(parser.parse_args().rows))
