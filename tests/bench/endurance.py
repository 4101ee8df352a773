"""What grows: memory for connections that do nothing, and everything else under a load that goes on and on.

The soak sends a steady load below what the daemon can do, part of which is deferred and claimed again, and looks at
memory, claims and tables at intervals. Something grows when the last third of the looks is well above the first.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from mta.send import Campaign, send
from mta.sink import Behaviour
from mta.sink import Sink as TestSink
from tests.bench.drive import Stuck
from tests.bench.fleet import Fleet, Member
from tests.bench.machine import rss_bytes
from tests.bench.rows import Line

_IDLE_BYTES: Final = 50_000
_CONNECT_AT_ONCE: Final = 200
_DEFERRED: Final = 0.1
_SOAK_PER_SECOND: Final = 300
_LOOKS: Final = 60
_LOOK_SECONDS: Final = 2.0
_GROWTH: Final = 1.25
_DOMAIN: Final = "soak.example.org"
Say = Callable[[str], None]


async def idle(fleet: Fleet, count: int, say: Say) -> list[Line]:
    """Memory of workers for connections that have had their greeting, at both kinds of listener."""
    name = "idle"
    member = await fleet.member(name, settings={"inbound.max_connections": count, "submission.max_connections": count})
    lines = []
    for listener, port in (("submission", member.daemon.ports.submission), ("inbound", member.daemon.ports.inbound)):
        say(f"idle: {count:,} connections to {listener}")
        before = _workers_rss(member)
        connections = await _connect(port, count)
        each = (_workers_rss(member) - before) / max(1, len(connections))
        for _, writer in connections:
            writer.close()
        lines.append(
            Line(
                "idle", f"{len(connections):,} idle connections to {listener}, each", "≤ 50 kB", f"{each / 1e3:.1f} kB",
                "", None, each <= _IDLE_BYTES and len(connections) == count,
            )
        )  # fmt: skip
        await asyncio.sleep(1)
    await fleet.dismiss(name)
    return lines


async def _connect(port: int, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async def one() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_024)
        if not (await reader.readline()).startswith(b"220"):
            raise Stuck("a connection was refused")
        return reader, writer

    found = []
    for start in range(0, count, _CONNECT_AT_ONCE):
        found += await asyncio.gather(*(one() for _ in range(min(_CONNECT_AT_ONCE, count - start))))
    return found


def _workers_rss(member: Member) -> int:
    return sum(rss_bytes(pid) for pid in member.daemon.worker_pids())


@dataclass(frozen=True, slots=True)
class Look:
    """What there was to be seen at a moment. claim_us: of each claim since the look before."""

    minutes: float
    delivered: float
    workers_mib: float
    supervisor_mib: float
    claim_us: float
    queued: int
    dead_rows: int
    recipient_mib: float
    message_mib: float


async def soak(fleet: Fleet, minutes: float, say: Say) -> list[Line]:
    """A steady load for so long; one line for each thing that must not grow."""
    async with TestSink(behaviour=Behaviour(defer_share=_DEFERRED)) as sink:
        member = await fleet.member(
            "soak",
            settings={
                f"delivery.routes.{_DOMAIN}": f"127.0.0.1:{sink.port}",
                "delivery.retry_seconds": "1,5,10,30",
                "submission.dsn": "false",
            },
        )
        until = time.monotonic() + minutes * 60
        load = asyncio.create_task(_load(member.daemon.ports.submission, until))
        looks = await _watch(member, minutes * 60, say)
        await load
        await member.daemon.eventually(lambda: _empty(member), 120, "did not empty its queue")
    say(f"soak: queue empty, {sink.counts.messages:,} delivered, {sink.counts.deferred:,} deferred")
    return _verdicts(looks)


async def _empty(member: Member) -> bool:
    return await member.store.queued() == 0


async def _load(port: int, until: float) -> None:
    """A campaign each second, as many messages as a second has."""
    number = 0
    while (started := time.monotonic()) < until:
        campaign = Campaign(_SOAK_PER_SECOND, first_recipient=number, recipient_domain=_DOMAIN, campaign="soak")
        result = await send(campaign, "127.0.0.1", port, connections=10)
        if result.accepted != result.messages:
            raise Stuck(f"{result.messages - result.accepted} messages were not accepted: {result.refused}")
        number += _SOAK_PER_SECOND
        await asyncio.sleep(max(0.0, 1 - (time.monotonic() - started)))


async def _watch(member: Member, seconds: float, say: Say) -> list[Look]:
    looks: list[Look] = []
    started = time.monotonic()
    claims = await _claims(member)
    say("soak: minutes delivered workers supervisor claim queued dead recipient message")
    while time.monotonic() - started < seconds:
        await asyncio.sleep(max(_LOOK_SECONDS, seconds / _LOOKS))
        now = await _claims(member)
        count, spent = now[0] - claims[0], now[1] - claims[1]
        claims = now
        look = await _look(member, (time.monotonic() - started) / 60, spent / count * 1e6 if count else 0.0)
        looks.append(look)
        say(
            f"soak: {look.minutes:5.1f} {look.delivered:9,.0f} {look.workers_mib:6.1f} MiB"
            f" {look.supervisor_mib:6.1f} MiB {look.claim_us:6.0f} µs {look.queued:6,} {look.dead_rows:6,}"
            f" {look.recipient_mib:6.1f} MiB {look.message_mib:6.1f} MiB"
        )
    return looks


async def _claims(member: Member) -> tuple[float, float]:
    daemon = member.daemon
    return await daemon.metric("heed_claim_seconds_count"), await daemon.metric("heed_claim_seconds_sum")


async def _look(member: Member, minutes: float, claim_us: float) -> Look:
    sizes = {
        row[0]: (row[1] / 2**20, row[2])
        for row in await member.store.rows(
            "SELECT relname, pg_total_relation_size(relid)::float8, n_dead_tup FROM pg_stat_user_tables"
            " WHERE relname IN ('recipient', 'message')"
        )
    }
    return Look(
        minutes, await member.daemon.metric("heed_delivered_total"), _workers_rss(member) / 2**20,
        rss_bytes(member.daemon.supervisor_pid) / 2**20, claim_us, await member.store.queued(),
        int(sizes["recipient"][1]), sizes["recipient"][0], sizes["message"][0],
    )  # fmt: skip


def _typical(values: Iterable[float]) -> float:
    """The median of those that say something: between two looks there may have been no claim."""
    return statistics.median([value for value in values if value] or [0.0])


def _verdicts(looks: Sequence[Look]) -> list[Line]:
    third = max(1, len(looks) // 3)
    early, late = looks[third // 2 : third // 2 + third], looks[-third:]
    watched: list[tuple[str, str, Callable[[Look], float]]] = [
        ("RSS of all workers", "MiB", lambda look: look.workers_mib),
        ("RSS of the supervisor", "MiB", lambda look: look.supervisor_mib),
        ("a claim", "µs", lambda look: look.claim_us),
        ("size of recipient", "MiB", lambda look: look.recipient_mib),
        ("size of message", "MiB", lambda look: look.message_mib),
    ]
    lines = []
    for what, unit, value in watched:
        before, after = _typical(map(value, early)), _typical(map(value, late))
        grown = after / before if before else 1.0
        lines.append(
            Line(
                "soak", f"{what}, late against early", f"≤ {_GROWTH} ×", f"{after:,.1f} {unit}",
                f"{before:,.1f} {unit}", grown, grown <= _GROWTH,
            )
        )  # fmt: skip
    return [*lines[:-1], Line(**{**asdict(lines[-1]), "runs": {"looks": [asdict(look) for look in looks]}})]
