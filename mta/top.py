"""`heed top`: a screen of 80 by 24 of what a node and the queue are doing, once a second. Pure.

Rates are differences of two readings of /metrics; queue, campaigns and orders come from the database as last counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from metrics.status_page import number
from mta.node_state import site_says

WIDTH, HEIGHT = 80, 24
_ROWS: Final = 5
_CLASSES: Final = 4


@dataclass(frozen=True, slots=True)
class Reading:
    """All that a screen is made of, at one moment (epoch seconds). metrics: as metrics.history.read() names them."""

    at: float
    state: Mapping[str, Any] | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    campaigns: Sequence[tuple[str, int, str]] = ()
    counted_seconds_ago: float = 0.0
    trouble: str = ""


def rate(before: Reading | None, now: Reading, name: str) -> float:
    """What a counter grows by each second; 0 at the first reading and after a restart."""
    if before is None or now.at <= before.at:
        return 0.0
    return max(0.0, now.metrics.get(name, 0.0) - before.metrics.get(name, 0.0)) / (now.at - before.at)


def screen(before: Reading | None, now: Reading) -> Group:
    """The whole screen; no line is wider, and there are no more of them, than fits."""
    lines: list[Any] = [_head(now), _rates(before, now), _queue(now), _promise(now), _classes(before, now), Text()]
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
        text.append("not ready: " + "; ".join(now.state["reasons"]), style="bold red")
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
    text = "  ".join(f"{name} {number(round(rate(before, now, metric), 2))}" for name, metric in shown)
    return _cut(Text(f"per second   {text}"))


def _queue(now: Reading) -> Text:
    if now.trouble:
        return _cut(Text(f"queue        {now.trouble}", style="bold red"))
    counts = "  ".join(f"{state} {number(count)}" for state, count in now.totals.items())
    late = number(now.metrics.get("heed_oldest_due_seconds", 0.0))
    return _cut(Text(f"queue        {counts}  most overdue {late} s  (counted {now.counted_seconds_ago:.0f} s ago)"))


def _promise(now: Reading) -> Text:
    age = now.metrics.get("heed_watermark_age_seconds", 0.0)
    late = now.metrics.get("heed_sends_after_suppression_total", 0.0)
    entries = number(now.metrics.get("heed_suppression_entries", 0.0))
    style = "bold red" if age > 3 or late else ""
    text = f"promise      watermark {age:.1f} s old  {entries} suppressed  sent after suppression {number(late)}"
    return _cut(Text(text, style=style))


def _classes(before: Reading | None, now: Reading) -> Text:
    """What goes wrong most, by class."""
    found: dict[str, float] = {}
    for name in now.metrics:
        for metric in ("heed_deferred_total{", "heed_bounced_total{"):
            if name.startswith(metric):
                found[name[len(metric) : -1]] = found.get(name[len(metric) : -1], 0.0) + rate(before, now, name)
    worst = sorted((item for item in found.items() if item[1] > 0), key=lambda item: -item[1])[:_CLASSES]
    text = "  ".join(f"{name} {number(round(value, 2))}" for name, value in worst) or "none"
    return _cut(Text(f"errors       {text}"))


def _campaigns(now: Reading) -> Table:
    table = _table("campaign", "waiting", "state")
    for name, waiting, says in now.campaigns[:_ROWS]:
        table.add_row(name[:30], number(waiting), says[:36])
    return table


def _sites(now: Reading) -> Table:
    table = _table("site", "waiting", "state")
    for site in (now.state or {}).get("sites", [])[:_ROWS]:
        connections = f"{site['connections']} of {site['limit']}, {site_says(site, now.at)}"
        table.add_row(site["site"][:30], number(site["waiting"]), connections[:36])
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", width=WIDTH)
    for name, width in zip(columns, (31, 9, 37), strict=True):
        right = name == "waiting"
        table.add_column(name, width=width, no_wrap=True, justify="right" if right else "left")
    return table


def _cut(text: Text) -> Text:
    text.truncate(WIDTH, overflow="ellipsis")
    return text
