"""A client that says exactly what a test wants, a line or any octets at a time, and hears whole replies."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PATIENCE_SECONDS = 10.0


class Client:
    """One connection to a listener. Every wait ends after PATIENCE_SECONDS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    def send(self, octets: bytes) -> None:
        """These octets, without waiting for anything."""
        self.writer.write(octets)

    async def say(self, line: str) -> str:
        """A command and its reply."""
        self.send(line.encode() + b"\r\n")
        return await self.hear()

    async def hear(self) -> str:
        """One reply, its lines joined by newlines; empty at the end of the connection."""
        lines = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                line = await self._reader.readline()
                lines.append(line.decode().rstrip("\r\n"))
                if line[3:4] != b"-":
                    return "\n".join(lines)

    async def codes(self, count: int) -> list[int]:
        """The codes of the next replies."""
        return [int((await self.hear())[:3] or 0) for _ in range(count)]

    async def greet(self) -> str:
        """Hear the greeting and say EHLO."""
        assert (await self.hear()).startswith("220 ")
        return await self.say("EHLO app.example.com")

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """STARTTLS and its handshake."""
        assert (await self.say("STARTTLS")).startswith("220 ")
        await self.writer.start_tls(context)

    async def rest(self) -> bytes:
        """All that comes until the other side ends the connection."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._reader.read()

    def half_close(self) -> None:
        """Say that nothing more will be said."""
        self.writer.write_eof()

    def reset(self) -> None:
        """Break the connection (RST)."""
        no_time = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_time)
        self.writer.transport.abort()

    def close(self) -> None:
        """End the connection."""
        self.writer.transport.abort()


def trusting() -> ssl.SSLContext:
    """TLS that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@asynccontextmanager
async def connected(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    """A connection for the time of a block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    client = Client(reader, writer)
    try:
        yield client
    finally:
        client.close()
