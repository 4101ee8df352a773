"""Who sees from outside when a suppression is in force: a client of each worker that asks for a recipient by RCPT.

Workers share their port, so that a client learns from the kernel whose it is. A worker lets go of a client that was
refused often; a message that it takes in between sets that to nothing again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import psutil

_PAUSE_SECONDS: Final = 0.002
_REFUSALS: Final = 15
_MESSAGE: Final = b"From: a@example.com\r\nSubject: witness\r\n\r\nI am still here.\r\n.\r\n"


class Witness:
    """A client of one worker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._refusals = 0
        self.round_trips: list[float] = []
        """Seconds of each question that was answered as expected: what a witness adds to what it sees."""

    async def accepts(self, address: str) -> None:
        """Begin a message for an address; AssertionError when it is refused already."""
        if self._refusals >= _REFUSALS:
            await self._deliver()
        await self._command("MAIL FROM:<a@example.com>")
        begun = time.perf_counter()
        await self._command(f"RCPT TO:<{address}>")
        self.round_trips.append(time.perf_counter() - begun)

    async def refuses(self, address: str) -> float:
        """Ask until the address is refused; the time at which the refusal came, epoch seconds."""
        question = f"RCPT TO:<{address}>".encode()
        while (await self._say(question))[:1] != b"5":  # noqa: ASYNC110  # the answer changes in another process
            await asyncio.sleep(_PAUSE_SECONDS)
        at = time.time()
        self._refusals += 1
        await self._command("RSET")
        return at

    async def greet(self) -> None:
        """Begin."""
        await self._reader.readline()
        await self._command("HELO bench.example.com")

    async def _deliver(self) -> None:
        for command in ("MAIL FROM:<a@example.com>", "RCPT TO:<witness@example.net>", "DATA"):
            await self._command(command)
        self._writer.write(_MESSAGE)
        await self._reader.readline()
        self._refusals = 0

    async def _command(self, command: str) -> None:
        reply = await self._say(command.encode())
        assert reply[:1] in b"23", (command.partition(":")[0], reply)

    async def _say(self, command: bytes) -> bytes:
        self._writer.write(command + b"\r\n")
        reply = await self._reader.readline()
        if not reply:
            raise ConnectionResetError("the worker has let go of its witness")
        return reply


@asynccontextmanager
async def witnesses(port: int, workers: Sequence[int]) -> AsyncIterator[list[Witness]]:
    """One at each of these processes, which listen on the same port."""
    async with AsyncExitStack() as stack:
        found: dict[int, Witness] = {}
        while len(found) < len(workers):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            witness = Witness(reader, writer)
            await witness.greet()  # it is taken by then
            found.setdefault(_server_of(writer, workers), witness)
        yield list(found.values())


def _server_of(writer: asyncio.StreamWriter, workers: Sequence[int]) -> int:
    """The process at the other end."""
    ours = writer.get_extra_info("sockname")[1]
    for pid in workers:
        if any(each.raddr and each.raddr.port == ours for each in psutil.Process(pid).net_connections("tcp")):
            return pid
    raise LookupError("no worker has this connection")
