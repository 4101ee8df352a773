"""Reads the content that follows DATA in chunks (RFC 5321 §4.1.1.4, §4.5.2). Plain state machine, no I/O.

Only CRLF.CRLF ends it. A bare CR or LF anywhere, a NUL, or more octets than allowed make it refused: a bare one at
once, because what another server takes for the end could otherwise be smuggled past this one. Memory is bounded by
the limit: what is refused is not kept.
"""

from typing import Final

from mta.octets import first_leading_dot, has_bare_line_ends

_END: Final = b"\r\n.\r\n"
_OVERSIZE: Final = ("552 5.3.4 Message is larger than allowed", "oversize")


class DataError(Exception):
    """Content that is refused. reply is the whole answer.

    rest is what followed the end of the content; None when the end is not known, so that the connection can't go on.
    """

    def __init__(self, reply: str, reason: str, rest: bytes | None = None) -> None:
        super().__init__(reply)
        self.reply = reply
        self.reason = reason
        self.rest = rest


class DataReader:
    """The content of one message on its way in."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # the CRLF that ended the DATA command: a lone dot may follow it at once
        self._buffer = bytearray(b"\r\n")
        self._tail = b"\r\n"
        self._dotted = False
        self._refusal: tuple[str, str] | None = None

    @property
    def buffered(self) -> int:
        """Octets held in memory."""
        return len(self._buffer)

    def give_up(self, reply: str, reason: str) -> None:
        """Keep nothing of this content any more: it is read to its end, and then refused with this reply."""
        self._refusal = reply, reason
        self._buffer.clear()

    def feed(self, chunk: bytes | bytearray) -> tuple[bytes, bytes] | None:
        """Take what has arrived. None while the end has not come; then (content, what followed the end).

        The content is free of dot-stuffing and ends in CRLF unless it is empty. Raises DataError.
        """
        tail = self._tail
        text = tail + chunk
        dot = first_leading_dot(text)
        end = text.find(_END, max(0, dot - 2)) if dot >= 0 else -1
        # looked at before, but for a CR at the very end, which had yet to get its LF
        looked_at = len(tail) - tail.endswith(b"\r")
        _refuse_bad(text[looked_at:] if end < 0 else text[looked_at : end + len(_END)], ended=end >= 0)
        self._dotted = self._dotted or (dot >= 0 and dot != end + 2)
        if end < 0:
            self._keep(chunk)
            self._tail = text[1 - len(_END) :]
            return None
        rest = text[end + len(_END) :]
        buffer = self._buffer
        buffer += chunk
        del buffer[len(buffer) - len(text) + end + 2 :]
        if self._refusal is None and len(buffer) - 2 > self._max_bytes:
            self._refusal = _OVERSIZE
        if self._refusal is not None:
            raise DataError(*self._refusal, rest)
        content = buffer.replace(b"\r\n.", b"\r\n") if self._dotted else buffer
        return bytes(memoryview(content)[2:]), rest

    def _keep(self, chunk: bytes | bytearray) -> None:
        if self._refusal is not None:
            return
        self._buffer += chunk
        if len(self._buffer) > self._max_bytes + len(_END) + 2:
            self.give_up(*_OVERSIZE)


def _refuse_bad(text: bytes, *, ended: bool) -> None:
    if not ended:
        text = text.removesuffix(b"\r")
    if has_bare_line_ends(text):
        raise DataError("550 5.5.2 Bare CR or LF in message: lines end in CRLF", "bare-newline")
    if b"\0" in text:
        raise DataError("550 5.6.0 NUL in message", "nul")
