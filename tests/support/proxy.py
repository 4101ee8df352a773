"""A way to the database that can be cut: at once, or in the moment between a commit and its answer."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit, urlunsplit


class Proxy:
    """Passes connections on to a PostgreSQL. swallow: an answer with these octets never arrives, nor anything after."""

    def __init__(self, url: str) -> None:
        self._target = url
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""
        self.open = True
        self.swallow = b""
        self.swallowed = 0

    def cut(self) -> None:
        """Break every connection, and take no new one."""
        self.open = False
        for writer in self._writers:
            writer.transport.abort()

    def _cut_late(self, writers: Iterable[asyncio.StreamWriter]) -> None:
        """Break what was cut while it was on its way."""
        if not self.open:
            for writer in writers:
                writer.transport.abort()

    async def serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        if not self.open:
            back.transport.abort()
            return
        server, on = await self._connect()
        self._writers |= {back, on}
        self._cut_late((back, on))
        ways = (asyncio.create_task(self._pass(client, on)), asyncio.create_task(self._answer(server, back)))
        self._tasks.update(ways)
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for writer in (back, on):
            self._writers.discard(writer)
            writer.transport.abort()
        await asyncio.wait(ways)
        self._tasks.difference_update(ways)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self._target)
        options = parse_qs(parts.query)
        host = options.get("host", [parts.hostname or "localhost"])[0]
        port = int(options.get("port", [str(parts.port or 5432)])[0])
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    async def _answer(self, server: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            while data := await server.read(65_536):
                if self.swallow and self.swallow in data:
                    self.swallow = b""
                    self.swallowed += 1
                    return
                back.write(data)
        except ConnectionError:
            return

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except ConnectionError:
            return

    async def close(self) -> None:
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """A proxy in front of the database of a URL; its own URL is `proxy.url`."""
    proxy = Proxy(url)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0] or "heed"
    port = server.sockets[0].getsockname()[1]
    proxy.url = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}", query=""))
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
