"""Reads the content that follows DATA in chunks (RFC 5321 §4.1.1.4, §4.5.2). Plain state machine, no I/O.

Only CRLF.CRLF ends it. A bare CR or LF anywhere, a NUL, or more octets than allowed make it refused: a bare one at
once, because what another server takes for the end could otherwise be smuggled past this one. Memory is bounded by
the limit: what is refused is not kept.
"""

from typing import Final

_END: Final = b"\r\n.\r\n"


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
        self._counted = 2
        self._oversize = False

    @property
    def buffered(self) -> int:
        """Octets held in memory."""
        return len(self._buffer)

    def feed(self, chunk: bytes | bytearray) -> tuple[bytes, bytes] | None:
        """Take what has arrived. None while the end has not come; then (content, what followed the end).

        The content is free of dot-stuffing and ends in CRLF unless it is empty. Raises DataError.
        """
        buffer = self._buffer
        search_from = max(0, len(buffer) - len(_END) + 1)
        buffer += chunk
        end = buffer.find(_END, search_from)
        self._refuse_bare(len(buffer) if end < 0 else end + len(_END))
        if end < 0:
            self._bound()
            return None
        rest = bytes(buffer[end + len(_END) :])
        if self._oversize or end > self._max_bytes:
            raise DataError("552 5.3.4 Message is larger than allowed", "oversize", rest)
        del buffer[end + 2 :]
        return bytes(buffer.replace(b"\r\n.", b"\r\n")[2:]), rest

    def _refuse_bare(self, end: int) -> None:
        """Every CR before end must be followed by LF, and every LF preceded by CR."""
        buffer, start = self._buffer, self._counted
        if end <= start:
            return
        # a CR at the very end of what is here may still get its LF: leave it for the next chunk
        if end == len(buffer) and buffer[end - 1] == 13:
            end -= 1
        pairs = buffer.count(b"\r\n", start, end)
        if buffer.count(b"\n", start, end) != pairs or buffer.count(b"\r", start, end) != pairs:
            raise DataError("550 5.5.2 Bare CR or LF in message: lines end in CRLF", "bare-newline")
        if buffer.find(0, start, end) >= 0:
            raise DataError("550 5.6.0 NUL in message", "nul")
        self._counted = end

    def _bound(self) -> None:
        if len(self._buffer) > self._max_bytes + len(_END) + 2:
            self._oversize = True
            kept = bytes(self._buffer[-len(_END) :])
            self._counted -= len(self._buffer) - len(kept)
            self._buffer[:] = kept
