"""Webhooks on a real database with a receiver that misbehaves: everything arrives, in order, and signed."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from bounce.outcome import Action, BounceClass, Outcome, Stage, Trouble
from config.keyring import Keyring
from mta.courier import Courier, send_test
from mta.event_records import Records
from mta.events import Cursor, Events
from mta.intake import Recipient, Submission
from mta.queue import Completion, FinalState
from mta.vault import Address, Envelope
from mta.webhooks import WebhookError, Webhooks, check, signed_headers
from suppression.digest import Kind, MessageClass, Scope
from suppression.entry import Channel, NewEntry
from tests.integration.test_suppression_watch import restore
from tests.support.node import Node, eventually, node, until
from tests.support.receiver import Receiver, verify

LATER = Outcome(
    Action.DELAYED, "4.2.1", 450, "busy", "mx.example.net", BounceClass.MAILBOX_FULL, Trouble.RECIPIENT, Stage.RCPT
)
DONE = Outcome(Action.DELIVERED, "2.0.0", 250, "ok", "mx.example.net", BounceClass.NONE, Trouble.RECIPIENT, Stage.DOT)


@pytest.fixture
async def here(database_url: str, tmp_path: Path) -> AsyncIterator[Node]:
    async with node(database_url, tmp_path) as made:
        await made.parts.accounts.add_tenant("acme")
        yield made


class Hooks:
    """The parts that send, as one process has them."""

    def __init__(self, here: Node, holder: str = "one") -> None:
        self.node = here
        self.events = Events(here.database, "here")
        self.store = Webhooks(here.database, here.parts.keyring, holder)
        self.records = Records(self.events, here.parts.accounts, here.parts.digest)

    async def add(self, url: str, **options: object) -> tuple[int, str]:
        tenant = await self.node.parts.accounts.tenant("acme")
        given: dict[str, object] = {"types": [], "addresses": True, **options}
        return await self.store.add(tenant.id, url, await self.events.now(), **given)  # type: ignore[arg-type]

    async def failing(self) -> bool:
        return bool((await self.store.listed())[0]["failures"])

    async def sent(self) -> bool:
        (shown,) = await self.store.listed()
        return bool(shown["sent"]) and (shown["failures"], shown["last_error"]) == (0, "")

    @asynccontextmanager
    async def running(self, **options: object) -> AsyncIterator[Courier]:
        given: dict[str, object] = {"poll_seconds": 0.02, "waits_seconds": [0.05], "timeout_seconds": 0.5, **options}
        courier = Courier(self.store, self.events, self.records, **given)  # type: ignore[arg-type]
        task = asyncio.create_task(courier.run())
        try:
            yield courier
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def send(here: Node, *readers: str, tenant: str = "acme") -> int:
    """Accept a message for these; returns its id."""
    parts = here.parts
    owner = await parts.accounts.tenant(tenant)
    recipients = [Recipient(Address(address), parts.digest.person(address)) for address in readers]
    intake = here.intake(reserve=lambda _campaign, _class, count: count)
    campaign = await parts.accounts.campaign(owner.id, "spring")
    list_id = await parts.accounts.list_id(owner.id, "news")
    content = b"From: news@example.com\r\n\r\nHello.\r\n"
    submission = Submission(campaign, list_id, MessageClass.CAMPAIGN, Envelope("news@example.com"), recipients, content)
    message_id = await intake.submit(submission)
    await intake.drain()
    return message_id


async def completion(here: Node, message_id: int, outcome: Outcome, ordinal: int = 0) -> Completion:
    stored = await here.parts.queue.content(message_id)
    assert stored is not None
    state = FinalState.DELIVERED if outcome is DONE else None
    return Completion(
        message_id, ordinal, state, 1, time.time(), outcome, "mx.example.net", time.time(), tenant_id=stored.tenant_id,
        list_id=stored.list_id, campaign_id=stored.campaign_id, received_at=stored.received_at, tried=True,
        attempt_seconds=0.25,
    )  # fmt: skip


async def deliver(here: Node, message_id: int) -> None:
    assert await here.parts.queue.finish([await completion(here, message_id, DONE)])


async def test_a_recipients_story_arrives_in_order_and_signed(here: Node) -> None:
    hooks = Hooks(here)
    async with Receiver() as receiver:
        webhook_id, secret = await hooks.add(receiver.url)
        message_id = await send(here, "anna@example.net")
        assert await here.parts.queue.defer([await completion(here, message_id, LATER)])
        await here.execute("UPDATE recipient SET state = 1, worker_id = $1", here.parts.queue.worker_id)
        await deliver(here, message_id)
        tenant = await here.parts.accounts.tenant("acme")
        person = here.person("anna@example.net")
        leave = NewEntry(
            person, Scope.TENANT, Kind.UNSUBSCRIBE, tenant.id, 0, Channel.ONE_CLICK, "token", message_id=message_id
        )
        await here.parts.log.append([leave])
        async with hooks.running():
            events = await receiver.until(4)
            await eventually(hooks.sent)
        assert [event["type"] for event in events] == ["Reception", "TransientFailure", "Delivery", "Unsubscribe"]
        assert {event["recipient"] for event in events} == {"anna@example.net"}
        reception, failure, delivery, unsubscribe = events
        assert (reception["campaign"], reception["list"], reception["recipients"]) == ("spring", "news", 1)
        assert (failure["bounce_class"], failure["status"]) == ("mailbox-full", "4.2.1")
        assert delivery["attempt_seconds"] == 0.25
        assert unsubscribe["channel"] == "one-click"
        headers, body = receiver.requests[0]
        assert verify(secret, headers, body, time.time())["webhook"] == webhook_id
        with pytest.raises(ValueError, match="not signed"):
            verify(secret, headers, body.replace(b"anna", b"bob"), time.time())
        with pytest.raises(ValueError, match="too old"):
            verify(secret, headers, body, time.time() + 600)
        (shown,) = await hooks.store.listed()
        assert (shown["failures"], shown["sent"], shown["leased_by"]) == (0, 4, None)


@pytest.mark.parametrize("trouble", ["500", "hang", "slow", "lie", "down"])
async def test_nothing_is_lost_whatever_the_receiver_does(here: Node, trouble: str) -> None:
    hooks = Hooks(here)
    async with Receiver(trouble) as receiver:
        await hooks.add(receiver.url)
        first = await send(here, "anna@example.net")
        if trouble == "down":
            await receiver.down()
        async with hooks.running(timeout_seconds=0.1):
            if trouble == "down":
                await eventually(hooks.failing)
                await receiver.up()
            else:
                await receiver.asked(2)
            (shown,) = await hooks.store.listed()
            assert shown["failing_since"] is not None
            await deliver(here, first)
            await receiver.set("ok")
            events = await receiver.until(2)
            await eventually(hooks.sent)
        assert [event["type"] for event in events] == ["Reception", "Delivery"]


async def test_a_batch_that_is_too_large_is_split(here: Node) -> None:
    hooks = Hooks(here)
    async with Receiver("refuse", max_bytes=2_000) as receiver:
        await hooks.add(receiver.url)
        for number in range(12):
            await send(here, f"reader-{number}@example.net")
        async with hooks.running():
            events = await receiver.until(12)
        assert [event["recipient"] for event in events] == [f"reader-{number}@example.net" for number in range(12)]


async def leave(here: Node, *persons: int) -> None:
    """These unsubscribe from everything of the tenant's."""
    tenant = await here.parts.accounts.tenant("acme")
    await here.parts.log.append([
        NewEntry(person, Scope.TENANT, Kind.UNSUBSCRIBE, tenant.id, 0, Channel.ONE_CLICK, "token") for person in persons
    ])  # fmt: skip


