"""One outbound SMTP connection (RFC 5321): the only importer of aiosmtplib.

aiosmtplib's protocol does greeting, EHLO and STARTTLS. A transaction is ours: MAIL, RCPT and DATA go out together where
the peer offers PIPELINING, and content with its final dot is one write, in the same step as the last check (S1).
transact() returns an Outcome for whatever the peer answers; SessionLost means that the connection can't be used any
more, and carries the outcome too. No exception text holds what a peer said, other than redacted.
"""

import asyncio
import math
import re
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from aiosmtplib.errors import SMTPException
from aiosmtplib.esmtp import parse_esmtp_extensions
from aiosmtplib.protocol import SMTPProtocol
from aiosmtplib.response import SMTPResponse

from bounce.outcome import Action, BounceClass, Outcome, Stage, Trouble, may_quote, redact
from bounce.trouble import from_exception, from_reply

# RFC 5321 §4.5.3.2
GREETING_SECONDS: Final = 300.0
MAIL_SECONDS: Final = 300.0
RCPT_SECONDS: Final = 300.0
DATA_SECONDS: Final = 120.0
DOT_SECONDS: Final = 600.0
QUIT_SECONDS: Final = 5.0

_MAX_REPLY_BYTES: Final = 32_768
_MAX_REPLIES: Final = 64
_MAX_SEGMENTS: Final = 1_000  # of the handshake, each of which has the library read the reply from its start
_MAX_SIZE_DIGITS: Final = 20  # RFC 1870 §4
# nothing that could end a path or a command (M2); a quoted local part may hold blanks and angle brackets
_PATH: Final = re.compile(r'(?:"(?:[^\x00-\x1f\x7f"\\]|\\[\x20-\x7e])*"|[^\x00-\x20\x7f<>"]+)@[^\x00-\x20\x7f<>"]+')


class Reply(NamedTuple):
    """A complete reply; text has a line for each of its lines, without code."""

    code: int
    text: str


class SessionLost(Exception):
    """The connection is gone or useless. touched: content went out, or the peer spoke about this very recipient."""

    def __init__(self, outcome: Outcome, *, touched: bool = True) -> None:
        super().__init__(f"{outcome.stage}: {outcome.bounce_class}")
        self.outcome = outcome
        self.touched = touched


class Withheld(Exception):
    """The last check said no: nothing of the content was sent, and the connection was cut before the final dot."""

    def __init__(self, *, stale: bool) -> None:
        super().__init__("stale" if stale else "suppressed")
        self.stale = stale


