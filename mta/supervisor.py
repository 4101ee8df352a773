"""`heed run`: one supervisor for each node. Starts the database, the sink and the workers, and keeps them going.

Owns the data directory (a lock: one supervisor at a time), the master key file, and the burials of workers that died.
Raises StartError with a message for the operator when the node can't start.
"""

import asyncio
import fcntl
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import orjson
from aiohttp import web

from config.cluster import PostgresError
from config.database import Database, DatabaseUnavailable, migrate
from config.failure import DatabaseFailed
from config.keyring import Keyring, KeyringError
from config.log import LOG
from config.postgres import EmbeddedPostgres
from config.settings import Settings, endpoint
from metrics import registry
from metrics.history import SAMPLE_SECONDS, History, read
from metrics.server import application
from metrics.status_page import page
from mta.burials import Burials
from mta.certificate import ensure_certificate
from mta.event_file import EventFile
from mta.event_tasks import EventTasks
from mta.identifiers import LANES
from mta.installation import Paths, claim
from mta.metrics_directory import VARIABLE, forget_earlier_metrics
from mta.node_state import NodeState
from mta.order_watch import OrderWatch
from mta.orders import Book
from mta.parts import Parts
from mta.proof import Proof
from mta.steward import Steward
from mta.worker import trusted_networks

_TICK_SECONDS: Final = 1.0
_COUNT_SECONDS: Final = 5.0
_PROVE_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 8.0
# what a worker says of itself in a line is a small part of this
_LINE_BYTES: Final = 1 << 20
# a worker speaks twice a second
_SILENT_SECONDS: Final = 5.0
# a worker that dies again and again is started again after a growing pause
_RESTART_SECONDS: Final = (0.0, 0.5, 1.0, 2.0, 5.0)


class StartError(Exception):
    """The node can't start; the text says what is wrong and what would be right."""


class Child:
    """A process of ours, with the last thing that it said about itself, and for how long it has said nothing since."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, worker_id: int = 0) -> None:
        self.name = name
        self.process = process
        self.worker_id = worker_id
        self.state: dict[str, Any] = {}
        self.silent_seconds = 0.0

    @property
    def ready(self) -> bool:
        """Whether it says that it is, and has said so lately."""
        return bool(self.state.get("ready")) and self.silent_seconds < _SILENT_SECONDS

    async def listen(self) -> None:
        """Read what it says, until it ends. A line that can't be understood says nothing."""
        assert self.process.stdout is not None
        line = b"\n"
        while line:
            # ValueError: it is too long, and dropped as far as it was read; or no JSON, as the rest of it is then
            with suppress(ValueError):
                line = await self.process.stdout.readline()
                said = orjson.loads(line)
                if isinstance(said, dict):
                    self.state, self.silent_seconds = said, 0.0
        self.state = {}


