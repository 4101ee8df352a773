"""Orders in a real database: how they reach a process, and what becomes of the rows that they are about."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from config.database import Database, DatabaseUnavailable, load_queries
from mta.order_store import OrderFeed, OrderStore, Target
from mta.order_watch import OrderWatch
from mta.orders import Book, OrderError, Reach, Standing, State, Stopped, Window
from mta.steward import Steward
from mta.summary import Summary
from tests.support.queue import fill, names, states

QUEUED, LEASED, HELD = 0, 1, 2


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(database_url, size=4, application_name="test")
    yield database
    await database.close()


@pytest.fixture
def store(database: Database) -> OrderStore:
    return OrderStore(database, time.time)


def campaign(campaign_id: int) -> Target:
    return Target(Reach.CAMPAIGN, campaign_id, "", "spring")


async def tend(store: OrderStore, database: Database) -> None:
    """What a node's steward does, with the orders as they are now."""
    book = Book()
    book.replace(await store.orders())
    await Steward(book, store, Summary(database)).tend(slow_round=True)


async def test_a_paused_campaign_is_set_aside_and_others_are_not(database: Database, store: OrderStore) -> None:
    paused, other = await names(database, "acme", "spring"), await names(database, "acme", "autumn")
    await fill(database, paused, 20, recipients=3)
    await fill(database, other, 5, first=100)
    await store.set_state(campaign(paused[2]), State.PAUSED, "complaints", "kim")
    await tend(store, database)
    assert await states(database) == {(paused[2], HELD): 60, (other[2], QUEUED): 5}
    await store.set_state(campaign(paused[2]), State.RUNNING, "", "kim")
    await tend(store, database)
    assert await states(database) == {(paused[2], QUEUED): 60, (other[2], QUEUED): 5}


async def test_batches_go_on_until_nothing_is_left(database: Database, store: OrderStore) -> None:
    ids = await names(database, "acme", "spring")
    await fill(database, ids, 16, recipients=2_500)
    await store.set_state(campaign(ids[2]), State.PAUSED, "", "kim")
    await tend(store, database)
    assert await states(database) == {(ids[2], HELD): 40_000}


async def test_what_is_released_is_found_by_its_key_whatever_the_planner_knows(database: Database) -> None:
    """By way of the index of what is held, each of them was compared with each that was found: 35 s for 100,000."""
    await fill(database, await names(database, "acme", "spring"), 1_000)
    async with database.connection() as connection:
        await connection.execute("ANALYZE recipient")
        await connection.execute("UPDATE recipient SET state = 2")
        release = load_queries("mta", "order_store.sql").release
        rows = await connection.fetch(f"EXPLAIN {release}", 1, [], [], [], [], 2_000)
    plan = "\n".join(row[0] for row in rows)
    assert plan.count("recipient_held") == 1, plan


@pytest.mark.parametrize("reach", [Reach.LIST, Reach.TENANT])
async def test_a_list_or_a_tenant_is_paused_with_all_its_campaigns(
    database: Database, store: OrderStore, reach: Reach
) -> None:
    ids = await names(database, "acme", "spring")
    second = await names(database, "acme", "autumn")
    elsewhere = await names(database, "other", "spring")
    for number, those in enumerate((ids, second, elsewhere)):
        await fill(database, those, 10, first=1 + 100 * number)
    target = Target(reach, ids[1] if reach is Reach.LIST else ids[0], "", "")
    await store.set_state(target, State.PAUSED, "", "kim")
    await tend(store, database)
    assert await states(database) == {(ids[2], HELD): 10, (second[2], HELD): 10, (elsewhere[2], QUEUED): 10}


async def test_a_release_waits_for_every_order(database: Database, store: OrderStore) -> None:
    ids = await names(database, "acme", "spring")
    await fill(database, ids, 10, state=HELD)
    await store.set_state(campaign(ids[2]), State.PAUSED, "", "kim")
    await store.set_state(Target(Reach.TENANT, ids[0], "", "acme"), State.PAUSED, "", "kim")
    await store.set_state(campaign(ids[2]), State.RUNNING, "", "kim")
    await tend(store, database)
    assert await states(database) == {(ids[2], HELD): 10}
    await store.set_state(Target(Reach.TENANT, ids[0], "", "acme"), State.RUNNING, "", "kim")
    await tend(store, database)
    assert await states(database) == {(ids[2], QUEUED): 10}


