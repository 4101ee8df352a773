"""Standing orders: what an operator has said about a campaign, a list, a tenant or a site, and what follows from it.

An order pauses until it is lifted or its end has come, or cancels; apart from that, it may set a first moment and a
weekly window of sending. What is cancelled stays so: all of a campaign, until it is resumed for new mail; of a list,
tenant or site what was accepted before the order.
Pure, apart from the clocks of Book, which is what delivery and submission ask: at most four look-ups a question, none
while there are no orders. A book that was not confirmed for too long is stale, and nothing may be sent on it.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Final, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from config.clock import boot_clock

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTES: Final = 24 * 60
# how long an answer that depends on the time of day may be used again
_AGAIN_SECONDS: Final = 0.25
_FIRST_YEAR, _LAST_YEAR = 1971, 3000


class OrderError(Exception):
    """An order that is not well-formed; the text says what would be right."""


class Reach(IntEnum):
    """What an order is about, as stored."""

    CAMPAIGN = 1
    LIST = 2
    TENANT = 3
    SITE = 4


class State(IntEnum):
    """What an order says, as stored."""

    RUNNING = 0
    PAUSED = 1
    CANCELLED = 2


class Standing(IntEnum):
    """What may be done with a recipient; the gravest order wins."""

    GO = 0
    HOLD = 1
    CANCEL = 2


@dataclass(frozen=True, slots=True)
class Window:
    """When mail may leave: days of the week (0 is Monday), and minutes of the day in a time zone.

    An end before the start is on the next day; the day that counts is then that of the start.
    """

    days: frozenset[int]
    start: int
    end: int
    zone: str

    @classmethod
    def parse(cls, days: str, hours: str, zone: str) -> Self:
        """Of `mon-fri,sun`, `09:00-17:30` and `Europe/Berlin`; empty means every day, all day, UTC."""
        zone = time_zone(zone).key
        start, end = _hours(hours) if hours else (0, _MINUTES)
        return cls(_days(days) if days else frozenset(range(7)), start, end, zone)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """What str() wrote; raises OrderError."""
        parts = text.split()
        if len(parts) != 3:
            raise OrderError(f"{text!r} is no window")
        return cls.parse(*parts)

    def __str__(self) -> str:
        days = ",".join(DAYS[day] for day in sorted(self.days))
        return f"{days} {_clock(self.start)}-{_clock(self.end)} {self.zone}"

    def contains(self, now: float) -> bool:
        """Whether mail may leave at this moment."""
        local = datetime.fromtimestamp(now, ZoneInfo(self.zone))
        minute = local.hour * 60 + local.minute
        if self.start < self.end:
            return local.weekday() in self.days and self.start <= minute < self.end
        yesterday = (local.weekday() - 1) % 7
        return (local.weekday() in self.days and minute >= self.start) or (yesterday in self.days and minute < self.end)

    def opens(self, now: float) -> float:
        """The first moment from now on at which mail may leave, to the minute."""
        if self.contains(now):
            return now
        local = datetime.fromtimestamp(now, ZoneInfo(self.zone))
        hour, minute = divmod(self.start, 60)
        for ahead in range(9):
            day = local.date() + timedelta(days=ahead)
            opening = datetime(day.year, day.month, day.day, hour, minute, tzinfo=ZoneInfo(self.zone)).timestamp()
            if day.weekday() in self.days and opening > now:
                return opening
        return now


@dataclass(frozen=True, slots=True)
class Schedule:
    """When mail may leave at all, and who said so: from a moment on, in a window, or both. Times in epoch seconds."""

    reason: str
    actor: str
    at: float
    not_before: float | None = None
    window: Window | None = None

    def __bool__(self) -> bool:
        return self.not_before is not None or self.window is not None

    def holds(self, now: float) -> bool:
        """Whether nothing may leave now."""
        return self._early(now) or (self.window is not None and not self.window.contains(now))

    def opens(self, now: float) -> float:
        """The first moment from now on at which mail may leave."""
        start = max(now, self.not_before or now)
        return self.window.opens(start) if self.window else start

    def says(self, now: float) -> str:
        """In words; empty where nothing follows from it any more."""
        if not self.holds(now):
            return f"it leaves only in {self.window}" if self.window else ""
        what = "scheduled" if self._early(now) else f"outside its window {self.window}"
        return f"{what} by {self.actor} since {utc(self.at)}, until {utc(self.opens(now))}{_why(self.reason)}"

    def _early(self, now: float) -> bool:
        return self.not_before is not None and now < self.not_before


@dataclass(frozen=True, slots=True)
class Order:
    """What stands about one target: the id of what it is about, or 0 with the name of a site. Times in epoch seconds.

    A state, with who gave it, when and why; and a schedule, with the same of its own. cancelled_at: of a cancel beside
    that state, which the state doesn't take back.
    """

    reach: Reach
    target: int
    site: str
    state: State
    reason: str
    actor: str
    at: float
    until: float | None = None
    cancelled_at: float | None = None
    schedule: Schedule | None = None

    @property
    def timed(self) -> bool:
        """Whether the passing of time alone changes what follows from it."""
        return self.until is not None or self.schedule is not None

    @property
    def cancels_until(self) -> float | None:
        """What was accepted until then is cancelled: infinity for a cancelled campaign, None for nothing."""
        if self.state is not State.CANCELLED:
            return self.cancelled_at
        return math.inf if self.reach is Reach.CAMPAIGN else self.at

    def holds(self, now: float) -> bool:
        """Whether what it doesn't cancel may not leave now."""
        return self._paused(now) or (self.schedule is not None and self.schedule.holds(now))

    def standing(self, now: float) -> Standing:
        """What follows from it."""
        if self.state is State.CANCELLED:
            return Standing.CANCEL
        return Standing.HOLD if self.holds(now) else Standing.GO

    def says(self, now: float) -> str:
        """In words: what, by whom, since when, why and until when; of the state and of the schedule."""
        told = []
        if self.state is State.CANCELLED:
            what = "cancelled" if self.reach is Reach.CAMPAIGN else "cancelled, but not what came later,"
            told.append(f"{what} by {self.actor} since {utc(self.at)}{_why(self.reason)}")
        elif self._paused(now):
            until = f", until {utc(self.until)}" if self.until is not None else ""
            told.append(f"paused by {self.actor} since {utc(self.at)}{until}{_why(self.reason)}")
        elif self.schedule is None or not self.schedule.holds(now):
            told.append("running")
        if self.state is not State.CANCELLED and self.cancelled_at is not None:
            told.append(f"what was accepted until {utc(self.cancelled_at)} is cancelled")
        if self.schedule is not None and self.cancels_until != math.inf:
            told.append(self.schedule.says(now))
        return "; ".join(filter(None, told))

    def ends(self, now: float) -> float | None:
        """When it lets mail go again by itself; None for never, or when it does now."""
        if self.standing(now) is not Standing.HOLD or (self._paused(now) and self.until is None):
            return None
        moment = self.until if self._paused(now) and self.until is not None else now
        return self.schedule.opens(moment) if self.schedule else moment

    def _paused(self, now: float) -> bool:
        return self.state is State.PAUSED and (self.until is None or now < self.until)