class Supervisor:
    """A node, from start to end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._paths = Paths(settings.data_dir)
        self._stop = asyncio.Event()
        self._children: set[Child] = set()
        self._history = History()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._postgres: EmbeddedPostgres | None = None
        self._url = ""
        self._lock = -1
        self._parts: Parts
        self._burials: Burials
        self._events: EventTasks
        self._runner: web.AppRunner | None = None
        self._held: list[socket.socket] = []
        self._exit_code = 0

    async def run(self, announce: Any) -> int:
        """Start, call announce(url) when every worker is ready, keep going until SIGTERM or SIGINT; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._prepare()
        try:
            await self._start_database()
            await self._prepare_events()
            await self._burials.recover()
            await self._serve_metrics()
            await self._start_children()
            self._spawn(self._announce(announce))
            self._spawn(self._tend_for_ever())
            self._spawn(self._bury_for_ever())
            self._spawn(self._watch_for_ever())
            self._tend_the_queue()
            self._spawn(self._count_for_ever())
            self._spawn(self._sample_for_ever())
            self._spawn(self._prove_for_ever())
            self._spawn(self._events.run())
            await self._stop.wait()
        finally:
            await self._shut_down()
        return self._exit_code

    # --- start

    def _prepare(self) -> None:
        settings, paths = self._settings, self._paths
        try:
            paths.make()
            self._lock = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(
                f"another `heed run` uses {paths.data_dir}; stop it, or set data_dir to another place"
            ) from None
        except OSError as error:
            raise StartError(f"{paths.data_dir}: {error.strerror}; data_dir must be a directory of this user") from None
        forget_earlier_metrics(paths.data_dir)
        self._check_ports()
        try:
            self._keyring = Keyring.load_or_create(paths.keys)
            if settings.tls.certificate is None:
                ensure_certificate(paths.tls, settings.identity.hostname)
        except (KeyringError, OSError) as error:
            raise StartError(str(error)) from None

    def _check_ports(self) -> None:
        """Hold every port, so that a busy one is an error now; the workers share them (SO_REUSEPORT)."""
        problems = []
        for key, address in addresses(self._settings):
            host, port = endpoint(address)
            try:
                self._held += _hold(host, port)
            except OSError as error:
                problems.append(
                    f"{key} = {address}: {error.strerror or error}; choose another with --set {key}=host:port"
                )
        if problems:
            raise StartError("\n".join(problems))

    async def _start_database(self) -> None:
        settings = self._settings
        try:
            if settings.database.url is None:
                self._postgres = EmbeddedPostgres(self._paths.data_dir)
                await self._postgres.start()
                self._url = self._postgres.url
            else:
                self._url = settings.database.url.get_secret_value()
            await migrate(self._url)
            timeout = settings.database.command_timeout_seconds
            database = await Database.open(
                self._url, size=3, application_name="heed supervisor", command_timeout_seconds=timeout
            )
            self._parts = Parts(settings, database, self._keyring)
            self._burials = Burials(self._parts, self._paths.journals)
            await claim(database, self._keyring)
            await trusted_networks(self._parts)
        except DatabaseFailed as error:
            raise StartError(f"database: {error}") from None

    async def _prepare_events(self) -> None:
        settings = self._settings
        name = socket.gethostname()
        file = None
        if settings.events.file_dir is not None:
            options = settings.events
            file = EventFile(
                settings.events.file_dir, f"file {name}", max_bytes=options.file_max_bytes, max_files=options.file_count
            )
        try:
            database = await Database.open(
                self._url,
                size=3,
                application_name="heed events",
                command_timeout_seconds=settings.database.command_timeout_seconds,
            )
            self._events = EventTasks(
                database,
                self._keyring,
                holder=f"{name} {secrets.token_hex(4)}",
                retention_days=settings.events.retention_days,
                file=file,
            )
            await self._events.prepare()
        except DatabaseUnavailable as error:
            raise StartError(f"database: {error}") from None

    async def _serve_metrics(self) -> None:
        parts = self._parts
        self._node_state = NodeState(socket.gethostname(), self._history, parts.summary, parts.orders, parts.now)
        host, port = endpoint(self._settings.metrics.listen)
        app = application(os.environ[VARIABLE], self._readiness, self._state, self._status)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, reuse_port=True).start()

    async def _start_children(self) -> None:
        if self._settings.runs_sink:
            self._paths.sink.mkdir(mode=0o700, exist_ok=True)
            self._spawn(self._keep_sink())
        for _ in range(self._settings.worker_count):
            self._spawn(self._keep_worker())

    # --- children

    async def _keep_worker(self) -> None:
        """One worker after the other, until the node stops."""
        failures = 0
        while not self._stop.is_set():
            started = asyncio.get_running_loop().time()
            try:
                child = await self._start_worker()
            except DatabaseUnavailable:
                await self._pause(1.0)
                continue
            code = await child.process.wait()
            self._children.discard(child)
            if self._stop.is_set():
                return
            registry.restarts.inc()
            LOG.error("worker ended", worker=child.worker_id, exit_code=code)
            self._spawn(self._burials.lay_to_rest(child.worker_id))
            failures = 0 if asyncio.get_running_loop().time() - started > 60 else failures + 1
            await self._pause(_RESTART_SECONDS[min(failures, len(_RESTART_SECONDS) - 1)])

    async def _start_worker(self) -> Child:
        worker_id = await self._parts.queue.register(socket.gethostname())
        order: dict[str, Any] = {
            "settings": self._settings.model_dump(mode="json", exclude={"database": {"url"}}),
            "database_url": self._url,
            "worker_id": worker_id,
        }
        order["settings"]["data_dir"] = str(self._paths.data_dir)
        child = await self._start_process(f"worker {worker_id}", "mta.worker", worker_id=worker_id)
        assert child.process.stdin is not None
        with suppress(ConnectionError):
            child.process.stdin.write(orjson.dumps(order) + b"\n")
            await child.process.stdin.drain()
        return child

    async def _keep_sink(self) -> None:
        arguments = ["--listen", self._settings.sink.listen, "--maildir", str(self._paths.sink), "--until-stdin-closes"]
        while not self._stop.is_set():
            child = await self._start_process("sink", "mta.sink", *arguments)
            await child.process.wait()
            self._children.discard(child)
            await self._pause(1.0)

    async def _start_process(self, name: str, module: str, *arguments: str, worker_id: int = 0) -> Child:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
        )
        child = Child(name, process, worker_id)
        self._children.add(child)
        self._spawn(child.listen())
        return child

    # --- what goes on all the time

    def _tend_the_queue(self) -> None:
        """Move the queue's rows after the operators' orders, and keep its summary."""
        database, book = self._parts.database, Book()
        store = self._parts.orders
        steward = Steward(book, store, self._parts.summary)
        self._spawn(OrderWatch(book, database, on_change=steward.changed).follow_for_ever())
        self._spawn(steward.tend_for_ever())
        self._spawn(steward.count_for_ever())

    async def _tend_for_ever(self) -> None:
        """Restart the embedded database, and drop what crashes left behind."""
        lane = 0
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            try:
                if self._postgres is not None and not await self._postgres.running():
                    LOG.error("the database ended, and is started again")
                    await self._postgres.start()
                lane = (lane + 1) % LANES
                await self._parts.queue.sweep_leftovers(lane, self._parts.now())
            except (DatabaseUnavailable, PostgresError) as error:
                LOG.warning("the database is not available", reason=str(error))

    async def _bury_for_ever(self) -> None:
        """Look for silent workers of any node, so often that an answer that is missing tells of an outage."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            with suppress(DatabaseUnavailable):  # _tend_for_ever says so
                await self._burials.bury_silent(self._settings.queue.lease_timeout_seconds)

    async def _watch_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.watch()

    def watch(self) -> None:
        """See to workers that hang, once each second: one that says nothing is not ready, and in the end it is killed.

        Silence is counted in these calls, so that it grows only while this process runs: what stops a whole node or its
        machine makes nobody silent. A worker speaks without the database too.
        """
        for child in [child for child in self._children if child.worker_id]:
            child.silent_seconds += _TICK_SECONDS
            if child.silent_seconds >= self._settings.queue.lease_timeout_seconds:
                LOG.error("a worker hangs, and is killed", worker=child.worker_id, silent=child.silent_seconds)
                with suppress(ProcessLookupError):
                    child.process.kill()

    async def _prove_for_ever(self) -> None:
        """Compare what was delivered with the log, and sign the log's head once a day."""
        proof = Proof(self._parts, self._paths.heads)
        while True:
            await asyncio.sleep(_PROVE_SECONDS)
            try:
                await proof.turn()
            except (DatabaseUnavailable, OSError) as error:
                LOG.warning("deliveries can't be compared with the log now", error=type(error).__name__)

    async def _count_for_ever(self) -> None:
        while True:
            try:
                counts = await self._parts.summary.totals()
                head, _ = await self._parts.log.head()
            except DatabaseUnavailable:
                registry.database_up.set(0)
            else:
                registry.database_up.set(1)
                # the gauge shows the least of all processes: where the log itself is, the workers can't be behind
                registry.index_position.set(head)
                registry.workers.set(sum(1 for child in self._children if child.ready))
                for state in ("queued", "leased", "held"):
                    registry.queued.labels(state).set(counts[state]["recipients"] if state in counts else 0)
                due = counts["queued"]["next_attempt"] if "queued" in counts else None
                registry.oldest.set(max(0.0, self._parts.now() - due.timestamp()) if due else 0.0)
            await asyncio.sleep(_COUNT_SECONDS)

    async def _sample_for_ever(self) -> None:
        """Keep the last hour of this node's metrics."""
        while True:
            try:
                values = await asyncio.to_thread(read, os.environ[VARIABLE])
            except Exception as error:  # such as a file that a process was killed before it had written
                LOG.error("the metrics can't be read", error=type(error).__name__)
            else:
                self._history.add(self._parts.now(), values)
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _state(self) -> dict[str, Any]:
        return self._node_state.state(await self._readiness(), [child.state for child in self._children])

    async def _status(self) -> str:
        workers = [child.state for child in self._children]
        return page(await self._node_state.status(await self._readiness(), workers))

    async def _readiness(self) -> dict[str, Any]:
        workers = [child for child in self._children if child.worker_id]
        expected = self._settings.worker_count
        ready = sum(1 for child in workers if child.ready)
        reasons = sorted({reason for child in workers for reason in _reasons(child)})
        if len(workers) < expected:
            reasons.append("workers are starting")
        return {
            "ready": ready > 0 and not self._stop.is_set(),
            "workers": {"ready": ready, "expected": expected},
            "reasons": reasons,
        }

    async def _announce(self, announce: Any) -> None:
        while True:
            state = await self._readiness()
            if state["workers"]["ready"] == state["workers"]["expected"]:
                with suppress(BrokenPipeError):  # nobody reads it
                    announce()
                return
            await asyncio.sleep(0.1)

    # --- the end

    async def _shut_down(self) -> None:
        self._stop.set()
        for task in list(self._tasks):
            task.cancel()
        for number, seconds in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, 1.0)):
            running = [child for child in self._children if child.process.returncode is None]
            for child in running:
                with suppress(ProcessLookupError):
                    child.process.send_signal(number)
            if running:
                await asyncio.wait([asyncio.create_task(child.process.wait()) for child in running], timeout=seconds)
        if self._runner is not None:
            await self._runner.cleanup()
        if hasattr(self, "_parts"):
            with suppress(DatabaseUnavailable):
                await self._burials.recover()
            await self._parts.database.close()
        if hasattr(self, "_events"):
            await self._events.close()
        if self._postgres is not None:
            await self._postgres.stop()
        for held in self._held:
            held.close()
        os.close(self._lock)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._exit_code = 1
            self._stop.set()
            LOG.critical("the supervisor can't go on", error=type(error).__name__)


