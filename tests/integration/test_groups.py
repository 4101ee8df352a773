"""Groups of tenants: what one of them is told binds all, those too that join later, in database, index and queue."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from config.database import Database
from mta.intake import Recipient, Submission
from mta.vault import Address, Envelope
from suppression.consent import Consents
from suppression.digest import Kind, MessageClass, Scope
from suppression.entry import Action
from suppression.gate import Gate, Verdict
from suppression.groups import Group, GroupError, Groups
from suppression.log import SuppressionLog
from suppression.receipts import ReceiptFile, replay
from suppression.scopes import Scopes
from suppression.verify import verify_log
from suppression.watch import Watch
from suppression.web import SubscriberPages, application, serve
from tests.integration.test_cli import Installation
from tests.integration.test_one_click import TOKENS, URL
from tests.integration.test_suppression_watch import feed_of, until, watching
from tests.support.node import node
from tests.support.suppressions import DIGEST, asked, opened

RAW = b"From: news@example.com\r\n\r\nHello\r\n"
CAMPAIGN, TRANSACTIONAL = MessageClass.CAMPAIGN, MessageClass.TRANSACTIONAL


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture
def log(database: Database) -> SuppressionLog:
    return SuppressionLog(database, DIGEST)


@pytest.fixture
async def partners(database: Database, log: SuppressionLog) -> Group:
    """A group of the tenants 7 and 8."""
    groups = Groups(database, log)
    group = await groups.add("partners")
    for tenant_id in (7, 8):
        assert await groups.join(group, tenant_id, "operator", "one house")
    return group


def verdict(watch: Watch, scopes: Scopes, tenant_id: int, message_class: MessageClass = CAMPAIGN) -> Verdict:
    """What the gate says about person 5."""
    return Gate(watch.index, watch).allows(scopes.keys(5, tenant_id, 0), message_class)


async def test_an_unsubscribe_from_everything_of_a_group_stops_all_its_tenants_and_nobody_else(
    log: SuppressionLog, database: Database, partners: Group, tmp_path: Path
) -> None:
    scopes = Scopes(DIGEST)
    async with watching(log, tmp_path, feed_of(database), scopes=scopes) as watch:
        await watch.caught_up()
        assert verdict(watch, scopes, 8) is Verdict.OPEN
        [entry] = await log.append([asked(5, scope=Scope.GROUP, tenant_id=7, list_id=partners.id)])
        await until(lambda: watch.index.position == entry.position)
        for tenant_id in (7, 8):
            assert verdict(watch, scopes, tenant_id) is Verdict.SUPPRESSED
            assert verdict(watch, scopes, tenant_id, TRANSACTIONAL) is Verdict.SUPPRESSED
        assert verdict(watch, scopes, 9) is Verdict.OPEN
    assert (await verify_log(log, DIGEST)).intact


async def test_who_joins_later_is_bound_by_what_was_said_before(
    log: SuppressionLog, database: Database, partners: Group, tmp_path: Path
) -> None:
    await log.append([asked(5, scope=Scope.GROUP, tenant_id=7, list_id=partners.id)])
    scopes = Scopes(DIGEST)
    async with watching(log, tmp_path, feed_of(database), scopes=scopes, poll_seconds=0.02) as watch:
        await watch.caught_up()
        assert verdict(watch, scopes, 9) is Verdict.OPEN
        entry = await Groups(database, log).join(partners, 9, "operator", "bought")
        assert entry is not None
        await until(lambda: watch.index.position == entry.position)
        assert verdict(watch, scopes, 9) is Verdict.SUPPRESSED


async def test_joining_is_for_ever_and_in_the_log(log: SuppressionLog, database: Database, partners: Group) -> None:
    groups = Groups(database, log)
    other = await groups.add("others")
    assert await groups.join(partners, 7, "operator", "again") is None
    with pytest.raises(GroupError, match="for ever"):
        await groups.join(other, 7, "operator", "change")
    with pytest.raises(GroupError, match="exists already"):
        await groups.add("partners")
    entries = await log.read_after(0, 10)
    assert [(entry.action, entry.tenant_id, entry.group_id) for entry in entries] == [
        (Action.JOIN, 7, partners.id), (Action.JOIN, 8, partners.id),
    ]  # fmt: skip
    await database.pool.execute("UPDATE group_member SET group_id = $1 WHERE tenant_id = 8", other.id)
    result = await verify_log(log, DIGEST)
    assert (result.broken_position, result.reason) == (2, "the table of the groups' members does not follow from it")


async def test_a_restored_backup_does_not_forget_who_joined(
    log: SuppressionLog, database: Database, partners: Group, tmp_path: Path
) -> None:
    file = ReceiptFile(tmp_path / "receipts")
    file.append(await log.read_after(0, 10))
    await database.pool.execute(
        "ALTER TABLE suppression_log DISABLE TRIGGER ALL; DELETE FROM suppression_log; DELETE FROM group_member;"
        "UPDATE suppression_head SET position = 0, hash = decode(repeat('00', 32), 'hex'), at = 'epoch';"
        "ALTER TABLE suppression_log ENABLE TRIGGER ALL"
    )
    assert (await replay(file, log, "operator")).lost == 2
    members = await Groups(database, log).members()
    assert {(member.tenant_id, member.group_id) for member in members} == {(7, partners.id), (8, partners.id)}


async def test_the_page_of_a_grouped_tenant_offers_the_group_and_takes_it_back(
    log: SuppressionLog, database: Database, partners: Group
) -> None:
    known = {7: partners.id}
    pages = SubscriberPages(TOKENS, log, Consents(database, log), group_of=lambda each: known.get(each, 0))
    served = await serve(application(pages), "127.0.0.1", 0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{served.port}") as http:

        async def press(choice: str) -> int:
            async with http.post(URL, data={"choice": choice}) as answer:
                return answer.status

        async with http.get(URL) as page:
            assert 'value="group"' in await page.text()
        assert await press("group") == 200
        [entry] = await log.in_force([DIGEST.key(Scope.GROUP, 5, 0, partners.id)])
        assert (entry.scope, entry.kind) == (Scope.GROUP, Kind.UNSUBSCRIBE)
        assert (entry.tenant_id, entry.group_id) == (7, partners.id)
        assert await press("undo-group") == 200
        assert await log.in_force([entry.key]) == []
        known.clear()  # a worker that does not know of the group yet must not say that it is done
        assert await press("group") == 503
        async with http.get(URL) as page:
            assert 'value="group"' not in await page.text()
    await served.close()


async def test_what_is_queued_by_any_tenant_of_the_group_is_cancelled(database_url: str, tmp_path: Path) -> None:
    async with node(database_url, tmp_path) as desk:
        parts = desk.parts
        group = await parts.groups.add("partners")
        for name in ("acme", "brand", "other"):
            tenant = await parts.accounts.add_tenant(name, exist_ok=True)
            if name != "other":
                await parts.groups.join(group, tenant.id, "operator", "")
            to = Recipient(Address("bob@example.com"), desk.person("bob@example.com"))
            campaign = await parts.accounts.campaign(tenant.id, "")
            await desk.intake().submit(Submission(campaign, 0, CAMPAIGN, Envelope("news@example.com"), [to], RAW))
        [entry] = await parts.log.append(
            [asked(desk.person("bob@example.com"), scope=Scope.GROUP, tenant_id=0, list_id=group.id)]
        )
        assert entry.cancelled == 2
        left = await desk.rows(
            "SELECT t.name FROM recipient r JOIN message m ON m.id = r.message_id JOIN tenant t ON t.id = m.tenant_id"
        )
        assert left == [("other",)]


@pytest.fixture
def installation(database_url: str, tmp_path: Path) -> Installation:
    return Installation(database_url, tmp_path)


def test_groups_on_the_command_line(installation: Installation) -> None:
    for tenant in ("acme", "brand"):
        installation.text("tenant", "add", tenant)
    installation.text("group", "add", "partners")
    assert installation.json("group", "join", "partners", "acme")["already"] is False
    installation.text("suppress", "add", "bob@example.com", "--group", "partners", "--kind", "unsubscribe")
    assert installation.run("suppress", "check", "bob@example.com", "--tenant", "brand").returncode == 3
    installation.text("group", "join", "partners", "brand", "--reason", "bought by acme")
    [found] = installation.json("suppress", "check", "bob@example.com", "--tenant", "brand")
    assert (found["scope"], found["group"], found["tenant"]) == ("group", "partners", "")
    assert installation.json("group", "list")[0]["tenants"] == ["acme", "brand"]
    story = installation.json("prove", "bob@example.com")
    assert [entry["group_id"] for entry in story["entries"]] == [1]
    assert installation.run("suppress", "add", "bob@example.com", "--group", "nobody").returncode == 1
