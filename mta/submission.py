"""The submission listener (RFC 6409, RFC 5321): upstream apps hand in mail here.

A protocol of our own instead of aiosmtpd's, because this is the hot path: commands are answered in the callback that
read them, pipelined ones together, content is read in chunks; only AUTH, STARTTLS and the end of DATA ever wait.
250 after content means committed (D1). No relay: a client is authenticated, or in a network that stands for a tenant.
No reply, log line or exception holds an address.
"""

import asyncio
import base64
import functools
import ssl
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final, cast

from config.database import DatabaseUnavailable
from config.log import LOG
from metrics import registry
from mta.accounts import Credential
from mta.commands import CommandError, Rcpt, parse_mail, parse_rcpt
from mta.content_room import NO_ROOM, ContentShare
from mta.data_reader import DataError, DataReader
from mta.door import NO_CONSENT, UNAVAILABLE, Client, Door, Transaction
from mta.identifiers import queue_id
from mta.message import Message, parse, refuse
from mta.rejections import Kind
from mta.sasl import MECHANISMS, decoded
from suppression.digest import MessageClass

MAX_LINE: Final = 2_048  # octets; RFC 5321 §4.5.3.1.4 asks for 512, extensions add to it
_READ_AHEAD: Final = 262_144  # octets of pipelined input kept while an answer is awaited
_COMMANDS_AT_ONCE: Final = 200
_MAX_ERRORS: Final = 20
_MAX_AUTH_FAILURES: Final = 3
_LINGER_SECONDS: Final = 2.0
# recipients of a message that are sealed without giving others a turn
_AT_ONCE: Final = 100
_RECEIVED: Final = {kind: registry.received.labels(kind.name.lower()) for kind in MessageClass}
_ACCEPTED: Final = {kind: registry.accepted.labels(kind.name.lower()) for kind in MessageClass}
_HANDSHAKE_SECONDS: Final = 30.0


