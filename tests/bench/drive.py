"""One measured run of load through a mail server: smtp-source sends, smtp-sink takes, and the clock runs in between.

Both are Postfix's test programs, which cost little. The sink lives as long as the benchmark, so that servers keep their
connections to it, and prints what it has counted after each message. Raises Stuck when mail does not arrive.
"""

import asyncio
import contextlib
import os
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.machine import Meter
from tests.bench.peers import program

_PATIENCE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.004
_TAIL_BYTES: Final = 120


class Stuck(Exception):
    """Mail that was accepted did not arrive in time."""


@dataclass(frozen=True, slots=True)
class Load:
    """What smtp-source sends. fresh: a new connection for each message."""

    messages: int
    size: int = 10_000
    connections: int = 20
    recipients: int = 1
    fresh: bool = False

    def times(self, factor: float) -> "Load":
        """More or less of the same."""
        messages = max(1, round(self.messages * factor))
        return Load(messages, self.size, min(self.connections, messages), self.recipients, self.fresh)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run came to. CPU in milliseconds for each delivered recipient: of the machine, of what is measured."""

    recipients: int
    accepted_per_s: float
    delivered_per_s: float
    machine_ms: float
    own_ms: float
    busy_cores: float
    others_cores: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, rounded for people."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


class Sink:
    """smtp-sink on a port of the loopback interface."""

    def __init__(self, directory: Path, port: int) -> None:
        self.port = port
        self._output = directory / f"sink-{port}.out"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, slow: bool = False) -> None:
        """Listen. slow: take a second for each DATA command."""
        as_user = ["-u", "postfix"] if os.geteuid() == 0 else []
        delay = ["-w", "1"] if slow else []
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [program("smtp-sink"), *as_user, *delay, "-c", "-m", "2000", f"127.0.0.1:{self.port}", "2000"],
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._output.unlink(missing_ok=True)

    def count(self) -> int:
        """Messages taken so far; one that is split for its recipients counts for each."""
        with self._output.open("rb") as output:
            size = output.seek(0, os.SEEK_END)
            output.seek(max(0, size - _TAIL_BYTES))
            _, found, number = output.read().rpartition(b"mesg=")
        digits = number.split()
        return int(digits[0]) if found and digits else 0

    async def reached(self, count: int, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        """Return when so many were taken. Raises Stuck when none came for a while."""
        last, changed = -1, time.monotonic()
        while (now := self.count()) < count:
            if now != last:
                last, changed = now, time.monotonic()
            elif time.monotonic() - changed > patience_seconds:
                raise Stuck(f"{count - now} messages have not arrived, and none in {patience_seconds:.0f} s")
            await asyncio.sleep(_POLL_SECONDS)


async def drive(port: int, load: Load, sink: Sink, pids: Sequence[int]) -> Run:
    """Send a load to a port and wait until all of it has come to the sink. pids: of what is measured."""
    goal = sink.count() + load.messages * load.recipients
    meter = Meter([*pids, sink.pid])
    started = time.perf_counter()
    source = await asyncio.create_subprocess_exec(*_source(port, load), stderr=subprocess.PIPE)
    _, said = await source.communicate()
    if source.returncode:
        raise Stuck(f"smtp-source: {said.decode(errors='replace').strip()[-200:]}")
    accepted = time.perf_counter()
    await sink.reached(goal)
    return _run(meter, load.messages / (accepted - started), load.messages * load.recipients)


async def drain(sink: Sink, count: int, pids: Sequence[int]) -> Run:
    """Time how fast mail that is in a queue already comes out, from the first message on."""
    before = sink.count()
    await sink.reached(before + 1)
    seen, meter = sink.count(), Meter([*pids, sink.pid])
    await sink.reached(before + count)
    return _run(meter, 0.0, before + count - seen)


@contextlib.asynccontextmanager
async def background(port: int, load: Load) -> AsyncIterator[None]:
    """Send a load to a port for as long as a block lasts, and not longer."""
    source = await asyncio.create_subprocess_exec(*_source(port, load), stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        if source.returncode is None:
            source.kill()
        await source.wait()


def _run(meter: Meter, accepted_per_s: float, recipients: int) -> Run:
    used = meter.read()
    each = 1_000 / max(1, recipients)
    return Run(
        recipients, accepted_per_s, recipients / used.seconds, used.machine * each, used.own * each,
        used.machine / used.seconds, used.others,
    )  # fmt: skip


def _source(port: int, load: Load) -> list[str]:
    mode = ["-N"] if load.fresh else ["-N", "-d"]  # -N: every recipient a different one
    counts = {"-s": load.connections, "-m": load.messages, "-l": load.size, "-r": load.recipients, "-C": 5}
    options = [str(part) for pair in counts.items() for part in pair]
    return [program("smtp-source"), *mode, *options, "-f", "a@example.com", "-t", "b@example.net", f"127.0.0.1:{port}"]


Contender = Callable[[], Awaitable[Run]]


async def alternate(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[Run]]:
    """Let contenders take turns, each second round in the opposite order, so that no one always comes first."""
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in order:
            runs[name].append(await contenders[name]())
    return runs


def ratio(subject: Sequence[float], peer: Sequence[float]) -> float:
    """The median of the rounds' ratios: what slows the machine for a while slows both of a round."""
    return statistics.median(one / other for one, other in zip(subject, peer, strict=True))
