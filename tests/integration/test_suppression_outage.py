"""A PostgreSQL that is stopped and comes back: sending ends within the bound, and goes on by itself."""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from config.database import DatabaseUnavailable, migrate
from config.postgres import EmbeddedPostgres
from suppression.digest import MessageClass
from suppression.gate import Gate, Verdict
from suppression.log import SuppressionLog
from tests.integration.test_suppression_watch import SOON, feed_of, until, watching
from tests.support.suppressions import DIGEST, asked, keys_of, opened

CAMPAIGN = MessageClass.CAMPAIGN
MAX_STALENESS_SECONDS = 1.0


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedPostgres]:
    with tempfile.TemporaryDirectory(prefix="heed-test-") as directory:
        server = EmbeddedPostgres(Path(directory))
        await server.start()
        await migrate(server.url)
        try:
            yield server
        finally:
            await server.stop()


async def test_a_stopped_database_closes_the_gate_within_the_bound(server: EmbeddedPostgres, tmp_path: Path) -> None:
    async with opened(server.url, command_timeout_seconds=2.0) as database:
        log = SuppressionLog(database, DIGEST)
        await log.append([asked(5)])
        async with watching(
            log, tmp_path, feed_of(database, seconds=0.5), max_staleness_seconds=MAX_STALENESS_SECONDS
        ) as watch:
            gate = Gate(watch.index, watch)
            await asyncio.wait_for(watch.caught_up(), SOON)
            assert gate.allows(keys_of(6), CAMPAIGN) is Verdict.OPEN
            await server.stop()
            async with asyncio.timeout(MAX_STALENESS_SECONDS + 0.5):
                while gate.allows(keys_of(6), CAMPAIGN) is not Verdict.STALE:  # noqa: ASYNC110  # it is the clock
                    await asyncio.sleep(0.01)
            with pytest.raises(DatabaseUnavailable):
                await log.append([asked(7)])
            await server.start()
            await until(lambda: gate.allows(keys_of(6), CAMPAIGN) is Verdict.OPEN)
            assert gate.allows(keys_of(5), CAMPAIGN) is Verdict.SUPPRESSED
            await log.append([asked(7)])
            await until(lambda: watch.index.blocks(keys_of(7), CAMPAIGN))


async def test_a_database_that_hangs_closes_the_gate_within_the_bound(server: EmbeddedPostgres, tmp_path: Path) -> None:
    """Every process of it is stopped: connections stay open, nothing answers, nothing is refused."""
    async with opened(server.url, command_timeout_seconds=2.0) as database:
        log = SuppressionLog(database, DIGEST)
        async with watching(
            log, tmp_path, feed_of(database, seconds=0.5), max_staleness_seconds=MAX_STALENESS_SECONDS
        ) as watch:
            await asyncio.wait_for(watch.caught_up(), SOON)
            pids = [row["pid"] for row in await database.pool.fetch("SELECT pid FROM pg_stat_activity")]
            postmaster = int((await database.pool.fetchval("SELECT pg_read_file('postmaster.pid')")).split()[0])
            for pid in (postmaster, *pids):
                with suppress(ProcessLookupError):  # one that ends by itself
                    os.kill(pid, signal.SIGSTOP)
            try:
                async with asyncio.timeout(MAX_STALENESS_SECONDS + 1.0):
                    while watch.fresh():  # noqa: ASYNC110  # it is the clock
                        await asyncio.sleep(0.01)
            finally:
                for pid in (*pids, postmaster):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
            await until(watch.fresh)
            assert watch.trouble == ""
