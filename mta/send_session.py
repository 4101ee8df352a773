"""One connection of the load client (mta/send.py): a plain protocol that keeps a submission server busy.

Where the server offers PIPELINING, a message's final dot and the next message's commands leave in one packet (RFC 2920
§3.1), so that a message costs one round trip. Nothing is retried here: work that was not answered goes back to its
owner, and a final dot without a reply is told apart, since nobody knows what became of that message.
"""

import asyncio
import base64
import re
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol, cast

_ENHANCED = re.compile(rb"[245]\.\d{1,3}\.\d{1,3}")
_MAX_REPLY_OCTETS = 65536


class Reply(NamedTuple):
    """A whole reply: its code and its text lines."""

    code: int
    lines: tuple[bytes, ...]

    @property
    def label(self) -> str:
        """Code and enhanced code, "550 5.7.1": all of a reply that may be counted and shown."""
        found = _ENHANCED.match(self.lines[-1])
        return f"{self.code} {found[0].decode()}" if found else str(self.code)


class Refused(Exception):
    """The server refused the session at a stage before any message; `label` is the reply's."""

    def __init__(self, stage: str, label: str) -> None:
        super().__init__(f"{stage}: {label}")


@dataclass(frozen=True, slots=True)
class Login:
    """How to open a session. Credentials are sent under TLS only."""

    tls: str = "none"
    context: ssl.SSLContext | None = None
    server_name: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    helo: str = "localhost"

    def __post_init__(self) -> None:
        if self.tls not in ("none", "starttls", "implicit"):
            raise ValueError("tls is one of none, starttls, implicit")
        if self.user and self.tls == "none":
            raise ValueError("credentials are sent under TLS only")


@dataclass(slots=True)
class Work:
    """One message to send. `content` ends in CRLF and is dot-stuffed."""

    number: int
    sender: str
    recipients: Sequence[str] = field(repr=False)
    content: bytes = field(repr=False)
    accepted: int = 0
    dotted: bool = False
    refusal: Reply | None = None


class Owner(Protocol):
    """Where a session gets its work from and brings the results to."""

    def take(self) -> Work | None:
        """The next message, or None when there is no more."""

    def give_back(self, work: Work) -> None:
        """A message that was never sent to its end."""

    def refused_recipient(self, reply: Reply) -> None:
        """One recipient was turned away."""

    def finished(self, work: Work, reply: Reply | None) -> None:
        """A message is done with: accepted, refused, or (None) its dot was not answered."""


