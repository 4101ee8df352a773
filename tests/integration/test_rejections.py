"""What became of mail that was refused at submission: events of the tenant, in a bounded number."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from config.database import DatabaseUnavailable
from mta.event_records import Records
from mta.events import Cursor, Note
from mta.rejections import Kind, Rejections
from mta.submission import protocols
from suppression.digest import MessageClass
from tests.support.client import connected
from tests.support.node import Node, listening, node

SUPPRESSED = Kind(7, MessageClass.CAMPAIGN, "suppressed", "550 5.7.1 Recipient is suppressed")


@pytest.fixture
async def n(database_url: str, tmp_path: Path) -> AsyncIterator[Node]:
    async with node(database_url, tmp_path) as made:
        yield made


async def test_a_tenant_learns_who_was_refused_and_why(n: Node) -> None:
    door = await n.door()
    tenant = await n.parts.accounts.tenant("acme")
    n.stop("anna@example.net", tenant.id)
    async with listening(protocols(door)) as port, connected(port) as client:
        await client.greet()
        await client.say("MAIL FROM:<news@example.com>")
        assert (await client.say("RCPT TO:<anna@example.net>")).startswith("550")
        for _ in range(2):
            assert (await client.say("RCPT TO:<two words@example.net>")).startswith("501")
    await n.rejections.write()
    events, _ = await n.events.of_tenant(tenant.id, Cursor(), 10)
    shown = await Records(n.events, n.parts.accounts, n.parts.digest).records(events, addresses=True)
    assert [(record["type"], record["reason"], record["count"]) for record in shown] == [
        ("Rejection", "suppressed", 1),
        ("Rejection", "address", 2),
    ]
    assert shown[0]["recipient_id"] == f"{n.person('anna@example.net') & 0xFFFFFFFFFFFFFFFF:016x}"
    assert (shown[0]["tenant"], shown[0]["reply_code"], shown[0]["status"]) == ("acme", 550, "5.7.1")
    assert "anna" not in str(shown)
    await n.rejections.write()
    assert await n.rows("SELECT count(*) FROM event") == [(2,)]


async def test_who_has_no_tenant_leaves_no_event(n: Node) -> None:
    door = await n.door(trusted=None)
    async with listening(protocols(door)) as port, connected(port) as client:
        await client.greet()
        assert (await client.say("MAIL FROM:<news@example.com>")).startswith("530")
    await n.rejections.write()
    assert await n.rows("SELECT count(*) FROM event") == [(0,)]


async def test_a_flood_of_refusals_is_a_handful_of_events(n: Node) -> None:
    for number in range(10_000):
        n.rejections.add(SUPPRESSED, person=number)
        n.rejections.add(SUPPRESSED._replace(reason="syntax", reply="500 5.5.1 Unknown command"))
    await n.rejections.write()
    rows = await n.rows("SELECT class, count(*), sum(recipients) FROM event GROUP BY class ORDER BY class")
    assert rows == [("suppressed", 21, 10_000), ("syntax", 1, 10_000)]


async def test_what_can_not_be_written_is_written_later() -> None:
    written: list[Note] = []

    async def note(notes: Sequence[Note]) -> None:
        if not written:
            written.extend(notes)
            raise DatabaseUnavailable("away")
        written[:] = notes

    rejections = Rejections(note, lambda: 0.0)
    rejections.add(SUPPRESSED, person=1)
    rejections.add(SUPPRESSED)
    with pytest.raises(DatabaseUnavailable):
        await rejections.write()
    rejections.add(SUPPRESSED)
    await rejections.write()
    assert [(one.person, one.recipients) for one in written] == [(None, 3)]