async def test_an_unsubscribe_among_a_full_batch_goes_with_it(here: Node) -> None:
    """A batch and one unsubscribe more were taken for one that had been refused, and sent again without end."""
    hooks = Hooks(here)
    async with Receiver() as receiver:
        await hooks.add(receiver.url)
        for number in range(5):
            await send(here, f"reader-{number}@example.net")
            if number == 1:
                await leave(here, here.person("reader-0@example.net"))
        async with hooks.running(batch=4):
            events = await receiver.until(6)
            await eventually(hooks.sent)
        assert [event["type"] for event in events] == ["Reception"] * 2 + ["Unsubscribe"] + ["Reception"] * 3
        assert receiver.taken == events


async def test_unsubscribes_alone_are_split_too(here: Node) -> None:
    hooks = Hooks(here)
    async with Receiver("refuse", max_bytes=2_000) as receiver:
        await hooks.add(receiver.url)
        await leave(here, *range(1, 101))
        async with hooks.running():
            events = await receiver.until(100)
        assert [event["recipient_id"] for event in events] == [f"{person:016x}" for person in range(1, 101)]
        assert len(receiver.taken) == 100


async def test_an_event_that_is_too_large_alone_waits_until_it_is_taken(here: Node) -> None:
    hooks = Hooks(here)
    async with Receiver("refuse", max_bytes=100) as receiver:
        await hooks.add(receiver.url)
        await send(here, "anna@example.net")
        async with hooks.running(waits_seconds=[0.01, 0.01, 0.01]):
            await receiver.asked(6)
            (shown,) = await hooks.store.listed()
            assert "413" in shown["last_error"]
            receiver.max_bytes = 1 << 20
            events = await receiver.until(1)
        assert [event["recipient"] for event in events] == ["anna@example.net"]


