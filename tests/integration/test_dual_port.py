"""One port for TLS and plain HTTP, on both event loops, and what clients do to it."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
import trustme
import uvloop
from aiohttp import web

from suppression import serving
from suppression.serving import Served, serve

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]
AUTHORITY = trustme.CA()


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a coroutine on a fresh loop of each sort."""

    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(coroutine, 20))

    return run


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost").configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


async def scheme(request: web.Request) -> web.Response:
    return web.Response(text=request.scheme)


async def serving_on(context: ssl.SSLContext | None = None, handler: Any = scheme, **options: Any) -> Served:
    app = web.Application()
    app.router.add_route("*", "/", handler)
    return await serve(app, "127.0.0.1", 0, context, **options)


async def text_of(url: str, **options: Any) -> str:
    async with aiohttp.ClientSession() as session, session.get(url, **options) as answer:
        return await answer.text()


def test_one_port_speaks_both(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scenario() -> None:
        served = await serving_on(server_context())
        plain, encrypted = f"http://127.0.0.1:{served.port}/", f"https://localhost:{served.port}/"
        texts = await asyncio.gather(*(
            text_of(encrypted, ssl=client_context()) if number % 2 else text_of(plain) for number in range(40)
        ))  # fmt: skip
        assert texts == ["http", "https"] * 20
        await served.close()

    run(scenario())


def test_a_connection_is_kept_for_the_next_request(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scenario() -> None:
        served = await serving_on(server_context())
        connector = aiohttp.TCPConnector(ssl=client_context(), limit=1)
        async with aiohttp.ClientSession(connector=connector) as session:
            for _ in range(5):
                async with session.get(f"https://localhost:{served.port}/") as answer:
                    assert await answer.text() == "https"
        await served.close()

    run(scenario())


def test_without_a_certificate_tls_is_hung_up_on(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scenario() -> None:
        served = await serving_on()
        with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
            await text_of(f"https://localhost:{served.port}/", ssl=client_context())
        assert await text_of(f"http://127.0.0.1:{served.port}/") == "http"
        await served.close()

    run(scenario())


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\xff\xff" + b"x" * 100, b"\0" * 10, b"GET", b"\r\n\r\n"])
def test_rubbish_harms_nobody_else(run: Callable[[Coroutine[Any, Any, None]], None], sent: bytes) -> None:
    async def scenario() -> None:
        served = await serving_on(server_context())
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(sent)
            with contextlib.suppress(OSError):
                await writer.drain()
            writer.transport.abort()
        assert await text_of(f"http://127.0.0.1:{served.port}/") == "http"
        await served.close()

    run(scenario())


def test_a_silent_client_is_dropped_and_frees_its_place(
    run: Callable[[Coroutine[Any, Any, None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "FIRST_BYTE_SECONDS", 0.1)

    async def scenario() -> None:
        served = await serving_on(max_connections=2)
        silent = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(2)]
        assert await text_of(f"http://127.0.0.1:{served.port}/") == "http"
        for reader, writer in silent:
            assert await reader.read() == b""
            writer.close()
        await served.close()

    run(scenario())


def test_a_client_that_never_ends_its_request_is_dropped(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def scenario() -> None:
        served = await serving_on(max_connections=1, life_seconds=0.1)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        assert await reader.read() == b""
        writer.close()
        assert await text_of(f"http://127.0.0.1:{served.port}/") == "http"
        await served.close()

    run(scenario())


def test_closing_lets_a_request_finish_and_does_not_wait_for_idle_ones(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def scenario() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(request: web.Request) -> web.Response:
            begun.set()
            await go_on.wait()
            return web.Response(text="done")

        served = await serving_on(server_context(), slow)
        idle = await asyncio.open_connection("127.0.0.1", served.port)
        request = asyncio.create_task(text_of(f"http://127.0.0.1:{served.port}/"))
        await begun.wait()
        closing = asyncio.create_task(served.close())
        await asyncio.sleep(0)
        go_on.set()
        assert await request == "done"
        await closing
        assert await idle[0].read() == b""
        idle[1].close()
        with pytest.raises(OSError):  # noqa: PT011  # refused or reset, as the system likes
            await asyncio.open_connection("127.0.0.1", served.port)

    run(scenario())


def test_a_busy_port_is_an_error_and_leaves_nothing_open(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(OSError, match="in use"):
                await serve(web.Application(), "127.0.0.1", taken.getsockname()[1])

    run(scenario())


def test_workers_share_a_port(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scenario() -> None:
        one = await serving_on(reuse_port=True)
        app = web.Application()
        app.router.add_get("/", scheme)
        other = await serve(app, "127.0.0.1", one.port, None, reuse_port=True)
        assert other.port == one.port
        await one.close()
        assert await text_of(f"http://127.0.0.1:{other.port}/") == "http"
        await other.close()

    run(scenario())
