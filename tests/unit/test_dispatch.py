"""Which recipient goes next, how a limit is shared, what fits into memory, when a site rests."""

from collections.abc import Iterable

import pytest

from bounce.outcome import Action
from mta.dispatch import FairQueue, FullSites, Room, Site, pause_seconds, share
from mta.lease import Lease
from mta.routing import Route
from suppression.digest import MessageClass
from tests.support.leases import NOW, lease, outcome

CAMPAIGN, TRANSACTIONAL = MessageClass.CAMPAIGN, MessageClass.TRANSACTIONAL


def queue_of(leases: Iterable[Lease]) -> FairQueue:
    queue = FairQueue()
    for each in leases:
        queue.push(each)
    return queue


def popped(queue: FairQueue) -> list[Lease]:
    found = []
    while (each := queue.pop()) is not None:
        found.append(each)
    return found


def of(tenant_id: int, campaign_id: int, count: int) -> list[Lease]:
    return [lease(tenant_id=tenant_id, campaign_id=campaign_id, ordinal=number) for number in range(count)]


def test_an_empty_queue() -> None:
    queue = FairQueue()
    assert (len(queue), queue.pop(), list(queue), queue.clear(), queue.take_expired(NOW)) == (0, None, [], [], [])


def test_tenants_take_turns_however_much_one_has_queued() -> None:
    queue = queue_of([*of(1, 10, 1_000), *of(2, 20, 3)])
    turns = [each.tenant_id for each in popped(queue)]
    assert turns[:6] == [1, 2, 1, 2, 1, 2]
    assert len(turns) == 1_003


def test_the_campaigns_of_a_tenant_take_turns_and_cost_other_tenants_nothing() -> None:
    queue = queue_of([*of(1, 10, 100), *of(1, 11, 100), *of(1, 12, 2), *of(2, 20, 100)])
    turns = [(each.tenant_id, each.campaign_id) for each in popped(queue)[:8]]
    assert turns == [(1, 10), (2, 20), (1, 11), (2, 20), (1, 12), (2, 20), (1, 10), (2, 20)]


def test_it_names_the_campaigns_that_wait_those_with_most_first() -> None:
    urgent = [lease(message_class=TRANSACTIONAL, tenant_id=9, campaign_id=90) for _ in range(50)]
    queue = queue_of([*of(1, 10, 2), *of(1, 11, 5), *of(2, 20, 3), *urgent])
    assert queue.campaigns(9) == [90, 11, 20, 10]
    assert queue.campaigns(2) == [90, 11]
    assert FairQueue().campaigns(9) == []


def test_a_campaign_keeps_its_order() -> None:
    assert [each.ordinal for each in popped(queue_of(of(1, 1, 5)))] == [0, 1, 2, 3, 4]


def test_transactional_mail_goes_first() -> None:
    queue = queue_of([*of(1, 1, 5), lease(message_class=TRANSACTIONAL, tenant_id=9)])
    assert [each.message_class for each in popped(queue)] == [TRANSACTIONAL, *[CAMPAIGN] * 5]


def test_what_had_its_turn_comes_before_the_others_of_its_campaign() -> None:
    queue = queue_of(of(1, 1, 3))
    first = queue.pop()
    assert first is not None
    queue.push(first, first=True)
    assert [each.ordinal for each in popped(queue)] == [0, 1, 2]


def test_a_tenant_that_comes_back_has_one_turn_in_a_round() -> None:
    queue = queue_of(of(1, 1, 1))
    assert [each.tenant_id for each in popped(queue)] == [1]
    for each in [*of(1, 1, 2), *of(2, 2, 2)]:
        queue.push(each)
    assert [each.tenant_id for each in popped(queue)] == [1, 2, 1, 2]


def test_what_is_past_its_lifetime_is_taken_out_and_the_rest_stays_in_order() -> None:
    leases = [lease(ordinal=number, expires_at=NOW + number % 2) for number in range(6)]
    leases.append(lease(ordinal=6, expires_at=NOW, message_class=TRANSACTIONAL))
    queue = queue_of(leases)
    assert sorted(each.ordinal for each in queue.take_expired(NOW)) == [0, 2, 4, 6]
    assert len(queue) == 3
    assert [each.ordinal for each in popped(queue)] == [1, 3, 5]