async def test_what_is_held_for_a_site_waits_for_that_site(database: Database, store: OrderStore) -> None:
    ids = await names(database, "acme", "spring")
    await fill(database, ids, 4, state=HELD, site="mx.example.net")
    await fill(database, ids, 3, first=50, state=HELD, site="mx.example.org")
    await store.set_state(Target(Reach.SITE, 0, "mx.example.net", "mx.example.net"), State.PAUSED, "", "kim")
    await tend(store, database)
    assert await states(database) == {(ids[2], HELD): 4, (ids[2], QUEUED): 3}


async def test_a_release_keeps_a_later_attempt_later(database: Database, store: OrderStore) -> None:
    ids = await names(database, "acme", "spring")
    await fill(database, ids, 1, state=HELD, due_seconds=3_600)
    await fill(database, ids, 1, first=2, state=HELD, due_seconds=-3_600)
    await tend(store, database)
    rows = await database.pool.fetch(
        "SELECT extract(epoch FROM due_at - now())::float8 FROM recipient ORDER BY message_id"
    )
    later, sooner = (row[0] for row in rows)
    assert 3_500 < later < 3_601
    assert -60 < sooner < 1


async def test_what_expires_while_it_is_held_is_queued_for_its_end(database: Database, store: OrderStore) -> None:
    ids = await names(database, "acme", "spring")
    await fill(database, ids, 2, state=HELD, lifetime_seconds=-1, due_seconds=3_600)
    await fill(database, ids, 2, first=50, state=HELD)
    await store.set_state(campaign(ids[2]), State.PAUSED, "", "kim")
    await tend(store, database)
    assert await states(database) == {(ids[2], QUEUED): 2, (ids[2], HELD): 2}
    assert await database.pool.fetchval("SELECT count(*) FROM recipient WHERE state = 0 AND due_at <= now()") == 2


async def test_a_cancelled_campaign_comes_due_to_be_reported(database: Database, store: OrderStore) -> None:
    ids, other = await names(database, "acme", "spring"), await names(database, "acme", "autumn")
    await fill(database, ids, 4, state=HELD)
    await fill(database, ids, 4, first=50, due_seconds=3_600, site="mx.example.net")
    await fill(database, other, 4, first=100, due_seconds=3_600)
    await store.set_state(campaign(ids[2]), State.CANCELLED, "wrong price", "kim")
    await tend(store, database)
    assert await states(database) == {(ids[2], QUEUED): 8, (other[2], QUEUED): 4}
    # of no site, or they would be put off where that takes no mail
    assert await database.pool.fetchval("SELECT count(*) FROM recipient WHERE due_at <= now() AND site IS NULL") == 8


async def test_what_was_deferred_at_a_cancelled_site_comes_due_likewise(database: Database, store: OrderStore) -> None:
    ids = await names(database, "acme", "spring")
    await fill(database, ids, 3, due_seconds=3_600, site="mx.example.net")
    await fill(database, ids, 2, first=50, due_seconds=3_600, site="mx.example.org")
    await store.set_state(Target(Reach.SITE, 0, "mx.example.net", "mx.example.net"), State.CANCELLED, "", "kim")
    await tend(store, database)
    assert await database.pool.fetchval("SELECT count(*) FROM recipient WHERE due_at <= now() AND site IS NULL") == 3


async def test_leased_rows_are_left_to_their_worker(database: Database, store: OrderStore) -> None:
    ids = await names(database, "acme", "spring")
    await fill(database, ids, 5, state=LEASED)
    await store.set_state(campaign(ids[2]), State.PAUSED, "", "kim")
    await tend(store, database)
    assert await states(database) == {(ids[2], LEASED): 5}


