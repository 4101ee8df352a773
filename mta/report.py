"""A campaign's report: aggregates that say nothing about any one recipient. Pure: tallies in, a report out.

A number follows its count in steps, at places that a key chooses: one in each min_cell counts. Between two of them it
doesn't move, so that what one recipient does changes a report with a chance of 1/min_cell, leaves no trace otherwise,
and asking again teaches nothing. Each step is blurred by keyed noise of its own and rounded, and what is small after
that is not shown at all: reports of two campaigns differ by noise, and subtracting them does not show the one recipient
in which they differ. Numbers do not add up exactly; that is the price, and the reports say so.

The noise is two-sided geometric with a mean size of min_cell. Of a step, which is as long as that on average, it leaves
a factor of about e on a reader's odds; as one recipient more makes a step in one of min_cell cases, the odds about a
recipient change by a factor of at most about e^(2/min_cell) for each cell that it is counted in (at most five). A count
below min_cell is never shown; one just above it is with a chance of 1 or 2 %, because only what exceeds five times
min_cell after blurring is.
"""

import hashlib
import math
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

SHOWN_FROM: Final = 5
"""A blurred number is shown from so many times min_cell on."""
_HOURLY: Final = timedelta(hours=72)
_TOTALS: Final = {
    "accepted": "Reception",
    "delivered": "Delivery",
    "deferred": "TransientFailure",
    "bounced": "Bounce",
    "bounced_later": "OOB",
    "expired": "Expiration",
    "suppressed": "Suppressed",
    "cancelled": "Cancelled",
    "complaints": "Feedback",
    "unsubscribes": "Unsubscribe",
}
_BOUNCED: Final = frozenset(("bounced", "bounced_later"))
_BY_PROVIDER: Final = ("delivered", "deferred", "bounced")

Number = int | None
"""What a report shows for a count; None: too small to be shown."""


