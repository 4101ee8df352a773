"""The rows of the table of goals, each as one benchmark against its peer or against itself under better conditions.

A row's function returns the lines that it adds to the table. Everything that a line is made of stays in its runs, so
that a result can be read again later. Raises Missing for what can't be run here, Stuck for mail that does not arrive.
"""

import asyncio
import hashlib
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from mta.signing import RSA_SHA256, generate
from tests.bench.backlog import Backlog
from tests.bench.drive import Contender, Load, Run, alternate, drain, ratio
from tests.bench.fleet import Fleet, Member, silent_host
from tests.bench.latency import Latency, transactional
from tests.bench.machine import Throttle, cores, machine_seconds, rss_bytes

_FEW: Final = 10_000
_DEAD_DOMAIN: Final = "dead.example.org"
# of a core, for each worker, where one worker shall be the limit of a small machine
_WORKER_SHARE: Final = 0.4
# where nearly equal rates are compared: as much in all, in more and shorter turns, because the machine's pace drifts
_TURN: Final = Load(4_000)
_TURNS: Final = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table. met None: measured, but there is no goal to be met."""

    row: str
    what: str
    goal: str
    measured: str
    peer: str
    ratio: float | None
    met: bool | None
    note: str = ""
    runs: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Bench:
    """What the rows share: the processes, how long they may take, and what was measured before.

    factor: of every load; backlog: the rows of a full queue.
    """

    fleet: Fleet
    rounds: int
    factor: float
    backlog: int
    say: Callable[[str], None]
    kept: dict[str, dict[str, list[Run]]] = field(default_factory=dict)

    def heed(self, load: Load, name: str = "heed") -> Contender:
        """A daemon under a load."""
        return lambda: self.fleet.drive(name, load.times(self.factor))

    def peer(self, load: Load, *, signed: bool) -> Contender:
        """Postfix under a load."""
        return lambda: self.fleet.drive_peer(load.times(self.factor), signed=signed)

    async def run(self, key: str, contenders: dict[str, Contender], rounds: int = 0) -> dict[str, list[Run]]:
        """Let contenders take turns; once only for each key."""
        if key not in self.kept:
            self.say(f"{key}: {', '.join(contenders)}")
            self.kept[key] = await alternate(contenders, rounds or self.rounds)
        return self.kept[key]


# --- against the peers


async def row_a(bench: Bench) -> list[Line]:
    """10 kB, signed, over connections that stay open."""
    runs = await _runs_a(bench)
    return [
        _faster("A", "10 kB, reused connections; peer signs", runs, "postfix+opendkim", 4.0),
        _faster("A", "10 kB, reused connections; peer doesn't sign", runs, "postfix", 2.0),
    ]


async def row_b(bench: Bench) -> list[Line]:
    """50 kB likewise."""
    contenders = {
        "heed": bench.heed(Load(8_000, size=50_000)),
        "postfix+opendkim": bench.peer(Load(3_000, size=50_000), signed=True),
    }
    runs = await bench.run("B", contenders)
    return [_faster("B", "50 kB, reused connections", runs, "postfix+opendkim", 4.0)]


async def row_c(bench: Bench) -> list[Line]:
    """A new connection for each message."""
    contenders = {
        "heed": bench.heed(Load(8_000, fresh=True)),
        "postfix+opendkim": bench.peer(Load(3_000, fresh=True), signed=True),
    }
    runs = await bench.run("C", contenders)
    return [_faster("C", "10 kB, a connection for each message", runs, "postfix+opendkim", 3.0)]


async def row_d(bench: Bench) -> list[Line]:
    """A message to a thousand: each gets header fields and a signature of its own; of the peer, all get the same."""
    contenders = {
        "heed": bench.heed(Load(16, recipients=1_000)),
        "postfix": bench.peer(Load(7, recipients=1_000), signed=False),
    }
    runs = await bench.run("D", contenders)
    rate = _median(runs["heed"], _delivered)
    return [
        Line(
            "D", "1,000 recipients, own signature each", "2,000/s", f"{rate:,.0f}/s",
            f"{_median(runs['postfix'], _delivered):,.0f}/s", _ratio(runs, "heed", "postfix"), rate >= 2_000,
            runs=_plain(runs),
        )
    ]  # fmt: skip


async def row_e(bench: Bench) -> list[Line]:
    """What row A costs the whole machine, load generator, sink and database included."""
    runs = await _runs_a(bench)
    used, own = _median(runs["heed"], lambda run: run.machine_ms), _median(runs["heed"], lambda run: run.own_ms)
    others = _median(runs["heed"], lambda run: run.others_cores)
    note = f"of it ours {own:.2f} ms; RSA alone {_rsa_milliseconds():.2f} ms"
    if others > 0.1:
        note += f"; others used {others:.1f} cores meanwhile"
    return [
        Line(
            "E", f"the machine's CPU a message in A; peer {name}", "1.1 ms", f"{used:.2f} ms",
            f"{_median(runs[name], lambda run: run.machine_ms):.2f} ms",
            1 / ratio([r.machine_ms for r in runs["heed"]], [r.machine_ms for r in runs[name]]), used <= 1.1, note,
        )
        for name in ("postfix+opendkim", "postfix")
    ]  # fmt: skip


async def _runs_a(bench: Bench) -> dict[str, list[Run]]:
    contenders = {
        "heed": bench.heed(Load(12_000)),
        "postfix+opendkim": bench.peer(Load(3_500), signed=True),
        "postfix": bench.peer(Load(5_000), signed=False),
    }
    return await bench.run("A", contenders)


# --- against itself under better conditions


async def row_f(bench: Bench) -> list[Line]:
    """Row A while a million recipients wait for other times and sites; and what a claim costs among them."""
    fleet, claims = bench.fleet, _Claims(bench)
    for name, recipients in (("few wait", _FEW), ("many wait", bench.backlog)):
        member = await fleet.member(name)
        started = time.monotonic()
        later = Backlog(recipients, "later", due_from=timedelta(hours=6), due_within=timedelta(hours=42), sites=1_000)
        await member.store.fill(later)
        bench.say(f"F: {recipients:,} recipients queued in {time.monotonic() - started:.0f} s")
    contenders = {name: bench.heed(_TURN, name) for name in ("heed", "few wait", "many wait")}
    runs = await bench.run("F", contenders, bench.rounds * _TURNS)
    claim_runs = await bench.run("F claims", {name: claims.contender(name) for name in ("few wait", "many wait")})
    memory = {name: _largest_worker(await fleet.member(name)) for name in ("few wait", "many wait")}
    for name in ("few wait", "many wait"):
        await fleet.dismiss(name)
    few, many = (statistics.median(claims.microseconds[name]) for name in ("few wait", "many wait"))
    size = f"{bench.backlog:,}"
    rate = _ratio(runs, "many wait", "heed")
    return [
        Line(
            "F", f"A while {size} wait", "≥ 0.9 × empty", _rate(runs["many wait"]), _rate(runs["heed"]), rate,
            rate >= 0.9, runs=_plain(runs),
        ),
        Line(
            "F", f"a claim, for each recipient; {size} against {_FEW:,}", "≤ 1.25 ×", f"{many:.0f} µs", f"{few:.0f} µs",
            many / few, many <= 1.25 * few, f"drained at {_rate(claim_runs['many wait'])}", _plain(claim_runs),
        ),
        Line(
            "F", f"RSS of the largest worker; {size} against {_FEW:,}", "≤ 1.1 ×",
            f"{memory['many wait'] / 2**20:.0f} MiB", f"{memory['few wait'] / 2**20:.0f} MiB",
            memory["many wait"] / memory["few wait"], memory["many wait"] <= 1.1 * memory["few wait"],
        ),
    ]  # fmt: skip


async def row_g(bench: Bench) -> list[Line]:
    """Row A while a million recipients are due at a site that takes connections and says nothing."""
    async with silent_host() as port:
        name = "dead site"
        member = await bench.fleet.member(name, settings={f"delivery.routes.{_DEAD_DOMAIN}": f"127.0.0.1:{port}"})
        await member.store.fill(Backlog(bench.backlog, "to the dead", _DEAD_DOMAIN, site=f"127.0.0.1:{port}"))
        idle = await _idle_cores(5.0)
        contenders = {"heed": bench.heed(_TURN), name: bench.heed(_TURN, name)}
        runs = await bench.run("G", contenders, bench.rounds * _TURNS)
        await bench.fleet.member(name)
        claimed = await member.daemon.metric("heed_claim_seconds_count")
        await bench.fleet.dismiss(name)
    rate = _ratio(runs, name, "heed")
    return [
        Line(
            "G", f"A while {bench.backlog:,} are due at a silent site", "≥ 0.9 × empty", _rate(runs[name]),
            _rate(runs["heed"]), rate, rate >= 0.9, f"{idle:.2f} cores busy without load; {claimed:.0f} claims",
            _plain(runs),
        )
    ]  # fmt: skip


async def row_h(bench: Bench) -> list[Line]:
    """Row A, and the way out of the queue, while a transaction with a snapshot stays open all the time."""
    fleet, name, claims = bench.fleet, "held", _Claims(bench)
    member = await fleet.member(name)
    async with member.store.held_transaction():
        contenders = {"heed": bench.heed(_TURN), name: bench.heed(_TURN, name)}
        runs = await bench.run("H", contenders, bench.rounds * _TURNS)
        claim_runs = await bench.run("H claims", {each: claims.contender(each, 20_000) for each in ("heed", name)})
        await fleet.member(name)  # let it go on, so that the transaction can end
        dead = await member.store.value("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'recipient'")
    await fleet.dismiss(name)
    rate, drained = _ratio(runs, name, "heed"), _ratio(claim_runs, name, "heed")
    each = {who: statistics.median(claims.microseconds[who]) for who in ("heed", name)}
    note = f"a claim for each recipient {each[name]:.0f} against {each['heed']:.0f} µs"
    return [
        Line(
            "H", "A while a transaction is held open", "≥ 0.9 × without", _rate(runs[name]), _rate(runs["heed"]), rate,
            rate >= 0.9, f"{dead:,} dead rows at the end", _plain(runs),
        ),
        Line(
            "H", "queued mail likewise", "≥ 0.9 × without", _rate(claim_runs[name]), _rate(claim_runs["heed"]), drained,
            drained >= 0.9, note, _plain(claim_runs),
        ),
    ]  # fmt: skip


async def row_i(bench: Bench) -> list[Line]:
    """From one worker to two, as they are, and with a share of a core for each so that they are the limit."""
    fleet, load = bench.fleet, Load(8_000)
    await fleet.member("one worker", workers=1)
    names = {"one worker": "one worker", "two workers": "heed"}
    runs = await bench.run("I", {name: bench.heed(load, who) for name, who in names.items()})
    shared = await bench.run("I limited", {name: _limited(bench, load, who) for name, who in names.items()})
    await fleet.dismiss("one worker")
    lines = []
    for found, what in (
        (runs, "1 → 2 workers, as they are"),
        (shared, f"likewise, {_WORKER_SHARE:.0%} of a core each"),
    ):
        if not found["one worker"]:
            continue
        rate = _ratio(found, "two workers", "one worker")
        busy = _median(found["two workers"], lambda run: run.busy_cores)
        full = busy > 0.93 * cores()
        note = f"{busy:.2f} of {cores()} cores busy with two"
        lines.append(
            Line(
                "I", what, "≥ 1.7 ×", _rate(found["two workers"]), _rate(found["one worker"]), rate,
                True if rate >= 1.7 else None if full else False,
                note + (": the machine is full" if full else ""), _plain(found),
            )
        )  # fmt: skip
    return lines


async def row_j(bench: Bench) -> list[Line]:
    """A transactional message behind a campaign of a million to the same site, against one on an idle daemon."""
    fleet, name = bench.fleet, "campaign"
    seconds = max(8.0, 40.0 * bench.factor)
    idle = await fleet.member("heed")
    bench.say("J: heed, campaign")
    quiet = await transactional(idle, seconds / 2, per_second=20)
    member = await fleet.member(name)
    await member.store.fill(Backlog(bench.backlog, "the campaign"))
    before = fleet.sink.count()
    await fleet.sink.reached(before + 100)
    first, started = fleet.sink.count(), time.monotonic()
    busy = await transactional(member, seconds, per_second=20)
    rate = (fleet.sink.count() - first) / (time.monotonic() - started)
    left = await member.store.queued()
    await fleet.dismiss(name)
    note = f"campaign at {rate:,.0f}/s, {left:,} left; submission p99 {busy.submit_p99:.2f} s, {busy.refused} refused"
    running = left > 0 and rate > 0
    return [
        Line(
            "J", f"transactional mail behind a campaign of {bench.backlog:,}, p99", "≤ 2 s",
            f"{busy.delivered_p99:.2f} s", f"{quiet.delivered_p99:.3f} s", busy.delivered_p99 / quiet.delivered_p99,
            busy.delivered_p99 <= 2 and running, note, {"idle": _latency(quiet), "campaign": _latency(busy)},
        )
    ]  # fmt: skip


class _Claims:
    """Mail that is in the queue already, timed on its way out, and what claiming it cost."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._batch = 0
        self.microseconds: dict[str, list[float]] = {}

    def contender(self, name: str, recipients: int = 12_000) -> Contender:
        """Fill the queue of a daemon with what is due at once, and see it drained."""
        return lambda: self._drain(name, max(2_000, round(recipients * self._bench.factor)))

    async def _drain(self, name: str, recipients: int) -> Run:
        fleet = self._bench.fleet
        member = await fleet.member(name)
        before = await self._claimed(member)
        self._batch += 1
        timed = asyncio.ensure_future(drain(fleet.sink, recipients, member.pids))
        await member.store.fill(Backlog(recipients, f"batch {self._batch}"))
        run = await timed
        seconds = await self._claimed(member) - before
        self.microseconds.setdefault(name, []).append(seconds / recipients * 1e6)
        return run

    async def _claimed(self, member: Member) -> float:
        return await member.daemon.metric("heed_claim_seconds_sum")


