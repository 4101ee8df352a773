"""The queue on a real PostgreSQL: every state and what leads to it, the fence around a lease, the plans used."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from config.database import Database, load_queries
from mta.identifiers import LANES, MessageIds
from mta.queue import ClaimedRow, Completion, FinalState, NewMessage, NewRecipient, Queue, cancel_suppressed
from suppression.digest import MessageClass
from tests.support.leases import NOW, completion, outcome
from tests.support.queue import fill, names
from tests.support.suppressions import opened

CAMPAIGN, TRANSACTIONAL = MessageClass.CAMPAIGN, MessageClass.TRANSACTIONAL
LANE = 3
ids = MessageIds(1, lambda: NOW)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture
async def queue(database: Database) -> Queue:
    return await worker(database)


async def worker(database: Database) -> Queue:
    """A worker that lives in the database's eyes."""
    return Queue(database, await Queue(database).register("test"), "test")


async def rows(database: Database, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    async with database.connection() as connection:
        return [tuple(row) for row in await connection.fetch(query, *arguments)]


async def states(database: Database) -> list[tuple[Any, ...]]:
    return await rows(database, "SELECT message_id, ordinal, state, worker_id FROM recipient ORDER BY 1, 2")


async def final(database: Database) -> list[tuple[Any, ...]]:
    return await rows(database, "SELECT message_id, ordinal, type FROM event WHERE type <= 5 ORDER BY 1, 2, 3")


def message(*persons: int, lane: int = LANE, leased_by: int = 0, born: int = 0, **changes: Any) -> NewMessage:
    """A message to some persons; the first `born` of them are born leased."""
    recipients = [
        NewRecipient(ordinal, person, b"sealed %d" % person, leased_by if ordinal < born else 0)
        for ordinal, person in enumerate(persons)
    ]
    given: dict[str, Any] = {
        "tenant_id": 7, "list_id": 9, "campaign_id": 3, "message_class": CAMPAIGN, "received_at": NOW,
        "expires_at": NOW + 3_600, "sealed_envelope": b"e", "sealed_content": b"c",
    }  # fmt: skip
    return NewMessage(ids.next(lane), recipients=recipients, **{**given, **changes})


def came_to(row: ClaimedRow, state: FinalState | None = None, **changes: Any) -> Completion:
    return completion(row.message_id, row.ordinal, state, **{"was_due_at": row.due_at, **changes})


async def claimed(queue: Queue, *, limit: int = 100, now: float = NOW, lane: int = LANE) -> list[ClaimedRow]:
    return sorted(await queue.claim(lane, CAMPAIGN, limit, now), key=lambda row: (row.message_id, row.ordinal))


async def test_what_was_inserted_is_claimed_with_all_that_its_delivery_needs(queue: Queue) -> None:
    sent = message(-5, 6, received_at=NOW - 10.5, sealed_content=b"content", sealed_envelope=b"envelope")
    await queue.insert([sent])
    first, second = await claimed(queue)
    assert first == ClaimedRow(
        sent.id, 0, CAMPAIGN, 0, False, NOW + 3_600, NOW - 10.5, -5, b"sealed -5", 7, 9, 3, None, "", NOW - 10.5
    )
    assert (second.ordinal, second.person) == (1, 6)
    stored = await queue.content(sent.id)
    assert stored is not None
    assert (stored.sealed_envelope, stored.sealed_content) == (b"envelope", b"content")
    assert await queue.addresses(sent.id, [1, 5]) == {1: b"sealed 6"}
    assert await queue.person_of(sent.id, -5) == (0, b"sealed -5")
    assert await queue.person_of(sent.id, 99) is None


async def test_messages_of_a_batch_go_in_together_or_not_at_all(queue: Queue, database: Database) -> None:
    good, bad = message(1), message(2, 3)
    twice = NewRecipient(0, 4, b"same ordinal", 0)
    broken = NewMessage(**{name: getattr(bad, name) for name in bad.__slots__} | {"recipients": [twice, twice]})
    with pytest.raises(asyncpg.UniqueViolationError):
        await queue.insert([good, broken])
    assert await rows(database, "SELECT id FROM message") == []
    assert await states(database) == []


async def test_a_claim_takes_what_is_due_of_its_lane_and_class_oldest_first(queue: Queue) -> None:
    late, early = message(1, received_at=NOW - 1), message(2, received_at=NOW - 100)
    other_lane, other_class = message(3, lane=LANE + 1), message(4, message_class=TRANSACTIONAL)
    future = message(5, received_at=NOW + 1)
    for each in (late, early, other_class, future):
        await queue.insert([each])
    await queue.insert([other_lane])
    assert [row.message_id for row in await claimed(queue, limit=1)] == [early.id]
    assert [row.message_id for row in await claimed(queue)] == [late.id]
    assert await claimed(queue) == []
    assert [row.person for row in await queue.claim(LANE, TRANSACTIONAL, 10, NOW)] == [4]
    assert [row.person for row in await claimed(queue, lane=LANE + 1)] == [3]


async def test_recipients_born_leased_belong_to_their_worker_at_once(queue: Queue, database: Database) -> None:
    sent = message(1, 2, 3, leased_by=queue.worker_id, born=2)
    await queue.insert([sent])
    assert [row.ordinal for row in await claimed(await worker(database))] == [2]
    done = await queue.finish([completion(sent.id, 0, FinalState.DELIVERED)])
    assert done == {(sent.id, 0)}


async def test_concurrent_claims_never_share_a_row(database: Database, queue: Queue) -> None:
    await queue.insert([message(*range(150)) for _ in range(4)])
    workers = [await worker(database) for _ in range(4)]

    async def drain(mine: Queue) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        while batch := await mine.claim(LANE, CAMPAIGN, 7, NOW):
            found += [(row.message_id, row.ordinal) for row in batch]
        return found

    everything = list(itertools.chain(*await asyncio.gather(*map(drain, workers))))
    # a claim that found nothing but what others had locked may have ended early; nothing is lost by that
    everything += [(row.message_id, row.ordinal) for row in await claimed(queue, limit=1_000)]
    assert len(everything) == len(set(everything)) == 600


@pytest.mark.parametrize("state", FinalState)
async def test_a_final_recipient_leaves_the_queue_for_an_event(
    queue: Queue, database: Database, state: FinalState
) -> None:
    await queue.insert([message(5, 6)])
    row, _ = await claimed(queue)
    said = outcome(remote_mta="mx.example.org", diagnostic="said", reply_code=250)
    assert await queue.finish([came_to(row, state, attempts=4, outcome=said, at=NOW + 2.5)]) == {(row.message_id, 0)}
    assert [key[:2] for key in await states(database)] == [(row.message_id, 1)]
    [event] = await rows(
        database,
        "SELECT type, attempts, person, tenant_id, list_id, campaign_id, site, status, reply_code, class, remote_mta,"
        " diagnostic, extract(epoch FROM at)::float8, address FROM event WHERE type <= 5",
    )
    assert event == (
        int(state), 4, 5, 7, 9, 3, "mx.example.net", "4.2.0", 250, "other", "mx.example.org", "said", NOW + 2.5,
        b"sealed 5",
    )  # fmt: skip
    assert await queue.finish([came_to(row, state)]) == set()
    assert len(await final(database)) == 1


async def test_a_deferred_recipient_comes_back_when_it_is_due_with_what_it_has_learnt(queue: Queue) -> None:
    await queue.insert([message(5)])
    [row] = await claimed(queue)
    last = outcome(diagnostic="mailbox full")
    deferral = came_to(row, attempts=1, due_at=NOW + 60, delay_reported=True, outcome=last)
    assert await queue.defer([deferral]) == {deferral.key}
    assert await claimed(queue, now=NOW + 59.9) == []
    [again] = await claimed(queue, now=NOW + 60)
    assert (again.attempts, again.delay_reported, again.last_outcome) == (1, True, last)


async def test_only_an_attempt_is_an_event(queue: Queue, database: Database) -> None:
    await queue.insert([message(5, 6)])
    one, other = await claimed(queue)
    await queue.defer([came_to(one), came_to(other, tried=False)])
    assert await rows(database, "SELECT ordinal, type FROM event WHERE type <> 6") == [(0, 7)]


async def test_a_foreign_workers_outcome_changes_nothing(queue: Queue, database: Database) -> None:
    foreign = await worker(database)
    await queue.insert([message(5, 6)])
    one, other = await claimed(queue)
    before = await states(database)
    assert await foreign.finish([came_to(one, FinalState.BOUNCED)]) == set()
    assert await foreign.defer([came_to(other)]) == set()
    assert await Queue(database, 0).finish([came_to(one, FinalState.BOUNCED)]) == set()
    assert await states(database) == before
    assert await final(database) == []


async def test_an_outcome_that_comes_after_the_lease_was_taken_back_changes_nothing(
    queue: Queue, database: Database
) -> None:
    await queue.insert([message(5)])
    [row] = await claimed(queue)
    await queue.bury([queue.worker_id], NOW)
    assert await queue.finish([came_to(row, FinalState.DELIVERED)]) == set()
    successor = await worker(database)
    assert len(await claimed(successor)) == 1
    assert await queue.defer([came_to(row)]) == set()
    assert (await states(database))[0][2:] == (1, successor.worker_id)


async def test_a_deferral_that_is_said_twice_does_not_take_a_newer_lease(queue: Queue, database: Database) -> None:
    """The answer to a commit was lost, or a journal is replayed, and meanwhile the worker had claimed it again."""
    await queue.insert([message(5, 6)])
    tried, untried = await claimed(queue)
    deferrals = [came_to(tried), came_to(untried, tried=False, attempts=0, outcome=None, site="")]
    assert len(await queue.defer(deferrals)) == 2
    assert len(await claimed(queue, now=NOW + 60)) == 2
    assert await queue.defer(deferrals) == set()
    assert [row[2] for row in await states(database)] == [1, 1]
    assert await rows(database, "SELECT count(*) FROM event WHERE type = 7") == [(1,)]


async def test_what_was_put_off_meanwhile_does_not_make_a_repeated_deferral_take_a_newer_lease(
    queue: Queue, database: Database
) -> None:
    await queue.insert([message(5)])
    [row] = await claimed(queue)
    given_back = [came_to(row, tried=False, attempts=0, outcome=None)]
    assert len(await queue.defer(given_back)) == 1
    site = given_back[0].site
    assert await queue.put_off(LANE, CAMPAIGN, 10, NOW + 60, [(site, NOW + 70, NOW + 80)]) == {site: 1}
    assert len(await claimed(queue, now=NOW + 90)) == 1
    assert await queue.defer(given_back) == set()
    assert [row[2] for row in await states(database)] == [1]


async def test_what_is_given_back_after_the_clock_was_set_back_is_queued_again(
    queue: Queue, database: Database
) -> None:
    """It is due before the time at which it was claimed. Else it stays leased to a worker that has forgotten it."""
    await queue.insert([message(5, 6)])
    first, second = await claimed(queue)
    earlier = NOW - 3_600
    given_back = came_to(first, tried=False, attempts=0, outcome=None, at=earlier, due_at=earlier + 30)
    tried = came_to(second, at=earlier, due_at=earlier + 60)
    assert await queue.defer([given_back, tried]) == {given_back.key, tried.key}
    [again] = await claimed(queue, now=earlier + 30)
    assert await queue.defer([given_back]) == set()
    assert await queue.finish([came_to(again, FinalState.DELIVERED)]) == {given_back.key}


async def test_only_those_of_the_first_due_that_are_for_these_sites_are_put_off(
    queue: Queue, database: Database
) -> None:
    await queue.insert([message(1, 2, 3)])
    await rows(database, "UPDATE recipient SET due_at = due_at + ordinal * interval '1 s'")
    await rows(database, "UPDATE recipient SET site = 'a' WHERE ordinal < 2")
    await rows(database, "UPDATE recipient SET expires_at = due_at + interval '9 s' WHERE ordinal = 0")
    spans = [("a", NOW + 100, NOW + 200), ("b", NOW + 100, NOW + 200)]
    assert await queue.put_off(LANE, CAMPAIGN, 1, NOW + 5, spans) == {"a": 1}
    assert await queue.put_off(LANE, MessageClass.TRANSACTIONAL, 10, NOW + 5, spans) == {}
    assert await queue.put_off(LANE, CAMPAIGN, 10, NOW + 5, spans) == {"a": 1}
    due = await rows(database, "SELECT extract(epoch FROM due_at)::float8 FROM recipient ORDER BY ordinal")
    assert due[0] == (NOW + 9,)
    assert NOW + 100 <= due[1][0] <= NOW + 200
    assert due[2] == (NOW + 2,)


async def test_burial_gives_back_what_the_dead_had_leased_and_nothing_else(queue: Queue, database: Database) -> None:
    living = await worker(database)
    await queue.insert([message(*range(6))])
    await queue.claim(LANE, CAMPAIGN, 3, NOW)
    held = await living.claim(LANE, CAMPAIGN, 2, NOW)
    assert await living.bury([queue.worker_id], NOW + 9) == 3
    assert await living.bury([queue.worker_id], NOW + 9) == 0
    assert sorted(row[2] for row in await states(database)) == [0, 0, 0, 0, 1, 1]
    assert await queue.heartbeat(60) is None
    assert await living.heartbeat(60) == [living.worker_id]
    assert len(await living.finish([came_to(row, FinalState.DELIVERED) for row in held])) == 2
    assert len(await claimed(living, now=NOW + 8)) == 1


async def test_a_claim_that_outlives_its_worker_is_given_back(queue: Queue, database: Database) -> None:
    """The server goes on with a dead client's statement, whose leases would be nobody's after the burial."""
    living = await worker(database)
    await queue.insert([message(5)])
    async with database.transaction() as connection:
        claim = load_queries("mta", "queue.sql").claim
        assert len(await connection.fetch(claim, LANE, CAMPAIGN, NOW, 10, queue.worker_id)) == 1
        burial = asyncio.create_task(living.bury([queue.worker_id], NOW))
        await blocked(database)
        assert not burial.done()
    assert await burial == 1
    assert (await states(database))[0][2:] == (0, None)


async def test_what_the_buried_still_ask_for_is_leased_to_nobody(queue: Queue, database: Database) -> None:
    living = await worker(database)
    await queue.insert([message(5)])
    assert await living.bury([queue.worker_id], NOW) == 0
    assert await queue.claim(LANE, CAMPAIGN, 10, NOW) == []
    await queue.insert([message(6, leased_by=queue.worker_id)])
    assert [row[2:] for row in await states(database)] == [(0, None), (0, None)]


async def test_silent_workers_are_buried_and_the_others_live(queue: Queue, database: Database) -> None:
    living = await worker(database)
    await queue.insert([message(5)])
    await claimed(queue)
    assert not (await living.silent(60))[1]
    assert await living.bury_silent(60, NOW) == 0
    await rows(database, "UPDATE worker SET heartbeat_at = now() - interval '61 s' WHERE id = $1", queue.worker_id)
    assert await living.heartbeat(60) == [living.worker_id]
    assert (await living.silent(60))[1]
    assert await living.bury_silent(60, NOW) == 1
    assert (await states(database))[0][2:] == (0, None)


async def test_content_goes_with_the_last_recipient(queue: Queue, database: Database) -> None:
    two, one = message(5, 6), message(7)
    await queue.insert([two, one])
    found = await claimed(queue)
    await queue.finish([came_to(row, FinalState.DELIVERED) for row in found if row.person != 6])
    await queue.sweep([two.id, one.id])
    assert await rows(database, "SELECT id FROM message") == [(two.id,)]
    assert await queue.content(one.id) is None
    await queue.sweep([])


async def test_content_that_a_crash_left_is_dropped_when_it_is_no_longer_young(
    queue: Queue, database: Database
) -> None:
    await queue.insert([message(5), message(6)])
    first, _ = await claimed(queue)
    await queue.finish([came_to(first, FinalState.DELIVERED)])
    await queue.sweep_leftovers(LANE, NOW + 299)
    assert await rows(database, "SELECT count(*) FROM message") == [(2,)]
    await queue.sweep_leftovers(LANE + 1, NOW + 301)
    assert await rows(database, "SELECT count(*) FROM message") == [(2,)]
    await queue.sweep_leftovers(LANE, NOW + 301)
    assert await rows(database, "SELECT count(*) FROM message") == [(1,)]


async def test_abandoned_messages_leave_nothing_that_could_be_delivered(queue: Queue, database: Database) -> None:
    kept, gone = message(5), message(6, 7, leased_by=queue.worker_id, born=1)
    await queue.insert([kept, gone])
    await queue.abandon([gone.id, message(8).id])
    assert [row[0] for row in await states(database)] == [kept.id]
    assert await rows(database, "SELECT DISTINCT message_id FROM event") == []
    await queue.sweep_leftovers(LANE, NOW + 10**9)
    assert await rows(database, "SELECT id FROM message") == [(kept.id,)]


async def test_a_commit_that_is_still_under_way_is_abandoned_too(queue: Queue, database: Database) -> None:
    """The server may be at it still when the client has long given up, such as while its disk hangs."""
    sent = message(5, 6)
    async with database.connection() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await queue.insert([sent], slow)
        abandoning = asyncio.create_task(queue.abandon([sent.id]))
        await blocked(database)
        await transaction.commit()
    await abandoning
    assert await states(database) == []


async def test_a_commit_that_has_not_begun_when_it_is_abandoned_never_happens(queue: Queue, database: Database) -> None:
    sent = message(5)
    await queue.abandon([sent.id])
    with pytest.raises(asyncpg.UniqueViolationError):
        await queue.insert([sent])
    assert await states(database) == []


async def blocked(database: Database) -> None:
    """Return when a statement of another connection waits for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(5):
        while (await rows(database, query)) == [(0,)]:
            pass


STOPS: list[tuple[tuple[int, int, int, bool], set[str]]] = [
    # scope, tenant, list, transactional too: what is cancelled
    ((1, 0, 0, False), {"list", "other list", "no list", "other tenant"}),
    ((1, 0, 0, True), {"list", "other list", "no list", "other tenant", "transactional"}),
    ((2, 7, 0, False), {"list", "other list", "no list"}),
    ((2, 7, 0, True), {"list", "other list", "no list", "transactional"}),
    ((2, 8, 0, False), {"other tenant"}),
    ((2, 8, 9, True), {"other tenant"}),
    ((3, 7, 9, False), {"list"}),
    ((3, 7, 9, True), {"list", "transactional"}),
    ((3, 7, 10, True), {"other list"}),
    ((3, 8, 10, True), set()),
    ((4, 7, 9, True), set()),
]


@pytest.mark.parametrize(("stop", "expected"), STOPS)
async def test_a_cancellation_hits_its_scope_and_class_only(
    queue: Queue, database: Database, stop: tuple[int, int, int, bool], expected: set[str]
) -> None:
    sent = {
        "list": message(5), "other list": message(5, list_id=10), "no list": message(5, list_id=0),
        "other tenant": message(5, tenant_id=8), "transactional": message(5, message_class=TRANSACTIONAL),
        "other person": message(6),
    }  # fmt: skip
    await queue.insert(list(sent.values()))
    async with database.transaction() as connection:
        counts = await cancel_suppressed(connection, [(5, *stop)], NOW)
    assert counts == [len(expected)]
    left = {row[0] for row in await states(database)}
    assert {name for name, each in sent.items() if each.id not in left} == expected
    assert await final(database) == sorted((sent[name].id, 0, 5) for name in expected)


async def test_a_cancellation_takes_held_recipients_and_leaves_leased_ones_to_their_worker(
    queue: Queue, database: Database
) -> None:
    leased, held, queued = message(5, received_at=NOW - 9), message(5), message(5)
    await queue.insert([leased, held, queued])
    assert len(await claimed(queue, limit=1)) == 1
    await rows(database, "UPDATE recipient SET state = 2 WHERE message_id = $1", held.id)
    async with database.transaction() as connection:
        assert await cancel_suppressed(connection, [(5, 1, 0, 0, True), (6, 1, 0, 0, True)], NOW) == [2, 0]
    assert [row[0] for row in await states(database)] == [leased.id]


async def test_a_recipient_that_two_entries_cancel_is_cancelled_once(queue: Queue, database: Database) -> None:
    await queue.insert([message(5)])
    async with database.transaction() as connection:
        counts = await cancel_suppressed(connection, [(5, 1, 0, 0, True), (5, 2, 7, 0, True)], NOW)
        assert await cancel_suppressed(connection, [], NOW) == []
    assert sum(counts) == 1
    assert len(await final(database)) == 1


async def test_a_cancellation_that_is_rolled_back_leaves_the_mail_queued(queue: Queue, database: Database) -> None:
    await queue.insert([message(5)])
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as connection:
            assert await cancel_suppressed(connection, [(5, 1, 0, 0, True)], NOW) == [1]
            raise ZeroDivisionError
    assert len(await claimed(queue)) == 1


async def test_a_cancellation_does_not_wait_for_a_claim_under_way(queue: Queue, database: Database) -> None:
    await queue.insert([message(5)])
    async with database.transaction() as claiming:
        await claiming.execute("SELECT FROM recipient FOR UPDATE")
        async with asyncio.timeout(2), database.transaction() as connection:
            assert await cancel_suppressed(connection, [(5, 1, 0, 0, True)], NOW) == [0]


async def plan(connection: Any, query: str, *arguments: object) -> str:
    return "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {query}", *arguments))


class Explaining:
    """A connection that says how a statement would be done, and does not do it."""

    def __init__(self, connection: Any) -> None:
        self.plan = ""
        self._connection = connection

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        self.plan = await plan(self._connection, query, *arguments)
        return []

    async def execute(self, query: str, *arguments: Any) -> str:
        raise NotImplementedError


async def test_outcomes_are_written_fast_though_nothing_was_leased_when_the_statistics_were_made(
    queue: Queue, database: Database
) -> None:
    """As when a large campaign is scheduled: the planner then takes a worker's leases for a row at most."""
    await fill(database, await names(database, "acme", "spring"), 30, recipients=1_000)
    await rows(database, "ANALYZE recipient")
    async with database.connection() as connection:
        for state in (None, FinalState.DELIVERED):
            explaining = Explaining(connection)
            done = [completion(1, ordinal, state) for ordinal in range(500)]
            await (queue.finish if state else queue.defer)(done, explaining)
            assert "recipient" in explaining.plan
            assert not ("Nested Loop" in explaining.plan and "Seq Scan on recipient" in explaining.plan)


async def test_claim_and_cancel_use_their_indexes_among_fifty_thousand(queue: Queue, database: Database) -> None:
    queries = load_queries("mta", "queue.sql")
    for lane in range(LANES):
        persons: Sequence[int] = range(lane * 3_125, (lane + 1) * 3_125)
        await queue.insert([message(*persons[start : start + 25], lane=lane) for start in range(0, 3_125, 25)])
    async with database.connection() as connection:
        for analysed in (False, True):
            if analysed:
                await connection.execute("ANALYZE recipient, message")
            claim = await plan(connection, queries.claim, LANE, 0, NOW, 500, queue.worker_id)
            assert "using recipient_due" in claim
            assert "Seq Scan on recipient" not in claim
            due = await plan(connection, queries.due_lanes, NOW)
            assert "Index Cond: ((lane =" in due
            assert "Hash" not in due
            put_off = await plan(connection, queries.put_off, LANE, 0, NOW, 5_000, ["a"], [NOW], [NOW])
            assert "recipient_due" in put_off
            assert "Seq Scan on recipient" not in put_off
            cancel = await plan(connection, queries.cancel, [0], [5], [1], [0], [0], [1], NOW)
            assert "recipient_person" in cancel
            assert "Seq Scan on recipient" not in cancel
