"""The real daemon as other people run it: its own processes, ports and data directory, started and killed by a test.

Owns the processes that it starts, and leaves none behind. Raises DaemonError with the end of the daemon's log when it
doesn't come up, or doesn't do in time what a test waits for.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import psutil
from prometheus_client.parser import text_string_to_metric_families

from config.keyring import Keyring
from tests.support.ports import free_port

ROOT: Final = Path(__file__).parents[2]
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.05
_PROGRAM: Final = ("-m", "mta.cli")  # what Python runs


class DaemonError(AssertionError):
    """The daemon did not do what a test needs of it; the text ends with its log."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The loopback ports of one daemon."""

    submission: int
    submission_tls: int
    inbound: int
    web: int
    metrics: int
    sink: int

    @classmethod
    def free(cls) -> "Ports":
        """Ports that nobody listens on at this moment."""
        return cls(*(free_port() for _ in range(6)))

    def options(self) -> list[str]:
        """The settings that make a daemon listen there."""
        names = {
            "submission.listen": self.submission,
            "submission.listen_tls": self.submission_tls,
            "inbound.listen": self.inbound,
            "web.listen": self.web,
            "metrics.listen": self.metrics,
            "sink.listen": self.sink,
        }
        return [f"{name}=127.0.0.1:{port}" for name, port in names.items()]


class Daemon:
    """`heed run` on ports and a data directory of its own. database_url None: with its embedded PostgreSQL."""

    def __init__(
        self,
        data_dir: Path,
        database_url: str | None,
        *,
        workers: int = 2,
        settings: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        self.data_dir = data_dir
        self.ports = Ports.free()
        self._database_url = database_url
        self._options = [
            f"data_dir={data_dir}",
            f"workers={workers}",
            "log.format=json",
            *self.ports.options(),
            *(f"{key}={value}" for key, value in settings.items()),
        ]
        self._log = data_dir.with_name(f"{data_dir.name}.log")
        self._process: subprocess.Popen[bytes] | None = None
        self._sessions: set[int] = set()

    def __repr__(self) -> str:
        return f"Daemon({str(self.data_dir)!r})"

    def set(self, key: str, value: object) -> None:
        """Change a setting before the daemon is started."""
        self._options.append(f"{key}={value}")

    @property
    def log(self) -> str:
        """What all its processes have said, over all its starts."""
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    @property
    def supervisor_pid(self) -> int:
        """The process that `heed run` is."""
        if self._process is None:
            raise DaemonError("the daemon was not started")
        return self._process.pid

    def worker_pids(self) -> list[int]:
        """The worker processes that it has at this moment."""
        try:
            children = psutil.Process(self.supervisor_pid).children()
        except psutil.NoSuchProcess:
            return []
        return [child.pid for child in children if _is_worker(child)]

    def command(
        self, *arguments: str, program: tuple[str, ...] = _PROGRAM, stdout: int = subprocess.PIPE, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run another `heed` command with this daemon's settings; its output is text. program: for Python."""
        return subprocess.run(
            self._command_line(arguments, program),
            env=self._environment() | environment,
            cwd=self.data_dir.parent,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )

    def launch(self, stdout: int | None = None) -> None:
        """Start it, without waiting until it is ready. stdout: a file descriptor, instead of the log."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command_line(("run",), _PROGRAM),
                stdin=subprocess.DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=log,
                env=self._environment(),
                cwd=self.data_dir.parent,
                start_new_session=True,  # by which destroy() finds what it leaves behind
            )
        self._sessions.add(self._process.pid)

    async def start(self) -> None:
        """Start it and return when it takes mail; raises DaemonError."""
        self.launch()
        await self.ready()

    async def ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until /readyz says yes."""
        await self.eventually(self._is_ready, seconds, "was not ready")

    async def eventually(self, holds: Callable[[], Awaitable[object]], seconds: float, complaint: str) -> None:
        """Wait until something holds; DaemonError with the daemon's log when it doesn't in time."""
        deadline = time.monotonic() + seconds
        while not await holds():
            if time.monotonic() > deadline:
                raise self._error(f"{complaint} within {seconds:.0f} s")
            await asyncio.sleep(POLL_SECONDS)

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the metrics port; status 0 when nobody answers."""
        return await asyncio.to_thread(_fetch, f"http://127.0.0.1:{self.ports.metrics}{path}")

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; 0 while there is none."""
        _, text = await self.get("/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def queued(self) -> int:
        """Recipients that are not final, as the database has them."""
        shown = await asyncio.to_thread(self.command, "queue", "--json")
        if shown.returncode:
            raise self._error(f"could not show its queue: {shown.stderr}")
        return sum(json.loads(shown.stdout)["totals"].values())

    async def stop(self) -> int:
        """End it in good order by SIGTERM, and return its exit code; DaemonError when it lingers."""
        process = self._process
        if process is None:
            return 0
        process.terminate()
        try:
            return await asyncio.to_thread(process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise self._error(f"did not stop within {STOP_SECONDS:.0f} s") from None

    def kill_supervisor(self) -> None:
        """kill -9 of the supervisor alone: its workers find out by themselves."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def destroy(self) -> None:
        """kill -9 of every process of this daemon, those too that outlived their supervisor."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) in self._sessions or process.cwd() == str(self.data_dir / "postgres"):
                    process.kill()
        if self._process is not None:
            self._process.wait()

    async def _is_ready(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise self._error(f"ended with exit code {self._process.returncode} instead of getting ready")
        status, _ = await self.get("/readyz")
        return status == 200

    def _command_line(self, arguments: tuple[str, ...], program: tuple[str, ...]) -> list[str]:
        options = [part for option in self._options for part in ("--set", option)]
        return [sys.executable, *program, *arguments, *options]

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HEED_")}
        own = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        return kept | own | ({"HEED_DATABASE__URL": self._database_url} if self._database_url else {})

    def _error(self, complaint: str) -> DaemonError:
        return DaemonError(f"the daemon {complaint}; its log ends:\n" + "\n".join(self.log.splitlines()[-40:]))


def founded(directory: Path) -> Path:
    """A data directory with a master key, as `heed run` leaves it: what a command needs of an installation."""
    Keyring.load_or_create(directory / "keys" / "master.key")
    return directory


@contextlib.asynccontextmanager
async def running(daemon: Daemon) -> AsyncIterator[Daemon]:
    """Start a daemon for the time of a block, and end it whatever happens."""
    try:
        await daemon.start()
        yield daemon
        await daemon.stop()
    finally:
        daemon.destroy()


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "mta.worker" in process.cmdline()
    except psutil.Error:
        return False


def _fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # an http: URL of our own
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""