class SubmissionProtocol(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._peer = ""
        self._input = bytearray()
        self._output: list[bytes] = []
        self._data: DataReader | None = None
        self._share = ContentShare(door.content_room)
        self._waiting: asyncio.Future[Any] | None = None
        self._line_reader: asyncio.Future[bytes] | None = None
        self._greeted = ""
        self._tls = False
        self._who: Client | None = None
        self._transaction: Transaction | None = None
        self._errors = 0
        self._auth_failures = 0
        self._discarding = False
        self._ended = False
        self._unread = False
        self._closed = False
        self._last_activity = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    # --- connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet; after STARTTLS this is called for the TLS transport too."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by descent
        self._tls = transport.get_extra_info("ssl_object") is not None
        if self._peer:
            return
        self._peer = (transport.get_extra_info("peername") or ("127.0.0.1",))[0] or "127.0.0.1"
        self._who = self._door.trusted(self._peer)
        if self._door.closing or len(self._door.connections) >= self._door.policy.max_connections:
            self._count("connections")
            self._transport.write(f"421 4.7.0 {self._door.policy.hostname} Too many connections\r\n".encode())
            self._transport.close()
            return
        self._door.connections.add(self)
        registry.clients.labels("submission").inc()
        self._timer = self._loop.call_later(self._door.policy.idle_timeout_seconds, self._idle)
        self._transport.write(f"220 {self._door.policy.hostname} ESMTP\r\n".encode())

    def connection_lost(self, _exc: Exception | None) -> None:
        """Forget the client; a commit under way goes on by itself."""
        self._closed = True
        if self in self._door.connections:
            self._door.connections.discard(self)
            registry.clients.labels("submission").dec()
        if self._timer is not None:
            self._timer.cancel()
        if self._line_reader is not None and not self._line_reader.done():
            self._line_reader.cancel()
        if self._waiting is None:
            self._drop_data()

    def data_received(self, data: bytes) -> None:
        """Answer what can be answered now."""
        self._last_activity = self._loop.time()
        if self._discarding:
            return
        self._input += data
        self._process()
        if self._waiting is not None and len(self._input) > _READ_AHEAD:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Half-closed: answer everything that has arrived, then close. TLS has no such half."""
        self._ended = True
        if self._line_reader is not None and not self._line_reader.done():
            self._line_reader.cancel()
        return self._waiting is not None and not self._tls

    def pause_writing(self) -> None:
        """The client doesn't read its answers: it gets no more of them."""
        self._unread = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        self._unread = False
        if self._waiting is None:
            self._transport.resume_reading()
            self._process()

    def shut_down(self) -> None:
        """The daemon stops: let go of the client unless an answer is owed."""
        if self._waiting is None and not self._closed:
            self._transport.write(f"421 4.3.2 {self._door.policy.hostname} Shutting down\r\n".encode())
            self._transport.close()

    def _idle(self) -> None:
        limit = self._door.policy.idle_timeout_seconds
        left = self._last_activity + limit - self._loop.time()
        if left > 0 or (self._waiting is not None and self._line_reader is None):
            self._timer = self._loop.call_later(max(left, 1.0), self._idle)
            return
        self._transport.write(f"421 4.4.2 {self._door.policy.hostname} Idle for too long\r\n".encode())
        self._transport.close()
        self._loop.call_later(_LINGER_SECONDS, self._transport.abort)

    # --- input

    def _process(self) -> None:
        """Handle what is complete, then write all replies at once. After so many commands others have their turn."""
        commands = 0
        while self._waiting is None and self._input and not (self._closed or self._discarding or self._unread):
            if self._data is not None:
                self._read_data()
            elif commands == _COMMANDS_AT_ONCE:
                self._wait_for(asyncio.sleep(0))
            elif self._read_line():
                commands += 1
            else:
                break
        if self._line_reader is not None and not self._line_reader.done():
            self._feed_line_reader(self._line_reader)
        self._flush()

    def _read_line(self) -> bool:
        end = self._input.find(b"\n")
        if end < 0:
            if len(self._input) > MAX_LINE:
                self._fatal("500 5.5.2 Line too long", "syntax")
            return False
        line = bytes(self._input[: end + 1])
        del self._input[: end + 1]
        if len(line) > MAX_LINE:
            self._refuse("500 5.5.2 Line too long", "syntax")
        elif not line.endswith(b"\r\n") or b"\r" in line[:-2] or b"\0" in line:
            self._refuse("500 5.5.2 Lines end in CRLF, and hold no other CR, LF or NUL", "bare-newline")
        else:
            self._command(line[:-2])
        return True

    def _read_data(self) -> None:
        assert self._data is not None
        chunk, self._input = self._input, bytearray()
        try:
            done = self._data.feed(chunk)
        except DataError as error:
            self._drop_data()
            self._transaction = None
            if error.rest is None:
                self._fatal(error.reply, error.reason)
            else:
                self._input += error.rest
                self._refuse(error.reply, error.reason)
            return
        if done is None:
            self._share.hold(self._data.buffered)
            if self._share.crowded_out():
                self._data.give_up(*NO_ROOM)
                self._share.hold(0)
            return
        self._data = None
        content, rest = done
        self._share.hold(len(content))  # until it is committed
        self._input += rest
        transaction, self._transaction = self._transaction, None
        assert transaction is not None
        try:
            if self._share.crowded_out():
                raise CommandError(*NO_ROOM)
            self._take(transaction, content)
        except CommandError as error:
            self._refuse(error.reply, error.reason)
        except Exception as error:
            self._fail(error)
        if self._waiting is None:
            self._share.hold(0)

    def _drop_data(self) -> None:
        self._data = None
        self._share.hold(0)

    # --- output

    def _reply(self, text: str) -> None:
        self._output.append(text.encode("ascii", "replace") + b"\r\n")

    def _flush(self) -> None:
        if self._output and not self._closed:
            self._transport.write(b"".join(self._output))
        self._output.clear()

    def _refuse(self, reply: str, reason: str, person: int | None = None) -> None:
        self._count(reason)
        if self._who is not None:
            kind = Kind(self._who.tenant.id, self._who.message_class, reason, reply)
            self._door.rejections.add(kind, person)
        self._reply(reply)
        self._errors += 1
        if self._errors > _MAX_ERRORS:
            self._fatal("421 4.7.0 Too many errors", "errors")

    def _fatal(self, reply: str, reason: str) -> None:
        """Answer for the last time. What the client still sends is read and thrown away, so that it sees the answer."""
        self._count(reason)
        self._reply(reply)
        self._flush()
        self._drop_data()
        self._discarding = True
        self._input.clear()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._loop.call_later(_LINGER_SECONDS, self._transport.close)

    def _count(self, reason: str) -> None:
        registry.refused.labels("submission", reason).inc()

    def _wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that takes time; input waits, and is gone on with afterwards."""
        self._flush()
        self._waiting = self._loop.create_task(work)
        self._waiting.add_done_callback(self._go_on)

    def _go_on(self, task: "asyncio.Future[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)
        self._resume()

    def _fail(self, error: BaseException) -> None:
        """A mistake of ours: nothing that the client sent may be named."""
        LOG.error("a command failed", error=type(error).__name__)
        self._reply("451 4.3.0 Internal error, try again later")

    def _resume(self) -> None:
        """An answer is ready: send it, and handle what has arrived meanwhile."""
        self._waiting = None
        self._share.hold(0)
        self._flush()
        if self._closed:
            return
        if self._door.closing:
            self.shut_down()
            return
        if not self._unread:
            self._transport.resume_reading()
        self._process()
        if self._ended and self._waiting is None:
            self._transport.close()

    # --- commands

    def _command(self, line: bytes) -> None:
        verb, _, rest = line.partition(b" ")
        try:
            name, argument = verb.decode("ascii").upper(), rest.decode("utf-8").strip(" ")
        except UnicodeDecodeError:
            self._refuse("500 5.5.2 Not UTF-8", "syntax")
            return
        handler = _HANDLERS.get(name)
        if handler is None:
            self._refuse("500 5.5.1 Unknown command", "syntax")
            return
        try:
            handler(self, argument)
        except CommandError as error:
            self._refuse(error.reply, error.reason, error.person)

    def _ehlo(self, argument: str) -> None:
        if not argument:
            raise CommandError("501 5.5.4 Syntax: EHLO hostname")
        self._greeted, self._transaction = "EHLO", None
        policy = self._door.policy
        lines = [policy.hostname, "PIPELINING", f"SIZE {policy.max_message_bytes}", "8BITMIME", "SMTPUTF8"]
        lines += ["ENHANCEDSTATUSCODES", "DSN"]
        if policy.max_hold_seconds:
            latest = datetime.fromtimestamp(self._door.now() + policy.max_hold_seconds, UTC)
            lines.append(f"FUTURERELEASE {policy.max_hold_seconds} {latest:%Y-%m-%dT%H:%M:%SZ}")
        if policy.tls is not None and not self._tls:
            lines.append("STARTTLS")
        if self._tls:
            lines.append("AUTH PLAIN LOGIN")
        for line in lines[:-1]:
            self._reply(f"250-{line}")
        self._reply(f"250 {lines[-1]}")

    def _helo(self, argument: str) -> None:
        if not argument:
            raise CommandError("501 5.5.4 Syntax: HELO hostname")
        self._greeted, self._transaction = "HELO", None
        self._reply(f"250 {self._door.policy.hostname}")

    def _mail(self, argument: str) -> None:
        if not self._greeted:
            raise CommandError("503 5.5.1 EHLO first", "sequence")
        if self._transaction is not None:
            raise CommandError("503 5.5.1 MAIL was given already", "sequence")
        if self._who is None:
            raise CommandError("530 5.7.0 Authentication required", "authentication")
        mail = parse_mail(argument)
        if mail.size > self._door.policy.max_message_bytes:
            raise CommandError("552 5.3.4 Message is larger than allowed", "oversize")
        if self._door.content_room.full(mail.size):
            raise CommandError(*NO_ROOM)
        if mail.release_at(now := self._door.now()) > now + self._door.policy.max_hold_seconds:
            raise CommandError("501 5.5.4 That is further in the future than allowed", "future")
        self._transaction = Transaction(mail, {})
        self._reply("250 2.1.0 OK")

    def _rcpt(self, argument: str) -> None:
        transaction = self._transaction
        if transaction is None or self._who is None:
            raise CommandError("503 5.5.1 MAIL first", "sequence")
        rcpt = parse_rcpt(argument, smtputf8=transaction.mail.smtputf8)
        if len(transaction.recipients) >= self._door.policy.max_recipients:
            raise CommandError("452 4.5.3 Too many recipients", "recipients")
        person = self._door.admit(self._who, rcpt)
        if self._door.consent_required(self._who) and not self._door.consenting.known(person, self._who.tenant.id):
            self._wait_for(self._ask_for_consent(transaction, self._who.tenant.id, person, rcpt))
        else:
            self._add(transaction, person, rcpt)

    def _add(self, transaction: Transaction, person: int, rcpt: Rcpt) -> None:
        transaction.recipients[person] = rcpt  # a second RCPT for the same person is the same recipient
        self._reply("250 2.1.5 OK")

    async def _ask_for_consent(self, transaction: Transaction, tenant_id: int, person: int, rcpt: Rcpt) -> None:
        """Which list it is for is not known yet: who consented to none of the tenant's is refused here."""
        try:
            lacking = await self._door.consenting.lacking([person], tenant_id)
        except DatabaseUnavailable:
            self._refuse(UNAVAILABLE, "unavailable")
            return
        if lacking:
            registry.suppressed.labels("consent").inc()
            self._refuse(NO_CONSENT, "consent", person)
        else:
            self._add(transaction, person, rcpt)

    def _data_command(self, argument: str) -> None:
        if argument:
            raise CommandError("501 5.5.4 DATA takes no argument")
        if self._transaction is None:
            raise CommandError("503 5.5.1 MAIL first", "sequence")
        if not self._transaction.recipients:
            raise CommandError("554 5.5.1 No valid recipients", "sequence")
        if self._door.content_room.full():
            raise CommandError(*NO_ROOM)
        self._data = DataReader(self._door.policy.max_message_bytes)
        self._reply("354 End with <CRLF>.<CRLF>")

    def _rset(self, argument: str) -> None:
        if argument:
            raise CommandError("501 5.5.4 RSET takes no argument")
        self._transaction = None
        self._reply("250 2.0.0 OK")

    def _noop(self, _argument: str) -> None:
        self._reply("250 2.0.0 OK")

    def _vrfy(self, _argument: str) -> None:
        self._reply("252 2.5.2 Recipients are not verified here")

    def _help(self, _argument: str) -> None:
        self._reply("214 2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP VRFY AUTH STARTTLS QUIT")

    def _quit(self, _argument: str) -> None:
        self._reply("221 2.0.0 Bye")
        self._flush()
        self._transport.close()
        self._closed = True

    # --- STARTTLS and AUTH

    def _starttls(self, argument: str) -> None:
        tls = self._door.policy.tls
        if argument:
            raise CommandError("501 5.5.4 STARTTLS takes no argument")
        if tls is None or self._tls:
            raise CommandError("503 5.5.1 TLS is not to be had here, or is on already", "sequence")
        self._reply("220 2.0.0 Go ahead")
        # nothing that was said or sent before the handshake counts after it (RFC 3207 §4.2)
        self._input.clear()
        self._greeted, self._transaction = "", None
        self._wait_for(self._upgrade(tls))

    async def _upgrade(self, tls: ssl.SSLContext) -> None:
        # what is here is plain text; from start_tls on, only what was encrypted gets here, be it before it returns
        self._input.clear()
        try:
            transport = await self._loop.start_tls(
                self._transport, self, tls, server_side=True, ssl_handshake_timeout=_HANDSHAKE_SECONDS
            )
        except Exception:  # whatever a client can do to a handshake; the loops differ in what they raise
            self._count("tls")
            self._transport.abort()
            # a connection that ends within its handshake is not reported by every loop
            self.connection_lost(None)
            return
        assert transport is not None
        if self._closed:
            transport.abort()
        else:
            self.connection_made(transport)

    def _auth(self, argument: str) -> None:
        if not self._tls:
            raise CommandError("538 5.7.11 Encryption required: STARTTLS first", "authentication")
        if self._greeted != "EHLO" or self._transaction is not None or isinstance(self._who, Credential):
            raise CommandError("503 5.5.1 Not now", "sequence")
        mechanism, _, initial = argument.partition(" ")
        if mechanism.upper() not in MECHANISMS:
            raise CommandError("504 5.5.4 PLAIN and LOGIN are known here", "authentication")
        self._wait_for(self._authenticate(mechanism.upper(), initial.strip()))

    async def _authenticate(self, mechanism: str, initial: str) -> None:
        try:
            username, password = await MECHANISMS[mechanism](initial, self._challenge)
            credential = await self._door.passwords.check(self._peer, username, password)
        except CommandError as error:
            if error.reply.startswith("421"):
                self._fatal(error.reply, error.reason)
            else:
                self._refuse(error.reply, error.reason)
            return
        except DatabaseUnavailable:
            self._count("unavailable")
            self._reply("454 4.7.0 Temporarily unable to authenticate")
            return
        if credential is not None:
            self._who = credential
            self._reply("235 2.7.0 Authenticated")
            return
        self._auth_failures += 1
        if self._auth_failures >= _MAX_AUTH_FAILURES:
            self._fatal("421 4.7.0 Too many failures", "authentication")
        else:
            self._count("authentication")
            self._reply("535 5.7.8 Wrong user name or password")

    async def _challenge(self, text: bytes) -> bytes:
        """Ask for a line and decode it (RFC 4954 §4)."""
        self._reply(f"334 {base64.b64encode(text).decode()}")
        self._flush()
        self._line_reader = self._loop.create_future()
        self._feed_line_reader(self._line_reader)
        try:
            line = await self._line_reader
        finally:
            self._line_reader = None
        if line == b"*":
            raise CommandError("501 5.7.0 Cancelled", "authentication")
        return decoded(line.decode("ascii", "replace"))

    def _feed_line_reader(self, reader: asyncio.Future[bytes]) -> None:
        end = self._input.find(b"\r\n")
        if end >= 0:
            line = bytes(self._input[:end])
            del self._input[: end + 2]
            reader.set_result(line)
        elif len(self._input) > MAX_LINE * 8:
            self._transport.abort()

    # --- the message

    def _take(self, transaction: Transaction, content: bytes) -> None:
        """What has arrived whole: check, attribute, and have it committed; the answer comes with the commit."""
        assert self._who is not None
        message = parse(content)
        # 8-bit content is taken without BODY=8BITMIME too: many applications send it so
        refusal = refuse(
            content,
            smtputf8=transaction.mail.smtputf8,
            eight_bit=True,
            message_class=self._who.message_class,
            parsed=message,
        )
        if refusal is not None:
            raise CommandError(refusal.reply, "content")
        accounts, tenant_id = self._door.accounts, self._who.tenant.id
        names = message.values(self._door.policy.campaign_header)
        campaign_name = names[0].decode("utf-8", "replace") if names else ""
        list_name = message.list_name() or ""
        campaign = accounts.known_campaign(tenant_id, campaign_name)
        list_id = accounts.known_list_id(tenant_id, list_name)
        many = len(transaction.recipients) > _AT_ONCE
        if campaign is None or list_id is None or many or self._door.consent_required(self._who):
            self._wait_for(self._take_slowly(transaction, content, message, campaign_name, list_name))
            return
        submission = self._door.attributed(self._who, transaction, content, message, campaign, list_id)
        self._flush()
        self._waiting = self._door.intake.enqueue(submission)
        self._waiting.add_done_callback(functools.partial(self._committed, len(submission.recipients)))

    async def _take_slowly(
        self, transaction: Transaction, content: bytes, message: Message, campaign_name: str, list_name: str
    ) -> None:
        """The same where the database must be asked first, or the recipients are many."""
        assert self._who is not None
        accounts, tenant_id = self._door.accounts, self._who.tenant.id
        try:
            campaign = await accounts.campaign(tenant_id, campaign_name)
            list_id = await accounts.list_id(tenant_id, list_name)
            lacking: set[int] = set()
            if self._door.consent_required(self._who):
                lacking = await self._door.consenting.lacking(transaction.recipients, tenant_id, list_id)
            submission = self._door.attributed(self._who, transaction, content, message, campaign, list_id, lacking)
            self._answer(await self._door.intake.submit(submission), len(submission.recipients))
        except CommandError as error:
            self._refuse(error.reply, error.reason)
        except DatabaseUnavailable:
            self._refuse(UNAVAILABLE, "unavailable")

    def _committed(self, recipients: int, commit: "asyncio.Future[int]") -> None:
        """The commit has ended: answer, and go on with what the client sent meanwhile."""
        if commit.exception() is not None:
            self._refuse(UNAVAILABLE, "unavailable")
        else:
            self._answer(commit.result(), recipients)
        self._resume()

    def _answer(self, message_id: int, recipients: int) -> None:
        assert self._who is not None
        self._errors = 0
        _RECEIVED[self._who.message_class].inc()
        _ACCEPTED[self._who.message_class].inc(recipients)
        self._reply(f"250 2.0.0 {queue_id(message_id)}")


_Handler = Callable[[SubmissionProtocol, str], None]
_HANDLERS: Final[dict[str, _Handler]] = {
    "EHLO": SubmissionProtocol._ehlo,
    "HELO": SubmissionProtocol._helo,
    "MAIL": SubmissionProtocol._mail,
    "RCPT": SubmissionProtocol._rcpt,
    "DATA": SubmissionProtocol._data_command,
    "RSET": SubmissionProtocol._rset,
    "NOOP": SubmissionProtocol._noop,
    "VRFY": SubmissionProtocol._vrfy,
    "HELP": SubmissionProtocol._help,
    "QUIT": SubmissionProtocol._quit,
    "STARTTLS": SubmissionProtocol._starttls,
    "AUTH": SubmissionProtocol._auth,
}


def protocols(door: Door) -> Callable[[], SubmissionProtocol]:
    """What makes the protocol of each new connection to a listener."""
    return functools.partial(SubmissionProtocol, door)
