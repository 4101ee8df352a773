"""`heed top`: a screen of 80 by 24 of what a node and the queue are doing, once a second. Pure.

Rates are differences of two readings of /metrics; queue, campaigns and orders come from the database as last counted.
What is not known is a dash. Names and reasons come from strangers: they are no markup, and stay on their line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bounce.outcome import printable
from metrics.status_page import number
from mta.node_state import site_says
from mta.orders import Order, Standing, State

WIDTH, HEIGHT = 80, 24
_COLUMNS: Final = (30, 9, 37)
_ROWS: Final = 5
_CLASSES: Final = 4
_UNKNOWN: Final = "–"
_DAY_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Reading:
    """All that a screen is made of, at one moment (epoch seconds). metrics: as metrics.history.read() names them.

    campaigns: name, waiting, state; orders: name and state of the lists, tenants and sites that orders stop.
    """

    at: float
    state: Mapping[str, Any] | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    campaigns: Sequence[tuple[str, int, str]] = ()
    orders: Sequence[tuple[str, str]] = ()
    counted_seconds_ago: float = 0.0
    trouble: str = ""


def rate(before: Reading | None, now: Reading, name: str) -> float:
    """What a counter grows by each second; 0 at the first reading and after a restart."""
    if before is None or now.at <= before.at:
        return 0.0
    return max(0.0, now.metrics.get(name, 0.0) - before.metrics.get(name, 0.0)) / (now.at - before.at)


def briefly(order: Order, now: float) -> str:
    """What an order does to mail now, until when and why, as short as can be: the start is cut off last."""
    standing, schedule = order.standing(now), order.schedule
    if standing is Standing.GO:
        return "running, in a window" if schedule is not None and schedule.window else "running"
    paused = order.state is State.PAUSED and (order.until is None or now < order.until)
    what = "cancelled" if standing is Standing.CANCEL else "paused" if paused else "scheduled"
    said = schedule if what == "scheduled" and schedule is not None else order
    end = order.ends(now)
    until = f" until {_clock(end, now)}" if end else ""
    return f"{what}{until}: {said.reason}" if said.reason else f"{what}{until} by {said.actor}"


def _clock(at: float, now: float) -> str:
    """A time in UTC, without what is plain: the year, and the date within a day."""
    form = "%H:%M" if at < now + _DAY_SECONDS else "%m-%d %H:%M" if at < now + 365 * _DAY_SECONDS else "%Y-%m-%d"
    return f"{datetime.fromtimestamp(at, UTC):{form}}"


def screen(before: Reading | None, now: Reading) -> Group:
    """The whole screen; no line is wider, and there are no more of them, than fits."""
    lines: list[Any] = [_head(now), _rates(before, now), _queue(now), _promise(now), _classes(before, now)]
    lines += [*_orders(now), Text()]
    lines += [_campaigns(now), Text(), _sites(now), Text("q or Ctrl-C ends", style="dim")]
    return Group(*lines)


def _head(now: Reading) -> Text:
    if now.state is None:
        return Text("Heed: no daemon answers on this machine", style="bold red", no_wrap=True)
    workers = now.state["workers"]
    text = Text(f"Heed on {now.state['node']}  workers {workers['ready']} of {workers['expected']}  ", no_wrap=True)
    if now.state["ready"]:
        text.append("ready", style="green")
    else:
        text.append("not ready: " + printable("; ".join(now.state["reasons"])), style="bold red")
    return _cut(text)


def _rates(before: Reading | None, now: Reading) -> Text:
    shown = [
        ("in", "heed_accepted_recipients_total"),
        ("out", "heed_delivered_total"),
        ("deferred", "heed_deferred_total"),
        ("bounced", "heed_bounced_total"),
        ("suppressed", "heed_suppressed_total"),
        ("refused", "heed_refused_total"),
    ]
    known = before is not None and before.metrics and now.metrics
    text = "  ".join(
        f"{name} {number(round(rate(before, now, metric), 2)) if known else _UNKNOWN}" for name, metric in shown
    )
    return _cut(Text(f"per second   {text}"))


def _queue(now: Reading) -> Text:
    if now.trouble:
        return _cut(Text(f"queue        {printable(now.trouble)}", style="bold red"))
    counts = "  ".join(f"{state} {number(count)}" for state, count in now.totals.items())
    late = _known(now, "heed_oldest_due_seconds")
    return _cut(Text(f"queue        {counts}  most overdue {late} s  (counted {now.counted_seconds_ago:.0f} s ago)"))


def _promise(now: Reading) -> Text:
    age = now.metrics.get("heed_watermark_age_seconds")
    # a counter that nothing was counted in says nothing at all
    late = now.metrics.get("heed_sends_after_suppression_total", 0.0) if now.metrics else None
    style = "bold red" if (age or 0.0) > 3 or late else ""
    watermark = _UNKNOWN if age is None else f"{age:.1f} s old"
    after = _UNKNOWN if late is None else number(late)
    suppressed = _known(now, "heed_suppression_entries")
    text = f"promise      watermark {watermark}  {suppressed} suppressed  sent after suppression {after}"
    return _cut(Text(text, style=style))


def _known(now: Reading, name: str) -> str:
    """The value of a gauge, or a dash."""
    return number(now.metrics[name]) if name in now.metrics else _UNKNOWN


def _classes(before: Reading | None, now: Reading) -> Text:
    """What goes wrong most, by class."""
    found: dict[str, float] = {}
    for name in now.metrics:
        for metric in ("heed_deferred_total{", "heed_bounced_total{"):
            if name.startswith(metric):
                found[name[len(metric) : -1]] = found.get(name[len(metric) : -1], 0.0) + rate(before, now, name)
    worst = sorted((item for item in found.items() if item[1] > 0), key=lambda item: -item[1])[:_CLASSES]
    text = "  ".join(f"{name} {number(round(value, 2))}" for name, value in worst)
    text = text or ("none" if before is not None and before.metrics and now.metrics else _UNKNOWN)
    return _cut(Text(f"errors       {text}"))


def _orders(now: Reading) -> list[Text]:
    """A line on what stops more than one campaign, where there is any."""
    if not now.orders:
        return []
    told = "; ".join(f"{name} {says}" for name, says in now.orders)
    return [_cut(Text(f"orders       {len(now.orders)}: {printable(told)}", style="yellow"))]


def _campaigns(now: Reading) -> Table:
    rows = [(name, number(waiting), says) for name, waiting, says in now.campaigns]
    return _table("campaign", "waiting", "state", rows=rows)


def _sites(now: Reading) -> Table:
    sites = (now.state or {}).get("sites", [])
    return _table(
        "site",
        "waiting",
        "state",
        rows=[(each["site"], number(each["waiting"]), _site(each, now.at)) for each in sites],
    )


def _site(site: Mapping[str, Any], now: float) -> str:
    """A site's state, which is cut off where it matters least."""
    if site["suspended_until"] > now:
        after = f": {site['last_reply']}" if site["last_reply"] else ""
        return f"rests until {datetime.fromtimestamp(site['suspended_until'], UTC):%H:%M:%S}{after}"
    return f"{site['connections']} of {site['limit']}, {site_says(site, now)}"


def _table(*columns: str, rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", width=WIDTH)
    for name, width in zip(columns, _COLUMNS, strict=True):
        table.add_column(name, width=width, no_wrap=True, justify="right" if name == "waiting" else "left")
    for row in rows[:_ROWS]:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _cut(text: Text) -> Text:
    text.truncate(WIDTH, overflow="ellipsis")
    return text
