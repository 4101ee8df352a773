"""Which recipient goes next, and to which site: the decisions of delivery, without I/O.

Everything here is synchronous and does no waiting, so that no state is ever half changed. Sites are looked at when
something happens to them (work comes, a session is free, a suspension ends), never by a scan. What waits in memory is
bounded in all, for each campaign and for each site; what is over a bound goes back to the queue.
"""

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from bounce.outcome import Outcome
from mta.lease import Lease
from mta.routing import Route
from suppression.digest import MessageClass

# what transactional mail may take beyond every bound, so that a campaign that fills them can't delay it
TRANSACTIONAL_HEADROOM = 2
_CROWDED_SECONDS = 30.0
_LONGEST_REST_SECONDS = 1_800.0
SPREAD_SECONDS = 10.0
"""What was given back for lack of room comes due spread over this time, where nothing says when there will be some."""
# a pace is that of a second at least; where it is not known yet, what finds no room comes back as soon as it may be
_PACE_SECONDS = 1.0
# where anything moves, what finds no room comes back within this time: a pace that rises must not find nothing waiting
_MOVING_SECONDS = 3.0
# after a claim that was of no use: so many times as long as it took, during which nothing is claimed
_FRUITLESS_TIMES = 30.0
_LONGEST_PAUSE_SECONDS = 3.0
# full sites whose recipients are put off in one statement, those first that have turned most away
_PUT_OFF_AT_ONCE = 100
# a site is backed up where what is in memory lasts for so long at its pace
_BACKED_UP_SECONDS = 60.0
# what was put off comes due at twice the pace of its site, so that a pace that rises finds work, or at this one
_LEAST_PER_SECOND = 500.0
# also where a site rests for longer: it does so for this worker, and another one may reach it
_LONGEST_PUT_OFF_SECONDS = 300.0


class FairQueue:
    """Leases in a fair order: transactional first, then tenants in turn, and within a tenant its campaigns in turn."""

    def __init__(self) -> None:
        self._transactional: deque[Lease] = deque()
        self._tenants: dict[int, dict[int, deque[Lease]]] = {}
        self._turns: deque[int] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, lease: Lease, *, first: bool = False) -> None:
        """Add a lease; first: before the others of its campaign, because it had its turn already."""
        self._size += 1
        if lease.message_class is MessageClass.TRANSACTIONAL:
            queue = self._transactional
        else:
            campaigns = self._tenants.get(lease.tenant_id)
            if campaigns is None:
                campaigns = self._tenants[lease.tenant_id] = {}
                self._turns.append(lease.tenant_id)
            queue = campaigns.setdefault(lease.campaign_id, deque())
        if first:
            queue.appendleft(lease)
        else:
            queue.append(lease)

    def pop(self) -> Lease | None:
        """The lease whose turn it is."""
        if not self._size:
            return None
        self._size -= 1
        if self._transactional:
            return self._transactional.popleft()
        tenant_id = self._turns.popleft()
        campaigns = self._tenants[tenant_id]
        campaign_id, queue = next(iter(campaigns.items()))
        lease = queue.popleft()
        # to the end of the round: dict order is the order of turns
        del campaigns[campaign_id]
        if queue:
            campaigns[campaign_id] = queue
        if campaigns:
            self._turns.append(tenant_id)
        else:
            del self._tenants[tenant_id]
        return lease

    def __iter__(self) -> Iterator[Lease]:
        yield from self._transactional
        for campaigns in self._tenants.values():
            for queue in campaigns.values():
                yield from queue

    def campaigns(self, most: int) -> list[int]:
        """The campaigns with most that waits, and whose turn comes first."""
        waiting = [item for campaigns in self._tenants.values() for item in campaigns.items()]
        largest = heapq.nlargest(most, waiting, key=lambda item: len(item[1]))
        first = dict.fromkeys(lease.campaign_id for lease in islice(self._transactional, most))
        return list(first | dict.fromkeys(campaign_id for campaign_id, _ in largest))[:most]

    def take_expired(self, now: float) -> list[Lease]:
        """Take out what is past its lifetime."""
        return self.take(lambda lease: lease.expires_at <= now)

    def take(self, wanted: Callable[[Lease], bool]) -> list[Lease]:
        """Take out some of the leases; the others keep their order."""
        taken = [lease for lease in self if wanted(lease)]
        if taken:
            gone = set(map(id, taken))
            for lease in self.clear():
                if id(lease) not in gone:
                    self.push(lease)
        return taken

    def clear(self) -> list[Lease]:
        """Take everything out."""
        leases = list(self)
        self.__init__()  # type: ignore[misc]
        return leases