async def test_webhooks_at_one_host_have_nothing_to_do_with_each_other(here: Node) -> None:
    """Those that hang hold up no other, and what one is given to remember is told to no other."""
    hooks, given, hanging = Hooks(here), asyncio.Queue[str | None](), asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await hanging.wait()
        return web.Response()

    async def take(request: web.Request) -> web.Response:
        await given.put(request.headers.get("Cookie"))
        answer = web.Response()
        answer.set_cookie("seen", request.path.strip("/"))
        return answer

    app = web.Application()
    app.router.add_post("/hang{number}", hang)
    app.router.add_post("/take{number}", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        # cookies are kept for names only
        url = f"http://localhost:{runner.addresses[0][1]}"
        for number in range(4):
            await hooks.add(f"{url}/hang{number}")
        for number in range(3):
            await hooks.add(f"{url}/take{number}")
        await send(here, "anna@example.net")
        async with hooks.running(timeout_seconds=30), asyncio.timeout(10):
            first = [await given.get() for _ in range(3)]
            await send(here, "bob@example.net")
            second = [await given.get() for _ in range(3)]
        assert first + second == [None] * 6
    finally:
        hanging.set()
        await runner.cleanup()


async def test_a_url_that_no_request_can_go_to_is_told(here: Node) -> None:
    hooks = Hooks(here)
    await hooks.add("https://app.example.com/")
    await here.execute("UPDATE webhook SET url = 'https://a..b/'")  # as one that was made before URLs were looked at
    await send(here, "anna@example.net")
    async with hooks.running(waits_seconds=[0.01]), asyncio.timeout(10):
        while not (await hooks.store.listed())[0]["last_error"]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert "no request can go" in (await hooks.store.listed())[0]["last_error"]


async def test_one_slow_receiver_does_not_hold_up_another(here: Node) -> None:
    hooks = Hooks(here)
    async with Receiver("hang") as slow, Receiver() as quick:
        await hooks.add(slow.url)
        await hooks.add(quick.url)
        async with hooks.running(timeout_seconds=30):
            await send(here, "anna@example.net")
            await slow.asked(1)
            await send(here, "bob@example.net")
            assert len(await quick.until(2)) == 2
        assert slow.taken == []


async def test_one_that_fails_is_seen_beside_one_that_does_not(here: Node) -> None:
    hooks = Hooks(here)

    def failing() -> float:
        return REGISTRY.get_sample_value("heed_webhook_failing_seconds") or 0.0

    async with Receiver("500") as broken, Receiver() as healthy:
        await hooks.add(broken.url)
        await hooks.add(healthy.url)
        async with hooks.running():
            await send(here, "anna@example.net")
            await healthy.until(1)
            await until(lambda: failing() > 0)
            await here.execute("UPDATE webhook SET failing_since = failing_since - interval '1 hour'")
            await until(lambda: failing() > 3_600)
            await broken.set("ok")
            await until(lambda: failing() == 0)


async def test_one_process_at_a_time_sends(here: Node) -> None:
    one, two = Hooks(here, "one"), Hooks(here, "two")
    async with Receiver() as receiver:
        webhook_id, _ = await one.add(receiver.url)
        (leased,) = await one.store.lease(30)
        assert await two.store.lease(30) == []
        assert await one.store.advance(leased, Cursor(leased.cursor.position, 1, 0), sent=1, seconds=30)
        # what was leased long ago is another's by now
        await here.execute("UPDATE webhook SET leased_until = now() - interval '1 second'")
        (taken,) = await two.store.lease(30)
        assert taken.id == webhook_id
        assert not await one.store.advance(taken, Cursor(9, 9, 9), sent=1, seconds=30)
        # sent back, whoever sends: the cursor that it knew does not hold any more
        await two.store.rewind(webhook_id, Cursor(0, 0, 0))
        assert not await two.store.advance(taken, Cursor(9, 9, 9), sent=1, seconds=30)


async def test_a_secret_under_a_newer_key_is_for_a_node_that_has_it(
    here: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    """The master key was rotated on one node; another has the old file, and sends for the other webhooks."""
    one, two = Hooks(here, "one"), Hooks(here, "two")
    two.store = Webhooks(here.database, Keyring({1: bytes(32), 2: bytes(range(32))}), "two")
    async with Receiver() as newer, Receiver() as older:
        newer_id, _ = await two.add(newer.url)
        await one.add(older.url)
        await send(here, "anna@example.net")
        async with one.running():
            await older.until(1)
            await send(here, "bob@example.net")
            await older.until(2)
            assert newer.requests == []
            (leased,) = await two.store.lease(30)
            assert leased.id == newer_id
            await two.store.release()
            async with two.running():
                await newer.until(2)
        assert capsys.readouterr().err.count("can't be opened") == 1


async def test_replay_sends_it_all_again(here: Node) -> None:
    hooks = Hooks(here)
    async with Receiver() as receiver:
        webhook_id, _ = await hooks.add(receiver.url)
        await send(here, "anna@example.net")
        await send(here, "bob@example.net")
        async with hooks.running():
            await receiver.until(2)
            before = len(receiver.taken)
            await hooks.store.rewind(webhook_id, Cursor(0, 0, 0))
            await until(lambda: len(receiver.taken) >= before + 2)
        assert [event["recipient"] for event in receiver.taken[before:]] == ["anna@example.net", "bob@example.net"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (Cursor(7, 0, 9), Cursor(5, 5, 5)),
        (Cursor(5, 9, 4), Cursor(5, 5, 4)),
        (Cursor(4, 9, 9), Cursor(4, 9, 5)),
        (Cursor(5, 4, 5), Cursor(5, 4, 5)),
    ],
)
async def test_replay_skips_nothing_that_was_not_taken_yet(here: Node, given: Cursor, kept: Cursor) -> None:
    hooks = Hooks(here)
    webhook_id, _ = await hooks.add("https://app.example.com/")
    await here.execute("UPDATE webhook SET position = 5, event_id = 5, log_position = 5")
    await hooks.store.rewind(webhook_id, given)
    assert (await hooks.store.one(webhook_id)).cursor == kept


async def test_a_tenant_gets_its_own_and_what_it_asked_for(here: Node) -> None:
    hooks = Hooks(here)
    await here.parts.accounts.add_tenant("other")
    async with Receiver() as receiver:
        await hooks.add(receiver.url, types=["Delivery"], addresses=False)
        await send(here, "carol@example.org", tenant="other")
        await deliver(here, await send(here, "anna@example.net"))
        async with hooks.running():
            (event,) = await receiver.until(1)
        assert (event["type"], event["tenant"]) == ("Delivery", "acme")
        assert "recipient" not in event
        assert b"example" not in receiver.requests[0][1].replace(b"mx.example.net", b"")


async def test_without_the_campaigns_key_the_digest_is_left(here: Node) -> None:
    hooks = Hooks(here)
    async with Receiver() as receiver:
        await hooks.add(receiver.url)
        await deliver(here, await send(here, "anna@example.net"))
        await here.execute("UPDATE campaign SET content_key = $1", b"")
        fresh = Hooks(here)
        accounts = type(here.parts.accounts)(here.database, here.parts.keyring)  # which remembers no key
        fresh.records = Records(fresh.events, accounts, here.parts.digest)
        async with fresh.running():
            _, event = await receiver.until(2)
        assert "recipient" not in event
        assert event["recipient_id"] == f"{here.person('anna@example.net') & (1 << 64) - 1:016x}"


async def test_what_commits_late_is_not_skipped(here: Node) -> None:
    """A sequence would have given the open transaction a lower number than what a reader has seen already."""
    hooks = Hooks(here)
    tenant = await here.parts.accounts.tenant("acme")
    async with here.database.transaction() as late:
        await late.execute("INSERT INTO list (tenant_id, name) VALUES ($1, 'late')", tenant.id)
        begin = Cursor()
        message_id = await send(here, "anna@example.net")
        seen, cursor = await hooks.events.of_tenant(tenant.id, begin, 100)
        assert seen == []  # the open transaction may still write an event before it
        await late.execute(
            "INSERT INTO event (type, at, received_at, message_id, tenant_id, list_id, campaign_id, message_class)"
            " VALUES (9, now(), now(), $1, $2, 0, 0, 0)",
            message_id,
            tenant.id,
        )
    seen, cursor = await hooks.events.of_tenant(tenant.id, cursor, 100)
    assert [event.type for event in seen] == ["Rejection", "Reception"]
    assert (await hooks.events.of_tenant(tenant.id, cursor, 100))[0] == []


async def test_the_log_waits_for_the_events_before_it(here: Node) -> None:
    hooks = Hooks(here)
    tenant = await here.parts.accounts.tenant("acme")
    async with here.database.transaction() as late:
        await late.execute("INSERT INTO list (tenant_id, name) VALUES ($1, 'late')", tenant.id)
        await send(here, "anna@example.net")
        person = here.person("anna@example.net")
        await here.parts.log.append(
            [NewEntry(person, Scope.TENANT, Kind.COMPLAINT, tenant.id, 0, Channel.COMPLAINT, "report")]
        )
        assert (await hooks.events.of_tenant(tenant.id, Cursor(), 100))[0] == []
    seen, _ = await hooks.events.of_tenant(tenant.id, Cursor(), 100)
    assert [event.type for event in seen] == ["Reception", "Feedback"]


async def test_pages_are_gapless(here: Node) -> None:
    hooks = Hooks(here)
    tenant = await here.parts.accounts.tenant("acme")
    for number in range(7):
        await send(here, f"reader-{number}@example.net")
    cursor, seen = Cursor(), []
    while True:
        page, cursor = await hooks.events.of_tenant(tenant.id, cursor, 2)
        if not page:
            break
        seen += page
    assert len({event.uid for event in seen}) == len(seen) == 7


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_pages_hold_no_more_than_asked_for_with_what_the_log_says(here: Node, limit: int) -> None:
    hooks = Hooks(here)
    tenant = await here.parts.accounts.tenant("acme")
    for number in range(4):
        await send(here, f"reader-{number}@example.net")
        await leave(here, 2 * number + 1, 2 * number + 2)
    for all_tenants in (False, True):
        cursor, seen = Cursor(), []
        while True:
            read = (
                hooks.events.of_all(cursor, limit) if all_tenants else hooks.events.of_tenant(tenant.id, cursor, limit)
            )
            page, cursor = await read
            if not page:
                break
            assert len(page) <= limit
            seen += page
        assert [event.type for event in seen] == ["Reception", "Unsubscribe", "Unsubscribe"] * 4
        assert [event.person for event in seen if event.type == "Unsubscribe"] == list(range(1, 9))


async def test_an_export_has_everything_of_its_span_in_order_of_time(here: Node) -> None:
    events = Events(here.database)
    tenant = await here.parts.accounts.tenant("acme")
    campaign = (await here.parts.accounts.campaign(tenant.id, "spring")).id

    async def leaves(kind: Kind, *people: int) -> datetime:
        await here.parts.log.append(
            [
                NewEntry(person, Scope.TENANT, kind, tenant.id, 0, Channel.WEB, "page", campaign_id=campaign)
                for person in people
            ]
        )
        ((at,),) = await here.rows("SELECT at FROM suppression_log ORDER BY position DESC LIMIT 1")
        return cast("datetime", at)

    before = await leaves(Kind.UNSUBSCRIBE, 1)
    for number in range(3):
        await send(here, f"reader-{number}@example.net")
    await leaves(Kind.COMPLAINT, *range(2, 6))
    for number in range(3, 6):
        await send(here, f"reader-{number}@example.net")
    await leaves(Kind.MANUAL, 6)
    end = await leaves(Kind.UNSUBSCRIBE, 7)
    since = before + timedelta(microseconds=1)
    told = ["Reception"] * 3 + ["Feedback"] * 4 + ["Reception"] * 3
    for owner, only, limit in itertools.product((0, tenant.id), (0, campaign), (1, 2, 3, 100)):
        pages = events.span(since, end, tenant_id=owner, campaign_id=only, limit=limit)
        seen = [event async for page in pages for event in page]
        assert [event.type for event in seen] == told
        assert len({event.uid for event in seen}) == len(seen)
    other = events.span(since, end, tenant_id=tenant.id + 1, campaign_id=0, limit=2)
    assert [page async for page in other] == []


async def test_a_restored_dump_goes_on_above_its_positions(here: Node) -> None:
    hooks = Hooks(here)
    tenant = await here.parts.accounts.tenant("acme")
    assert not await hooks.events.check_era()
    await send(here, "anna@example.net")
    await here.execute("UPDATE event SET position = position + 1000000")
    await here.execute("UPDATE event_era SET system_id = 1")
    assert await hooks.events.check_era()
    await send(here, "bob@example.net")
    seen, _ = await hooks.events.of_tenant(tenant.id, Cursor(), 10)
    records = await hooks.records.records(seen, addresses=True)
    assert [record["recipient"] for record in records] == ["anna@example.net", "bob@example.net"]


async def left(here: Node, *people: int) -> list[str]:
    """Let these unsubscribe; returns the ids of all events by then."""
    tenant = await here.parts.accounts.tenant("acme")
    await here.parts.log.append(
        [NewEntry(person, Scope.TENANT, Kind.UNSUBSCRIBE, tenant.id, 0, Channel.WEB, "page") for person in people]
    )
    seen, _ = await Events(here.database).of_tenant(tenant.id, Cursor(), 100)
    return [event.uid for event in seen]


async def test_an_id_that_a_backup_lacks_does_not_come_again(here: Node) -> None:
    """An older copy of the same server too, which nothing tells from the one that it was made of."""
    events = Events(here.database)
    await events.check_era()
    await send(here, "anna@example.net")
    used = await here.rows("SELECT last_value, is_called FROM event_id")
    await here.database.pool.expire_connections()
    await send(here, "bob@example.net")
    before = await left(here, 1, 2)
    assert len(before) == 4
    await here.execute("TRUNCATE event")
    await restore(here.database, 0, bytes(32))
    await here.execute("SELECT setval('event_id', $1, $2)", *used[0])
    await here.database.pool.expire_connections()  # each of which has some ids in store
    assert not await events.check_era()
    await send(here, "carol@example.net")
    await send(here, "dave@example.net")
    after = await left(here, 3, 4)
    assert len(after) == 4
    assert not set(before) & set(after)


async def test_ids_are_never_given_back(here: Node) -> None:
    events = Events(here.database)
    await asyncio.gather(*(events.check_era() for _ in range(4)))
    await here.execute("SELECT setval('event_id', $1)", 2**62)
    await events.check_era()
    assert (await here.rows("SELECT last_value FROM event_id"))[0][0] == 2**62


async def test_a_test_request(here: Node) -> None:
    hooks = Hooks(here)
    async with Receiver() as receiver:
        webhook_id, secret = await hooks.add(receiver.url)
        courier = Courier(hooks.store, hooks.events, hooks.records)
        assert await send_test(courier, await hooks.store.one(webhook_id)) == 204
        headers, body = receiver.requests[0]
        assert verify(secret, headers, body, time.time()) == {"webhook": webhook_id, "test": True, "events": []}


@pytest.mark.parametrize(
    ("url", "types"),
    [
        ("http://app.example.com/", []),
        ("ftp://app.example.com/", []),
        ("https://user:secret@app.example.com/", []),
        ("https://app.example.com/", ["Opened"]),
        (f"https://{'x' * 64}.example.com/x", []),
        ("https://a..b/", []),
        ("https://-/", []),
        ("https://-a.example.com/", []),
        ("https://exa mple.com/", []),
        ("https://example.com/a b", []),
        ("https://example.com:99999/", []),
        ("https://example.com:0/", []),
        ("https://example.com:abc/", []),
        ("https://999.1.1.1/", []),
        ("https://[::1/", []),
    ],
)
async def test_what_no_webhook_may_be(here: Node, url: str, types: list[str]) -> None:
    with pytest.raises(WebhookError):
        await Hooks(here).add(url, types=types)
    with pytest.raises(WebhookError):
        await Hooks(here).store.remove(1)


@pytest.mark.parametrize(
    "url",
    [
        "https://bücher.example/x?y=z",
        "https://my_app.example.com:8443",
        "https://192.0.2.1/",
        "https://[2001:db8::1]:8443/",
        "http://localhost:8000/",
        "http://[::1]:8000/",
    ],
)
def test_what_a_webhook_may_be(url: str) -> None:
    check(url, ["Bounce"])


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of the Standard Webhooks specification."""
    import base64

    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_who_has_left_the_list_is_told_of_with_the_message(here: Node) -> None:
    """Some of a message's recipients have left: the message is taken with 250, and upstream learns who was left out."""
    hooks = Hooks(here)
    parts = here.parts
    tenant = await parts.accounts.tenant("acme")
    campaign = await parts.accounts.campaign(tenant.id, "spring")
    anna, bob = (
        Recipient(Address(f"{name}@example.net"), here.person(f"{name}@example.net")) for name in ("anna", "bob")
    )
    submission = Submission(
        campaign, 0, MessageClass.CAMPAIGN, Envelope("news@example.com"), [anna], b"Subject: x\r\n\r\n", withheld=[bob]
    )
    intake = here.intake()
    message_id = await intake.submit(submission)
    await intake.drain()
    events, _ = await hooks.events.of_tenant(tenant.id, Cursor(), 10)
    records = await hooks.records.records(events, addresses=True)
    assert [(record["type"], record["recipient"]) for record in records] == [
        ("Reception", "anna@example.net"),
        ("Suppressed", "bob@example.net"),
    ]
    await parts.queue.abandon([message_id])
    assert (await hooks.events.of_tenant(tenant.id, Cursor(), 10))[0] == []
