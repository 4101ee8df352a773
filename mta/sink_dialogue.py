"""One client's dialogue with the test MX (mta/sink.py): commands in, replies out, content handed to the sink.

Commands are answered as they come, and the replies to one packet leave in one packet. Only CRLF.CRLF ends a message.
The dialogue knows nothing of what becomes of mail: its sink decides about each recipient and each message.
"""

import asyncio
import re
import ssl
from collections.abc import Callable
from typing import Protocol, cast

MAX_MESSAGE_OCTETS = 52_428_800
_MAX_LINE_OCTETS = 4096
_MAX_RECIPIENTS = 10_000
_PATH = re.compile(rb'(?i)(?:MAIL FROM|RCPT TO): ?<((?:"(?:[^"\\]|\\.)*"|[^">])*)>(.*)')
_SIZE = re.compile(rb"(?i) SIZE=(\d{1,20})")
_NOT_IN_A_LINE = re.compile(rb"[\r\n\0]")


class Taker(Protocol):
    """What a dialogue asks of its sink. Replies are whole lines that end in CRLF."""

    tls: ssl.SSLContext | None
    delay_seconds: float

    def opened(self, dialogue: "Dialogue") -> None:
        """A client has connected."""

    def closed(self, dialogue: "Dialogue") -> None:
        """A client has gone."""

    def verdict(self, recipient: bytes) -> bytes | None:
        """The reply that turns this recipient away, or None."""

    def take(self, sender: bytes, recipients: tuple[bytes, ...], content: bytearray) -> bytes:
        """Keep one message; the reply to its final dot."""


