"""The status page: one HTML document without scripts or anything from elsewhere, charts as inline SVG, light and dark.

Pure: takes plain values, returns text. Everything that comes from outside is escaped; there is no address in any of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from metrics.history import Series

CONTENT_SECURITY_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_WIDTH, _HEIGHT = 560, 130
_LEFT, _BOTTOM = 44, 18

_STYLE: Final = """
:root{color-scheme:light dark;--back:#fff;--card:#f6f7f9;--text:#1c2127;--soft:#5b6673;--line:#dde2e8;
--c0:#1f6fd6;--c1:#1a8a4c;--c2:#c26a00;--c3:#c62f3b;--good:#1a8a4c;--bad:#c62f3b}
@media(prefers-color-scheme:dark){:root{--back:#12161b;--card:#1b2128;--text:#e6eaef;--soft:#9aa6b2;--line:#2c343d;
--c0:#6aa9ff;--c1:#5fd08f;--c2:#f0a54a;--c3:#ff7a83;--good:#5fd08f;--bad:#ff7a83}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:16px;background:var(--back);color:var(--text);
font:14px/1.45 system-ui,sans-serif}
h1{font-size:20px;margin:0}h2{font-size:14px;margin:0 0 6px}
header{display:flex;flex-wrap:wrap;gap:8px 16px;align-items:baseline;margin-bottom:14px}
header p{margin:0;color:var(--soft)}
.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:10px;margin-bottom:12px}
.tile,section{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 12px}
.tile b{display:block;font-size:20px;font-variant-numeric:tabular-nums}.tile span{color:var(--soft);font-size:12px}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:12px}
section{overflow-x:auto}
svg{display:block;width:100%;height:auto}svg text{fill:var(--soft);font-size:10px}
.legend{margin:4px 0 0;color:var(--soft);font-size:12px}.legend i{display:inline-block;width:10px;height:10px;
border-radius:2px;margin:0 4px 0 10px}
table{border-collapse:collapse;width:100%;font-size:13px}
th{text-align:left;color:var(--soft);font-weight:500}td,th{padding:3px 8px 3px 0;border-bottom:1px solid var(--line)}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
footer{color:var(--soft);font-size:12px;margin-top:14px}
"""


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over the last hour, with their names; unit is written behind the latest values."""

    title: str
    lines: Sequence[tuple[str, Series]]
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a title; numbers are set to the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    empty: str


@dataclass(frozen=True, slots=True)
class Status:
    """What the page shows. at: epoch seconds."""

    node: str
    at: float
    ready: bool
    reasons: Sequence[str]
    tiles: Mapping[str, str]
    charts: Sequence[Chart]
    tables: Sequence[Table]


def page(status: Status) -> str:
    """The document."""
    state = "<span class=good>ready</span>" if status.ready else "<span class=bad>not ready</span>"
    reasons = f": {escape('; '.join(status.reasons))}" if status.reasons else ""
    tiles = "".join(
        f"<div class=tile><b>{escape(value)}</b><span>{escape(name)}</span></div>"
        for name, value in status.tiles.items()
    )
    charts = "".join(f"<section>{_chart(chart, status.at)}</section>" for chart in status.charts)
    tables = "".join(f"<section>{_table(table)}</section>" for table in status.tables)
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>Heed: status</title>"
        '<meta name=viewport content="width=device-width,initial-scale=1"><meta http-equiv=refresh content=10>'
        f"<style>{_STYLE}</style></head><body>"
        f"<header><h1>Heed</h1><p>{escape(status.node)} is {state}{reasons}</p><p>{_when(status.at)}</p></header>"
        f"<div class=tiles>{tiles}</div><div class=grid>{charts}{tables}</div>"
        "<footer>The last hour of this node, a sample every ten seconds; queue and campaigns are of the whole "
        "installation. Dashboards for Grafana are in config/grafana, what each metric means is in docs/metrics.md."
        "</footer></body></html>\n"
    )


def number(value: float) -> str:
    """A number as people read it: 0, 0.0012, 0.42, 7.30, 950, 12.3 k, 1.2 M."""
    for bound, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= bound:
            scaled = value / {" G": 1e9, " M": 1e6, " k": 1e3}[unit]
            return f"{scaled:.3g}{unit}"
    if value == int(value):
        return str(int(value))
    if abs(value) < 0.1:
        return f"{value:.2g}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _chart(chart: Chart, now: float) -> str:
    most = max((value for _, series in chart.lines for _, value in series), default=0.0) or 1.0
    top = _round_up(most)
    parts = [f"<h2>{escape(chart.title)}</h2>", f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role=img>']
    parts.append(f"<title>{escape(chart.title)}</title>")
    for share in (0.0, 0.5, 1.0):
        y = _y(share * top, top)
        parts.append(f'<line x1={_LEFT} x2={_WIDTH} y1={y:.1f} y2={y:.1f} stroke="var(--line)"/>')
        parts.append(f"<text x={_LEFT - 6} y={y + 3:.1f} text-anchor=end>{number(share * top)}</text>")
    for minutes in (60, 45, 30, 15, 0):
        x = _x(now - minutes * 60, now)
        anchor = "start" if minutes == 60 else "end" if minutes == 0 else "middle"
        label = f"-{minutes} min" if minutes else "now"
        parts.append(f"<text x={x:.1f} y={_HEIGHT - 4} text-anchor={anchor}>{label}</text>")
    for place, (_, series) in enumerate(chart.lines):
        points = " ".join(f"{_x(at, now):.1f},{_y(value, top):.1f}" for at, value in series if at >= now - 3_600)
        if points:
            color = f"var(--c{place % 4})"
            parts.append(f'<polyline points="{points}" fill=none stroke="{color}" stroke-width=1.6 />')
    parts.append("</svg><p class=legend>")
    for place, (name, series) in enumerate(chart.lines):
        latest = number(series[-1][1]) if series else "-"
        parts.append(f'<i style="background:var(--c{place % 4})"></i>{escape(name)} {latest}{escape(chart.unit)}')
    parts.append("</p>")
    return "".join(parts)


def _table(table: Table) -> str:
    title = f"<h2>{escape(table.title)}</h2>"
    if not table.rows:
        return f"{title}<p class=legend>{escape(table.empty)}</p>"
    numeric = [all(isinstance(row[place], int | float) for row in table.rows) for place in range(len(table.columns))]
    head = "".join(
        f"<th{' class=n' if right else ''}>{escape(name)}" for name, right in zip(table.columns, numeric, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(_cell(value, right) for value, right in zip(row, numeric, strict=True)) for row in table.rows
    )
    return f"{title}<table><tr>{head}{body}</table>"


def _cell(value: Any, right: bool) -> str:
    text = number(value) if isinstance(value, int | float) else str(value)
    return f"<td{' class=n' if right else ''}>{escape(text)}"


def _x(at: float, now: float) -> float:
    return _LEFT + (at - (now - 3_600)) / 3_600 * (_WIDTH - _LEFT)


def _y(value: float, top: float) -> float:
    return 6 + (1 - value / top) * (_HEIGHT - _BOTTOM - 6)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, …: the top of the axis."""
    power: float = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next((power * step for step in (1, 2, 5) if power * step >= value), power * 10)


def _when(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
