"""What the promise comes to under load: `python -m tests.bench.bench_promise [--entries 10000000]`, and more by --help.

A daemon of two workers with that many entries in its index, and smtp-source that submits as fast as it is taken. People
unsubscribe by one-click, and a witness at each worker asks by RCPT for them until it is refused. What counts is the
time from the commit, which PostgreSQL notes before it flushes its log, to the refusal of the slowest worker, with the
witness's own round trip; beside it, that from the answer to the person. Once more with a database whose pg_notify does
nothing. At last PostgreSQL is stopped while a slow sink has mail to take for minutes: how long mail still comes.
Needs smtp-source and smtp-sink of Debian's package postfix. Ends with 1 where a goal is missed.
"""

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from config.database import Database, migrate
from config.keyring import Keyring
from config.postgres import EmbeddedPostgres
from mta.accounts import Accounts
from suppression.digest import Digest
from suppression.tokens import Purpose, Token, Tokens
from tests.bench.drive import Load, Sink, background, drive
from tests.bench.entries import fill
from tests.bench.peers import Missing, require
from tests.bench.witness import Witness, witnesses
from tests.support.daemon import Daemon, Ports

P99_SECONDS: Final = 0.05
MAX_SECONDS: Final = 1.0
STALE_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.5  # suppression.poll_seconds
_CUT_SHARE: Final = 5  # of the unsubscribes: with NOTIFY cut off each takes a hundred times as long
_QUIET_SECONDS: Final = 4.0  # no mail for so long: sending has ended
_START_SECONDS: Final = 300.0
_SETTINGS: Final = {
    "delivery.tls": "none",
    "suppression.canary_seconds": 0,
    "suppression.poll_seconds": _POLL_SECONDS,
}
# found in front of the server's own; tables are still made and found in public
_DEAF: Final = (
    "CREATE SCHEMA deaf",
    "CREATE FUNCTION deaf.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT'",
    "ALTER DATABASE postgres SET search_path = public, deaf, pg_catalog",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND application_name <> 'bench'",
)


@dataclass(slots=True)
class Seen:
    """Seconds until every worker refused a person: from each commit, and from each answer."""

    from_commit: list[float] = field(default_factory=list)
    from_answer: list[float] = field(default_factory=list)