def test_nothing_is_taken_before_its_time() -> None:
    queue = queue_of(of(1, 1, 2))
    assert queue.take_expired(NOW) == []
    assert len(queue) == 2


@pytest.mark.parametrize(
    ("limit", "workers", "parts"),
    [
        (20, [3], [20]), (20, [3, 8], [10, 10]), (5, [3, 8], [3, 2]), (1, [3, 8, 9], [1, 0, 0]),
        (7, [1, 2, 3], [3, 2, 2]), (0, [1, 2], [0, 0]),
    ],
)  # fmt: skip
def test_a_limit_is_shared_and_kept(limit: int, workers: list[int], parts: list[int]) -> None:
    assert [share(limit, workers, me) for me in workers] == parts
    assert sum(parts) == limit


def test_a_worker_that_others_take_for_dead_has_no_share() -> None:
    assert share(20, [1, 2], 3) == 0
    assert share(20, [], 3) == 0


def test_room_is_bounded_in_all_and_for_each_campaign() -> None:
    room = Room(10, 6)
    assert room.reserve(1, CAMPAIGN, 8) == 6
    assert room.reserve(1, CAMPAIGN, 1) == 0
    assert room.reserve(2, CAMPAIGN, 8) == 4
    assert (room.free(CAMPAIGN), room.held) == (0, 10)
    room.give(1, 6)
    assert room.reserve(1, CAMPAIGN, 8) == 6


def test_transactional_mail_finds_room_where_campaigns_filled_it() -> None:
    room = Room(10, 10)
    assert room.reserve(1, CAMPAIGN, 99) == 10
    assert room.free(TRANSACTIONAL) == 10
    assert room.reserve(2, TRANSACTIONAL, 99) == 10
    assert room.reserve(2, TRANSACTIONAL, 1) == 0


def test_what_came_in_beyond_the_bound_has_to_go_before_there_is_room() -> None:
    room = Room(4, 4)
    room.take(1, 6)
    assert (room.free(CAMPAIGN), room.reserve(2, CAMPAIGN, 1)) == (0, 0)
    room.give(1, 3)
    assert room.reserve(2, CAMPAIGN, 9) == 1


def test_nothing_given_is_nothing_changed() -> None:
    room = Room(4, 4)
    room.give(1, 0)
    assert room.held == 0


def site(name: str = "mx.example.net") -> Site:
    return Site(Route(name, (), NOW + 600))


def test_a_site_wants_a_session_for_work_that_no_session_is_free_for() -> None:
    s = site()
    assert not s.wants_session(NOW, 5)
    s.queue.push(lease())
    assert s.wants_session(NOW, 5)
    assert not s.wants_session(NOW, 0)
    s.sessions = 1  # still opening: the lease is for it
    assert not s.wants_session(NOW, 5)
    s.in_transaction = 1
    assert s.wants_session(NOW, 5)
    assert not s.wants_session(NOW, 1)


def test_a_site_that_can_not_be_reached_rests_longer_each_time_and_hands_out_what_waited() -> None:
    s = site()
    rests = []
    now = NOW
    for _ in range(12):
        s.queue.push(lease())
        assert len(s.unreachable(outcome(), now, 0.5)) == 1
        rests.append(round(s.suspended_until - now, 6))
        s.queue.push(lease())
        assert len(s.unreachable(outcome(), now, 0.5)) == 1  # failed together with the first: it counts once
        assert s.suspended(s.suspended_until - 1)
        now = s.suspended_until
        assert not s.suspended(now)
    assert rests == [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 1_800, 1_800, 1_800]
    assert len(s.queue) == 0


def test_a_resting_site_wants_no_session() -> None:
    s = site()
    s.unreachable(outcome(), NOW, 0.5)
    s.queue.push(lease())
    assert not s.wants_session(NOW, 5)


def test_a_site_that_was_reached_starts_from_the_beginning() -> None:
    s = site()
    for _ in range(4):
        s.unreachable(outcome(Action.DELAYED), NOW, 0.5)
    s.reached()
    assert not s.suspended(NOW)
    assert s.last_outcome is None
    s.unreachable(outcome(), NOW, 0.5)
    assert s.suspended_until == NOW + 5