@dataclass(frozen=True, slots=True)
class Stopped:
    """The targets that orders hold or cancel at one moment, by reach; of cancelled ones with the time of the order."""

    held: dict[Reach, frozenset[int]] = field(default_factory=dict)
    held_sites: frozenset[str] = frozenset()
    cancelled: dict[Reach, dict[int, float]] = field(default_factory=dict)
    cancelled_sites: dict[str, float] = field(default_factory=dict)

    @classmethod
    def by(cls, orders: Iterable[Order], now: float) -> Self:
        """What these orders stop now."""
        held: dict[Reach, set[int]] = {reach: set() for reach in Reach}
        cancelled: dict[Reach, dict[int, float]] = {reach: {} for reach in Reach}
        held_sites: set[str] = set()
        cancelled_sites: dict[str, float] = {}
        for order in orders:
            if (until := order.cancels_until) is not None:
                if order.reach is Reach.SITE:
                    cancelled_sites[order.site] = until
                else:
                    cancelled[order.reach][order.target] = until
            if order.holds(now):
                if order.reach is Reach.SITE:
                    held_sites.add(order.site)
                else:
                    held[order.reach].add(order.target)
        frozen = {reach: frozenset(targets) for reach, targets in held.items()}
        return cls(frozen, frozenset(held_sites), cancelled, cancelled_sites)

    def standing(self, tenant_id: int, list_id: int, campaign_id: int, received_at: float, site: str = "") -> Standing:
        """What may be done with a recipient; site: empty while it is not known."""
        targets = ((Reach.CAMPAIGN, campaign_id), (Reach.LIST, list_id), (Reach.TENANT, tenant_id))
        if any(received_at <= self.cancelled[reach].get(target, -1.0) for reach, target in targets):
            return Standing.CANCEL
        if received_at <= self.cancelled_sites.get(site, -1.0):
            return Standing.CANCEL
        held = site in self.held_sites or any(target in self.held[reach] for reach, target in targets)
        return Standing.HOLD if held else Standing.GO

    def __bool__(self) -> bool:
        return bool(self.held_sites or self.cancelled_sites or any(self.held.values()) or any(self.cancelled.values()))


