"""A database that is gone: 4xx at once, never 250; no sending past the staleness bound; all goes on by itself."""

import asyncio
import contextlib
import os
import signal
import smtplib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from config.postgres import EmbeddedPostgres
from tests.support.daemon import Daemon, running
from tests.support.peer import Connection, Peer
from tests.support.script import Script
from tests.support.submit import message, submit

STALENESS_SECONDS = 2.0
RECIPIENTS = [f"reader-{number}@example.net" for number in range(400)]


def unhurried(hurry: asyncio.Event) -> Callable[[Connection], Awaitable[None]]:
    """A peer that takes its time for each message, so that there is always something to send; until it hurries."""

    async def answer(connection: Connection) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await hurry.wait()
        await connection.proceed()

    return answer


@contextlib.asynccontextmanager
async def stopped(server: EmbeddedPostgres, _data: Path) -> AsyncIterator[None]:
    """Shut down in order: connections are refused."""
    await server.stop()
    try:
        yield
    finally:
        await server.start()


@contextlib.asynccontextmanager
async def frozen(_server: EmbeddedPostgres, data: Path) -> AsyncIterator[None]:
    """Every process stopped by SIGSTOP: connections are taken, and nothing is ever answered."""
    postmaster = psutil.Process(int((data / "postgres" / "postmaster.pid").read_text().splitlines()[0]))
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # one that ends by itself
            os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)


@pytest.mark.parametrize("gone", [stopped, frozen])
async def test_nothing_is_taken_or_sent_without_a_database(
    tmp_path: Path, gone: Callable[[EmbeddedPostgres, Path], contextlib.AbstractAsyncContextManager[None]]
) -> None:
    data = tmp_path / "database"
    server = EmbeddedPostgres(data)
    await server.start()
    try:
        hurry = asyncio.Event()
        async with Peer(Script().on("DOT", unhurried(hurry))) as peer:
            settings = {
                "delivery.next_hop": f"127.0.0.1:{peer.port}",
                "delivery.connections_per_site": 2,
                "suppression.max_staleness": STALENESS_SECONDS,
                "database.command_timeout_seconds": 2,
                "delivery.retry_seconds": "1",
            }
            async with running(Daemon(tmp_path / "node", server.url, settings=settings)) as daemon:
                await asyncio.to_thread(submit, daemon.ports.submission, RECIPIENTS, message("news"))
                await peer.message()
                async with gone(server, data):
                    since = time.monotonic()
                    await refuse_at_once(daemon)
                    await daemon.eventually(not_ready(daemon), 10, "stayed ready")
                    # whatever was between the check and the dot when the bound was reached is out by now
                    await asyncio.sleep(max(0.0, since + STALENESS_SECONDS + 1.0 - time.monotonic()))
                    sent = len(peer.messages)
                    await refuse_at_once(daemon)
                    await asyncio.sleep(1.0)
                    assert len(peer.messages) == sent < len(RECIPIENTS)
                await daemon.ready()
                hurry.set()

                async def all_arrived() -> bool:
                    return set(peer.deliveries()) == set(RECIPIENTS)

                await daemon.eventually(all_arrived, 60, "did not go on")
                assert set(peer.deliveries().values()) == {1}
    finally:
        await server.stop()


async def refuse_at_once(daemon: Daemon) -> None:
    """Submission answers 4xx, and does not keep the client waiting."""
    began = time.monotonic()
    with pytest.raises((smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused)) as caught:
        await asyncio.to_thread(submit, daemon.ports.submission, ["late@example.net"], message("late"))
    refusal: smtplib.SMTPException = caught.value
    if isinstance(refusal, smtplib.SMTPRecipientsRefused):
        codes = [code for code, _ in refusal.recipients.values()]
    else:
        assert isinstance(refusal, smtplib.SMTPResponseException)
        codes = [refusal.smtp_code]
    assert all(400 <= code < 500 for code in codes)
    assert time.monotonic() - began < 6


def not_ready(daemon: Daemon) -> Callable[[], "asyncio.Future[bool]"]:
    async def holds() -> bool:
        return (await daemon.get("/readyz"))[0] == 503

    return holds  # type: ignore[return-value]
