"""The canary: campaign mail stops when the way out is broken, and goes on when it works again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.database import Database
from suppression.canary import CANARY_TENANT_ID, HOLD, Canary, Probe
from suppression.digest import Kind, MessageClass, Scope
from suppression.entry import Action, Channel, NewEntry
from suppression.gate import Gate, Verdict
from suppression.log import SuppressionLog
from suppression.watch import Watch
from tests.integration.test_one_click import TOKENS
from tests.integration.test_suppression_watch import SOON, feed_of, watching
from tests.support.suppressions import DIGEST, keys_of, opened


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture
def log(database: Database) -> SuppressionLog:
    return SuppressionLog(database, DIGEST)


@pytest.fixture
async def watch(log: SuppressionLog, database: Database, tmp_path: Path) -> AsyncIterator[Watch]:
    async with watching(log, tmp_path, feed_of(database)) as watch:
        await asyncio.wait_for(watch.caught_up(), SOON)
        yield watch


class Way:
    """The public URL, as a test wants it."""

    def __init__(self, log: SuppressionLog) -> None:
        self.log = log
        self.status = 200
        self.records = True
        self.error: Exception | None = None

    async def post(self, text: str) -> int:
        if self.error is not None:
            raise self.error
        token = TOKENS.read(text)
        if self.records:
            entry = NewEntry(
                token.person, Scope.TENANT, Kind.UNSUBSCRIBE, token.tenant_id, 0, Channel.ONE_CLICK, "token:x"
            )
            await self.log.append([entry])
        return self.status


def canary_of(
    log: SuppressionLog, watch: Watch, way: Way, path: Path, results: list[Probe] | None = None
) -> tuple[Canary, Gate]:
    gate = Gate(watch.index, watch)
    on_probe = results.append if results is not None else None
    made = Canary(
        path / "canary", log, watch.index, gate, DIGEST, TOKENS, way.post, within_seconds=1.0, on_probe=on_probe
    )
    return made, gate


async def test_a_probe_unsubscribes_nobody_and_leaves_nothing_in_force(
    log: SuppressionLog, watch: Watch, tmp_path: Path
) -> None:
    results: list[Probe] = []
    canary, gate = canary_of(log, watch, Way(log), tmp_path, results)
    await canary.turn()
    [probe] = results
    assert probe.failure == ""
    assert probe.seconds > 0
    entries = await log.read_after(0, 9)
    assert [entry.action for entry in entries] == [Action.SUPPRESS, Action.LIFT_BY_OPERATOR]
    assert {entry.tenant_id for entry in entries} == {CANARY_TENANT_ID}
    assert await log.count_in_force() == 0
    assert gate.holds == ()
    await canary.stop()


@pytest.mark.parametrize(
    ("status", "records", "error", "told"),
    [
        (503, False, None, "answers 503"),
        (200, False, None, "not in force"),
        (200, False, ConnectionRefusedError(), "can't be reached"),
    ],
)
async def test_a_broken_way_out_holds_campaign_mail_until_it_works(
    log: SuppressionLog, watch: Watch, tmp_path: Path, status: int, records: bool, error: Exception | None, told: str
) -> None:
    results: list[Probe] = []
    way = Way(log)
    canary, gate = canary_of(log, watch, way, tmp_path, results)
    other, other_gate = canary_of(log, watch, Way(log), tmp_path)
    way.status, way.records, way.error = status, records, error
    await canary.turn()
    assert gate.holds == ()
    await canary.turn()
    assert told in results[-1].failure
    await other.turn()
    for each in (gate, other_gate):
        assert each.holds == (HOLD,)
        assert each.allows(keys_of(5), MessageClass.CAMPAIGN) is Verdict.STALE
        assert each.allows(keys_of(5), MessageClass.TRANSACTIONAL) is Verdict.OPEN
    way.status, way.records, way.error = 200, True, None
    await canary.turn()
    await other.turn()
    assert gate.holds == other_gate.holds == ()
    await canary.stop()
    await other.stop()


async def test_another_worker_takes_over(log: SuppressionLog, watch: Watch, tmp_path: Path) -> None:
    one, _ = canary_of(log, watch, Way(log), tmp_path)
    results: list[Probe] = []
    other, _ = canary_of(log, watch, Way(log), tmp_path, results)
    await one.turn()
    await other.turn()
    assert results == []
    await one.stop()
    await other.turn()
    assert len(results) == 1
    await other.stop()


async def test_a_status_file_that_is_damaged_holds_nothing(log: SuppressionLog, watch: Watch, tmp_path: Path) -> None:
    one, _ = canary_of(log, watch, Way(log), tmp_path)
    await one.turn()
    (tmp_path / "canary").write_text("[")
    other, gate = canary_of(log, watch, Way(log), tmp_path)
    await other.turn()
    assert gate.holds == ()
    await one.stop()
    await other.stop()
