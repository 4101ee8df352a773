"""An older backup is restored: nothing is sent until the receipts have been replayed, and nobody is resurrected."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.database import Database
from suppression.consent import Consent, Consents
from suppression.digest import Kind, MessageClass, Scope
from suppression.log import SuppressionLog
from suppression.receipts import ReceiptFile, ReceiptKeeper, replay
from suppression.verify import verify_log
from tests.integration.test_suppression_watch import SOON, feed_of, restore, until, watching
from tests.support.suppressions import DIGEST, asked, keys_of, opened

CAMPAIGN = MessageClass.CAMPAIGN


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture
def log(database: Database) -> SuppressionLog:
    return SuppressionLog(database, DIGEST)


@pytest.fixture
def file(tmp_path: Path) -> ReceiptFile:
    return ReceiptFile(tmp_path / "suppression.receipts")


async def in_force(log: SuppressionLog, *persons: int) -> list[int]:
    return [person for person in persons if await log.in_force(keys_of(person))]


async def test_receipts_follow_the_log_from_the_head_on(log: SuppressionLog, file: ReceiptFile) -> None:
    keeper = ReceiptKeeper(file, log)
    assert await keeper.write() == 0
    entries = await log.append([asked(5), asked(6), asked(7)])
    assert await keeper.write() == 1
    assert file.last() == (3, entries[-1].hash)
    more = await log.append([asked(8), asked(9)])
    assert await keeper.write() == 2
    assert await keeper.write() == 0
    assert list(file.entries()) == [entries[-1], *more]


async def test_only_one_worker_writes(log: SuppressionLog, file: ReceiptFile) -> None:
    await log.append([asked(5)])
    with file.lock():
        assert await ReceiptKeeper(file, log).write() == 0
    assert await ReceiptKeeper(file, log).write() == 1


async def test_nothing_is_sent_on_an_older_database_until_it_was_replayed(
    log: SuppressionLog, database: Database, file: ReceiptFile, tmp_path: Path
) -> None:
    keeper = ReceiptKeeper(file, log)
    kept, *_ = await log.append([asked(5)])
    await keeper.write()
    await log.append([asked(6), asked(7, kind=Kind.COMPLAINT), asked(8)])
    await Consents(database, log).record([Consent(8, Scope.LIST, 7, 9, "form", "shop", "api")])
    await keeper.write()
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    async with watching(log, tmp_path, feed_of(database), last_receipt=file.last) as running:
        await asyncio.wait_for(running.caught_up(), SOON)
        await restore(database, kept.position, kept.hash)
        await log.append([asked(9), asked(8)])
        await until(lambda: "suppress replay" in running.trouble)
        with pytest.raises(ValueError, match="does not continue"):
            await keeper.write()
        async with watching(log, fresh, feed_of(database), last_receipt=file.last) as started:
            await until(lambda: "suppress replay" in started.trouble)
            assert not started.fresh()
            done = await replay(file, log, "root")
            assert (done.lost, done.suppressed, done.lifted) == (4, 2, 0)
            for watch in (started, running):
                await until(watch.fresh)
                assert all(watch.index.blocks(keys_of(person), CAMPAIGN) for person in (5, 6, 7, 8, 9))
                assert watch.index.blocks(keys_of(7), MessageClass.TRANSACTIONAL)
    assert (await verify_log(log, DIGEST)).intact
    assert (await keeper.write()) == 0
    [entry] = await log.in_force(keys_of(7))
    assert entry.channel == "receipts"
    assert "by one-click, token:test" in entry.reason


async def test_a_replay_may_be_repeated_and_does_not_undo_a_later_consent(
    log: SuppressionLog, database: Database, file: ReceiptFile
) -> None:
    keeper = ReceiptKeeper(file, log)
    [kept] = await log.append([asked(5)])
    await keeper.write()
    await log.append([asked(6)])
    await keeper.write()
    await restore(database, kept.position, kept.hash)
    await replay(file, log, "root")
    assert await in_force(log, 5, 6) == [5, 6]
    await Consents(database, log).record([Consent(6, Scope.LIST, 7, 9, "form", "shop", "api")])
    await keeper.write()
    again = await replay(file, log, "root")
    assert (again.suppressed, again.lifted) == (0, 0)
    assert await in_force(log, 5, 6) == [5]
    # The same old backup once more: what was replayed then is lost again, and so is the consent after it.
    await restore(database, kept.position, kept.hash)
    await replay(file, log, "root")
    assert await in_force(log, 5, 6) == [5]


async def test_a_lost_lift_is_replayed_for_what_is_older(
    log: SuppressionLog, database: Database, file: ReceiptFile
) -> None:
    keeper = ReceiptKeeper(file, log)
    *_, kept = await log.append([asked(5), asked(6)])
    await keeper.write()
    await Consents(database, log).record([Consent(5, Scope.LIST, 7, 9, "form", "shop", "api")])
    await keeper.write()
    await database.pool.execute("DELETE FROM suppression")
    await database.pool.execute(
        "INSERT INTO suppression SELECT key, kind, 1, position FROM suppression_log WHERE position <= 2"
    )
    await restore(database, kept.position, kept.hash)
    assert await in_force(log, 5, 6) == [5, 6]
    done = await replay(file, log, "root")
    assert (done.lost, done.suppressed, done.lifted) == (1, 0, 1)
    assert await in_force(log, 5, 6) == [6]
    assert (await verify_log(log, DIGEST)).intact


async def test_the_keeper_writes_while_the_daemon_runs(
    log: SuppressionLog, database: Database, file: ReceiptFile
) -> None:
    keeper = ReceiptKeeper(file, log, write_seconds=0.01)
    await keeper.start()
    entries = await log.append([asked(5), asked(6)])
    await until(lambda: file.last() == (2, entries[-1].hash))
    assert keeper.trouble == ""
    await keeper.stop()
