"""The inbound listener: bounces, complaints, answers and unsubscribe mail (the only importer of aiosmtpd).

Takes mail for token addresses of this installation, and for postmaster and abuse where somebody reads them; everything
else is refused at RCPT. 250 after content means that what the message asked for is committed. aiosmtpd leads the
dialogue; reading content is ours, as in submission: in chunks, CRLF.CRLF alone ends it, bare CR and LF are refused.
"""

import asyncio
import collections
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, cast

from aiosmtpd.smtp import SMTP, Envelope, Session, TLSSetupException

from config.log import LOG
from metrics import registry
from mta.answers import Answers
from mta.content_room import NO_ROOM, ContentRoom, ContentShare
from mta.data_reader import DataError, DataReader
from mta.parts import Parts
from suppression.tokens import Purpose, Token, TokenError

_CHUNK: Final = 65_536
_MAX_LINE: Final = 2_048
_MAX_RECIPIENTS: Final = 100
_IDLE_SECONDS: Final = 300.0
_HANDSHAKE_SECONDS: Final = 30.0
_LINGER_SECONDS: Final = 2.0
_FORWARDED: Final = frozenset({"postmaster", "abuse"})


@dataclass(slots=True)
class Mailboxes:
    """The recipients of one inbound message."""

    tokens: list[Token] = field(default_factory=list)
    forwarded: bool = False

    def other_tenant(self, token: Token) -> bool:
        """Whether answers to another tenant's mail are among them."""
        tenants = {known.tenant_id for known in self.tokens if known.purpose is Purpose.REPLY}
        return token.purpose is Purpose.REPLY and bool(tenants - {token.tenant_id})


@dataclass(slots=True)
class Connections:
    """Those that are open, and the room for their content."""

    content_room: ContentRoom
    protocols: "set[InboundProtocol]" = field(default_factory=set)


class Inbound:
    """Listens, and hands each message to Answers."""

    def __init__(self, parts: Parts, tls: ssl.SSLContext) -> None:
        self._parts = parts
        self._tls = tls
        self._answers = Answers(parts)
        self.connections = Connections(ContentRoom(parts.settings.queue.max_bytes_in_memory))

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """Start to listen on an address."""
        loop = asyncio.get_running_loop()
        return await loop.create_server(self._protocol, host, port, reuse_port=True)

    def _protocol(self) -> asyncio.Protocol:
        settings = self._parts.settings
        if len(self.connections.protocols) >= settings.inbound.max_connections:
            _refused("connections")
            return Refuser(settings.identity.hostname)
        return InboundProtocol(
            self.connections,
            Handler(self._parts, self._answers),
            data_size_limit=settings.inbound.max_message_bytes,
            enable_SMTPUTF8=True,
            hostname=settings.identity.hostname,
            ident="ESMTP",
            tls_context=self._tls,
            timeout=_IDLE_SECONDS,
            loop=asyncio.get_running_loop(),
        )