class Session(asyncio.Protocol):
    """`over` is done when the connection has ended; it raises when the server refused or something broke."""

    def __init__(self, owner: Owner, login: Login, timeout_seconds: float) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._owner, self._login, self._timeout_seconds = owner, login, timeout_seconds
        self._transport: asyncio.Transport
        self._input = b""
        self._lines: list[bytes] = []
        self._to_send: deque[tuple[bytes, Callable[[Reply], None]]] = deque()
        self._expected: deque[Callable[[Reply], None]] = deque([self._on_greeting])
        self._pipelining = self._secure = self._quitting = False
        self._error: Exception | None = None
        self._open_work: list[Work] = []
        self._heard_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the greeting."""
        self._transport = cast(asyncio.Transport, transport)
        self._secure = self._login.tls == "implicit"
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._watch = self._loop.call_later(self._timeout_seconds, self._check_silence)

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand back what was not answered, and only then say that the session is over."""
        if self.over.done():
            return
        self._watch.cancel()
        for work in self._open_work:
            if work.dotted:
                self._owner.finished(work, None)
            else:
                self._owner.give_back(work)
        self._open_work.clear()
        error = self._error or exc
        if error is None and not self._quitting:
            error = ConnectionResetError("closed by the server")
        if error is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(error)

    def data_received(self, data: bytes) -> None:
        """Deal with each whole reply, then send what that brought up, all in one packet."""
        self._heard_at = self._loop.time()
        *lines, self._input = (self._input + data).split(b"\n")
        if len(self._input) > _MAX_REPLY_OCTETS:
            self._fail(ValueError("a reply without end"))
        for line in lines:
            self._line(line.rstrip(b"\r"))
        self._pump()

    def _line(self, line: bytes) -> None:
        self._lines.append(line[4:])
        if line[3:4] == b"-":
            return
        reply, self._lines = Reply(int(line[:3]) if line[:3].isdigit() else 0, tuple(self._lines)), []
        if self._transport.is_closing():
            return
        if not self._expected:
            self._fail(Refused("unasked", reply.label))
            return
        self._expected.popleft()(reply)

    def _say(self, octets: bytes, on_reply: Callable[[Reply], None]) -> None:
        self._to_send.append((octets, on_reply))

    def _pump(self) -> None:
        packet: list[bytes] = []
        while self._to_send and (self._pipelining or not self._expected):
            octets, on_reply = self._to_send.popleft()
            packet.append(octets)
            self._expected.append(on_reply)
        if packet and not self._transport.is_closing():
            self._transport.write(b"".join(packet))

    def _on_greeting(self, reply: Reply) -> None:
        if self._wanted(reply, 220, "greeting"):
            self._say(b"EHLO %b\r\n" % self._login.helo.encode(), self._on_ehlo)

    def _on_ehlo(self, reply: Reply) -> None:
        if not self._wanted(reply, 250, "EHLO"):
            return
        offered = {line.upper() for line in reply.lines[1:]}
        if self._login.tls == "starttls" and not self._secure:
            self._say(b"STARTTLS\r\n", self._on_starttls)
            return
        self._pipelining = b"PIPELINING" in offered
        if self._login.user:
            secret = base64.b64encode(f"\0{self._login.user}\0{self._login.password}".encode())
            self._say(b"AUTH PLAIN %b\r\n" % secret, self._on_auth)
        else:
            self._next()

    def _on_starttls(self, reply: Reply) -> None:
        if self._wanted(reply, 220, "STARTTLS"):
            self._input = b""  # nothing said in clear counts under TLS
            self._transport.pause_reading()
            self._upgrade = self._loop.create_task(self._start_tls())

    async def _start_tls(self) -> None:
        context = self._login.context or ssl.create_default_context()
        try:
            secured = await self._loop.start_tls(
                self._transport, self, context, server_hostname=self._login.server_name or None
            )
        except (OSError, ssl.SSLError) as error:
            self._fail(error)
            self.connection_lost(None)
            return
        if secured is None:
            return
        self._transport, self._secure = secured, True
        self._say(b"EHLO %b\r\n" % self._login.helo.encode(), self._on_ehlo)
        self._pump()

    def _on_auth(self, reply: Reply) -> None:
        if self._wanted(reply, 235, "AUTH"):
            self._next()

    def _next(self) -> None:
        """Begin the next message, or end the session."""
        work = self._owner.take()
        if work is None:
            self._quitting = True
            self._say(b"QUIT\r\n", self._on_quit)
            return
        self._open_work.append(work)
        self._say(f"MAIL FROM:<{work.sender}>\r\n".encode(), partial(self._on_mail, work))
        for recipient in work.recipients:
            self._say(f"RCPT TO:<{recipient}>\r\n".encode(), partial(self._on_rcpt, work))
        self._say(b"DATA\r\n", partial(self._on_data, work))

    def _on_mail(self, work: Work, reply: Reply) -> None:
        work.refusal = None if reply.code // 100 == 2 else reply

    def _on_rcpt(self, work: Work, reply: Reply) -> None:
        if reply.code // 100 == 2:
            work.accepted += 1
        else:
            self._owner.refused_recipient(work.refusal or reply)

    def _on_data(self, work: Work, reply: Reply) -> None:
        if reply.code == 354:
            work.dotted = True
            # Without a recipient a server that says 354 all the same still waits for a dot (RFC 2920 §3.1).
            self._say(work.content + b".\r\n" if work.accepted else b".\r\n", partial(self._on_dot, work))
        else:
            self._done(work, reply)
            self._say(b"RSET\r\n", self._on_rset)
        self._next()

    def _on_dot(self, work: Work, reply: Reply) -> None:
        self._done(work, reply)

    def _on_rset(self, reply: Reply) -> None:
        """Whatever it says: the next MAIL shows whether the session is sound."""

    def _on_quit(self, reply: Reply) -> None:  # noqa: ARG002 – whatever it says, that was all
        self._transport.close()

    def _done(self, work: Work, reply: Reply) -> None:
        self._open_work.remove(work)
        self._owner.finished(work, reply)
        if reply.code == 421:
            self._fail(Refused("session", reply.label))

    def _wanted(self, reply: Reply, code: int, stage: str) -> bool:
        if reply.code != code:
            self._fail(Refused(stage, reply.label))
        return reply.code == code

    def _check_silence(self) -> None:
        silent_seconds = self._loop.time() - self._heard_at
        if silent_seconds >= self._timeout_seconds:
            self._fail(TimeoutError("no reply"))
        else:
            self._watch = self._loop.call_later(self._timeout_seconds - silent_seconds, self._check_silence)

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._transport.abort()
