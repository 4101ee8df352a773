"""The daemons of a benchmark, of which one is measured at a time while the others are stopped where they are.

Every daemon has its own processes, ports, data directory and PostgreSQL, and delivers to the one sink. A daemon that is
paused holds its sockets and memory but uses no CPU; it is given time to find itself again before it is measured.
"""

import asyncio
import contextlib
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Self

from tests.bench.backlog import Store
from tests.bench.drive import Load, Run, Sink, Stuck, drive
from tests.bench.machine import pause, resume
from tests.bench.peers import Postfix, require
from tests.support.daemon import Daemon, Ports

_SETTLE_SECONDS: Final = 0.5
_NONE: Final[Mapping[str, object]] = MappingProxyType({})
_FILES: Final = 65_536
# what a server does only once (routes, keys, caches) is not to be measured
_WARM_UP: Final = Load(200)
_WARM_UP_SECONDS: Final = 20.0


class Member:
    """One daemon, with a way into its database."""

    def __init__(self, daemon: Daemon, store: Store, sink: Sink, stack: contextlib.AsyncExitStack) -> None:
        self.daemon, self.store = daemon, store
        self._sink = sink
        self._stack = stack
        self.paused = False

    @property
    def pids(self) -> list[int]:
        """All of it descends from these."""
        return [self.daemon.supervisor_pid]

    def pause(self) -> None:
        """Stop it where it is."""
        if not self.paused:
            pause(self.pids)
            self.paused = True

    async def resume(self) -> None:
        """Let it go on, and return when it takes mail."""
        if self.paused:
            resume(self.pids)
            self.paused = False
            await asyncio.sleep(_SETTLE_SECONDS)
            await self.daemon.ready()
            await self.warm_up()

    async def warm_up(self) -> None:
        """Return when it has delivered a few messages. It refuses mail until it knows again who is suppressed."""
        deadline = time.monotonic() + _WARM_UP_SECONDS
        while True:
            try:
                await drive(self.daemon.ports.submission, _WARM_UP, self._sink, [])
            except Stuck:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_SETTLE_SECONDS)
            else:
                return

    async def close(self) -> None:
        """End it for good; what it had queued is of no interest."""
        if self.paused:
            resume(self.pids)
        with contextlib.suppress(Exception):  # its database may be gone already
            await self._stack.aclose()
        self.daemon.destroy()
        shutil.rmtree(self.daemon.data_dir, ignore_errors=True)


class Fleet:
    """Everything that a benchmark runs: sink, daemons by name, and the peers where they are wanted."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._members: dict[str, Member] = {}
        self._postfix: Postfix | None = None
        self._directory: Path
        self.sink: Sink

    async def __aenter__(self) -> Self:
        # ended from outside, it ends what it has started too
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, hard), hard))
        self._directory = Path(tempfile.mkdtemp(prefix="heed-bench-", dir=self._place))
        self._directory.chmod(0o711)  # Postfix's and PostgreSQL's users have directories of their own in it
        self.sink = Sink(self._directory, Ports.free().sink)
        self.sink.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._members):
            await self.dismiss(name)
        if self._postfix is not None:
            self._postfix.stop()
        self.sink.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def postfix(self) -> Postfix:
        """The peer, started when it is first wanted. Raises Missing."""
        if self._postfix is None:
            require(peers=True)
            self._postfix = Postfix(self._directory / "postfix", self.sink.port)
            self._postfix.start()
        return self._postfix

    async def member(self, name: str, *, workers: int = 2, settings: Mapping[str, object] = _NONE) -> Member:
        """The daemon of a name, started when it is first wanted; every other one is paused from here on."""
        for other in self._members.values():
            if other is not self._members.get(name):
                other.pause()
        if name not in self._members:
            self._members[name] = await self._start(name, workers, settings)
        member = self._members[name]
        await member.resume()
        return member

    async def dismiss(self, name: str) -> None:
        """End a daemon that is not needed any more."""
        await self._members.pop(name).close()

    async def drive(self, name: str, load: Load) -> Run:
        """Send a load through the daemon of a name, which runs already or is started as it is by default."""
        member = await self.member(name)
        return await drive(member.daemon.ports.submission, load, self.sink, member.pids)

    async def drive_peer(self, load: Load, *, signed: bool) -> Run:
        """Send a load through Postfix, with or without OpenDKIM."""
        for member in self._members.values():
            member.pause()
        if self._postfix is None:
            for port in (self.postfix.signed_port, self.postfix.unsigned_port):
                await drive(port, _WARM_UP, self.sink, [])
        postfix = self.postfix
        return await drive(postfix.signed_port if signed else postfix.unsigned_port, load, self.sink, postfix.pids)

    async def _start(self, name: str, workers: int, settings: Mapping[str, object]) -> Member:
        options: dict[str, object] = {
            "delivery.next_hop": f"127.0.0.1:{self.sink.port}",
            "delivery.tls": "none",
            # a paused daemon gives no sign of life
            "queue.lease_timeout_seconds": 3_600,
        }
        daemon = Daemon(self._directory / name, None, workers=workers, settings={**options, **settings})
        stack = contextlib.AsyncExitStack()
        try:
            await daemon.start()
            store = await stack.enter_async_context(Store.of(daemon.data_dir))
            member = Member(daemon, store, self.sink, stack)
            await member.warm_up()
        except BaseException:
            daemon.destroy()
            raise
        return member


@contextlib.asynccontextmanager
async def silent_host() -> AsyncIterator[int]:
    """A port of the loopback interface that takes connections and never says a word."""
    open_ones: set[asyncio.StreamWriter] = set()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.add(writer)
        await reader.read()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in open_ones:
            writer.close()
