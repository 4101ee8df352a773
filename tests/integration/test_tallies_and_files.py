"""What follows the stream of all tenants: counts that count each event once, the file of events, partitions by day."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zstandard

from bounce.outcome import Action, BounceClass
from bounce.reading import Kind, Reading, Recipient, RecognisedBy
from mta.answers import notes_of
from mta.event_file import EventFile
from mta.event_records import Records
from mta.event_tasks import EventTasks
from mta.events import Cursor, Events
from mta.identifiers import MessageIds
from mta.tally import Tallies
from suppression.digest import Kind as Why
from suppression.digest import Scope
from suppression.entry import Channel, NewEntry
from suppression.tokens import Purpose, Token
from tests.integration.test_webhooks import LATER, completion, deliver, send
from tests.support.node import Node, node
from tests.support.suppressions import opened


@pytest.fixture
async def here(database_url: str, tmp_path: Path) -> AsyncIterator[Node]:
    async with node(database_url, tmp_path) as made:
        await made.parts.accounts.add_tenant("acme")
        yield made


async def counted(here: Node, tallies: Tallies) -> dict[str, int]:
    tenant = await here.parts.accounts.tenant("acme")
    campaign_id = await tallies.campaign_id(tenant.id, "spring")
    assert campaign_id is not None
    totals: dict[str, int] = {}
    for row in await tallies.campaign(tenant.id, campaign_id):
        totals[row["type"]] = totals.get(row["type"], 0) + row["recipients"]
    return totals


async def test_each_event_is_counted_once(here: Node) -> None:
    tallies = Tallies(here.database, Events(here.database))
    one = await send(here, "anna@example.net", "bob@example.net")
    assert await here.parts.queue.defer([await completion(here, one, LATER)])
    assert await tallies.catch_up()
    assert await tallies.catch_up()
    assert await counted(here, tallies) == {"Reception": 2, "TransientFailure": 1}
    await here.execute("UPDATE recipient SET state = 1, worker_id = $1", here.parts.queue.worker_id)
    await deliver(here, one)
    tenant = await here.parts.accounts.tenant("acme")
    campaign = await here.parts.accounts.campaign(tenant.id, "spring")
    await here.parts.log.append(
        [
            NewEntry(
                here.person("anna@example.net"), Scope.TENANT, Why.UNSUBSCRIBE, tenant.id, 0, Channel.WEB, "token",
                campaign_id=campaign.id,
            )
        ]
    )  # fmt: skip
    assert await tallies.catch_up()
    expected = {"Reception": 2, "TransientFailure": 1, "Delivery": 1, "Unsubscribe": 1}
    assert (await counted(here, tallies)).items() >= expected.items()
    (usage,) = await tallies.usage(0, datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))
    assert (usage["tenant"], usage["messages"], usage["accepted"], usage["delivered"]) == ("acme", 1, 2, 1)


async def test_who_counts_is_alone(here: Node) -> None:
    tallies = Tallies(here.database, Events(here.database))
    await send(here, "anna@example.net")
    async with here.database.transaction() as other:
        await other.execute("SELECT FROM event_cursor WHERE name = 'tally' FOR UPDATE")
        assert not await tallies.catch_up()
    assert await tallies.catch_up()


async def test_long_stretches_of_other_transactions(here: Node) -> None:
    events = Events(here.database)
    await send(here, "anna@example.net")
    await here.execute("UPDATE event_era SET ahead = ahead + 50000000")
    await send(here, "bob@example.net")
    tallies = Tallies(here.database, events)
    assert await tallies.catch_up()
    assert await counted(here, tallies) == {"Reception": 2}
    cursor, seen = Cursor(), []
    for _ in range(5):
        page, cursor = await events.of_all(cursor, 100)
        seen += page
    assert len(seen) == 2


async def test_the_file_of_events(here: Node, tmp_path: Path) -> None:
    events = Events(here.database)
    records = Records(events, here.parts.accounts, here.parts.digest)
    directory = tmp_path / "files"
    file = EventFile(directory, "file test", max_bytes=1_500, max_files=2)
    file.prepare()
    await events.cursor("file test")
    for number in range(20):
        await send(here, f"reader-{number}@example.net")
        await file._step(events, records)
    current = directory / "events.jsonl"
    lines = current.read_bytes().splitlines() if current.exists() else []
    packed = sorted(directory.glob("*.zst"))
    assert len(packed) == 2
    for path in packed:
        with path.open("rb") as source:
            lines += zstandard.ZstdDecompressor().stream_reader(source).read().splitlines()
    assert len(lines) > 5
    assert {json.loads(line)["type"] for line in lines} == {"Reception"}
    assert b"reader" not in b"".join(lines)
    # a crash cuts a line, and leaves a file uncompressed
    (directory / "events-20200101T000000000000Z.jsonl").write_bytes(b"{}\n")
    current.write_bytes(b'{"id":"e1"}\n{"id":')
    file.prepare()
    assert current.read_bytes() == b'{"id":"e1"}\n'
    assert not list(directory.glob("events-*.jsonl"))


async def test_days_come_and_go_as_partitions(here: Node) -> None:
    events = Events(here.database)

    async def partitions() -> set[str]:
        rows = await here.rows("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'event'::regclass")
        return {row[0] for row in rows}

    assert await events.keep(30) == []
    today = datetime.now(UTC)
    assert f"event_{today:%Y%m%d}" in await partitions()
    assert len(await partitions()) == 9  # today, seven days to come, and the default
    await deliver(here, await send(here, "anna@example.net"))
    assert (await here.rows(f"SELECT count(*) FROM event_{today:%Y%m%d}")) == [(2,)]
    old = today - timedelta(days=40)
    name = f"event_{old:%Y%m%d}"
    bounds = f"FROM ('{old:%Y-%m-%d}Z') TO ('{old + timedelta(days=1):%Y-%m-%d}Z')"
    await here.execute(f"CREATE TABLE {name} PARTITION OF event FOR VALUES {bounds}")
    assert await events.keep(30) == [name]
    assert name not in await partitions()


async def test_a_day_that_has_events_in_the_default_stays_there(here: Node) -> None:
    await deliver(here, await send(here, "anna@example.net"))
    assert await Events(here.database).keep(30) == []
    assert (await here.rows("SELECT count(*) FROM event_default")) == [(2,)]


class BadFile(EventFile):
    """Fails in a way that nobody has foreseen, once, and says when it is followed again."""

    begun = 0
    again = asyncio.Event()

    async def follow(self, events: Events, records: Records) -> None:
        self.begun += 1
        if self.begun == 1:
            raise ValueError
        self.again.set()
        await super().follow(events, records)


async def test_what_is_done_with_events_ends_no_node(
    here: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.event_tasks._RETRY_SECONDS", 0.01)
    file = BadFile(tmp_path / "events", "file x", max_bytes=1 << 20, max_files=2)
    tasks = EventTasks(here.database, here.parts.keyring, holder="x", retention_days=30, file=file)
    running = asyncio.create_task(tasks.run())
    again = asyncio.create_task(file.again.wait())
    async with asyncio.timeout(10):
        await asyncio.wait([running, again], return_when=asyncio.FIRST_COMPLETED)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_node_starts_while_another_holds_the_partitions(here: Node, database_url: str) -> None:
    """As one does that drops an old day, and waits for whoever reads it."""
    tasks = EventTasks(here.database, here.parts.keyring, holder="x", retention_days=30, file=None)
    async with opened(database_url) as other, other.transaction() as busy:
        await busy.execute("LOCK TABLE event_default IN ACCESS EXCLUSIVE MODE")
        await tasks.prepare()
    await tasks.prepare()
    rows = await here.rows("SELECT FROM pg_inherits WHERE inhparent = 'event'::regclass")
    assert len(rows) == 9


async def test_a_worker_of_the_version_before_writes_outcomes(here: Node) -> None:
    await here.execute(
        "INSERT INTO outcome (message_id, ordinal, tenant_id, list_id, campaign_id, message_class, state, attempts,"
        " person, received_at, at, status, reply_code, class, remote_mta, diagnostic)"
        " VALUES (1, 0, 1, 0, 1, 0, 1, 1, 5, now(), now(), '2.0.0', 250, 'none', '', '')"
    )
    ((kind, position),) = await here.rows("SELECT type, position FROM event")
    assert kind == 1
    assert position > 0
    assert await here.rows("SELECT state FROM outcome WHERE person = 5") == [(1,)]


async def test_a_bounce_by_mail_is_an_event_without_addresses(here: Node) -> None:
    message_id = MessageIds(1).next(0)
    token = Token(Purpose.RETURN_PATH, 1, 2, 3, here.person("anna@example.net"), message_id)
    recipient = Recipient(
        "anna@example.net", Action.FAILED, "5.1.1", 550, "mx.example.net", "<anna@example.net> unknown",
        BounceClass.UNKNOWN_USER, permanent=True, recognised_by=RecognisedBy.REPORT,
    )  # fmt: skip
    events = Events(here.database, "here")
    await events.note(notes_of(token, Reading(Kind.BOUNCE, (recipient,)), here.parts.now()))
    (event,), _ = await events.of_tenant(1, Cursor(), 10)
    assert (event.type, event.message_id, event.bounce_class) == ("OOB", message_id, "unknown-user")
    assert "anna" not in event.diagnostic
    assert notes_of(token, Reading(Kind.COMPLAINT, (recipient,)), 0.0) == []
