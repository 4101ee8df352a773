"""What a run costs the machine: CPU of all of it and of our own processes, memory, and what the machine is.

CPU comes from /proc/stat and /proc/PID/stat, in seconds; Linux only. What others on the machine use meanwhile is the
difference, so that a run on a busy machine can be told from one on a quiet one.
"""

import os
import platform
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import psutil

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
# the counters of /proc/stat that are work: user, nice, system, irq, softirq; neither idle nor waiting for the disk
_WORK: Final = (0, 1, 2, 5, 6)
_THROTTLE_PERIOD_US: Final = 10_000


def machine_seconds() -> float:
    """CPU seconds that the whole machine has worked since it was started."""
    counters = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum(counters[column] for column in _WORK) / _TICKS


def tree_seconds(pids: Sequence[int]) -> float:
    """CPU seconds of processes with all their descendants, those too that ended and were waited for."""
    return sum(_process_seconds(pid) for pid in _with_descendants(pids))


def rss_bytes(pid: int) -> int:
    """Resident memory of a process; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def pause(pids: Sequence[int]) -> None:
    """Stop processes and their descendants where they are, so that they cost nothing while another is measured."""
    for pid in _with_descendants(pids):
        _signal(pid, signal.SIGSTOP)


def resume(pids: Sequence[int]) -> None:
    """Let them go on; the deepest first, which others wait for."""
    for pid in reversed(_with_descendants(pids)):
        _signal(pid, signal.SIGCONT)


@dataclass(frozen=True, slots=True)
class Description:
    """The machine and the versions of what is measured on it."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    postfix: str
    opendkim: str

    @classmethod
    def here(cls, *, postfix: str, opendkim: str) -> Self:
        """This machine."""
        return cls(
            _cpu_name(),
            cores(),
            round(psutil.virtual_memory().total / 2**30, 1),
            platform.release(),
            platform.python_version(),
            postfix,
            opendkim,
        )


class Throttle:
    """Control groups in which a process gets a share of one core, where this system lets us make them."""

    def __init__(self) -> None:
        self._made: list[Path] = []

    @contextmanager
    def limited(self, pids: Sequence[int], share: float) -> Iterator[bool]:
        """Each of the processes gets that share of a core of its own for the time of a block; False if it can't be."""
        try:
            for pid in pids:
                self._limit(pid, share)
            possible = True
        except OSError:
            possible = False
        try:
            yield possible
        finally:
            self._release()

    def _limit(self, pid: int, share: float) -> None:
        first, second = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
        base = first if (first / "cpu.cfs_quota_us").exists() or (first / "cgroup.procs").exists() else second
        group = base / f"heed-bench-{pid}"
        group.mkdir()
        self._made.append(group)
        quota = int(_THROTTLE_PERIOD_US * share)
        if base is first:
            (group / "cpu.cfs_period_us").write_text(str(_THROTTLE_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} {_THROTTLE_PERIOD_US}")
        (group / "cgroup.procs").write_text(str(pid))

    def _release(self) -> None:
        for group in self._made:
            for pid in (group / "cgroup.procs").read_text().split():
                (group.parent / "cgroup.procs").write_text(pid)
            group.rmdir()
        self._made.clear()


class Meter:
    """CPU used since it was made, by the whole machine and by those processes that are measured."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._machine, self._own = machine_seconds(), self._own_seconds()
        self._started = time.perf_counter()

    def read(self) -> "Used":
        """What was used so far."""
        seconds = time.perf_counter() - self._started
        return Used(seconds, machine_seconds() - self._machine, self._own_seconds() - self._own)

    def _own_seconds(self) -> float:
        return tree_seconds([*self._pids, os.getpid()])


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds of a span of time."""

    seconds: float
    machine: float
    own: float

    @property
    def others(self) -> float:
        """Cores that were busy with something else."""
        return max(0.0, self.machine - self.own) / self.seconds


def _with_descendants(pids: Sequence[int]) -> list[int]:
    """Each process once, parents before their children."""
    found: dict[int, None] = {}
    for pid in pids:
        try:
            process = psutil.Process(pid)
            found |= dict.fromkeys([pid, *(child.pid for child in process.children(recursive=True))])
        except psutil.NoSuchProcess:
            continue
    return list(found)


def _process_seconds(pid: int) -> float:
    """User and system time of a process and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(each) for each in fields[11:15]) / _TICKS


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
