"""Models of the fair queue and of room: nothing is lost or doubled, nobody waits for more than a round."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mta.dispatch import TRANSACTIONAL_HEADROOM, FairQueue, Room, share
from mta.lease import Lease
from suppression.digest import MessageClass
from tests.support.leases import NOW, lease

small = st.integers(0, 3)
classes = st.sampled_from(MessageClass)


class FairQueueMachine(RuleBasedStateMachine):
    """The queue holds exactly what was pushed and not taken."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue()
        self.inside: dict[int, Lease] = {}

    @rule(tenant=small, campaign=small, message_class=classes, lives=st.booleans(), first=st.booleans())
    def push(self, tenant: int, campaign: int, message_class: MessageClass, lives: bool, first: bool) -> None:
        pushed = lease(
            tenant_id=tenant,
            campaign_id=10 * tenant + campaign,
            message_class=message_class,
            expires_at=NOW + (1 if lives else 0),
        )
        self.queue.push(pushed, first=first)
        self.inside[id(pushed)] = pushed

    @rule()
    def pop(self) -> None:
        urgent = any(each.message_class is MessageClass.TRANSACTIONAL for each in self.inside.values())
        popped = self.queue.pop()
        assert (popped is None) == (not self.inside)
        if popped is not None:
            assert self.inside.pop(id(popped)) is popped
            assert popped.message_class is MessageClass.TRANSACTIONAL or not urgent

    @rule()
    def expire(self) -> None:
        expected = {key for key, each in self.inside.items() if each.expires_at <= NOW}
        taken = self.queue.take_expired(NOW)
        assert sorted(map(id, taken)) == sorted(expected)
        for key in expected:
            del self.inside[key]

    @precondition(lambda self: len(self.inside) > 5)
    @rule()
    def clear(self) -> None:
        assert sorted(map(id, self.queue.clear())) == sorted(self.inside)
        self.inside.clear()

    @invariant()
    def holds_what_is_inside(self) -> None:
        assert len(self.queue) == len(self.inside)
        assert sorted(map(id, self.queue)) == sorted(self.inside)


TestFairQueue = FairQueueMachine.TestCase


@given(st.lists(st.tuples(small, small), min_size=1, max_size=60))
def test_no_tenant_waits_longer_than_one_turn_of_each_other(pushed: list[tuple[int, int]]) -> None:
    queue = FairQueue()
    for tenant, campaign in pushed:
        queue.push(lease(tenant_id=tenant, campaign_id=campaign))
    left = Counter(tenant for tenant, _ in pushed)
    turns = [popped.tenant_id for _ in pushed if (popped := queue.pop()) is not None]
    while turns:
        waiting = [tenant for tenant, count in left.items() if count]
        served, turns = turns[: len(waiting)], turns[len(waiting) :]
        assert sorted(served) == sorted(waiting)
        left.subtract(served)


@given(st.integers(0, 10_000), st.sets(st.integers(1, 10_000), min_size=1, max_size=50))
def test_shares_add_up_to_the_limit_and_differ_by_one_at_most(limit: int, workers: set[int]) -> None:
    living = sorted(workers)
    shares = [share(limit, living, me) for me in living]
    assert sum(shares) == limit
    assert max(shares) - min(shares) <= 1


class RoomMachine(RuleBasedStateMachine):
    """Room against plain counts."""

    MOST, PER_CAMPAIGN = 20, 12

    def __init__(self) -> None:
        super().__init__()
        self.room = Room(self.MOST, self.PER_CAMPAIGN)
        self.held: Counter[int] = Counter()

    @rule(campaign=small, message_class=classes, count=st.integers(0, 50))
    def reserve(self, campaign: int, message_class: MessageClass, count: int) -> None:
        factor = TRANSACTIONAL_HEADROOM if message_class is MessageClass.TRANSACTIONAL else 1
        taken = self.room.reserve(campaign, message_class, count)
        assert 0 <= taken <= count
        self.held[campaign] += taken
        if taken:
            assert self.held.total() <= factor * self.MOST
            assert self.held[campaign] <= factor * self.PER_CAMPAIGN
        elif count:
            assert self.held.total() >= factor * self.MOST or self.held[campaign] >= factor * self.PER_CAMPAIGN

    @rule(campaign=small, count=st.integers(0, 5))
    def take(self, campaign: int, count: int) -> None:
        self.room.take(campaign, count)
        self.held[campaign] += count

    @rule(campaign=small, part=st.floats(0, 1))
    def give(self, campaign: int, part: float) -> None:
        count = int(self.held[campaign] * part)
        self.room.give(campaign, count)
        self.held[campaign] -= count

    @invariant()
    def adds_up(self) -> None:
        assert self.room.held == self.held.total()
        assert self.room.free(MessageClass.CAMPAIGN) == max(0, self.MOST - self.room.held)


TestRoom = RoomMachine.TestCase
