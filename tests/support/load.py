"""A steady load of small messages, each for a reader of its own, that remembers what was accepted.

Connections that break are opened again: the daemon under test is being killed. A recipient is in `accepted` once its
message got 250, and in `unanswered` when the connection broke between the final dot and the reply.
"""

import asyncio
import itertools
from types import TracebackType
from typing import Self


class Load:
    """Submits until it is left."""

    def __init__(self, port: int, *, connections: int) -> None:
        self.accepted: set[str] = set()
        self.unanswered: set[str] = set()
        self._port = port
        self._connections = connections
        self._numbers = itertools.count(1)
        self._changed = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving = False

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._keep_submitting()) for _ in range(self._connections)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = True
        await asyncio.wait(self._tasks, timeout=20)
        for task in self._tasks:
            task.cancel()

    async def progress(self, messages: int, patience_seconds: float = 60) -> None:
        """Wait until so many more were accepted."""
        goal = len(self.accepted) + messages
        async with asyncio.timeout(patience_seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.accepted) >= goal)

    async def _keep_submitting(self) -> None:
        while not self._leaving:
            try:
                await self._session()
            except (OSError, EOFError, ValueError):
                await asyncio.sleep(0.05)  # the daemon is down, or says so

    async def _session(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await self._expect(reader, b"220")
            await self._say(reader, writer, b"EHLO load.example.com\r\n", b"250")
            while not self._leaving:
                await self._message(reader, writer)
        finally:
            writer.close()

    async def _message(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recipient = f"reader-{next(self._numbers)}@example.net"
        await self._say(reader, writer, b"MAIL FROM:<news@example.com>\r\n", b"250")
        await self._say(reader, writer, f"RCPT TO:<{recipient}>\r\n".encode(), b"250")
        await self._say(reader, writer, b"DATA\r\n", b"354")
        content = f"From: news@example.com\r\nTo: {recipient}\r\nSubject: load\r\n\r\nHello.\r\n.\r\n".encode()
        try:
            await self._say(reader, writer, content, b"250")
        except (OSError, EOFError):
            self.unanswered.add(recipient)
            raise
        except ValueError:
            self.unanswered.add(recipient)  # 4xx: it may be stored all the same, where the commit's end was not seen
            raise
        self.accepted.add(recipient)
        async with self._changed:
            self._changed.notify_all()

    async def _say(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes, expected: bytes
    ) -> None:
        writer.write(line)
        await writer.drain()
        await self._expect(reader, expected)

    async def _expect(self, reader: asyncio.StreamReader, expected: bytes) -> None:
        while True:
            line = await reader.readline()
            if not line:
                raise EOFError
            if line[3:4] == b" ":
                break
        if not line.startswith(expected):
            raise ValueError(line[:3].decode())
