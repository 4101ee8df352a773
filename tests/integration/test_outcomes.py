"""From an outcome to its commit, and from a dead worker's journal: nothing dropped, nothing twice, nothing held up."""

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bounce.outcome import Action, BounceClass
from config.database import DatabaseUnavailable
from metrics import registry
from mta.burials import Burials
from mta.identifiers import lane_of
from mta.intake import Intake, Recipient, Submission
from mta.journal import Journal, dead_journals
from mta.lease import Lease, RetryPolicy, settle
from mta.outcomes import Outcomes, Recorder
from mta.queue import Completion, FinalState, NewMessage, Queue
from mta.vault import Address, CampaignKey, Envelope
from suppression.digest import Kind, MessageClass, Scope
from tests.support.leases import outcome
from tests.support.node import Clock, Node, node, until
from tests.support.suppressions import asked

RAW = b"From: news@example.com\r\nSubject: hello\r\n\r\nhello\r\n"
POLICY = RetryPolicy((60.0,), 0.0, 600.0)
START = 1_800_000_000.0


class Ward:
    """One worker's recorder on a real database, with messages to settle."""

    def __init__(self, n: Node, clock: Clock) -> None:
        self.n, self.clock = n, clock
        self.queue = n.parts.queue
        self.recorder = n.parts.recorder(self.queue)

    async def leases(self, *notify: str, sender: str = "news@example.com") -> list[Lease]:
        """A message to as many recipients, all leased by this worker."""
        tenant = await self.n.parts.accounts.add_tenant("acme", exist_ok=True)
        campaign = await self.n.parts.accounts.campaign(tenant.id, "spring")
        to = [
            Recipient(Address(f"reader{number}@example.net", word), 100 + number) for number, word in enumerate(notify)
        ]
        intake: Intake = self.n.intake(reserve=lambda _campaign, _class, count: count)
        submission = Submission(campaign, 0, MessageClass.CAMPAIGN, Envelope(sender), to, RAW)
        message_id = await intake.submit(submission)
        await intake.drain()
        return [
            Lease(message_id, number, tenant.id, 0, campaign.id, MessageClass.CAMPAIGN, each.person, (), each.address,
                  self.clock(), self.clock() + 3_600)
            for number, each in enumerate(to)
        ]  # fmt: skip

    def settled(self, lease: Lease, action: Action, **changes: Any) -> Completion:
        said = outcome(action, **changes)
        return settle(lease, said, POLICY, now=self.clock(), chance=0.5, site="mx.example.net")

    async def states(self) -> list[tuple[Any, ...]]:
        return await self.n.rows(
            "SELECT ordinal, state FROM recipient JOIN message m ON m.id = message_id WHERE m.class = 0 ORDER BY 1"
        )

    async def events(self) -> list[tuple[Any, ...]]:
        return await self.n.rows("SELECT ordinal, type FROM event WHERE type < 9 AND type <> 6 ORDER BY ordinal, id")

    async def notices(self) -> list[str]:
        """The notices in the queue, as text."""
        found = await self.n.rows("SELECT id, campaign_id, content FROM message WHERE class = 1 ORDER BY id")
        texts = []
        for message_id, campaign_id, content in found:
            key: CampaignKey = (await self.n.parts.accounts.campaign_by_id(campaign_id)).key
            texts.append(key.open_content(message_id, content).decode())
        return texts


@pytest.fixture
async def ward(database_url: str, tmp_path: Path) -> AsyncIterator[Ward]:
    clock = Clock(START)
    async with node(database_url, tmp_path, now=clock) as n:
        yield Ward(n, clock)


async def test_finals_and_deferrals_of_a_batch_go_in(ward: Ward) -> None:
    one, two, three = await ward.leases("", "", "")
    await ward.recorder.record(
        [ward.settled(one, Action.DELIVERED), ward.settled(two, Action.DELAYED), ward.settled(three, Action.FAILED)]
    )
    assert await ward.states() == [(1, 0)]
    assert await ward.events() == [(0, 1), (1, 7), (2, 2)]