@dataclass(slots=True)
class Pace:
    """How many of something end in a second, while there is something to do."""

    since: float = 0.0
    count: int = 0
    before: float | None = None

    def begin(self, now: float) -> None:
        """There was nothing to do until now."""
        self.since, self.count = now, 0

    def add(self, now: float, count: int = 1) -> None:
        """So many more have ended."""
        self.count += count
        if now - self.since >= _PACE_SECONDS:
            self.before = self.count / (now - self.since)
            self.begin(now)

    def per_second(self, now: float) -> float | None:
        """The pace of late; None when nothing is known yet."""
        seconds = now - self.since
        return self.count / seconds if seconds >= _PACE_SECONDS else self.before

    def turn_at(self, waiting: int, now: float, chance: float) -> float:
        """When one that finds no room should come back: about when those that wait are gone, soon where any goes."""
        pace = self.per_second(now)
        if pace is None:
            return now + chance * _PACE_SECONDS
        if not pace:
            return now + chance * SPREAD_SECONDS
        return now + min((0.5 + chance) * waiting / pace, chance * _MOVING_SECONDS)


@dataclass(slots=True, eq=False)
class Site:
    """A set of MX hosts with what waits for it here, and how it has been doing."""

    route: Route
    queue: FairQueue = field(default_factory=FairQueue)
    sessions: int = 0
    established: int = 0
    in_transaction: int = 0
    failures: int = 0
    suspended_until: float = 0.0
    crowded_until: float = 0.0
    last_outcome: Outcome | None = None
    pace: Pace = field(default_factory=Pace)
    turned_away: int = 0
    put_off_until: float = 0.0

    @property
    def key(self) -> str:
        """The name under which limits and counts are kept."""
        return self.route.site

    def forgettable(self, now: float) -> bool:
        """Whether nothing is here any more, and failures, if any, are so long ago that they say nothing about now."""
        if self.sessions or len(self.queue):
            return False
        return not self.failures or now >= self.suspended_until + _LONGEST_REST_SECONDS

    def suspended(self, now: float) -> bool:
        """Whether nothing is to be tried for now."""
        return now < self.suspended_until

    def wants_session(self, now: float, limit: int) -> bool:
        """Whether another connection would have work, and may be opened."""
        idle_or_opening = self.sessions - self.in_transaction
        allowed = (
            self.sessions < limit and not self.suspended(now) and not (self.established and now < self.crowded_until)
        )
        return allowed and len(self.queue) > idle_or_opening

    def push(self, lease: Lease, now: float) -> None:
        """Let a lease wait here."""
        if not len(self.queue):
            self.pace.begin(now)
        self.queue.push(lease)

    def turn_at(self, now: float, chance: float) -> float:
        """When a lease that finds no room here should come back."""
        return self.pace.turn_at(len(self.queue), now, chance)

    def full(self, now: float, bound: int) -> bool:
        """Whether it takes nothing more: from when something was turned away until it may be tried, is not backed up,
        and half of its room is free.
        """
        if self.turned_away and not self.shut(now, MessageClass.CAMPAIGN) and len(self.queue) <= bound // 2:
            self.turned_away = 0
        return self.turned_away > 0

    def backed_up(self, now: float) -> bool:
        """Whether what waits here lasts for long, so that what is in the queue can wait there."""
        pace = self.pace.per_second(now)
        return pace is not None and pace * _BACKED_UP_SECONDS < len(self.queue)

    def shut(self, now: float, message_class: MessageClass) -> bool:
        """Whether what is due here of a class can wait in the queue; transactional mail has no bound, and waits only
        where a site rests.
        """
        return self.suspended(now) or (message_class is MessageClass.CAMPAIGN and self.backed_up(now))

    def put_off(self, now: float, message_class: MessageClass, most: int) -> "Span":
        """When so many that are due here are to be due again: a campaign's behind those that were put off before."""
        latest = now + _LONGEST_PUT_OFF_SECONDS
        first = min(max(now + _PACE_SECONDS, self.suspended_until), latest)
        if message_class is MessageClass.TRANSACTIONAL:
            return Span(self.key, first, first + SPREAD_SECONDS)
        first = max(first, min(self.put_off_until, latest))
        return Span(self.key, first, first + most / self._put_off_per_second(now))

    def were_put_off(self, now: float, span: "Span", count: int) -> None:
        """So many of a campaign really were."""
        self.put_off_until = span.first + count / self._put_off_per_second(now)

    def _put_off_per_second(self, now: float) -> float:
        return max(_LEAST_PER_SECOND, 2 * (self.pace.per_second(now) or 0.0))

    def reached(self) -> None:
        """A session is up: whatever was wrong is over."""
        self.failures = 0
        self.suspended_until = 0.0
        self.last_outcome = None

    def crowded(self, now: float) -> None:
        """The site takes no more connections than there are: another one is not tried for a while."""
        self.crowded_until = now + _CROWDED_SECONDS

    def unreachable(self, outcome: Outcome, now: float, chance: float) -> list[Lease]:
        """No host of this site can be used. Returns what waited; the site rests before it is tried again.

        Connections that fail together count once.
        """
        if self.suspended(now):
            return self.queue.clear()
        self.failures += 1
        rest = min(5.0 * 2 ** (self.failures - 1), _LONGEST_REST_SECONDS)
        self.suspended_until = now + rest * (0.9 + 0.2 * chance)
        self.last_outcome = outcome
        return self.queue.clear()


