"""What the index costs: `python -m tests.bench.bench_index [--entries 10000000] [--workers 4]`.

Writes a base file of that many entries, then starts workers that load it as a restarted one does and hold a full delta:
the time to load, the bytes an entry for the whole node (proportional set size over all workers, less what each had
before), and the time of a check of three scopes. Beside it, in the same run, a set of the same entries.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from suppression.base import Base
from suppression.digest import Effect, MessageClass
from suppression.entry import Action, Step
from suppression.index import DELTA_SHARE, Index

CHECKS = 200_000
AT = datetime(2026, 1, 1, tzinfo=UTC)


def build_file(path: Path, entries: int) -> float:
    """Write a base file of random keys; the seconds it took."""
    import numpy

    from suppression import build

    keys = numpy.random.default_rng(1).integers(-(2**63), 2**63 - 1, entries, dtype=numpy.int64)
    begun = time.perf_counter()
    build.write(path, entries, bytes(32), build.deduplicated(keys), entries)
    return time.perf_counter() - begun


def pss_bytes() -> int:
    """This process's memory, with shared pages divided among those who share them."""
    return int(psutil.Process().memory_full_info().pss)


def worker(path: Path) -> None:
    """Load, fill the delta to its limit, check; each step waits for its order, so that all measure at once."""
    before = pss_bytes()
    begun = time.perf_counter()
    index = Index(Base.load(path))
    load_seconds = time.perf_counter() - begun
    fill_delta(index)
    say({"load_seconds": load_seconds, "delta_entries": index.delta_entries})
    sys.stdin.readline()
    say({"bytes": pss_bytes() - before})
    sys.stdin.readline()
    say(checks(index))


def fill_delta(index: Index) -> None:
    """As many entries as a delta has at most before it is rebuilt."""
    chance = random.Random(2)
    for _ in range(len(index) // DELTA_SHARE):
        position = index.position + 1
        key = chance.getrandbits(63) & ~1
        index.apply([Step(position, AT, Action.SUPPRESS, key, Effect.ALL, index.hash, bytes(32))])


def checks(index: Index) -> dict[str, float]:
    """Microseconds of a check of three scopes, in the index and in a set of the same entries."""
    chance = random.Random(3)
    misses = [tuple(chance.getrandbits(64) - 2**63 & ~1 for _ in range(3)) for _ in range(CHECKS)]
    known = index._base.array
    hits = [(*keys[:2], known[chance.randrange(len(known))] & ~1) for keys in misses]
    campaign, transactional = MessageClass.CAMPAIGN, MessageClass.TRANSACTIONAL
    blocks = index.blocks
    result = {
        "index_miss_us": timed(lambda keys: blocks(keys, campaign), misses),
        "index_hit_us": timed(lambda keys: blocks(keys, campaign), hits),
        "index_transactional_us": timed(lambda keys: blocks(keys, transactional), misses),
    }
    before = pss_bytes()
    entries = set(known)
    result["set_bytes_per_entry_and_worker"] = (pss_bytes() - before) / len(entries)

    def in_set(keys: tuple[int, ...]) -> bool:
        for key in keys:  # noqa: SIM110  # a generator would cost more than the question
            if key in entries or key + 1 in entries:
                return True
        return False

    assert [in_set(keys) for keys in hits[:1000]] == [blocks(keys, campaign) for keys in hits[:1000]]
    result["set_miss_us"] = timed(in_set, misses)
    result["set_hit_us"] = timed(in_set, hits)
    return result


def timed(check: Callable[[tuple[int, ...]], bool], cases: list[tuple[int, ...]]) -> float:
    """Microseconds of one call, the call's own cost included; the best of three runs."""
    best = float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        for keys in cases:
            check(keys)
        best = min(best, time.perf_counter() - begun)
    return best / len(cases) * 1e6


def say(answer: dict[str, Any]) -> None:
    """One line of JSON to whoever started this process."""
    print(json.dumps(answer), flush=True)


def measure(entries: int, workers: int) -> dict[str, Any]:
    """Run it all and collect the figures."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "suppression.index"
        build_seconds = build_file(path, entries)
        command = [sys.executable, "-m", "tests.bench.bench_index", "--worker", str(path)]
        started = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(workers)
        ]
        loaded = [answer_of(process) for process in started]
        sizes = [answer_of(process, "measure") for process in started]
        timings = answer_of(started[0], "check")
        for process in started:
            process.communicate("\n")
        return {
            "entries": entries,
            "workers": workers,
            "file_bytes_per_entry": path.stat().st_size / entries,
            "build_seconds": build_seconds,
            "load_seconds_each": max(answer["load_seconds"] for answer in loaded),
            "delta_entries_each": loaded[0]["delta_entries"],
            "node_bytes_per_entry": sum(answer["bytes"] for answer in sizes) / entries,
            **timings,
        }


def answer_of(process: "subprocess.Popen[str]", order: str = "") -> dict[str, Any]:
    """The next line that a worker says, after an order if there is one."""
    assert process.stdin is not None
    assert process.stdout is not None
    if order:
        process.stdin.write(f"{order}\n")
        process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def main() -> None:
    """Entry point of the bench and of its workers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--worker", type=Path)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker)
        return
    for name, value in measure(arguments.entries, arguments.workers).items():
        print(f"{name:32} {value:14,.3f}" if isinstance(value, float) else f"{name:32} {value:14,}")


if __name__ == "__main__":
    main()