async def test_a_notice_goes_in_with_the_state_that_it_reports(ward: Ward) -> None:
    one, two, three = await ward.leases("", "FAILURE", "NEVER")
    await ward.recorder.record([ward.settled(lease, Action.FAILED) for lease in (one, two, three)])
    [notice] = await ward.notices()
    assert "reader0@example.net" in notice
    assert "reader1@example.net" in notice
    assert "reader2@example.net" not in notice
    [(envelope, message_id, sender)] = await ward.n.rows(
        "SELECT m.envelope, m.id, r.address FROM message m JOIN recipient r ON r.message_id = m.id WHERE m.class = 1"
    )
    key = (await ward.n.parts.accounts.campaign(one.tenant_id, "")).key
    assert key.open_envelope(message_id, envelope) == Envelope("", notice=True)
    assert key.open_address(message_id, 0, sender) == Address("news@example.com", "NEVER")


async def test_state_and_notice_are_one_transaction(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    [lease] = await ward.leases("")
    failed = ward.settled(lease, Action.FAILED)

    async def no_room(*_: object) -> None:
        raise DatabaseUnavailable("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(ward.queue, "insert", no_room)
        with pytest.raises(DatabaseUnavailable):
            await ward.recorder.record([failed])
    assert (await ward.states(), await ward.notices()) == ([(0, 1)], [])
    await ward.recorder.record([failed])
    assert (await ward.states(), len(await ward.notices())) == ([], 1)


async def test_nobody_is_told_about_mail_from_the_null_sender(ward: Ward) -> None:
    [lease] = await ward.leases("FAILURE", sender="")
    await ward.recorder.record([ward.settled(lease, Action.FAILED)])
    assert (await ward.states(), await ward.notices()) == ([], [])


async def test_there_is_no_notice_about_what_is_final_already(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    one, _ = await ward.leases("", "")
    failed = ward.settled(one, Action.FAILED)
    await ward.recorder.record([failed])
    assert await ward.n.parts.notices.compose([failed]) == []
    assert capsys.readouterr().err == ""


async def test_an_outcome_of_a_lost_lease_owes_no_notice(ward: Ward) -> None:
    [lease] = await ward.leases("")
    foreign = Queue(ward.n.database, await ward.queue.register("other"))
    await ward.n.parts.recorder(foreign).record([ward.settled(lease, Action.FAILED)])
    assert (await ward.states(), await ward.notices()) == ([(0, 1)], [])


@pytest.mark.parametrize("action", [Action.FAILED, Action.DELAYED])
async def test_recording_twice_changes_nothing(ward: Ward, action: Action) -> None:
    leases = await ward.leases("FAILURE,DELAY", "FAILURE,DELAY", "")
    ward.clock.seconds += 700
    batch = [ward.settled(lease, action) for lease in leases[:2]]
    await ward.recorder.record(batch)
    before = (await ward.states(), await ward.events(), await ward.notices())
    assert len(before[2]) == 1
    await ward.recorder.record(batch)
    assert (await ward.states(), await ward.events(), await ward.notices()) == before


async def test_a_dead_workers_journal_is_replayed_once_however_often(ward: Ward, tmp_path: Path) -> None:
    """Part of it was committed before the death, and one recipient has been leased by the same worker again since."""
    leases = await ward.leases("FAILURE,DELAY", "", "DELAY", "", "")
    ward.clock.seconds += 700
    committed = [ward.settled(leases[0], Action.FAILED), ward.settled(leases[2], Action.DELAYED)]
    uncommitted = [ward.settled(leases[1], Action.FAILED), ward.settled(leases[3], Action.DELIVERED)]
    journal = Journal(tmp_path / "dead", ward.queue.worker_id)
    for completion in [*committed, *uncommitted]:
        journal.append(completion)
    await ward.recorder.record(committed)
    ward.clock.seconds += 60
    again = await ward.queue.claim(lane_of(leases[0].message_id), MessageClass.CAMPAIGN, 10, ward.clock())
    assert [row.ordinal for row in again] == [2]
    journal.close()
    for _ in range(2):
        [dead] = dead_journals(tmp_path / "dead")
        await ward.n.parts.recorder(Queue(ward.n.database, dead.worker_id)).record(dead.completions())
        dead.close(replayed=False)
        assert await ward.states() == [(2, 1), (4, 1)]
        assert await ward.events() == [(0, 2), (1, 2), (2, 7), (3, 1)]
        assert len(await ward.notices()) == 3
    assert await ward.queue.bury([ward.queue.worker_id], ward.clock()) == 2


async def test_an_old_line_of_a_journal_undoes_no_later_attempt(ward: Ward) -> None:
    """A journal holds committed lines too. Another worker tried since, and the dead one had just claimed it again."""
    [lease] = await ward.leases("FAILURE,DELAY")
    ward.clock.seconds += 700
    delayed = ward.settled(lease, Action.DELAYED)
    await ward.recorder.record([delayed])
    await ward.n.execute(
        "UPDATE recipient SET state = 1, worker_id = $1, attempts = 2, due_at = due_at + interval '5 min' "
        "WHERE class = 0",
        ward.queue.worker_id,
    )
    await ward.recorder.record([delayed])
    assert await ward.n.rows("SELECT state, attempts FROM recipient WHERE class = 0") == [(1, 2)]
    assert len(await ward.notices()) == 1


@pytest.mark.parametrize("text", ["a\0b", "half \ud83d"])
async def test_what_can_not_be_stored_holds_up_nobody(ward: Ward, text: str) -> None:
    one, two, three = await ward.leases("", "", "")
    batch = [ward.settled(lease, Action.FAILED) for lease in (one, two, three)]
    batch[1] = replace(batch[1], outcome=outcome(Action.FAILED, diagnostic=text))
    await ward.recorder.record(batch)
    assert await ward.states() == []
    assert await ward.events() == [(0, 2), (1, 2), (2, 2)]


async def test_a_mistake_in_what_follows_holds_up_no_state(ward: Ward) -> None:
    async def broken(completions: Sequence[Completion]) -> Any:
        if completions:
            raise ZeroDivisionError

    recorder = Recorder(ward.queue, compose=ward.n.parts.notices.compose, suppress=broken)
    one, two = await ward.leases("", "")
    await recorder.record([ward.settled(one, Action.FAILED), ward.settled(two, Action.DELIVERED)])
    assert await ward.events() == [(0, 2), (1, 1)]


async def test_two_workers_that_die_together_lose_nothing_that_they_had_learnt(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The burial of the one finds the journal of the other, and replays it while the other is buried too."""
    [lease] = await ward.leases("")
    journals, parts = ward.n.parts.paths.journals, ward.n.parts
    other = await ward.queue.register("other")
    learnt = Journal(journals, ward.queue.worker_id)
    learnt.append(ward.settled(lease, Action.DELIVERED))
    os.close(learnt._file)  # as its death does
    reached, order = asyncio.Event(), []
    record, bury = Recorder.record, Queue.bury

    async def recorded(recorder: Recorder, batch: Sequence[Completion]) -> None:
        reached.set()
        await record(recorder, batch)
        order.append("learnt")

    async def buried(queue: Queue, worker_ids: Sequence[int], now: float, **more: float) -> int:
        order.append("buried")
        return await bury(queue, worker_ids, now, **more)

    monkeypatch.setattr(Recorder, "record", recorded)
    monkeypatch.setattr(Queue, "bury", buried)
    burials = Burials(parts, journals)
    first = asyncio.create_task(burials.lay_to_rest(other))
    await reached.wait()
    await asyncio.gather(first, burials.lay_to_rest(ward.queue.worker_id))
    assert order[0] == "learnt"
    assert await ward.events() == [(0, 1)]
    assert await ward.states() == []


async def test_a_journal_from_before_the_database_was_made_anew_buries_nobody(ward: Ward) -> None:
    """The ids of workers begin at 1 again then, and this one's is that of a living worker of another node."""
    [lease] = await ward.leases("")
    journals = ward.n.parts.paths.journals
    left = Journal(journals, ward.queue.worker_id)
    left.append(replace(ward.settled(lease, Action.DELIVERED), message_id=16))
    an_hour_ago = time.time() - 3_600
    os.utime(left.path, (an_hour_ago, an_hour_ago))
    os.close(left._file)
    await Burials(ward.n.parts, journals).recover()
    assert await ward.n.rows("SELECT id FROM worker") == [(ward.queue.worker_id,)]
    assert await ward.states() == [(0, 1)]
    assert list(journals.iterdir()) == []


async def test_a_delivery_that_becomes_known_by_a_journal_is_compared_with_the_log(ward: Ward) -> None:
    """The turn of its time is over when the node is back: nobody else would look at it."""
    [lease] = await ward.leases("")
    [entry] = await ward.n.parts.log.append([asked(lease.person, kind=Kind.LEGAL, scope=Scope.EVERYTHING)])
    journals = ward.n.parts.paths.journals
    learnt = Journal(journals, ward.queue.worker_id)
    learnt.append(replace(ward.settled(lease, Action.DELIVERED), at=entry.at + 60))
    os.close(learnt._file)
    ward.clock.seconds = entry.at + 3_600
    compared, late = registry.compared._value.get(), registry.sends_after_suppression._value.get()
    await Burials(ward.n.parts, journals).recover()
    assert await ward.events() == [(0, 1)]
    assert registry.compared._value.get() == compared + 1
    assert registry.sends_after_suppression._value.get() == late + 1


@pytest.fixture
def database_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The database's clock, as burials see it."""
    clock, silent = Clock(0.0), Queue.silent

    async def seen(queue: Queue, seconds: float) -> tuple[float, bool]:
        return clock(), (await silent(queue, seconds))[1]

    monkeypatch.setattr(Queue, "silent", seen)
    return clock


async def test_a_worker_that_died_in_an_outage_has_its_journal_replayed_first(
    ward: Ward, database_clock: Clock
) -> None:
    """Its burial waits for the database; so does the look for silent workers, which may come first."""
    [lease] = await ward.leases("")
    journals = ward.n.parts.paths.journals
    learnt = Journal(journals, ward.queue.worker_id)
    learnt.append(ward.settled(lease, Action.DELIVERED))
    os.close(learnt._file)  # as its death does
    await ward.n.execute("UPDATE worker SET heartbeat_at = now() - interval '61 s' WHERE id = $1", ward.queue.worker_id)
    burials = Burials(ward.n.parts, journals)
    while not await ward.events():
        await burials.bury_silent(60)
        database_clock.seconds += 5
    assert await ward.events() == [(0, 1)]
    assert await ward.states() == []


async def test_nobody_is_buried_for_a_silence_of_the_database(ward: Ward, database_clock: Clock) -> None:
    """After an outage the last sign of life of everybody is old: those that live are given time for another."""
    await ward.leases("")
    burials = Burials(ward.n.parts, ward.n.parts.paths.journals)

    async def looks(seconds: float) -> bool:
        """Whether the worker is still there after so long with a look every other second."""
        until = database_clock.seconds + seconds
        while database_clock.seconds < until:
            await burials.bury_silent(60)
            database_clock.seconds += 2
        return bool(await ward.n.rows("SELECT FROM worker"))

    assert await looks(60)
    await ward.n.execute("UPDATE worker SET heartbeat_at = now() - interval '61 s'")
    database_clock.seconds += 61  # without an answer
    assert await looks(60)
    assert not await looks(4)
    assert await ward.states() == [(0, 0)]


class Bench:
    """Outcomes whose recorder and pauses are the test's."""

    def __init__(self, ward: Ward, directory: Path) -> None:
        self.ward = ward
        self.unavailable = 0
        self.pauses = 0
        self.meanwhile: list[Completion] = []
        self.recorded: list[list[Completion]] = []
        self.settled: list[list[Completion]] = []
        self.journal = Journal(directory, ward.queue.worker_id)
        recorder = Recorder(ward.queue, compose=self.compose, suppress=self.suppress)
        self.outcomes = Outcomes(recorder, self.journal, on_settled=self.on_settled, sleep=self.sleep)

    async def compose(self, owed: Sequence[Completion]) -> list[tuple[Sequence[Completion], NewMessage]]:
        return []

    async def suppress(self, bounced: Sequence[Completion]) -> None:
        if self.unavailable:
            self.unavailable -= 1
            raise DatabaseUnavailable("gone")
        self.recorded.append(list(bounced))

    async def on_settled(self, batch: Sequence[Completion]) -> None:
        self.settled.append(list(batch))
        raise KeyError("a mistake in clearing up")

    async def sleep(self, seconds: float) -> None:
        """Half a second after a failure; less while outcomes are gathered, which come in the meantime."""
        self.pauses += seconds >= 0.5
        while self.meanwhile:
            self.outcomes.complete(self.meanwhile.pop())
        await asyncio.sleep(0)


async def test_an_outcome_is_in_the_journal_before_complete_returns(ward: Ward, tmp_path: Path) -> None:
    bench = Bench(ward, tmp_path / "j")
    [lease] = await ward.leases("")
    completion = ward.settled(lease, Action.DELIVERED)
    bench.outcomes.complete(completion)
    assert bench.journal.path.read_bytes() == b"\n" + completion.to_json()
    assert bench.outcomes.waiting == 1
    await bench.outcomes.drain()
    assert bench.outcomes.waiting == 0
    bench.journal.close()
    assert not bench.journal.path.exists()


async def test_an_outcome_that_the_journal_has_no_room_for_is_committed_all_the_same(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(ward, tmp_path / "j")
    [lease] = await ward.leases("")

    def full(_: Completion) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(bench.journal, "append", full)
    with pytest.raises(OSError, match="no room"):
        bench.outcomes.complete(ward.settled(lease, Action.DELIVERED))
    await bench.outcomes.drain()
    assert await ward.events() == [(0, 1)]
    bench.journal.close()


async def test_outcomes_wait_for_the_database_and_none_is_dropped(ward: Ward, tmp_path: Path) -> None:
    bench = Bench(ward, tmp_path / "j")
    bench.unavailable = 3
    leases = await ward.leases(*[""] * 1_100)
    for lease in leases[:900]:
        bench.outcomes.complete(ward.settled(lease, Action.FAILED, bounce_class=BounceClass.CONTENT))
    await until(lambda: bench.pauses >= 2)
    for lease in leases[900:]:
        bench.outcomes.complete(ward.settled(lease, Action.DELIVERED))
    await bench.outcomes.drain()
    assert bench.pauses == 3
    assert await ward.states() == []
    assert len(await ward.events()) == 1_100
    assert [len(batch) for batch in bench.settled] == [500, 500, 100]
    bench.journal.close()


async def test_outcomes_that_come_one_by_one_share_a_commit(ward: Ward, tmp_path: Path) -> None:
    bench = Bench(ward, tmp_path / "j")
    first, *others = [ward.settled(lease, Action.DELIVERED) for lease in await ward.leases("", "", "")]
    bench.meanwhile = others
    bench.outcomes.complete(first)
    await bench.outcomes.drain()
    assert [len(batch) for batch in bench.settled] == [3]
    bench.journal.close()


async def test_final_states_are_what_the_events_say(ward: Ward) -> None:
    leases = await ward.leases("NEVER", "NEVER")
    expired = replace(ward.settled(leases[0], Action.FAILED), state=FinalState.EXPIRED)
    suppressed = replace(ward.settled(leases[1], Action.FAILED), state=FinalState.SUPPRESSED)
    await ward.recorder.record([expired, suppressed])
    assert await ward.events() == [(0, 3), (1, 4)]
