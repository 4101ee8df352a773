"""A report as one HTML file that needs nothing else: no script, no font, no picture from anywhere. Charts are SVG."""

from html import escape
from typing import Final

from mta.report import Number, Report

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #57606a; --bar: #2f6fbb; --bad: #b3541e; --back: #fff }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --dim: #9198a1; --bar: #6cb0ff; --bad: #f0a36b; --back: #0d1117 }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 48rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p.dim { color: var(--dim) } dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1rem }
dt { color: var(--dim) } dd { margin: 0; font-size: 1.4rem; font-variant-numeric: tabular-nums }
svg { width: 100%; height: auto; display: block } svg text { fill: var(--ink); font: 13px system-ui, sans-serif }
table { border-collapse: collapse; width: 100% } th { text-align: left } td, th { padding: .2rem .5rem .2rem 0 }
td + td { text-align: right; font-variant-numeric: tabular-nums } th + th { text-align: right }
"""
_WIDTH: Final = 640
_ROW: Final = 26
_HEIGHT: Final = 160
_HIDDEN: Final = "–"


def page(report: Report) -> str:
    """The whole page."""
    title = f"Campaign {report.campaign or '(none)'}"
    parts = [
        f"<h1>{escape(title)}</h1><p class=dim>{escape(report.tenant)}, as of {report.as_of:%Y-%m-%d %H:%M} UTC</p>",
        "<dl>"
        + "".join(f"<div><dt>{k.replace('_', ' ')}</dt><dd>{_text(n)}</dd></div>" for k, n in report.totals.items())
        + "</dl>",
    ]
    if report.over_time:
        parts.append(f"<h2>Delivered by {report.unit}</h2>" + _columns(report))
    if report.by_provider:
        parts.append("<h2>Mailbox providers</h2>" + _providers(report))
    if report.bounced_by_class:
        parts.append("<h2>Bounced, by reason</h2>" + _bars(report.bounced_by_class, "var(--bad)"))
    if report.unsubscribes_by_channel:
        parts.append("<h2>Unsubscribed, by way</h2>" + _bars(report.unsubscribes_by_channel, "var(--bar)"))
    parts.append(f"<p class=dim>{escape(report.note)}</p>")
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name=viewport content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</html>\n"
    )


def _total(name: str, number: Number) -> str:
    return f"<div><dt>{name.replace('_', ' ')}</dt><dd>{_text(number)}</dd></div>"


def _text(number: Number) -> str:
    return _HIDDEN if number is None else f"{number:,}"


def _bars(numbers: dict[str, Number], colour: str) -> str:
    """Horizontal bars with their names and numbers."""
    most = max(number or 0 for number in numbers.values()) or 1
    rows = []
    for index, (name, number) in enumerate(sorted(numbers.items(), key=lambda item: -(item[1] or 0))):
        y, width = index * _ROW, round((number or 0) / most * 330)
        rows.append(
            f'<text x="0" y="{y + 17}">{escape(name)}</text>'
            f'<rect x="200" y="{y + 4}" width="{width}" height="{_ROW - 8}" fill="{colour}"/>'
            f'<text x="{width + 208}" y="{y + 17}">{_text(number)}</text>'
        )
    return _svg(_WIDTH, len(numbers) * _ROW, "".join(rows), "bars")


def _columns(report: Report) -> str:
    """One column an hour or day; a gap is a number that is too small to be shown."""
    most = max(number or 0 for _, number in report.over_time) or 1
    width = _WIDTH / len(report.over_time)
    columns = []
    for index, (at, number) in enumerate(report.over_time):
        height = (number or 0) / most * _HEIGHT
        columns.append(
            f'<rect x="{index * width:.1f}" y="{_HEIGHT - height:.1f}" width="{max(width - 1, 0.5):.1f}" '
            f'height="{height:.1f}" fill="var(--bar)"><title>{at:%Y-%m-%d %H:%M}: {_text(number)}</title></rect>'
        )
    first, last = report.over_time[0][0], report.over_time[-1][0]
    form = "%Y-%m-%d %H:%M" if report.unit == "hour" else "%Y-%m-%d"
    columns.append(f'<text x="0" y="{_HEIGHT + 18}">{first:{form}}</text>')
    if last != first:
        columns.append(f'<text x="{_WIDTH}" y="{_HEIGHT + 18}" text-anchor="end">{last:{form}}</text>')
    return _svg(_WIDTH, _HEIGHT + 24, "".join(columns), f"delivered by {report.unit}, at most {most:,}")


def _providers(report: Report) -> str:
    measures = list(next(iter(report.by_provider.values())))
    head = "<tr><th>provider" + "".join(f"<th>{measure}" for measure in measures)
    rows = [
        f"<tr><td>{escape(name)}" + "".join(f"<td>{_text(row[measure])}" for measure in measures)
        for name, row in sorted(report.by_provider.items(), key=lambda item: -(item[1]["delivered"] or 0))
    ]
    delivered = {name: row["delivered"] for name, row in report.by_provider.items()}
    return _bars(delivered, "var(--bar)") + f"<table>{head}{''.join(rows)}</table>"


def _svg(width: int, height: int, inside: str, label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}">{inside}</svg>'
    )