def test_a_site_is_remembered_while_anything_is_there() -> None:
    unused, connected, waited_for = site(), site(), site()
    connected.sessions = 1
    waited_for.queue.push(lease())
    assert [each.forgettable(NOW) for each in (unused, connected, waited_for)] == [True, False, False]


def test_failures_are_remembered_for_a_while_and_not_for_ever() -> None:
    failing = site()
    failing.unreachable(outcome(Action.DELAYED), NOW, 0.5)
    assert not failing.forgettable(NOW)
    assert not failing.forgettable(NOW + 5 + 1_799)
    assert failing.forgettable(NOW + 5 + 1_800)


@pytest.mark.parametrize(
    ("looked_at", "turned_away", "seconds", "pause"),
    [(0, 0, 0.1, 0.0), (500, 0, 0.1, 0.0), (500, 250, 0.1, 0.0), (500, 251, 0.01, 0.3), (500, 500, 0.01, 0.3),
     (500, 500, 1.0, 3.0), (1, 1, 0.01, 0.3)],
)  # fmt: skip
def test_what_finds_no_room_is_followed_by_a_pause(
    looked_at: int, turned_away: int, seconds: float, pause: float
) -> None:
    assert pause_seconds(looked_at, turned_away, seconds) == pytest.approx(pause)


def sites(full: FullSites, now: float, message_class: MessageClass = CAMPAIGN) -> list[str]:
    return [span.site for span in full.spans(now, message_class, 100)]


def test_a_site_that_turned_something_away_is_full_until_half_of_it_is_free() -> None:
    full, crowded = FullSites(10), full_site(10)
    full.add(crowded)
    while len(crowded.queue) > 5:
        assert not full.reopened(NOW)
        crowded.queue.pop()
    assert full.reopened(NOW)
    assert not full.reopened(NOW)


def test_what_is_due_at_a_full_site_is_put_off_where_it_is_backed_up() -> None:
    full, busy, slow = FullSites(100), full_site(100), full_site(100, "mx.example.org")
    for each in (busy, slow):
        full.add(each)
    assert sites(full, NOW + 0.5) == []  # no pace is known yet
    takes(busy, 50, 2)
    takes(slow, 1, 2)
    assert sites(full, NOW + 2) == [slow.key]
    assert sites(full, NOW + 2, TRANSACTIONAL) == []


def test_what_is_due_at_a_resting_site_is_put_off_whatever_it_is() -> None:
    full, resting = FullSites(10), site()
    resting.unreachable(outcome(Action.DELAYED), NOW, 0.5)
    full.add(resting)
    assert full.spans(NOW + 2, CAMPAIGN, 1_000) == [(resting.key, NOW + 5, NOW + 7)]
    assert full.spans(NOW + 2, TRANSACTIONAL, 1_000) == [(resting.key, NOW + 5, NOW + 15)]
    assert sites(full, NOW + 5) == []


def test_those_that_are_put_off_come_behind_those_before_but_no_transactional_mail_behind_a_campaign() -> None:
    full, resting = FullSites(10), site()
    resting.unreachable(outcome(Action.DELAYED), NOW, 0.5)
    full.add(resting)
    for number in range(4):
        [span] = spans = full.spans(NOW + 1, CAMPAIGN, 1_000)
        assert span == (resting.key, NOW + 5 + number, NOW + 7 + number)
        full.were_put_off(NOW + 1, spans, {resting.key: 500})
    full.were_put_off(NOW + 1, spans, {resting.key: 1_000_000})
    assert full.spans(NOW + 1, CAMPAIGN, 1_000) == [(resting.key, NOW + 301, NOW + 303)]
    assert full.spans(NOW + 1, TRANSACTIONAL, 1_000) == [(resting.key, NOW + 5, NOW + 15)]