async def test_every_order_is_written_down(database: Database, store: OrderStore) -> None:
    ids = await names(database, "acme", "spring")
    target = campaign(ids[2])
    await store.set_state(target, State.PAUSED, "complaints", "kim", time.time() + 60)
    await store.set_schedule(target, None, Window.parse("mon-fri", "", ""), "office hours", "lee")
    assert [(entry["action"], entry["actor"], entry["reason"]) for entry in await store.history(target)] == [
        ("reschedule", "lee", "office hours"),
        ("pause", "kim", "complaints"),
    ]
    (order,) = await store.orders()
    assert (order.state, order.actor, order.reason) == (State.PAUSED, "kim", "complaints")
    assert order.schedule is not None
    assert (order.schedule.actor, order.schedule.reason) == ("lee", "office hours")


async def standing(store: OrderStore, ids: tuple[int, int, int], received_at: float) -> Standing:
    return Stopped.by(await store.orders(), time.time()).standing(*ids, received_at)


async def test_a_schedule_does_not_cancel_what_came_after_a_cancel(database: Database, store: OrderStore) -> None:
    ids = await names(database, "acme", "spring")
    tenant = Target(Reach.TENANT, ids[0], "", "acme")
    before = time.time()
    await store.set_state(tenant, State.CANCELLED, "wrong import", "kim")
    accepted = time.time()
    await store.set_schedule(tenant, None, Window.parse("", "", ""), "office hours", "lee")
    assert await standing(store, ids, accepted) is Standing.GO
    assert await standing(store, ids, before) is Standing.CANCEL


async def test_what_is_cancelled_is_not_brought_back_by_a_resume(database: Database, store: OrderStore) -> None:
    ids = await names(database, "acme", "spring")
    before = time.time()
    await store.set_state(campaign(ids[2]), State.CANCELLED, "wrong price", "kim")
    assert await standing(store, ids, time.time() + 60) is Standing.CANCEL
    with pytest.raises(OrderError, match="is cancelled"):
        await store.set_state(campaign(ids[2]), State.PAUSED, "oops", "kim", time.time() + 3)
    assert [entry["action"] for entry in await store.history(campaign(ids[2]))] == ["cancel"]
    await store.set_state(campaign(ids[2]), State.RUNNING, "", "kim")
    assert await standing(store, ids, before) is Standing.CANCEL
    assert await standing(store, ids, time.time()) is Standing.GO


async def test_a_paused_tenant_stays_paused_when_its_queue_is_cancelled(database: Database, store: OrderStore) -> None:
    ids = await names(database, "acme", "spring")
    tenant = Target(Reach.TENANT, ids[0], "", "acme")
    before = time.time()
    await store.set_state(tenant, State.PAUSED, "hacked", "kim")
    await store.set_state(tenant, State.CANCELLED, "spam", "kim")
    assert await standing(store, ids, before) is Standing.CANCEL
    assert await standing(store, ids, time.time()) is Standing.HOLD


async def test_what_is_held_and_cancelled_is_moved_once(database: Database, store: OrderStore) -> None:
    """Held by the tenant's order and recalled by the campaign's, in turns and for ever."""
    ids, other = await names(database, "acme", "spring"), await names(database, "acme", "autumn")
    await fill(database, ids, 8)
    await fill(database, other, 8, first=100)
    await store.set_state(Target(Reach.TENANT, ids[0], "", "acme"), State.PAUSED, "", "kim")
    await store.set_state(campaign(ids[2]), State.CANCELLED, "", "kim")
    async with asyncio.timeout(10):
        await tend(store, database)
    assert await states(database) == {(ids[2], QUEUED): 8, (other[2], HELD): 8}


async def test_a_steward_that_knows_no_orders_releases_nothing(database: Database, store: OrderStore) -> None:
    ids = await names(database, "acme", "spring")
    await fill(database, ids, 8, state=HELD)
    book = Book()
    steward = Steward(book, store, Summary(database))
    await steward.tend(slow_round=False)
    assert await states(database) == {(ids[2], HELD): 8}
    book.replace([])
    await steward.tend(slow_round=False)
    assert await states(database) == {(ids[2], QUEUED): 8}