class PeerProtocol(SMTPProtocol):
    """aiosmtplib's protocol, which after the handshake queues pipelined replies instead of expecting one."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop()
        super().__init__(loop=self._clock)
        self._pipelined = False
        self._segments = 0
        self._received = bytearray()
        self._lines: list[bytes] = []
        self._line_bytes = 0
        self._replies: deque[Reply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._due_at = math.inf
        self._watch: asyncio.TimerHandle | None = None
        self._looks_at = math.inf

    def begin_transactions(self) -> None:
        """The handshake is over."""
        self._pipelined = True

    def data_received(self, data: bytes) -> None:
        """Parse whole replies; a peer that sends nonsense or too much is cut off."""
        if not self._pipelined:
            self._segments += 1
            if self._segments > _MAX_SEGMENTS:
                self.abort()
            else:
                super().data_received(data)
            return
        self._received += data
        try:
            self._parse()
        except ValueError:
            self._fail(ConnectionError("malformed reply"))
            self.abort()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits for a reply learns of it."""
        super().connection_lost(exc)
        self._fail(ConnectionResetError("connection closed by peer"))
        if self._watch is not None:
            self._watch.cancel()

    def eof_received(self) -> bool:
        """A peer that sends no more will not answer any more."""
        if self._pipelined:
            self._fail(ConnectionResetError("connection closed by peer"))
            return False
        return super().eof_received()

    def abort(self) -> None:
        """Cut the connection at once: nothing that is buffered goes out."""
        if self.transport is not None:
            self.transport.abort()  # type: ignore[attr-defined]  # aiosmtplib declares the base class only

    @property
    def in_step(self) -> bool:
        """Whether the connection stands, and the peer has said nothing that was not yet taken."""
        return self.is_connected and self._failure is None and not (self._replies or self._lines or self._received)

    @property
    def failure(self) -> Exception | None:
        """Why there will be no more replies."""
        return self._failure

    async def reply(self, timeout_seconds: float) -> Reply:
        """The next reply; raises TimeoutError or ConnectionError. The time is for all of it."""
        if self._replies:
            return self._replies.popleft()
        self._expect_by(self._clock.time() + timeout_seconds)
        try:
            while not self._replies:
                if self._failure is not None:
                    raise self._failure
                self._waiter = self._clock.create_future()
                await self._waiter
        finally:
            self._due_at = math.inf
        return self._replies.popleft()

    def _expect_by(self, due_at: float) -> None:
        """Fail when no reply has come by then. One timer serves the whole connection, and looks again when it was too
        early: to start and stop one for each reply takes as long as to read the reply.
        """
        self._due_at = due_at
        if self._looks_at > due_at:
            if self._watch is not None:
                self._watch.cancel()
            self._watch = self._clock.call_at(due_at, self._look)
            self._looks_at = due_at

    def _look(self) -> None:
        self._looks_at = math.inf
        if self._clock.time() >= self._due_at:
            self._fail(TimeoutError("no reply in time"))
        elif self._due_at < math.inf:
            self._expect_by(self._due_at)

    def _parse(self) -> None:
        """Take whole lines out of what was received: each once, however small the pieces that they come in."""
        received, start = self._received, 0
        while (end := received.find(b"\n", start)) >= 0:
            line = bytes(received[start:end]).rstrip(b"\r")
            start = end + 1
            code = line[:3]
            if len(code) < 3 or not code.isdigit() or line[3:4] not in {b"", b" ", b"-"}:
                raise ValueError("not a reply")
            self._lines.append(line[4:])
            self._line_bytes += len(line)
            if line[3:4] != b"-":
                self._replies.append(Reply(int(code), b"\n".join(self._lines).decode("utf-8", "replace")))
                self._lines.clear()
                self._line_bytes = 0
        del received[:start]
        if self._line_bytes + len(received) > _MAX_REPLY_BYTES or len(self._replies) > _MAX_REPLIES:
            raise ValueError("too much")

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Session:
    """A connection to one host, ready for transactions."""

    def __init__(self, protocol: PeerProtocol, host: str, extensions: dict[str, str]) -> None:
        self._protocol = protocol
        self.host = host
        self._pipelining = "pipelining" in extensions
        self._eight_bit = "8bitmime" in extensions
        self._smtputf8 = "smtputf8" in extensions
        self._max_bytes = _size_limit(extensions)
        self._open_transaction = False
        self.transactions = 0

    @property
    def usable(self) -> bool:
        """Whether another transaction can be tried: not after words that nobody asked for, mostly a farewell."""
        return self._protocol.in_step

    @classmethod
    async def connect(
        cls,
        host: str,
        address: str,
        port: int,
        *,
        hostname: str,
        connect_seconds: float,
        tls: ssl.SSLContext | None,
        tls_required: bool = False,
    ) -> "Session":
        """Connect, greet and start TLS where the peer offers it. Raises SessionLost."""
        loop = asyncio.get_running_loop()
        stage = Stage.CONNECT
        protocol: PeerProtocol | None = None
        try:
            async with asyncio.timeout(connect_seconds):
                _, protocol = await loop.create_connection(PeerProtocol, address, port)
            stage = Stage.GREETING
            greeting = await protocol.read_response(timeout=GREETING_SECONDS)
            if greeting.code != 220:
                raise _refused(stage, greeting, host)
            stage = Stage.EHLO
            extensions = await _ehlo(protocol, hostname, host)
            if tls is not None and "starttls" in extensions:
                stage = Stage.STARTTLS
                await protocol.start_tls(tls, server_hostname=host.rstrip("."), timeout=MAIL_SECONDS)
                stage = Stage.EHLO
                extensions = await _ehlo(protocol, hostname, host)
            elif tls_required:
                raise SessionLost(_no_tls(host))
            protocol.begin_transactions()
            return cls(protocol, host, extensions)
        except BaseException as error:
            if protocol is not None:
                protocol.abort()
            if isinstance(error, SessionLost) or not isinstance(error, Exception):
                raise
            raise SessionLost(from_exception(stage, error, remote_mta=host)) from None

    async def transact(
        self,
        sender: str,
        recipient: str,
        wire: bytes,
        *,
        eight_bit: bool,
        smtputf8: bool,
        check: Callable[[], Withheld | None],
    ) -> Outcome:
        """Offer one message for one recipient; returns what the peer said.

        wire is dot-stuffed and ends in CRLF. check is called after 354, in the same step in which content and final
        dot are written; what it returns is raised, after the connection was cut. Raises SessionLost, Withheld.
        """
        unfit = self._unfit(sender, recipient, len(wire), smtputf8)
        if unfit is not None:
            return unfit
        self.transactions += 1
        stage = Stage.RSET if self._open_transaction else Stage.MAIL
        try:
            self._must_be_in_step()
            commands = self._commands(sender, recipient, len(wire), eight_bit, smtputf8)
            stages = [Stage.MAIL, Stage.RCPT, Stage.DATA]
            if self._open_transaction:
                commands.insert(0, b"RSET\r\n")
                stages.insert(0, Stage.RSET)
            self._open_transaction = True
            refusal: Outcome | None = None
            if self._pipelining:
                self._protocol.write(b"".join(commands))
            for stage, command in zip(stages, commands, strict=True):
                if not self._pipelining:
                    self._protocol.write(command)
                reply = await self._protocol.reply(DATA_SECONDS if stage is Stage.DATA else MAIL_SECONDS)
                if refusal is None and reply.code // 100 != (3 if stage is Stage.DATA else 2):
                    refusal = self._outcome(stage, reply, recipient)
                    # a peer that refuses RSET would refuse it before every other message too
                    if stage is Stage.RSET or reply.code == 421 or not 400 <= reply.code < 600:
                        raise self._lost(refusal, stage)
                    if not self._pipelining:
                        return refusal
            if refusal is not None:
                if reply.code == 354:  # a peer that wants content for nobody: there is no way back but this
                    raise self._lost(refusal)
                return refusal
            self._must_be_in_step()
            stage = Stage.DOT
            withheld = check()
            if withheld is not None:
                self._protocol.abort()
                raise withheld
            self._protocol.write(wire + b".\r\n")
            reply = await self._protocol.reply(DOT_SECONDS)
            self._open_transaction = False
        except (SessionLost, Withheld):
            raise
        except Exception as error:
            raise self._lost(from_exception(stage, error, remote_mta=self.host), stage) from None
        outcome = self._outcome(stage, reply, recipient)
        if reply.code == 421:
            raise self._lost(outcome)
        return outcome

    async def quit(self) -> None:
        """Say goodbye, and wait for the answer only shortly."""
        try:
            if self.usable:
                self._protocol.write(b"QUIT\r\n")
                await self._protocol.reply(QUIT_SECONDS)
        except (OSError, TimeoutError, SMTPException):
            pass
        finally:
            self._protocol.abort()

    def abort(self) -> None:
        """Cut the connection at once."""
        self._protocol.abort()

    def _commands(self, sender: str, recipient: str, size: int, eight_bit: bool, smtputf8: bool) -> list[bytes]:
        parameters = f" SIZE={size}" if self._max_bytes is not None else ""
        if eight_bit and self._eight_bit:
            parameters += " BODY=8BITMIME"
        if smtputf8:
            parameters += " SMTPUTF8"
        return [f"MAIL FROM:<{sender}>{parameters}\r\n".encode(), f"RCPT TO:<{recipient}>\r\n".encode(), b"DATA\r\n"]

    def _must_be_in_step(self) -> None:
        """A reply that nobody asked for would be taken for the next command's."""
        if not self._protocol.in_step:
            raise self._protocol.failure or ConnectionError("unexpected reply")

    def _unfit(self, sender: str, recipient: str, size: int, smtputf8: bool) -> Outcome | None:
        """What this peer can't take at all, by its own EHLO; and what no peer must be told (never by submission)."""
        if not (_is_path(sender) or not sender) or not _is_path(recipient):
            error = ValueError("address can't be written in a command")
            return from_exception(Stage.MAIL, error, remote_mta=self.host)
        if smtputf8 and not self._smtputf8:
            text = "5.6.7 the peer does not offer SMTPUTF8, which this message needs"
            return from_reply(Stage.MAIL, 553, text, remote_mta=self.host, recipient=recipient)
        if self._max_bytes and size > self._max_bytes:
            text = "5.3.4 the message is larger than the peer's announced limit"
            return from_reply(Stage.MAIL, 552, text, remote_mta=self.host, recipient=recipient)
        return None

    def _outcome(self, stage: Stage, reply: Reply, recipient: str) -> Outcome:
        if stage is Stage.DOT and reply.code // 100 == 2:
            text = reply.text
            if may_quote(text, recipient):
                text = redact(text, recipient)
            return Outcome(
                Action.DELIVERED, "2.0.0", reply.code, text[:200], self.host, BounceClass.NONE, Trouble.RECIPIENT, stage
            )
        if reply.code // 100 in (2, 3):  # the right digit in the wrong place
            error = ConnectionError("unexpected reply")
            return from_exception(stage, error, remote_mta=self.host)
        return from_reply(stage, reply.code, reply.text, remote_mta=self.host, recipient=recipient)

    def _lost(self, outcome: Outcome, stage: Stage = Stage.DOT) -> SessionLost:
        self._protocol.abort()
        return SessionLost(outcome, touched=stage not in (Stage.RSET, Stage.MAIL))