def test_nothing_is_put_off_for_as_long_as_a_site_may_rest() -> None:
    """It rests for this worker; another one may reach it."""
    full, resting = FullSites(10), site()
    for _ in range(12):
        resting.suspended_until = 0.0
        resting.unreachable(outcome(Action.DELAYED), NOW, 0.5)
    full.add(resting)
    assert full.spans(NOW + 1, CAMPAIGN, 1_000) == [(resting.key, NOW + 301, NOW + 303)]
    assert full.spans(NOW + 1, TRANSACTIONAL, 1_000) == [(resting.key, NOW + 301, NOW + 311)]


def test_a_site_that_is_backed_up_is_full_however_little_it_holds() -> None:
    """Campaigns may have no room for more of it."""
    full, slow = FullSites(1_000), full_site(100)
    takes(slow, 1, 2)
    full.add(slow)
    assert not full.reopened(NOW + 2)
    assert sites(full, NOW + 2) == [slow.key]


def test_a_pace_that_rises_finds_work_among_those_that_were_put_off() -> None:
    full, slow = FullSites(100_000), full_site(60_000)
    takes(slow, 900, 2)
    full.add(slow)
    assert full.spans(NOW + 2, CAMPAIGN, 1_800) == [(slow.key, NOW + 3, NOW + 4)]


def test_the_sites_that_turn_most_away_come_first_where_there_are_many() -> None:
    full, resting = FullSites(10), [site(f"mx{number}.example.net") for number in range(150)]
    for number, each in enumerate(resting):
        each.unreachable(outcome(Action.DELAYED), NOW, 0.5)
        for _ in range(number + 1):
            full.add(each)
    assert sites(full, NOW) == [each.key for each in resting[:49:-1]]


def full_site(waiting: int = 100, name: str = "mx.example.net") -> Site:
    made = site(name)
    for _ in range(waiting):
        made.push(lease(), NOW)
    return made


def test_where_no_pace_is_known_what_finds_no_room_comes_back_soon() -> None:
    assert full_site().turn_at(NOW + 0.5, 0.25) == NOW + 0.75


def takes(busy: Site, each_second: int, seconds: int) -> None:
    for number in range(1, each_second * seconds + 1):
        busy.pace.add(NOW + number / each_second)


@pytest.mark.parametrize(
    ("waiting", "each_second", "soonest", "latest"),
    [(100, 0, 0.0, 10.0), (100, 2, 0.0, 3.0), (100, 50, 0.0, 3.0), (100, 400, 0.0, 0.375)],
)
def test_what_finds_no_room_comes_back_about_when_those_that_wait_are_gone_and_soon_where_any_goes(
    waiting: int, each_second: int, soonest: float, latest: float
) -> None:
    full = full_site(waiting)
    takes(full, each_second, 2)
    now = NOW + 2
    assert full.turn_at(now, 0.0) == pytest.approx(now + soonest)
    assert full.turn_at(now, 1.0) == pytest.approx(now + latest)


def test_the_next_come_spread_around_the_time_when_the_others_are_gone() -> None:
    full = full_site(100)
    takes(full, 100, 2)
    assert full.turn_at(NOW + 2, 0.5) == pytest.approx(NOW + 3)


def test_a_pace_is_not_made_slower_by_time_without_work() -> None:
    idle = site()
    idle.push(lease(), NOW)
    takes(idle, 50, 2)
    idle.queue.clear()
    idle.push(lease(), NOW + 3_600)
    assert idle.pace.per_second(NOW + 3_600) == 50


def test_a_campaign_that_has_its_share_comes_back_when_that_is_about_gone() -> None:
    seconds = NOW
    room = Room(1_000, 100, now=lambda: seconds)
    room.take(1, 100)
    assert room.turn_at(1, 0.5) == NOW + 0.5
    seconds = NOW + 2
    assert room.turn_at(1, 0.5) == NOW + 7  # nothing moves
    room.give(1, 40)
    assert room.turn_at(1, 0.5) == NOW + 7  # it went back for lack of room
    room.give(1, 40, tried=True)
    room.take(1, 80)
    assert room.turn_at(1, 0.5) == NOW + 3.5  # 5 s at 20 a second, but soon where any goes
    room.give(1, 80)
    room.take(1, 1)
    assert room.turn_at(1, 0.5) == pytest.approx(NOW + 2 + 21 / 20)
