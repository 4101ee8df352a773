"""Standing orders: what an operator has said about a campaign, a list, a tenant or a site, and what follows from it.

An order pauses until it is lifted or its end has come, cancels, or sets a first moment and a weekly window of sending.
A cancelled campaign stays so; of a list, tenant or site only what was accepted before the order is cancelled.
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

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTES: Final = 24 * 60
# how long an answer that depends on the time of day may be used again
_AGAIN_SECONDS: Final = 0.25


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
        zone = zone or "UTC"
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise OrderError(f"{zone!r} is no time zone; one is Europe/Berlin, or UTC") from None
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
class Order:
    """One standing order. target: the id of what it is about, or 0 with the name of a site. Times in epoch seconds."""

    reach: Reach
    target: int
    site: str
    state: State
    reason: str
    actor: str
    at: float
    until: float | None = None
    not_before: float | None = None
    window: Window | None = None

    @property
    def timed(self) -> bool:
        """Whether the passing of time alone changes what follows from it."""
        return self.until is not None or self.not_before is not None or self.window is not None

    def standing(self, now: float) -> Standing:
        """What follows from it."""
        if self.state is State.CANCELLED:
            return Standing.CANCEL
        paused = self.state is State.PAUSED and (self.until is None or now < self.until)
        early = self.not_before is not None and now < self.not_before
        outside = self.window is not None and not self.window.contains(now)
        return Standing.HOLD if paused or early or outside else Standing.GO

    def says(self, now: float) -> str:
        """In words: what, by whom, since when, why and until when."""
        standing, end = self.standing(now), self.ends(now)
        if standing is Standing.GO:
            return f"running; it leaves only in {self.window}" if self.window else "running"
        what = {State.CANCELLED: "cancelled", State.PAUSED: "paused", State.RUNNING: "scheduled"}[self.state]
        if self.state is State.PAUSED and self.until is not None and now >= self.until:
            what = "scheduled"
        if what == "scheduled" and self.window and not (self.not_before and now < self.not_before):
            what = f"outside its window {self.window}"
        why = f": {self.reason}" if self.reason else ""
        until = f", until {utc(end)}" if end else ""
        return f"{what} by {self.actor} since {utc(self.at)}{until}{why}"

    def ends(self, now: float) -> float | None:
        """When it lets mail go again by itself; None for never, or when it does now."""
        if self.standing(now) is not Standing.HOLD or (self.state is State.PAUSED and self.until is None):
            return None
        paused = self.until if self.state is State.PAUSED and self.until is not None else now
        moment = max(now, paused, self.not_before or now)
        return self.window.opens(moment) if self.window else moment


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
        held_sites, cancelled_sites = set(), {}
        for order in orders:
            match order.standing(now), order.reach:
                case Standing.HOLD, Reach.SITE:
                    held_sites.add(order.site)
                case Standing.HOLD, reach:
                    held[reach].add(order.target)
                case Standing.CANCEL, Reach.SITE:
                    cancelled_sites[order.site] = order.at
                case Standing.CANCEL, reach:
                    cancelled[reach][order.target] = math.inf if reach is Reach.CAMPAIGN else order.at
                case _:
                    pass
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
    """The orders as this process knows them, and when that was last known to be all of them."""

    def __init__(
        self,
        max_staleness_seconds: float = math.inf,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.orders: tuple[Order, ...] = ()
        self.consent_required: frozenset[int] = frozenset()
        self._max_staleness = max_staleness_seconds
        self._clock = clock
        self._now = now
        self._confirmed_at = clock()
        self._stopped = Stopped.by((), now())
        self._stops = False
        self._evaluate_at = math.inf

    def replace(self, orders: Iterable[Order], consent_required: frozenset[int] = frozenset()) -> None:
        """These are all the orders from now on, and the tenants whose campaign mail needs a recorded consent."""
        self.orders = tuple(orders)
        self.consent_required = consent_required
        self._evaluate(self._now())

    def confirm(self, asked_at: float) -> None:
        """What is known was all there is, at this time of the book's clock."""
        self._confirmed_at = asked_at

    def fresh(self) -> bool:
        """Whether it is known well enough to send on."""
        return self._clock() - self._confirmed_at <= self._max_staleness

    def stopped(self) -> Stopped:
        """What is stopped at this moment."""
        now = self._now()
        if now >= self._evaluate_at:
            self._evaluate(now)
        return self._stopped

    def standing(self, tenant_id: int, list_id: int, campaign_id: int, received_at: float, site: str = "") -> Standing:
        """What may be done with a recipient now."""
        if not self._stops and self._evaluate_at == math.inf:
            return Standing.GO
        return self.stopped().standing(tenant_id, list_id, campaign_id, received_at, site)

    def _evaluate(self, now: float) -> None:
        self._stopped = Stopped.by(self.orders, now)
        self._stops = bool(self._stopped)
        self._evaluate_at = now + _AGAIN_SECONDS if any(order.timed for order in self.orders) else math.inf


def utc(seconds: float) -> str:
    """A time for people."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def moment(text: str, now: float) -> float:
    """A time as an operator writes it: `2h`, `30m`, `3d` from now, or 2026-11-24T09:00[+01:00] (UTC without a zone)."""
    units = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
    try:
        if text[:-1].isascii() and text[:-1].isdigit() and text[-1:] in units:
            # by way of a date: what no calendar has is no time
            return datetime.fromtimestamp(now + int(text[:-1]) * units[text[-1]], UTC).timestamp()
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise OrderError(f"{text!r} is no time; one is 2h, 3d, or 2026-11-24T09:00+01:00") from None


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
