"""From submit() to the commit: one transaction for many, and nothing that was refused is delivered."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from config.database import Database, DatabaseUnavailable
from config.keyring import Keyring
from mta import intake as intake_module
from mta.accounts import Accounts, Campaign
from mta.identifiers import LANES, MessageIds, lane_of
from mta.intake import Intake, Recipient, Stored, Submission
from mta.queue import NewMessage, Queue
from mta.vault import Address, Envelope
from suppression.digest import MessageClass
from tests.support.leases import NOW
from tests.support.node import eventually, until
from tests.support.proxy import Proxy, proxied
from tests.support.suppressions import opened

KEYRING = Keyring({1: bytes(32)})
RAW = b"Subject: hello\r\n\r\nhello\r\n"


class Desk:
    """An intake whose reservations, deliveries and pauses a test can see, on a database behind a proxy."""

    def __init__(self, database: Database, direct: Database, proxy: Proxy, campaign: Campaign, worker_id: int) -> None:
        self.direct, self.proxy, self.campaign = direct, proxy, campaign
        self.stored: list[Stored] = []
        self.failed: list[tuple[int, int]] = []
        self.room = 0
        self.pauses: list[float] = []
        self.ticks: Iterator[float] = itertools.count(0.0)
        self.go_on = asyncio.Event()
        self.queue = Queue(database, worker_id, "test")
        self.batches: list[list[NewMessage]] = []
        self.intake = self.make()

    def make(self, **changes: Any) -> Intake:
        options: dict[str, Any] = {"lifetime_seconds": 60.0, "batch": 100, "on_stored": self.stored.append}
        insert = self.queue.insert

        async def watched(messages: Any, connection: Any = None) -> None:
            self.batches.append(list(messages))
            await insert(messages, connection)

        self.queue.insert = watched  # type: ignore[method-assign]
        return Intake(
            self.queue,
            MessageIds(1, lambda: NOW),
            reserve=lambda _campaign, _class, count: min(count, self.room),
            on_failed=lambda campaign, count: self.failed.append((campaign, count)),
            now=lambda: NOW,
            sleep=self.pause,
            tick=lambda: next(self.ticks),
            **{**options, **changes},
        )

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self.go_on.wait()

    def submission(self, recipients: int = 1) -> Submission:
        to = [Recipient(Address(f"reader{number}@example.net", "NEVER"), number) for number in range(recipients)]
        return Submission(self.campaign, 9, MessageClass.CAMPAIGN, Envelope("news@example.com"), to, RAW)

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        async with self.direct.connection() as connection:
            return [tuple(row) for row in await connection.fetch(query)]

    async def recipients(self) -> list[tuple[Any, ...]]:
        return await self.rows("SELECT message_id, ordinal, state FROM recipient ORDER BY 1, 2")


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with (
        proxied(database_url) as proxy,
        opened(database_url) as direct,
        opened(proxy.url, command_timeout_seconds=5) as database,
    ):
        accounts = Accounts(direct, KEYRING)
        tenant = await accounts.add_tenant("acme")
        worker_id = await Queue(direct).register("test")
        made = Desk(database, direct, proxy, await accounts.campaign(tenant.id, "spring"), worker_id)
        yield made
        made.go_on.set()
        made.proxy.open = True
        await made.intake.drain()


async def test_submit_returns_after_the_commit_with_what_delivery_needs(desk: Desk) -> None:
    desk.room = 2
    message_id = await desk.intake.submit(desk.submission(3))
    assert await desk.recipients() == [(message_id, 0, 1), (message_id, 1, 1), (message_id, 2, 0)]
    [stored] = desk.stored
    assert (stored.message_id, stored.leased, stored.expires_at) == (message_id, range(2), NOW + 60)
    [(envelope, content)] = await desk.rows("SELECT envelope, content FROM message")
    assert desk.campaign.key.open_content(message_id, content) == RAW
    assert desk.campaign.key.open_envelope(message_id, envelope) == Envelope("news@example.com")
    [(address,)] = await desk.rows("SELECT address FROM recipient WHERE ordinal = 2")
    assert desk.campaign.key.open_address(message_id, 2, address) == Address("reader2@example.net", "NEVER")
    assert (desk.failed, RAW in content) == ([], False)


async def test_concurrent_submissions_share_transactions(desk: Desk) -> None:
    ids = await asyncio.gather(*(desk.intake.submit(desk.submission()) for _ in range(300)))
    assert len(set(ids)) == len(await desk.recipients()) == len(desk.stored) == 300
    assert len(desk.batches) <= 10
    for batch in desk.batches:
        assert len({lane_of(message.id) for message in batch}) == 1
        assert len(batch) <= 100


async def test_the_more_come_the_more_share_a_commit(desk: Desk) -> None:
    desk.ticks = itertools.repeat(100.0)  # no time passes, so that every commit would be too early
    alone = asyncio.create_task(desk.intake.submit(desk.submission()))
    await until(lambda: len(desk.stored) == 1)
    assert desk.pauses == []
    others = [asyncio.create_task(desk.intake.submit(desk.submission())) for _ in range(4)]
    await until(lambda: len(desk.pauses) == 1)
    others += [asyncio.create_task(desk.intake.submit(desk.submission())) for _ in range(5)]
    await asyncio.sleep(0)
    desk.go_on.set()
    await asyncio.gather(alone, *others)
    assert [len(batch) for batch in desk.batches] == [1, 9]
    await desk.intake.submit(desk.submission())
    assert desk.pauses == pytest.approx([0.0015, 0.008])


async def test_lanes_take_turns(desk: Desk) -> None:
    lanes = [lane_of(await desk.intake.submit(desk.submission())) for _ in range(LANES)]
    assert sorted(lanes) == list(range(LANES))


async def test_a_message_of_many_recipients_is_whole(desk: Desk) -> None:
    message_id = await desk.intake.submit(desk.submission(1_234))
    assert [row[:2] for row in await desk.recipients()] == [(message_id, number) for number in range(1_234)]


@pytest.mark.parametrize(("name", "most"), [("_MOST_RECIPIENTS", 20), ("_MOST_BYTES", 200)])
async def test_a_transaction_is_bounded_by_what_it_holds(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    monkeypatch.setattr(intake_module, name, most)
    await asyncio.gather(*(desk.intake.submit(desk.submission(10)) for _ in range(20)))
    assert sum(len(batch) for batch in desk.batches) == 20
    assert max(len(batch) for batch in desk.batches) <= 5
    assert len(await desk.recipients()) == 200


async def test_without_a_database_the_answer_comes_at_once_and_nothing_is_left_to_do(desk: Desk) -> None:
    desk.room = 5
    desk.proxy.cut()
    async with asyncio.timeout(2):
        with pytest.raises(DatabaseUnavailable):
            await desk.intake.submit(desk.submission(3))
        # by now no connection is left, so that nothing is even sent
        with pytest.raises(DatabaseUnavailable):
            await desk.intake.submit(desk.submission(2))
    assert desk.failed == [(desk.campaign.id, 3), (desk.campaign.id, 2)]
    desk.proxy.open = True
    await desk.intake.drain()
    assert (desk.stored, await desk.recipients()) == ([], [])
    [second] = desk.batches[1]
    assert (second.id,) not in await desk.rows("SELECT id FROM message")


async def test_submissions_go_on_when_the_database_is_back(desk: Desk) -> None:
    desk.proxy.cut()
    with pytest.raises(DatabaseUnavailable):
        await desk.intake.submit(desk.submission())
    desk.proxy.open = True
    desk.go_on.set()
    message_id = await desk.intake.submit(desk.submission())
    await eventually(lambda: _only(desk, message_id))


async def _only(desk: Desk, message_id: int) -> bool:
    return await desk.recipients() == [(message_id, 0, 0)]


async def test_a_commit_in_doubt_is_taken_back_without_another_submission(desk: Desk) -> None:
    desk.room = 1
    desk.proxy.swallow = b"INSERT 0 "
    with pytest.raises(DatabaseUnavailable):
        await desk.intake.submit(desk.submission(2))
    assert desk.proxy.swallowed == 1
    assert desk.failed == [(desk.campaign.id, 1)]
    await eventually(lambda: _nothing(desk))
    assert await desk.rows("SELECT count(*) FROM event") == [(0,)]
    assert desk.stored == []


async def _nothing(desk: Desk) -> bool:
    return not await desk.recipients()


async def test_what_is_in_doubt_is_taken_back_when_the_database_answers_again(desk: Desk) -> None:
    desk.proxy.swallow = b"INSERT 0 "
    submitting = asyncio.create_task(desk.intake.submit(desk.submission()))
    await until(lambda: desk.proxy.swallowed)
    desk.proxy.cut()
    with pytest.raises(DatabaseUnavailable):
        await submitting
    assert len(await desk.recipients()) == 1
    await until(lambda: desk.pauses)
    assert len(await desk.recipients()) == 1
    desk.proxy.open = True
    desk.go_on.set()
    await eventually(lambda: _nothing(desk))


async def test_a_stopping_worker_takes_back_what_is_in_doubt(desk: Desk) -> None:
    desk.proxy.swallow = b"INSERT 0 "
    submitting = asyncio.create_task(desk.intake.submit(desk.submission()))
    await until(lambda: desk.proxy.swallowed)
    desk.proxy.cut()
    with pytest.raises(DatabaseUnavailable):
        await submitting
    await until(lambda: desk.pauses)
    desk.proxy.open = True
    await desk.intake.drain()
    assert await desk.recipients() == []


async def test_what_the_database_refuses_leaves_others_alone(desk: Desk) -> None:
    """Two ids alike: nothing of the second is stored, and taking it back would take the first."""
    message_id = await desk.intake.submit(desk.submission())
    again = desk.make()  # starts from the same clock and worker, and so makes the same first id
    with pytest.raises(DatabaseUnavailable):
        await again.submit(desk.submission())
    await again.drain()
    assert await desk.recipients() == [(message_id, 0, 0)]


async def test_what_comes_in_the_moment_of_a_commit_does_not_wait_for_more(desk: Desk) -> None:
    """A client that sends ahead has its next message taken by the callback that answers the last one."""
    following: asyncio.Future[asyncio.Future[int]] = asyncio.get_running_loop().create_future()
    first = desk.intake.enqueue(desk.submission())
    first.add_done_callback(lambda _: following.set_result(desk.intake.enqueue(desk.submission())))
    await asyncio.wait_for(await following, 5)
    assert len(desk.stored) == 2


async def test_a_client_that_has_gone_costs_the_others_nothing(desk: Desk) -> None:
    gone, stays = (desk.intake.enqueue(desk.submission()) for _ in range(2))
    gone.cancel()
    await stays
    await desk.intake.drain()
    assert len(desk.stored) == 2


async def test_a_delivery_that_can_not_take_over_is_not_passed_over_in_silence(desk: Desk) -> None:
    def broken(_: Stored) -> None:
        raise OSError("no journal")

    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: heard.append(context))
    intake = desk.make(on_stored=broken)
    await asyncio.gather(*(intake.submit(desk.submission()) for _ in range(3)))
    await intake.drain()
    assert [type(context["exception"]) for context in heard] == [OSError]
