"""A scripted SMTP peer that misbehaves to order, and remembers everything it was told.

Without a script it is a correct MX. A script (tests/support/script.py) says what happens instead at some stage:

    async with Peer(Script().on("RCPT", reply("450 4.2.2 full"), times=1)) as peer:
        ...
        message = await peer.message()

Waiting is always for an event; each wait gives up after `patience_seconds` with TimeoutError, so a test can't hang.
Addresses, contents and transcripts are kept in clear: this is a test double and never leaves the tests.
"""

import asyncio
import contextlib
import re
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

from tests.support.script import Script

CAPABILITIES = ("PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")
_VERBS = frozenset(("EHLO", "HELO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "VRFY", "QUIT"))
_PATH = re.compile(r"(?:FROM|TO):\s*<(.*?)>", re.IGNORECASE)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Received:
    """One message whose final dot arrived; `reply_code` is 0 when the peer never answered the dot."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    wire: bytes
    reply_code: int
    connection: "Connection"
    parameters: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        return 200 <= self.reply_code < 300


@dataclass(eq=False)
class Connection:
    """One connection to the peer: what was said on it, and the means to say anything back."""

    number: int
    peer: "Peer"
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    transcript: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    messages: list[Received] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    tls: bool = False
    open: bool = True
    helo: str = ""
    sender: str | None = None
    recipients: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._buffer = bytearray()
        self._closed = asyncio.Event()
        self._line = ""
        self._stage = ""
        self._in_content = False
        self._reply_code = 0

    async def closed(self) -> None:
        """Until the connection has ended, by whichever side."""
        await self.peer.patiently(self._closed.wait())

    async def send(self, octets: bytes) -> None:
        """These octets as they are."""
        self.transcript.append("S: " + octets.decode("utf-8", "backslashreplace").rstrip("\r\n"))
        with contextlib.suppress(ConnectionError):
            self.writer.write(octets)
            await self.writer.drain()

    async def reply(self, text: str) -> None:
        """A reply, and what it means for the transaction."""
        code = int(text[:3])
        self._reply_code = code
        self._settle(code)
        await self.send("".join(f"{line}\r\n" for line in text.splitlines()).encode())

    async def proceed(self) -> None:
        """Answer the present command as a correct peer does."""
        match self._stage:
            case "GREETING":
                await self.reply("220 peer.example.net ESMTP")
            case "EHLO":
                await self.reply("\n".join(self._ehlo()))
            case "STARTTLS":
                await self._start_tls()
            case "QUIT":
                await self.reply("221 2.0.0 bye")
                await self.close()
            case "CONTENT":
                pass
            case stage:
                await self.reply(self._usual_reply(stage))

    async def take(self, octets: int) -> bytes:
        """Up to this many octets, fewer only at the end of the connection."""
        while len(self._buffer) < octets and await self._fill():
            pass
        taken = bytes(self._buffer[:octets])
        del self._buffer[:octets]
        return taken

    async def close(self) -> None:
        self.open = False
        self.writer.close()

    async def reset(self) -> None:
        self.open = False
        linger_on_with_no_time = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_on_with_no_time)
        self.writer.transport.abort()

    async def converse(self) -> None:
        """The whole dialogue. Called by the peer."""
        try:
            await self._at("GREETING", "")
            while self.open and (line := await self._read_line()) is not None:
                await self._command(line)
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            self.open = False
            self._closed.set()
            self.writer.close()

    async def _command(self, line: str) -> None:
        verb = line.split(" ", 1)[0].upper()
        self.commands.append(line)
        self.transcript.append("C: " + line)
        if self._buffer and "PIPELINING" not in self.peer.capabilities:
            self.violations.append(f"{verb}: pipelined without PIPELINING")
        if self._buffer and verb in ("EHLO", "HELO", "DATA", "STARTTLS", "QUIT"):
            self.violations.append(f"{verb}: not the last command of its group (RFC 2920 §3.1)")
        await self._at(verb if verb in _VERBS else "OTHER", line)
        if self._in_content and self.open:
            await self._content()

    async def _at(self, stage: str, line: str) -> None:
        self._stage, self._line, self._reply_code = stage, line, 0
        self.counts[stage] += 1
        self.peer.note(stage, self)
        for action in self.peer.script.pick(self, stage, self.counts[stage], line):
            if self.open:
                await action(self)

    async def _content(self) -> None:
        self._in_content = False
        await self._at("CONTENT", "")
        if not self.open or (wire := await self._read_wire()) is None:
            return
        sender, recipients, parameters = self.sender or "", tuple(self.recipients), tuple(self.parameters)
        content = (b"\r\n" + wire).replace(b"\r\n.", b"\r\n")[2:]
        await self._at("DOT", "")
        received = Received(sender, recipients, content, wire, self._reply_code, self, parameters)
        self._forget_transaction()
        self.messages.append(received)
        self.peer.received(received)

    async def _read_wire(self) -> bytes | None:
        """The content as sent, up to and without the final dot line; None when the connection ended before it."""
        searched = 0
        while not self._buffer.startswith(b".\r\n"):
            if (end := self._buffer.find(b"\r\n.\r\n", searched)) >= 0:
                wire = bytes(self._buffer[: end + 2])
                del self._buffer[: end + 5]
                return wire
            searched = max(0, len(self._buffer) - 4)
            if not await self._fill():
                return None
        del self._buffer[:3]
        return b""

    async def _read_line(self) -> str | None:
        while (end := self._buffer.find(b"\n")) < 0:
            if not await self._fill():
                return None
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        if not line.endswith(b"\r\n"):
            self.violations.append("a command that ends in a bare LF")
        return line.decode("utf-8", "surrogateescape").rstrip("\r\n")

    async def _fill(self) -> bool:
        chunk = await self.reader.read(65536)
        self._buffer += chunk
        return bool(chunk)

    async def _start_tls(self) -> None:
        if self.peer.tls is None:
            await self.reply("502 5.5.1 no TLS here")
            return
        if self._buffer:
            self.violations.append("STARTTLS: plain text after it")
        self._buffer.clear()
        await self.reply("220 2.0.0 go ahead")
        await self.writer.start_tls(self.peer.tls)
        self.tls, self.helo = True, ""
        self._forget_transaction()

    def _ehlo(self) -> list[str]:
        offered = [*self.peer.capabilities]
        if self.peer.tls is not None and not self.tls:
            offered.append("STARTTLS")
        lines = ["peer.example.net", *offered]
        return [f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"]

    def _usual_reply(self, stage: str) -> str:
        out_of_order = "503 5.5.1 wrong order"
        match stage:
            case "HELO":
                return "250 peer.example.net"
            case "MAIL":
                return out_of_order if self.sender is not None else "250 2.1.0 sender ok"
            case "RCPT":
                return out_of_order if self.sender is None else "250 2.1.5 recipient ok"
            case "DATA" if not self.recipients:
                return out_of_order if self.sender is None else "554 5.5.1 no valid recipients"
            case "DATA":
                return "354 go on"
            case "AUTH":
                return "235 2.7.0 welcome"
            case "VRFY":
                return "252 2.5.0 try and see"
            case "OTHER":
                return "500 5.5.2 what?"
            case _:
                return "250 2.0.0 ok"

    def _settle(self, code: int) -> None:
        """What this reply to the present command changes in the transaction."""
        positive = 200 <= code < 300
        match self._stage:
            case "EHLO" | "HELO" if positive:
                self.helo = self._line.partition(" ")[2]
                self._forget_transaction()
            case "MAIL" if positive:
                self.sender = self._path()
                self.parameters = self._parameters()
            case "RCPT" if positive:
                self.recipients.append(self._path())
                self.parameters += self._parameters()
            case "DATA" if code == 354:
                self._in_content = True
            case "RSET" if positive:
                self._forget_transaction()

    def _path(self) -> str:
        found = _PATH.search(self._line)
        return found.group(1) if found else self._line

    def _parameters(self) -> list[str]:
        return self._line.rpartition(">")[2].split()

    def _forget_transaction(self) -> None:
        self.sender, self.recipients, self.parameters = None, [], []


class Peer:
    """The peer itself: an async context manager with a port of its own on the loopback interface."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        capabilities: Sequence[str] = CAPABILITIES,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        read_limit_octets: int | None = None,
        patience_seconds: float = 10.0,
    ) -> None:
        """`tls` offers STARTTLS, or is the first thing of all with `implicit_tls`. A small `read_limit_octets` makes
        the sender feel at once that the peer doesn't read."""
        self.script = script or Script()
        self.capabilities = tuple(capabilities)
        self.tls = tls
        self.host, self.port = host, port
        self.connections: list[Connection] = []
        self.messages: list[Received] = []
        self._implicit_tls = implicit_tls
        self._read_limit_octets = read_limit_octets
        self._patience_seconds = patience_seconds
        self._new_connections: asyncio.Queue[Connection] = asyncio.Queue()
        self._new_messages: asyncio.Queue[Received] = asyncio.Queue()
        self._stages: Counter[str] = Counter()
        self._stage_waiters: list[tuple[str, int, asyncio.Future[Connection]]] = []
        self._server: asyncio.Server | None = None
        self._dialogues: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; `port` is then known. A peer that was stopped listens on its old port again."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # with the protocol named: asyncio sets TCP_NODELAY only then, and each second reply waits for 40 ms without
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._read_limit_octets is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._read_limit_octets)
        listener.bind((self.host, self.port))
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(
            self._serve,
            sock=listener,
            limit=self._read_limit_octets or 65536,
            ssl=self.tls if self._implicit_tls else None,
        )

    async def stop(self) -> None:
        """Stop listening and break what is open."""
        assert self._server is not None
        for listener in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listener)
        # asyncio makes no transport for a connection that it accepted just before its server was closed
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._server.close()
        for task in self._dialogues:
            task.cancel()
        await asyncio.gather(*self._dialogues, return_exceptions=True)
        for connection in self.connections:
            with contextlib.suppress(AttributeError):  # of asyncio, for a TLS transport that has ended
                connection.writer.transport.abort()
        await self._server.wait_closed()

    async def connected(self) -> Connection:
        """The next connection that this method has not yet returned."""
        return await self.patiently(self._new_connections.get())

    async def message(self) -> Received:
        """The next message that this method has not yet returned, whatever the dot was answered."""
        return await self.patiently(self._new_messages.get())

    async def reached(self, stage: str, times: int = 1) -> Connection:
        """The connection that reached the stage for the given number of times (counted over all), once that is so."""
        future: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        if self._stages[stage] >= times:
            return next(c for c in reversed(self.connections) if c.counts[stage])
        self._stage_waiters.append((stage, times, future))
        return await self.patiently(future)

    async def patiently(self, waiting: Awaitable[_T]) -> _T:
        """The result of the wait, or TimeoutError after `patience_seconds`."""
        async with asyncio.timeout(self._patience_seconds):
            return await waiting

    def deliveries(self) -> Counter[str]:
        """How often each recipient's message was accepted."""
        return Counter(recipient for m in self.messages if m.accepted for recipient in m.recipients)

    def note(self, stage: str, connection: Connection) -> None:
        """A stage was reached. Called by the connection, before the stage's actions."""
        self._stages[stage] += 1
        for waiting_for, times, future in self._stage_waiters:
            if waiting_for == stage and self._stages[stage] >= times and not future.done():
                future.set_result(connection)

    def received(self, message: Received) -> None:
        """A final dot was dealt with. Called by the connection."""
        self.messages.append(message)
        self._new_messages.put_nowait(message)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Called as soon as a connection is there: a task that was cancelled before it began would never close it."""
        connection = Connection(len(self.connections) + 1, self, reader, writer, tls=self._implicit_tls)
        self.connections.append(connection)
        self._new_connections.put_nowait(connection)
        task = asyncio.create_task(connection.converse())
        self._dialogues.add(task)
        task.add_done_callback(self._dialogues.discard)