def addresses(settings: Settings) -> Iterator[tuple[str, str]]:
    """Every address that this node will listen on, with the option that says so."""
    if "submission" in settings.roles:
        yield from (("submission.listen", address) for address in settings.submission.listen)
        yield from (("submission.listen_tls", address) for address in settings.submission.listen_tls)
    if "inbound" in settings.roles:
        yield from (("inbound.listen", address) for address in settings.inbound.listen)
    if "web" in settings.roles:
        yield from (("web.listen", address) for address in settings.web.listen)
    yield "metrics.listen", settings.metrics.listen
    if settings.runs_sink:
        yield "sink.listen", settings.sink.listen


def _hold(host: str, port: int) -> list[socket.socket]:
    """Bind without SO_REUSEPORT to see that nobody listens there, then with it, to keep the port."""
    held = []
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
        keeper = socket.socket(family, kind, protocol)
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            keeper.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        keeper.bind(address)
        held.append(keeper)
    return held


def _reasons(child: Child) -> Iterator[str]:
    state = child.state
    if child.silent_seconds >= _SILENT_SECONDS:
        yield f"worker {child.worker_id} has said nothing for {child.silent_seconds:.0f} s"
    elif not state.get("listening") and not state.get("trouble"):
        yield "workers are starting"
    elif not state.get("fresh"):
        yield f"suppression list is stale: {state.get('trouble') or 'the database does not answer'}"
    yield from state.get("holds", [])