class Dialogue(asyncio.Protocol):
    """One client's dialogue. Commands are answered as they come, the replies to one packet in one packet."""

    def __init__(self, sink: Taker) -> None:
        self._sink = sink
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._searched = 0
        self._in_content = False
        self._held = False
        self._tls = False
        self._line = b""
        self._reset()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet. The transport is a stream's, though uvloop's doesn't say so by its type."""
        self._transport = cast(asyncio.Transport, transport)
        self._sink.opened(self)
        self._transport.write(b"220 sink ESMTP\r\n")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 – how it broke is the client's affair
        """The dialogue is over."""
        self._sink.closed(self)

    def data_received(self, data: bytes) -> None:
        """Answer as much as has come whole."""
        self._buffer += data
        self._go_on()

    def pause_writing(self) -> None:
        """A client that doesn't read its replies is not listened to."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It has read them."""
        self._transport.resume_reading()

    def say_goodbye(self) -> None:
        """End the dialogue from our side."""
        self._transport.write(b"421 4.3.2 sink is going down\r\n")
        self._transport.close()

    def _go_on(self) -> None:
        """Deal with all that has arrived."""
        replies: list[bytes] = []
        while not self._held and not self._transport.is_closing():
            reply = self._content() if self._in_content else self._command()
            if reply is None:
                break
            replies.append(reply)
        if replies:
            self._transport.write(b"".join(replies))

    def _command(self) -> bytes | None:
        """The reply to the first command in the buffer; None when there is no whole one."""
        end = self._buffer.find(b"\r\n")
        if end < 0 and len(self._buffer) <= _MAX_LINE_OCTETS:
            return None
        if end < 0 or end > _MAX_LINE_OCTETS:
            self._close_after_replies()
            return b"500 5.5.6 line too long\r\n"
        line = bytes(self._buffer[:end])
        verb = line.partition(b" ")[0].upper()
        if verb == b"DATA":
            # The line's own CRLF stays in the buffer, so that the final dot is found in an empty message too.
            del self._buffer[:end]
            return self._data(end + 2)
        del self._buffer[: end + 2]
        if _NOT_IN_A_LINE.search(line):
            return b"500 5.5.2 control characters in a command\r\n"
        self._line = line
        handler = _HANDLERS.get(verb)
        return b"500 5.5.2 unknown command\r\n" if handler is None else handler(self)

    def _content(self) -> bytes | None:
        end = self._buffer.find(b"\r\n.\r\n", self._searched)
        if end < 0:
            self._searched = max(0, len(self._buffer) - 4)
            if len(self._buffer) > 2 * MAX_MESSAGE_OCTETS:
                self._close_after_replies()
                return b"552 5.3.4 message too big\r\n"
            return None
        content = self._buffer[: end + 2].replace(b"\r\n.", b"\r\n")
        del content[:2], self._buffer[: end + 5]
        reply = self._end_of_content(content)
        self._reset()
        return self._delayed(reply) if self._sink.delay_seconds else reply

    def _end_of_content(self, content: bytearray) -> bytes:
        if len(content) > MAX_MESSAGE_OCTETS:
            return b"552 5.3.4 message too big\r\n"
        return self._sink.take(self._sender or b"", tuple(self._recipients), content)

    def _delayed(self, reply: bytes) -> bytes:
        self._held = True
        asyncio.get_running_loop().call_later(self._sink.delay_seconds, self._release, reply)
        return b""

    def _release(self, reply: bytes) -> None:
        self._held = False
        if not self._transport.is_closing():
            self._transport.write(reply)
            self._go_on()

    def _reset(self) -> None:
        self._sender: bytes | None = None
        self._recipients: list[bytes] = []
        self._in_content, self._searched = False, 0

    def _close_after_replies(self) -> None:
        asyncio.get_running_loop().call_soon(self._transport.close)
        self._buffer.clear()
        self._held = True

    def _helo(self) -> bytes:
        self._reset()
        return b"250 sink\r\n"

    def _ehlo(self) -> bytes:
        self._reset()
        tls = b"250-STARTTLS\r\n" if self._sink.tls is not None and not self._tls else b""
        size = b"250-SIZE %d\r\n" % MAX_MESSAGE_OCTETS
        return (
            b"250-sink\r\n"
            + tls
            + size
            + b"250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES\r\n"
        )

    def _mail(self) -> bytes:
        found = _PATH.fullmatch(self._line)
        if found is None:
            return b"501 5.5.4 MAIL FROM:<address>\r\n"
        if self._sender is not None:
            return b"503 5.5.1 nested MAIL\r\n"
        size = _SIZE.search(found[2])
        if size is not None and int(size[1]) > MAX_MESSAGE_OCTETS:
            return b"552 5.3.4 message too big\r\n"
        self._sender = found[1]
        return b"250 2.1.0 ok\r\n"

    def _rcpt(self) -> bytes:
        found = _PATH.fullmatch(self._line)
        if found is None or not found[1]:
            return b"501 5.5.4 RCPT TO:<address>\r\n"
        if self._sender is None:
            return b"503 5.5.1 MAIL first\r\n"
        if len(self._recipients) >= _MAX_RECIPIENTS:
            return b"452 4.5.3 too many recipients\r\n"
        refusal = self._sink.verdict(found[1])
        if refusal is not None:
            return refusal
        self._recipients.append(found[1])
        return b"250 2.1.5 ok\r\n"

    def _data(self, line_octets: int) -> bytes:
        if not self._recipients or line_octets != len(b"DATA\r\n"):
            del self._buffer[:2]
            return b"503 5.5.1 no valid recipients\r\n" if line_octets == len(b"DATA\r\n") else b"501 5.5.4 DATA\r\n"
        self._in_content, self._searched = True, 0
        return b"354 go on\r\n"

    def _rset(self) -> bytes:
        self._reset()
        return b"250 2.0.0 ok\r\n"

    def _noop(self) -> bytes:
        return b"250 2.0.0 ok\r\n"

    def _vrfy(self) -> bytes:
        return b"252 2.5.0 try and see\r\n"

    def _quit(self) -> bytes:
        self._close_after_replies()
        return b"221 2.0.0 bye\r\n"

    def _starttls(self) -> bytes:
        if self._sink.tls is None or self._tls:
            return b"502 5.5.1 no TLS here\r\n"
        if self._buffer:
            # Plain text behind STARTTLS would be taken for something said under TLS (CVE-2011-0411).
            self._close_after_replies()
            return b"501 5.5.4 nothing may follow STARTTLS\r\n"
        self._held = True
        self._transport.pause_reading()
        self._upgrade = asyncio.get_running_loop().create_task(self._start_tls(self._sink.tls))
        return b"220 2.0.0 go ahead\r\n"

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        self._tls = True
        plain = self._transport
        try:
            secured = await asyncio.get_running_loop().start_tls(plain, self, context, server_side=True)
        except (OSError, ssl.SSLError):
            secured = None
        if secured is None:
            plain.close()
            return
        self._transport = secured
        self._reset()
        self._held = False
        self._go_on()


_HANDLERS: dict[bytes, Callable[[Dialogue], bytes]] = {
    b"HELO": Dialogue._helo,
    b"EHLO": Dialogue._ehlo,
    b"MAIL": Dialogue._mail,
    b"RCPT": Dialogue._rcpt,
    b"RSET": Dialogue._rset,
    b"NOOP": Dialogue._noop,
    b"VRFY": Dialogue._vrfy,
    b"QUIT": Dialogue._quit,
    b"STARTTLS": Dialogue._starttls,
}
