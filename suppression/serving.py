"""Serving an aiohttp application on one port that speaks both TLS and plain HTTP.

The first byte tells them apart (a TLS record of type handshake is 0x16, RFC 8446 §5.1; no HTTP request begins so): it
is peeked at, never taken, before the socket is handed to the event loop with or without a TLS context. Connections are
limited in number, in the time until their first byte, and in their life, so that idle ones can't fill the port.
Works on asyncio's own loop and on uvloop.
"""

import asyncio
import errno
import logging
import socket
import ssl
from contextlib import suppress
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from config.log import LOG

TLS_HANDSHAKE: Final = 0x16
FIRST_BYTE_SECONDS: Final = 10.0
HANDSHAKE_SECONDS: Final = 10.0
LIFE_SECONDS: Final = 60.0
"""After this a connection takes no further request; twice this and it is cut."""

SHUTDOWN_SECONDS: Final = 5.0
BACKLOG: Final = 1024
_NO_DESCRIPTORS: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

# aiohttp's own lines would quote requests, hence tokens.
_silent = logging.getLogger("suppression.serving.silent")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class Served:
    """A listening port. `port`: its number, also where 0 was asked for."""

    def __init__(
        self,
        runner: web.AppRunner,
        sockets: list[socket.socket],
        ssl_context: ssl.SSLContext | None,
        max_connections: int,
        life_seconds: float,
    ) -> None:
        self._runner = runner
        self._sockets = sockets
        self._ssl_context = ssl_context
        self._free = asyncio.Semaphore(max_connections)
        self._life_seconds = life_seconds
        self.port: int = sockets[0].getsockname()[1]
        self._connections: set[asyncio.Task[None]] = set()
        self._silent: set[asyncio.Task[None]] = set()
        self._acceptors = [asyncio.create_task(self._accept(listener)) for listener in sockets]

    async def close(self) -> None:
        """Take no more connections, let requests that run finish for a few seconds, and close."""
        for task in (*self._acceptors, *self._silent):
            task.cancel()
        await asyncio.gather(*self._acceptors, return_exceptions=True)
        for listener in self._sockets:
            listener.close()
        await self._runner.cleanup()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._free.acquire()
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                self._free.release()
                if error.errno in _NO_DESCRIPTORS:
                    LOG.error("subscriber port takes no connection", reason=error.strerror)
                    await asyncio.sleep(1)
                continue
            except asyncio.CancelledError:
                self._free.release()
                raise
            task = asyncio.create_task(self._serve_connection(connection))
            self._connections.add(task)
            self._silent.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self._silent.discard(task)
        self._free.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error("subscriber connection failed", reason=type(error).__name__)

    async def _serve_connection(self, connection: socket.socket) -> None:
        transport = None
        try:
            async with asyncio.timeout(FIRST_BYTE_SECONDS):
                first = await _peek(connection)
            wants_tls = first == TLS_HANDSHAKE
            if first is None or (wants_tls and self._ssl_context is None):
                return
            self._silent.discard(asyncio.current_task())
            transport, protocol = await self._hand_over(connection, self._ssl_context if wants_tls else None)
            await self._live(protocol)
        except (OSError, TimeoutError):  # the peer's doing: gone, or no TLS that we speak (ssl.SSLError is an OSError)
            return
        finally:
            if transport is None:
                connection.close()
            elif not transport.is_closing():
                transport.abort()

    async def _hand_over(
        self, connection: socket.socket, context: ssl.SSLContext | None
    ) -> tuple[asyncio.Transport, "_Watched"]:
        factory = self._runner.server
        if factory is None:
            raise ConnectionAbortedError("closing")
        protocol = _Watched(factory())
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: protocol,
            connection,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if context else None,
        )
        return transport, protocol

    async def _live(self, protocol: "_Watched") -> None:
        """Until the connection ends; after its time it takes no further request, and is then cut by the caller."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._life_seconds):
                await protocol.ended.wait()
                return
        protocol.handler.close()
        async with asyncio.timeout(self._life_seconds):
            await protocol.ended.wait()


class _Watched(asyncio.Protocol):
    """aiohttp's handler, and an event for its end."""

    def __init__(self, handler: RequestHandler) -> None:
        self.handler = handler
        self.ended = asyncio.Event()
        # Each part of the protocol is the handler's own method: nothing in between for the data.
        self.connection_made = handler.connection_made  # type: ignore[method-assign]
        self.data_received = handler.data_received  # type: ignore[method-assign]
        self.eof_received = handler.eof_received  # type: ignore[method-assign]
        self.pause_writing = handler.pause_writing  # type: ignore[method-assign]
        self.resume_writing = handler.resume_writing  # type: ignore[method-assign]

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()
        self.handler.connection_lost(exc)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _peek(connection: socket.socket) -> int | None:
    """The first byte, left where it is; None when the peer sent none and went away."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection.fileno(), _set, readable)
    try:
        await readable
    finally:
        loop.remove_reader(connection.fileno())
    first = connection.recv(1, socket.MSG_PEEK)
    return first[0] if first else None


async def serve(
    app: web.Application,
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None = None,
    *,
    reuse_port: bool = False,
    max_connections: int = 2_000,
    life_seconds: float = LIFE_SECONDS,
) -> Served:
    """Listen and serve; OSError when the port can't be had. Without a context, TLS clients are hung up on."""
    sockets = await _listen(host, port, reuse_port)
    try:
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=_silent,
            handle_signals=False,
            keepalive_timeout=15,
            auto_decompress=False,  # a body that can't be unpacked would be refused before a handler sees it
            shutdown_timeout=SHUTDOWN_SECONDS,
        )
        await runner.setup()
    except BaseException:
        for listener in sockets:
            listener.close()
        raise
    return Served(runner, sockets, ssl_context, max_connections, life_seconds)


async def _listen(host: str, port: int, reuse_port: bool) -> list[socket.socket]:
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setblocking(False)
            # With port 0, the addresses of a name share the number that the first one got.
            listener.bind((address[0], sockets[0].getsockname()[1] if len(sockets) > 1 else address[1], *address[2:]))
            listener.listen(BACKLOG)
    except BaseException:
        for listener in sockets:
            listener.close()
        raise
    return sockets