class Handler:
    """aiosmtpd's hooks: who may be written to, and what becomes of the content."""

    def __init__(self, parts: Parts, answers: Answers) -> None:
        self._parts = parts
        self._answers = answers
        self._domain = parts.settings.identity.mail_domain.lower()
        self.mailboxes = Mailboxes()

    async def handle_RCPT(  # noqa: N802  # named by aiosmtpd
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Only tokens of ours, and those mailboxes that a mail domain must have (RFC 2142)."""
        if len(envelope.rcpt_tos) >= _MAX_RECIPIENTS:
            return "452 4.5.3 Too many recipients"
        local, _, domain = address.rpartition("@")
        if not local and domain.lower() == "postmaster":
            local, domain = domain, self._domain
        if domain.lower() != self._domain:
            _refused("relay")
            return "550 5.7.1 Relaying denied"
        if local.lower() in _FORWARDED and self._parts.settings.inbound.forward_to:
            self.mailboxes.forwarded = True
        else:
            try:
                token = self._parts.tokens.read(local)
            except TokenError:
                _refused("recipient")
                return "550 5.1.1 No such mailbox"
            if self.mailboxes.other_tenant(token):  # so that one reply to the content can be true for all
                return "452 4.5.3 Another message, please"
            self.mailboxes.tokens.append(token)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Do what the message asks for, then say so."""
        mailboxes, self.mailboxes = self.mailboxes, Mailboxes()
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        sender = (envelope.mail_from or "").removeprefix("<").removesuffix(">")
        return await self._answers.take(mailboxes.tokens, content, sender=sender, forward=mailboxes.forwarded)

    async def handle_EHLO(  # noqa: N802
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, lines: list[str]
    ) -> list[str]:
        """What is offered: no AUTH, which nobody needs here."""
        session.host_name = hostname
        offered = [line for line in lines if not line.startswith("250-AUTH")]
        return [*offered[:-1], "250-PIPELINING", "250-ENHANCEDSTATUSCODES", offered[-1]]

    async def handle_RSET(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802
        """Forget the recipients."""
        self.mailboxes = Mailboxes()
        return "250 2.0.0 OK"

    async def handle_MAIL(  # noqa: N802  # named by aiosmtpd
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Anybody may write; the recipient's token is what counts."""
        self.mailboxes = Mailboxes()
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_exception(self, error: Exception) -> str:
        """Nothing of what a client said goes into a log or a reply, and a failed handshake is not news."""
        if not isinstance(error, TLSSetupException):
            LOG.error("inbound session failed", error=type(error).__name__)
        return "451 4.3.0 Internal error, try again later"


class InboundProtocol(SMTP):
    """aiosmtpd's protocol with content read in chunks. Limits are per instance: the library shares them by mistake.

    A client may say behind its last command that it is done, and still wait for the replies: Exim does. The library
    would break off there, in the middle of a commit.
    """

    def __init__(self, connections: Connections, *arguments: Any, **options: Any) -> None:
        self._connections = connections
        self._share = ContentShare(connections.content_room)
        self.command_size_limits = collections.defaultdict(lambda: _MAX_LINE)
        super().__init__(*arguments, **options)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count connections."""
        if self not in self._connections.protocols:
            self._connections.protocols.add(self)
            registry.clients.labels("inbound").inc()
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Count connections; the library calls this twice after a failed handshake."""
        if self in self._connections.protocols:
            self._connections.protocols.discard(self)
            registry.clients.labels("inbound").dec()
        super().connection_lost(error)

    def _cb_client_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _end_with_the_last_line(reader)
        super()._cb_client_connected(reader, writer)

    def eof_received(self) -> bool | None:
        """No more will come; what has come is answered first."""
        asyncio.StreamReaderProtocol.eof_received(self)
        return self.session is not None and self.session.ssl is None

    async def smtp_STARTTLS(self, arg: str) -> None:  # noqa: N802
        """RFC 3207, by the event loop's own TLS: the library's keeps 256 kB for each connection."""
        if arg:
            await self.push("501 5.5.4 STARTTLS takes no argument")
            return
        if self.tls_context is None:
            await self.push("503 5.5.1 TLS is on already")
            return
        await self.push("220 2.0.0 Go ahead")
        # nothing that was said or sent before the handshake counts after it (§4.2)
        self._reader._buffer.clear()  # type: ignore[attr-defined]
        try:
            await self._writer.start_tls(self.tls_context, ssl_handshake_timeout=_HANDSHAKE_SECONDS)
        except Exception as error:  # whatever a client can do to a handshake; the loops differ in what they raise
            _refused("tls")
            raise TLSSetupException from error
        self.transport = self._reader._transport = self._writer.transport  # type: ignore[attr-defined]
        self.tls_context = None  # not offered a second time
        self._set_rset_state()  # type: ignore[no-untyped-call]
        self.session = self._create_session()
        self.session.peer, self.session.ssl = map(self.transport.get_extra_info, ("peername", "ssl_object"))

    async def smtp_AUTH(self, _arg: str) -> None:  # noqa: N802
        """Not offered."""
        await self.push("502 5.5.1 Not here")

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.4."""
        assert self.envelope is not None
        if await self.check_helo_needed():
            return
        if not self.envelope.rcpt_tos:
            await self.push("503 5.5.1 RCPT first")
            return
        if arg:
            await self.push("501 5.5.4 DATA takes no argument")
            return
        if self._connections.content_room.full():
            reply, reason = NO_ROOM
            _refused(reason)
            await self.push(reply)
            return
        await self.push("354 End with <CRLF>.<CRLF>")
        try:
            await self._take_content()
        finally:
            self._share.hold(0)

    async def _take_content(self) -> None:
        assert self.envelope is not None
        try:
            content, rest = await self._content(DataReader(self.data_size_limit or 0))
        except DataError as error:
            _refused(error.reason)
            self._set_post_data_state()  # type: ignore[no-untyped-call]
            await self.push(error.reply)
            if error.rest is None:
                await self._end()
            else:
                self._unread(error.rest)
            return
        self._unread(rest)
        self.envelope.content = content
        try:
            status = await self._call_handler_hook("DATA")
        finally:
            self._set_post_data_state()  # type: ignore[no-untyped-call]
        await self.push(status)

    async def _end(self) -> None:
        """Close where the end of the content is unknown: nothing that follows is a command (M2).

        It is read and thrown away for a moment, because a reset would cost the client the reply.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while await self._reader.read(_CHUNK):
                    pass
        self._writer.close()
        self.transport = None  # which ends the library's loop

    async def _content(self, reader: DataReader) -> tuple[bytes, bytes]:
        while True:
            chunk = await self._reader.read(_CHUNK)
            if not chunk:
                raise asyncio.CancelledError  # as when the connection is lost
            self._reset_timeout()
            done = reader.feed(chunk)
            self._share.hold(len(done[0]) if done else reader.buffered)
            if self._share.crowded_out():
                if done is not None:
                    raise DataError(*NO_ROOM, done[1])
                reader.give_up(*NO_ROOM)
                self._share.hold(0)
            if done is not None:
                return done

    def _unread(self, rest: bytes) -> None:
        """What followed the content is the next command: back in front of what has arrived since."""
        if rest:
            buffer: bytearray = self._reader._buffer  # type: ignore[attr-defined]  # StreamReader has no way to unread
            buffer[:0] = rest


def _end_with_the_last_line(reader: asyncio.StreamReader) -> None:
    """End the library's loop when there is no line left to read: it takes that for a failure, and reads again.

    And let others have their turn before each command: of ten thousand pipelined ones none would wait for anything.
    """

    async def readuntil(separator: Any = b"\n") -> bytes:
        await asyncio.sleep(0)
        try:
            return await asyncio.StreamReader.readuntil(reader, separator)
        except asyncio.IncompleteReadError:
            raise asyncio.CancelledError from None

    reader.readuntil = readuntil  # type: ignore[method-assign]  # the library makes the reader


class Refuser(asyncio.Protocol):
    """A connection too many."""

    def __init__(self, hostname: str) -> None:
        self._hostname = hostname

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say so, and close."""
        transport = cast("asyncio.Transport", transport)  # uvloop's are none by descent
        transport.write(f"421 4.7.0 {self._hostname} Too many connections\r\n".encode())
        transport.close()


def _refused(reason: str) -> None:
    registry.refused.labels("inbound", reason).inc()
