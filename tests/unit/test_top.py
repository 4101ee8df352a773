"""The screen of `heed top`: it fits into 80 by 24, whatever it shows."""

import io
from typing import Any

from rich.console import Console

from mta.top import Reading, rate, screen

NOW = 1_800_000_000.0
SITE = {"waiting": 4_000, "connections": 20, "busy": 20, "limit": 20, "suspended_until": 0.0, "failures": 0,
        "last_reply": ""}  # fmt: skip


def reading(at: float = NOW, **changes: Any) -> Reading:
    values: dict[str, Any] = {
        "state": {"node": "mx1.example.net", "ready": True, "reasons": [], "workers": {"ready": 2, "expected": 2},
                  "sites": [{**SITE, "site": f"a-rather-long-name-of-mx{n}.mail.example.net"} for n in range(40)]},
        "metrics": {"heed_accepted_recipients_total": at, "heed_deferred_total{greylisted}": at * 2,
                    "heed_watermark_age_seconds": 0.25, "heed_suppression_entries": 1_234_567},
        "totals": {"queued": 1_000_000, "leased": 20_000, "held": 60},
        "campaigns": [(f"acme/a campaign of quite a long name {n}", 100_000, "paused by kim: no") for n in range(40)],
        **changes,
    }  # fmt: skip
    return Reading(at, **values)


def text(before: Reading | None, now: Reading) -> str:
    console = Console(width=80, height=24, record=True, force_terminal=False, file=io.StringIO())
    console.print(screen(before, now))
    return console.export_text()


def test_it_fits_into_a_small_terminal() -> None:
    lines = text(reading(NOW - 1), reading()).rstrip("\n").split("\n")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_it_shows_what_matters() -> None:
    shown = text(reading(NOW - 2), reading(NOW))
    for words in (
        "ready",
        "in 1",
        "queued 1 M",
        "watermark 0.2 s old",
        "greylisted 2",
        "at its limit",
        "paused by kim",
    ):
        assert words in shown, words


def test_without_a_daemon_or_a_database_it_says_so() -> None:
    shown = text(None, reading(state=None, trouble="the database does not answer"))
    assert "no daemon answers" in shown
    assert "the database does not answer" in shown


def test_rates_need_two_readings() -> None:
    name = "heed_accepted_recipients_total"
    assert rate(None, reading(), name) == 0
    assert rate(reading(NOW - 4), reading(NOW), name) == 1
    assert rate(reading(NOW), reading(NOW), name) == 0
    assert rate(reading(NOW + 5), reading(NOW + 6, metrics={name: 0.0}), name) == 0