class Book:
    """The orders as this process knows them, and when that was last known to be all of them. known: whether ever."""

    def __init__(
        self,
        max_staleness_seconds: float = math.inf,
        *,
        clock: Callable[[], float] = boot_clock,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.orders: tuple[Order, ...] = ()
        self.consent_required: frozenset[int] = frozenset()
        self._max_staleness = max_staleness_seconds
        self._clock = clock
        self._now = now
        self._confirmed_at = clock()
        self.known = False
        self._stopped = Stopped.by((), now())
        self._stops = False
        self._evaluate_at = math.inf

    def replace(self, orders: Iterable[Order], consent_required: frozenset[int] = frozenset()) -> None:
        """These are all the orders from now on, and the tenants whose campaign mail needs a recorded consent."""
        self.orders = tuple(orders)
        self.consent_required = consent_required
        self.known = True
        self._evaluate(self._now())

    def confirm(self, asked_at: float) -> None:
        """What is known was all there is, at this time of the book's clock."""
        self._confirmed_at = asked_at

    def fresh(self) -> bool:
        """Whether it is known well enough to send on."""
        return self._clock() - self._confirmed_at <= self._max_staleness

    def stopped(self) -> Stopped:
        """What is stopped at this moment."""
        # by a clock that nobody sets: what was true this morning is not, after the time of day was set back
        if self._clock() >= self._evaluate_at:
            self._evaluate(self._now())
        return self._stopped

    def standing(self, tenant_id: int, list_id: int, campaign_id: int, received_at: float, site: str = "") -> Standing:
        """What may be done with a recipient now."""
        if not self._stops and self._evaluate_at == math.inf:
            return Standing.GO
        return self.stopped().standing(tenant_id, list_id, campaign_id, received_at, site)

    def _evaluate(self, now: float) -> None:
        self._stopped = Stopped.by(self.orders, now)
        self._stops = bool(self._stopped)
        self._evaluate_at = self._clock() + _AGAIN_SECONDS if any(order.timed for order in self.orders) else math.inf


def utc(seconds: float) -> str:
    """A time for people."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _why(reason: str) -> str:
    return f": {reason}" if reason else ""


def moment(text: str, now: float, zone: str = "") -> float:
    """A time as an operator writes it: `2h`, `30m`, `3d` from now, or 2026-11-24T09:00[+01:00].

    zone: of a time without one; empty: UTC. Raises OrderError, also for times that calendars can't reckon with.
    """
    without_zone = time_zone(zone)
    units = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
    try:
        if text[:-1].isascii() and text[:-1].isdigit() and text[-1:] in units:
            # by way of a date: what no calendar has is no time
            when = datetime.fromtimestamp(now + int(text[:-1]) * units[text[-1]], UTC)
        else:
            when = datetime.fromisoformat(text)
        if not _FIRST_YEAR <= when.year < _LAST_YEAR:
            raise ValueError(text)
        return (when if when.tzinfo else when.replace(tzinfo=without_zone)).timestamp()
    except (ValueError, OverflowError):
        raise OrderError(f"{text!r} is no time; one is 2h, 3d, or 2026-11-24T09:00+01:00") from None


def time_zone(name: str) -> ZoneInfo:
    """A time zone by its name; empty: UTC. Raises OrderError."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise OrderError(f"{name!r} is no time zone; one is Europe/Berlin, or UTC") from None


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise OrderError(f"{text!r}: days are like mon-fri or mon,wed,sun")
        start, end = DAYS.index(first), DAYS.index(last if dash else first)
        days.update(day % 7 for day in range(start, end + 1 if end >= start else end + 8))
    return frozenset(days)


def _hours(text: str) -> tuple[int, int]:
    try:
        start, end = (_minute(part) for part in text.split("-"))
    except ValueError:
        raise OrderError(f"{text!r}: hours are like 09:00-17:30, up to 24:00") from None
    if start in (end, _MINUTES):
        raise OrderError(f"{text!r}: the window is empty; for all day leave the hours out")
    return start, end


def _minute(text: str) -> int:
    hour, _, minute = text.partition(":")
    value = int(hour) * 60 + int(minute or "0")
    if not (0 <= int(minute or "0") < 60 and 0 <= value <= _MINUTES):
        raise ValueError(text)
    return value


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