async def _ehlo(protocol: PeerProtocol, hostname: str, host: str) -> dict[str, str]:
    """EHLO, or HELO where the peer knows no better; the extensions by lower-case name."""
    response = await protocol.execute_command(b"EHLO", hostname.encode(), timeout=MAIL_SECONDS)
    if response.code == 250:
        return parse_esmtp_extensions(response.message)[0]
    if response.code in (500, 501, 502, 504, 550):
        response = await protocol.execute_command(b"HELO", hostname.encode(), timeout=MAIL_SECONDS)
        if response.code == 250:
            return {}
    raise _refused(Stage.EHLO, response, host)


def _refused(stage: Stage, response: SMTPResponse, host: str) -> SessionLost:
    if not 400 <= response.code < 600:  # the wrong answer to a greeting is no success of anything
        return SessionLost(from_exception(stage, ConnectionError("unexpected reply"), remote_mta=host))
    return SessionLost(from_reply(stage, response.code, response.message, remote_mta=host, recipient=""))


def _no_tls(host: str) -> Outcome:
    text = "4.7.10 TLS is required here, and the peer does not offer STARTTLS"
    return from_reply(Stage.STARTTLS, 454, text, remote_mta=host, recipient="")


def _size_limit(extensions: dict[str, str]) -> int | None:
    """None: no SIZE; 0: no limit stated."""
    if "size" not in extensions:
        return None
    text = extensions["size"].strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_SIZE_DIGITS else 0


def _is_path(path: str) -> bool:
    """Whether an address can be written between angle brackets and stay what it is."""
    return _PATH.fullmatch(path) is not None and not any("\ud800" <= character <= "\udfff" for character in path)