class Span(NamedTuple):
    """From when until when recipients of a site are to be due again, in epoch seconds."""

    site: str
    first: float
    last: float


class FullSites:
    """The sites that have turned something away and take nothing more for now. bound: the room of each.

    What else is due at those that rest or are backed up is put off all at once: claimed and given back one by one, a
    million recipients would keep everybody else's from their turn.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._sites: set[Site] = set()

    def add(self, site: Site) -> None:
        """One more was turned away there."""
        site.turned_away += 1
        self._sites.add(site)

    def spans(self, now: float, message_class: MessageClass, most: int) -> list[Span]:
        """When what is due of a class is to be due again, by site. most: how many will be put off at once."""
        self.reopened(now)
        shut = [site for site in self._sites if site.shut(now, message_class)]
        worst = heapq.nlargest(_PUT_OFF_AT_ONCE, shut, key=lambda site: site.turned_away)
        return [site.put_off(now, message_class, most) for site in worst]

    def were_put_off(self, now: float, spans: Sequence[Span], counts: Mapping[str, int]) -> None:
        """So many of campaigns were put off, by site."""
        first = {span.site: span for span in spans}
        for site in self._sites:
            if site.key in counts:
                site.were_put_off(now, first[site.key], counts[site.key])

    def reopened(self, now: float) -> bool:
        """Whether some of them take mail again; from then on they are none of these."""
        again = [site for site in self._sites if not site.full(now, self._bound)]
        self._sites.difference_update(again)
        return bool(again)


def share(limit: int, workers: Sequence[int], me: int) -> int:
    """This worker's part of a limit that all living workers keep together; the parts add up to the limit."""
    if me not in workers:
        return 0
    each, over = divmod(limit, len(workers))
    return each + (1 if workers.index(me) < over else 0)


def pause_seconds(looked_at: int, turned_away: int, seconds: float) -> float:
    """How long not to claim after so many recipients were looked at in so long, and of which so many had no room.

    What is due first may be a million recipients of a site that takes none. What they cost must stay a small share of
    the time, or it takes the time of everybody else's mail.
    """
    if 2 * turned_away <= looked_at:
        return 0.0
    return min(_LONGEST_PAUSE_SECONDS, _FRUITLESS_TIMES * seconds)


class Room:
    """How many recipients fit into memory still: in all, and of one campaign."""

    def __init__(self, most: int, per_campaign: int, *, now: Callable[[], float] = time.time) -> None:
        self._most = most
        self._per_campaign = per_campaign
        self._now = now
        self._campaigns: dict[int, int] = {}
        self._pace = Pace()
        self.held = 0

    def free(self, message_class: MessageClass) -> int:
        """How many of a class can come in, whatever their campaign."""
        return max(0, self._bound(message_class, self._most) - self.held)

    def reserve(self, campaign_id: int, message_class: MessageClass, count: int) -> int:
        """Take room for up to count; returns for how many there was some."""
        in_campaign = self._bound(message_class, self._per_campaign) - self._campaigns.get(campaign_id, 0)
        taken = max(0, min(count, self.free(message_class), in_campaign))
        self.take(campaign_id, taken)
        return taken

    def take(self, campaign_id: int, count: int) -> None:
        """Count what came in, by right or not."""
        if count:
            if not self.held:
                self._pace.begin(self._now())
            self.held += count
            self._campaigns[campaign_id] = self._campaigns.get(campaign_id, 0) + count

    def give(self, campaign_id: int, count: int, *, tried: bool = False) -> None:
        """Count what is gone. tried: not for lack of room, but because an attempt was made."""
        if not count:
            return
        if tried:
            self._pace.add(self._now(), count)
        self.held -= count
        left = self._campaigns[campaign_id] - count
        if left:
            self._campaigns[campaign_id] = left
        else:
            del self._campaigns[campaign_id]

    def turn_at(self, campaign_id: int, chance: float) -> float:
        """When a recipient of a campaign that has its share of memory should come back."""
        return self._pace.turn_at(self._campaigns.get(campaign_id, 0), self._now(), chance)

    def _bound(self, message_class: MessageClass, bound: int) -> int:
        return bound * TRANSACTIONAL_HEADROOM if message_class is MessageClass.TRANSACTIONAL else bound