def _limited(bench: Bench, load: Load, name: str) -> Contender:
    async def run() -> Run:
        member = await bench.fleet.member(name)
        with Throttle().limited(member.daemon.worker_pids(), _WORKER_SHARE) as possible:
            if not possible:
                bench.say("I: no control groups here, so that workers can't be limited")
            return await bench.fleet.drive(name, load.times(bench.factor / 2))

    return run


async def _idle_cores(seconds: float) -> float:
    before = machine_seconds()
    await asyncio.sleep(seconds)
    return (machine_seconds() - before) / seconds


def _largest_worker(member: Member) -> int:
    return max(rss_bytes(pid) for pid in member.daemon.worker_pids())


def _rsa_milliseconds(count: int = 300) -> float:
    """One RSA-2048 signature by OpenSSL, the primitive that no signer can do without."""
    key, digest = generate("example.com", "bench", RSA_SHA256), hashlib.sha256(b"").digest()
    started = time.perf_counter()
    for _ in range(count):
        key.sign(digest)
    return (time.perf_counter() - started) / count * 1e3


def _faster(row: str, what: str, runs: dict[str, list[Run]], peer: str, goal: float) -> Line:
    found = _ratio(runs, "heed", peer)
    return Line(
        row, what, f"≥ {goal:.0f} × peer", _rate(runs["heed"]), _rate(runs[peer]), found, found >= goal, "",
        _plain({name: runs[name] for name in ("heed", peer)}),
    )  # fmt: skip


