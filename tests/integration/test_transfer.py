"""Import and export: only ever more, resumable at any point, never an address."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from config.database import Database, DatabaseUnavailable
from suppression import transfer
from suppression.digest import Kind, Scope
from suppression.entry import Action, Channel, Entry
from suppression.log import SuppressionLog
from suppression.plan import Lift
from suppression.transfer import Importer, ImportOrder, ImportTakenOver, Progress, export
from suppression.verify import verify_log
from tests.support.daemon import founded
from tests.support.suppressions import DIGEST, asked, keys_of, opened


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture
def log(database: Database) -> SuppressionLog:
    return SuppressionLog(database, DIGEST)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BATCH_ROWS", 10)


def order(directory: Path, count: int, **changes: Any) -> ImportOrder:
    path = directory / "list.csv"
    path.write_text("email\n" + "".join(f"p{n}@example.com\n" for n in range(count)) + "nobody\n")
    given: dict[str, Any] = {
        "path": path, "scope": Scope.TENANT, "kind": Kind.UNSUBSCRIBE, "tenant_id": 7, "list_id": 0, "actor": "root",
    }  # fmt: skip
    return ImportOrder(**{**given, **changes})


async def test_a_file_is_imported_with_progress(database: Database, log: SuppressionLog, tmp_path: Path) -> None:
    seen: list[Progress] = []
    given = order(tmp_path, 95)
    result = await Importer(database, log, DIGEST).run(given, seen.append)
    size = given.path.stat().st_size
    assert result == Progress(size, size, 96, 95, 1)
    assert len(seen) == 10
    assert (await verify_log(log, DIGEST)).entries == 95
    [entry] = await log.in_force(keys_of(DIGEST.person("P42@example.com")))
    assert (entry.scope, entry.channel, entry.actor) == (Scope.TENANT, "import", "root")


async def test_the_same_again_adds_nothing(database: Database, log: SuppressionLog, tmp_path: Path) -> None:
    importer = Importer(database, log, DIGEST)
    first = await importer.run(order(tmp_path, 25))
    assert await importer.run(order(tmp_path, 25)) == first
    assert (await log.head())[0] == 25


class Failing(SuppressionLog):
    """A database that goes away in the middle."""

    left = 4

    def appending(self) -> Any:
        self.left -= 1
        if self.left < 0:
            raise DatabaseUnavailable("gone")
        return super().appending()


async def test_an_import_goes_on_where_it_was_cut_off(database: Database, log: SuppressionLog, tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable):
        await Importer(database, Failing(database, DIGEST), DIGEST).run(order(tmp_path, 95))
    assert (await log.head())[0] == 40
    seen: list[Progress] = []
    result = await Importer(database, log, DIGEST).run(order(tmp_path, 95), seen.append)
    assert (result.read, result.added, result.refused) == (96, 95, 1)
    assert seen[0].read == 50


async def test_an_import_that_is_killed_goes_on_by_the_same_command(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    count = 30_000
    listed = tmp_path / "list.csv"
    listed.write_text("Name;E-Mail Address\n" + "".join(f"P {n};p{n}@example.com\n" for n in range(count)))
    settings = ["--set", f"data_dir={founded(tmp_path / 'node')}", "--set", f"database.url={database_url}"]
    command = [sys.executable, "-m", "mta.cli", "suppress", "import", str(listed), "--json", *settings]

    async def read() -> int:
        async with database.connection() as connection:
            return int(await connection.fetchval("SELECT coalesce(sum(read), 0) FROM suppression_import"))

    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    async with asyncio.timeout(30):
        while not await read():  # noqa: ASYNC110  # it is another process that writes
            await asyncio.sleep(0.01)
    process.kill()
    await process.wait()
    done = await read()
    assert 0 < done < count
    assert (await SuppressionLog(database, DIGEST).head())[0] == done
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    told, _ = await process.communicate()
    assert json.loads(told) == {"read": count, "added": count, "refused": 0}
    assert (await SuppressionLog(database, DIGEST).head())[0] == count


async def test_two_processes_that_import_the_same_do_not_count_twice(
    database: Database, log: SuppressionLog, tmp_path: Path
) -> None:
    other = Importer(database, log, DIGEST)
    taken_over = False

    class Overtaken(SuppressionLog):
        def appending(self) -> Any:
            nonlocal taken_over
            taken_over = True
            return super().appending()

    importer = Importer(database, Overtaken(database, DIGEST), DIGEST)
    original = importer._state

    async def state(source: bytes, size: int) -> Progress:
        found = await original(source, size)
        await other.run(order(tmp_path, 25))
        return found

    importer._state = state  # type: ignore[method-assign]
    with pytest.raises(ImportTakenOver):
        await importer.run(order(tmp_path, 25))
    assert taken_over
    assert (await log.head())[0] == 25


async def test_an_import_never_weakens_what_is_in_force(
    database: Database, log: SuppressionLog, tmp_path: Path
) -> None:
    """An import with overwrite wiped block lists elsewhere (listmonk 2008)."""
    person = DIGEST.person("p3@example.com")
    before = await log.append(
        [asked(person, kind=Kind.COMPLAINT, scope=Scope.TENANT), asked(person, scope=Scope.EVERYTHING)]
    )
    await Importer(database, log, DIGEST).run(order(tmp_path, 5))
    after = await log.in_force(keys_of(person))
    assert after[:2] == before
    assert len(after) == 3
    assert after[2].effect == before[0].effect


async def test_a_lifted_suppression_that_is_imported_again_is_in_force_again(
    database: Database, log: SuppressionLog, tmp_path: Path
) -> None:
    importer = Importer(database, log, DIGEST)
    await importer.run(order(tmp_path, 5))
    lift = Lift(DIGEST.person("p3@example.com"), Scope.TENANT, frozenset(Kind), 7, 0, Channel.CLI, "root", "a mistake")
    async with log.appending() as appending:
        await appending.lift([lift], Action.LIFT_BY_OPERATOR)
    await importer.run(order(tmp_path, 6))
    assert len(await log.in_force(keys_of(DIGEST.person("p3@example.com")))) == 1


async def test_queued_recipients_of_imported_persons_are_cancelled(database: Database, tmp_path: Path) -> None:
    async def cancel(connection: Any, entries: Sequence[Entry]) -> Sequence[int]:
        return [2] * len(entries)

    log = SuppressionLog(database, DIGEST, cancel)
    await Importer(database, log, DIGEST).run(order(tmp_path, 3))
    assert [entry.cancelled for entry in await log.read_after(0, 9)] == [2, 2, 2]


async def test_an_export_has_digests_and_can_be_imported(
    database: Database, log: SuppressionLog, tmp_path: Path
) -> None:
    await Importer(database, log, DIGEST).run(order(tmp_path, 25))
    await log.append([asked(DIGEST.person("eva@example.com"), kind=Kind.COMPLAINT, scope=Scope.TENANT)])
    written: list[str] = []
    assert await export(database, written.append) == 26
    text = "".join(written)
    assert "@" not in text
    assert text.splitlines()[0] == "digest,scope,kind,tenant_id,list_id,group_id,channel,position,at"
    (tmp_path / "export.csv").write_text(text)
    again = order(tmp_path, 0, path=tmp_path / "export.csv", tenant_id=8)
    result = await Importer(database, log, DIGEST).run(again)
    assert (result.added, result.refused) == (26, 0)
    kinds = [entry.kind for entry in await log.read_person(DIGEST.person("eva@example.com"))]
    assert kinds == [Kind.COMPLAINT, Kind.COMPLAINT]