@dataclass(frozen=True, slots=True)
class Blur:
    """Makes the numbers of reports out of counts. key: secret, and the same for the life of the installation."""

    key: bytes
    min_cell: int

    def number(self, campaign_id: int, cell: str, count: int) -> Number:
        """What is shown for a count."""
        if count < self.min_cell:
            return None
        step = count // self.min_cell
        step -= count < self._begin(campaign_id, cell, step)
        middle = (self._begin(campaign_id, cell, step) + self._begin(campaign_id, cell, step + 1)) // 2
        blurred = middle + self._noise(campaign_id, cell, step)
        if blurred < SHOWN_FROM * self.min_cell:
            return None
        grain = max(1, self.min_cell // 2)
        return round(blurred / grain) * grain

    def _begin(self, campaign_id: int, cell: str, step: int) -> int:
        """The count at which a step begins: one of the min_cell counts that are its."""
        (chance, _) = self._chances(b"heed step", campaign_id, cell, step)
        return step * self.min_cell + int(chance * self.min_cell)

    def _noise(self, campaign_id: int, cell: str, step: int) -> int:
        """The difference of two geometric variables: P(n) falls by e^(-1/min_cell) with each one away from 0."""
        one, two = self._chances(b"heed report", campaign_id, cell, step)
        return math.floor(-math.log(1 - one) * self.min_cell) - math.floor(-math.log(1 - two) * self.min_cell)

    def _chances(self, purpose: bytes, campaign_id: int, cell: str, step: int) -> tuple[float, float]:
        """Two numbers from 0 to below 1 that only the key tells."""
        data = struct.pack(">qq", campaign_id, step) + cell.encode()
        digest = hashlib.blake2b(data, digest_size=16, key=self.key, person=purpose).digest()
        one, two = (value >> 11 for value in struct.unpack(">QQ", digest))
        return one / (1 << 53), two / (1 << 53)


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a campaign. Numbers are blurred; what is too small to be shown is None, or not there at all."""

    tenant: str
    campaign: str
    as_of: datetime
    min_cell: int
    totals: dict[str, Number]
    bounced_by_class: dict[str, Number]
    unsubscribes_by_channel: dict[str, Number]
    by_provider: dict[str, dict[str, Number]]
    over_time: list[tuple[datetime, Number]]
    unit: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "tenant": self.tenant,
            "campaign": self.campaign,
            "as_of": self.as_of,
            "note": self.note,
            "totals": self.totals,
            "bounced_by_class": self.bounced_by_class,
            "unsubscribes_by_channel": self.unsubscribes_by_channel,
            "by_provider": self.by_provider,
            "delivered_over_time": [{self.unit: at, "delivered": number} for at, number in self.over_time],
        }

    def rows(self) -> list[tuple[str, str, str, Number]]:
        """For CSV: section, name, measure, number."""
        found: list[tuple[str, str, str, Number]] = [("total", "", name, n) for name, n in self.totals.items()]
        found += [("class", name, "bounced", n) for name, n in self.bounced_by_class.items()]
        found += [("channel", name, "unsubscribes", n) for name, n in self.unsubscribes_by_channel.items()]
        for provider, measures in self.by_provider.items():
            found += [("provider", provider, measure, n) for measure, n in measures.items()]
        return found + [(self.unit, f"{at:%Y-%m-%dT%H:%MZ}", "delivered", n) for at, n in self.over_time]

    @property
    def note(self) -> str:
        """What a reader has to know about the numbers."""
        return (
            f"Numbers are blurred by about {self.min_cell} and rounded, so that nobody can be told from the rest; they "
            f"do not add up exactly, and what is below {SHOWN_FROM * self.min_cell} is not shown."
        )


def report_of(
    tallies: Iterable[Mapping[str, Any]], *, tenant: str, campaign: str, campaign_id: int, as_of: datetime, blur: Blur
) -> Report:
    """The report of a campaign's tallies."""
    rows = list(tallies)
    measures = {kind: measure for measure, kind in _TOTALS.items()}
    totals, classes, channels = Counter[str](), Counter[str](), Counter[str]()
    providers: Counter[tuple[str, str]] = Counter()
    hours: Counter[datetime] = Counter()
    for row in rows:
        measure, count = measures.get(row["type"], ""), row["recipients"]
        totals[measure] += count
        if measure in _BOUNCED:
            classes[row["class"]] += count
        if measure == "unsubscribes":
            channels[row["channel"]] += count
        if measure in _BY_PROVIDER:
            providers[row["provider"] or "other", measure] += count
        if measure == "delivered":
            hours[row["hour"]] += count

    def number(cell: str, count: int) -> Number:
        return blur.number(campaign_id, cell, count)

    def shown(unit: str, step: timedelta) -> list[tuple[datetime, Number]]:
        spans = _spans(hours if unit == "hour" else _by_day(hours), step)
        return _trimmed([(at, number(f"{unit} {at.timestamp():.0f}", count)) for at, count in spans])

    # by what is shown: one recipient who is late doesn't turn hours into days
    unit, over_time = "hour", shown("hour", timedelta(hours=1))
    if over_time and over_time[-1][0] - over_time[0][0] > _HOURLY:
        unit, over_time = "day", shown("day", timedelta(days=1))
    by_provider: dict[str, dict[str, Number]] = {
        provider: {m: number(f"provider {provider} {m}", providers[provider, m]) for m in _BY_PROVIDER}
        for provider in sorted({provider for provider, _ in providers})
    }
    return Report(
        tenant,
        campaign,
        as_of,
        blur.min_cell,
        {measure: number(measure, totals[measure]) for measure in _TOTALS},
        _shown({name: number(f"class {name}", count) for name, count in sorted(classes.items())}),
        _shown({name: number(f"channel {name}", count) for name, count in sorted(channels.items())}),
        {name: row for name, row in by_provider.items() if any(n is not None for n in row.values())},
        over_time,
        unit,
    )


def _shown(numbers: dict[str, Number]) -> dict[str, Number]:
    """A row that only says that there was something says too much."""
    return {name: number for name, number in numbers.items() if number is not None}


def _by_day(hours: Counter[datetime]) -> Counter[datetime]:
    days = Counter[datetime]()
    for at, count in hours.items():
        days[at.astimezone(UTC).replace(hour=0)] += count
    return days


def _spans(counts: Counter[datetime], step: timedelta) -> list[tuple[datetime, int]]:
    """Counts of every span, from the first to the last."""
    if not counts:
        return []
    first, last = min(counts), max(counts)
    return [(at, counts[at]) for number in range((last - first) // step + 1) for at in [first + number * step]]


def _trimmed(spans: list[tuple[datetime, Number]]) -> list[tuple[datetime, Number]]:
    """Without the ends in which nothing is shown: where they are is when the first and the last one came."""
    shown = [index for index, (_, number) in enumerate(spans) if number is not None]
    return spans[shown[0] : shown[-1] + 1] if shown else []