@asynccontextmanager
async def following(
    database: Database, store: OrderStore, *, poll_seconds: float
) -> AsyncIterator[tuple[Book, asyncio.Event]]:
    book, changed = Book(5.0), asyncio.Event()
    watch = OrderWatch(book, database, on_change=changed.set, poll_seconds=poll_seconds)
    task = asyncio.create_task(watch.follow_for_ever())
    try:
        async with asyncio.timeout(10):
            await watch.known()
        changed.clear()
        yield book, changed
    finally:
        task.cancel()


async def test_what_stops_mail_does_not_wait_for_the_consents(
    database: Database, store: OrderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await names(database, "acme", "spring")
    asked, answer = asyncio.Event(), asyncio.Event()
    whole = OrderFeed.consent_required
    async with following(database, store, poll_seconds=60) as (book, changed), asyncio.timeout(10):

        async def lost(feed: OrderFeed) -> frozenset[int]:
            asked.set()
            await answer.wait()
            monkeypatch.setattr(OrderFeed, "consent_required", whole)
            raise DatabaseUnavailable("gone")

        monkeypatch.setattr(OrderFeed, "consent_required", lost)
        await store.set_state(campaign(ids[2]), State.PAUSED, "complaints", "kim")
        await asked.wait()
        assert changed.is_set()
        assert book.standing(*ids, 0.0) is Standing.HOLD
        await store.require_consent(Target(Reach.TENANT, ids[0], "", "acme"), True, "law", "kim")
        answer.set()
        while not book.consent_required:
            changed.clear()
            await changed.wait()
        assert book.standing(*ids, 0.0) is Standing.HOLD


async def test_reading_the_orders_is_planned_as_what_it_is(database: Database) -> None:
    """One head with what is ordered: thousands were expected of a table that was never counted, and code compiled."""
    query = load_queries("mta", "order_store.sql").orders.replace("$1", "0")
    ((plan,),) = await database.pool.fetch(f"EXPLAIN (FORMAT JSON) {query}")
    assert json.loads(plan)[0]["Plan"]["Total Cost"] < 1_000


@pytest.mark.parametrize("poll_seconds", [0.05, 60.0], ids=["by poll", "by hint"])
async def test_a_change_reaches_a_process(database: Database, store: OrderStore, poll_seconds: float) -> None:
    ids = await names(database, "acme", "spring")
    async with following(database, store, poll_seconds=poll_seconds) as (book, changed):
        assert book.standing(*ids, 0.0) is Standing.GO
        if poll_seconds > 1:
            await store.set_state(campaign(ids[2]), State.PAUSED, "", "kim")
        else:  # the same without NOTIFY
            await database.pool.execute(
                "WITH head AS (UPDATE order_head SET position = position + 1)"
                " INSERT INTO standing_order VALUES (1, $1, '', 1, '', 'kim', now())",
                ids[2],
            )
        async with asyncio.timeout(5):
            await changed.wait()
        assert book.standing(*ids, 0.0) is Standing.HOLD


async def test_the_summary_counts_what_is_queued(database: Database) -> None:
    ids, other = await names(database, "acme", "spring"), await names(database, "other", "autumn")
    await fill(database, ids, 7, recipients=2)
    await fill(database, other, 3, first=100, state=HELD, site="mx.example.net")
    summary = Summary(database)
    assert await summary.refresh()
    assert not await summary.refresh()  # its turn comes seconds later
    assert {state: row["recipients"] for state, row in (await summary.totals()).items()} == {"queued": 14, "held": 3}
    (group,) = await summary.overview(10, tenant="other", state="held")
    assert (group["campaign"], group["site"], group["recipients"]) == ("autumn", "mx.example.net", 3)
    assert [row["queued"] for row in await summary.campaigns(10, campaign_id=ids[2])] == [14]
    assert await summary.age_seconds() < 60