def _ratio(runs: dict[str, list[Run]], subject: str, peer: str) -> float:
    return ratio([_delivered(run) for run in runs[subject]], [_delivered(run) for run in runs[peer]])


def _delivered(run: Run) -> float:
    return run.delivered_per_s


def _median(runs: Sequence[Run], value: Callable[[Run], float]) -> float:
    return statistics.median(map(value, runs))


def _rate(runs: Sequence[Run]) -> str:
    return f"{_median(runs, _delivered):,.0f}/s"


def _plain(runs: dict[str, list[Run]]) -> dict[str, Any]:
    return {name: [run.as_dict() for run in found] for name, found in runs.items()}


def _latency(found: Latency) -> dict[str, float]:
    return {
        "messages": found.messages,
        "submit_p99": found.submit_p99,
        "delivered_p50": found.delivered_p50,
        "delivered_p99": found.delivered_p99,
        "slowest": found.slowest,
    }


ROWS: Final[dict[str, Callable[[Bench], Awaitable[list[Line]]]]] = {
    "A": row_a,
    "B": row_b,
    "C": row_c,
    "D": row_d,
    "E": row_e,
    "F": row_f,
    "G": row_g,
    "H": row_h,
    "I": row_i,
    "J": row_j,
}
# what needs Postfix as a peer, and so root
WITH_PEERS: Final = frozenset("ABCDE")