class Scene:
    """One daemon on a database of the benchmark's own, its sink, and who is to unsubscribe."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server = EmbeddedPostgres(directory / "database", settings={"track_commit_timestamp": "on"})
        self.sink = Sink(directory, Ports.free().sink)
        self.daemon: Daemon
        self._database: Database
        self._tokens: Tokens
        self._digest: Digest
        self._tenant_id = 0

    async def prepare(self, entries: int) -> None:
        """Fill a database, and start a daemon on it."""
        await self.server.start()
        await migrate(self.server.url)
        self._database = await Database.open(self.server.url, size=3, application_name="bench")
        begun = time.monotonic()
        await fill(self.server.url, entries)
        report("entries put into the log, s", time.monotonic() - begun)
        self.sink.start()
        self.daemon = Daemon(self.directory / "node", self.server.url, workers=2, settings=_SETTINGS)
        self.daemon.set("delivery.next_hop", f"127.0.0.1:{self.sink.port}")
        await self.start()
        keyring = Keyring.load(self.daemon.data_dir / "keys" / "master.key")
        self._tokens, self._digest = Tokens(keyring), Digest(keyring.digest_key)
        self._tenant_id = (await Accounts(self._database, keyring).add_tenant("sandbox", exist_ok=True)).id

    async def start(self) -> None:
        """Start the daemon: the first time it builds its base file from the database."""
        begun = time.monotonic()
        self.daemon.launch()
        await self.daemon.ready(_START_SECONDS)
        report("daemon ready after, s", time.monotonic() - begun)

    async def warm_up(self) -> None:
        """What is done only once (keys, routes, statements) is not to be measured."""
        await drive(self.daemon.ports.submission, Load(500), self.sink, [])

    async def close(self) -> None:
        """End all of it."""
        if hasattr(self, "daemon"):
            self.daemon.destroy()
        if hasattr(self, "_database"):
            await self._database.close()
        self.sink.stop()
        await self.server.stop()

    @property
    def last_words(self) -> str:
        """The end of the daemon's log."""
        return "\n".join(self.daemon.log.splitlines()[-20:]) if hasattr(self, "daemon") else ""

    async def deafen(self) -> None:
        """From here on NOTIFY reaches nobody."""
        async with self._database.connection() as connection:
            for statement in _DEAF:
                await connection.execute(statement)

    async def unsubscribe(self, count: int, per_second: float, load: Load) -> Seen:
        """One person after the other, under load."""
        port, seen = self.daemon.ports.submission, Seen()
        async with (
            witnesses(port, self.daemon.worker_pids()) as present,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False, force_close=True)) as http,
            background(port, load),
        ):
            for _ in range(count):
                begun = time.monotonic()
                await self._one(http, present, seen)
                await asyncio.sleep(max(0.0, begun + 1 / per_second - time.monotonic()))
            trips = sorted(each for witness in present for each in witness.round_trips)
            report("a witness's round trip meanwhile, p50, ms", trips[len(trips) // 2] * 1e3)
            report("a witness's round trip meanwhile, p99, ms", trips[int(len(trips) * 0.99)] * 1e3)
        return seen

    async def _one(self, http: aiohttp.ClientSession, present: Sequence[Witness], seen: Seen) -> None:
        address = f"reader-{secrets.token_hex(8)}@example.net"
        person = self._digest.person(address)
        token = self._tokens.issue(Token(Purpose.ONE_CLICK, self._tenant_id, 0, 0, person, 0))
        for witness in present:
            await witness.accepts(address)
        refusals = [asyncio.create_task(witness.refuses(address)) for witness in present]
        async with http.post(f"https://127.0.0.1:{self.daemon.ports.web}/u/{token}") as answer:
            answer.raise_for_status()
        answered_at = time.time()
        refused_at = max(await asyncio.gather(*refusals))
        async with self._database.connection() as connection:
            committed_at = await connection.fetchval(
                "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM suppression_log"
                " WHERE person = $1",
                person,
            )
        seen.from_commit.append(refused_at - committed_at)
        seen.from_answer.append(max(0.0, refused_at - answered_at))

    async def stop_database(self, recipients: int = 1_000) -> tuple[float, int]:
        """Seconds after which no mail came any more, and how much there still was to send."""
        await self.daemon.stop()
        self.sink.stop()
        self.sink.start(slow=True)
        await self.start()
        goal = self.sink.count() + 4 * recipients
        async with background(self.daemon.ports.submission, Load(4, recipients=recipients, connections=1)):
            await self.sink.reached(self.sink.count() + 10)
        begun = last = time.monotonic()
        await self.server.stop()
        count = self.sink.count()
        while time.monotonic() - last < _QUIET_SECONDS:
            await asyncio.sleep(0.02)
            if (now := self.sink.count()) != count:
                count, last = now, time.monotonic()
        return last - begun, goal - count


def report(name: str, value: float, goal: str = "") -> None:
    """One figure."""
    print(f"{name:52} {value:12,.3f}  {goal}".rstrip(), flush=True)


def quantiles(name: str, seen: Seen, goals: tuple[float | None, float]) -> bool:
    """Print how long it took, in ms; whether p99 and the longest meet their goals."""
    ordered = sorted(seen.from_answer)
    report(f"{name}, from the answer, p99, ms", ordered[int(len(ordered) * 0.99)] * 1e3)
    report(f"{name}, from the answer, max, ms", ordered[-1] * 1e3)
    ordered = sorted(seen.from_commit)
    p99, longest = ordered[int(len(ordered) * 0.99)], ordered[-1]
    report(f"{name}, p50, ms", ordered[len(ordered) // 2] * 1e3)
    report(f"{name}, p99, ms", p99 * 1e3, f"goal {goals[0] * 1e3:.0f}" if goals[0] else "")
    report(f"{name}, max, ms", longest * 1e3, f"goal {goals[1] * 1e3:.0f}")
    return (goals[0] is None or p99 <= goals[0]) and longest <= goals[1]


async def measure(options: argparse.Namespace, place: Path) -> bool:
    """All three; whether the goals are met."""
    scene = Scene(place)
    load = Load(10_000_000, connections=options.connections)
    try:
        await scene.prepare(options.entries)
        await scene.warm_up()
        seen = await scene.unsubscribe(options.unsubscribes, options.rate, load)
        met = quantiles("in force at every worker", seen, (P99_SECONDS, MAX_SECONDS))
        await scene.deafen()
        await scene.daemon.ready()
        await scene.warm_up()
        seen = await scene.unsubscribe(max(1, options.unsubscribes // _CUT_SHARE), options.rate, load)
        met &= quantiles("with NOTIFY cut off", seen, (None, _POLL_SECONDS + MAX_SECONDS))
        last, left = await scene.stop_database()
        report("last mail after PostgreSQL was stopped, s", last, f"goal {STALE_SECONDS:.0f}")
        report("recipients that waited then", left)
        return met and last <= STALE_SECONDS and left > 0
    except BaseException:
        print(scene.last_words, file=sys.stderr)
        raise
    finally:
        await scene.close()


def main() -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--unsubscribes", type=int, default=1_000)
    parser.add_argument("--rate", type=float, default=20.0, help="unsubscribes a second at most")
    parser.add_argument("--connections", type=int, default=20, help="of the load")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on the disk that is to be measured")
    options = parser.parse_args()
    try:
        require(peers=False)
    except Missing as error:
        print(f"bench_promise: {error}", file=sys.stderr)
        return 2
    place = Path(tempfile.mkdtemp(prefix="heed-bench-", dir=options.directory))
    place.chmod(0o711)  # the sink's and PostgreSQL's users have directories of their own in it
    try:
        return 0 if asyncio.run(measure(options, place)) else 1
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
