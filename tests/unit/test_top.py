"""The screen of `heed top`: it fits into 80 by 24, whatever it shows."""

import io
from typing import Any

import pytest
from rich.console import Console

from mta.orders import Order, Reach, Schedule, State, Window
from mta.top import Reading, briefly, rate, screen

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
        "orders": [(f"site mx{n}.example.net", "paused: blocked") for n in range(9)],
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


def test_names_from_outside_are_no_markup_and_stay_on_their_line() -> None:
    names = ("50% [/off]", "[bold]spring", "two\nlines\x1b[2J")
    sites = [{**SITE, "site": "[/mx]", "suspended_until": NOW + 60, "last_reply": "[/wait]\n\x07a bit"}]
    state = {**(reading().state or {}), "sites": sites, "ready": False, "reasons": ["[/stale]\nlist"]}
    campaigns = [(name, 1, "paused: [/dear]\x9b31m") for name in names]
    shown = text(None, reading(state=state, campaigns=campaigns, orders=[("site [/x]", "paused: [bold]\n")]))
    for words in ("50% [/off]", "[bold]spring", "two lines [2J", "paused: [/dear]", "[/mx]", "[/wait] a bit"):
        assert words in shown, words
    assert "[/stale] list" in shown
    assert "site [/x] paused: [bold]" in shown
    assert all(line.isprintable() for line in shown.splitlines())


def test_what_does_not_fit_ends_in_an_ellipsis() -> None:
    shown = text(None, reading(campaigns=[("n" * 31, 1, "s" * 38)]))
    assert "n" * 29 + "… " in shown
    assert "s" * 36 + "…" in shown


def test_what_is_not_known_is_a_dash() -> None:
    shown = text(None, reading(state=None, metrics={}, campaigns=[], orders=[], trouble="no connection"))
    for words in ("in –", "errors       –", "watermark –  – suppressed  sent after suppression –"):
        assert words in shown, words
    assert "0" not in shown


def test_orders_on_more_than_a_campaign_have_a_line() -> None:
    shown = text(None, reading(orders=[("tenant acme", "paused: complaints"), ("site mx", "paused by kim")]))
    assert "orders       2: tenant acme paused: complaints; site mx paused by kim" in shown
    assert "orders" not in text(None, reading(orders=[]))


def test_a_site_that_rests_says_until_when_and_why() -> None:
    sites = [{**SITE, "site": "mx", "suspended_until": NOW + 61, "last_reply": "4.7.0 too much of it, come again"}]
    shown = text(None, reading(state={**(reading().state or {}), "sites": sites}))
    assert "rests until 08:01:01: 4.7.0 too much…" in shown


EIGHT, NINE = Window.parse("fri", "08:00-09:00", "UTC"), Window.parse("fri", "09:00-10:00", "UTC")


def at(**changes: Any) -> Schedule:
    return Schedule("by day", "ann", NOW - 90, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "paused: complaints"),
        ({"reason": ""}, "paused by kim"),
        ({"until": NOW + 3_600}, "paused until 09:00: complaints"),
        ({"until": NOW + 86_400}, "paused until 01-16 08:00: complaints"),
        ({"until": NOW + 400 * 86_400}, "paused until 2028-02-19: complaints"),
        ({"until": NOW}, "running"),
        ({"state": State.CANCELLED}, "cancelled: complaints"),
        ({"state": State.RUNNING, "schedule": at(not_before=NOW + 60)}, "scheduled until 08:01: by day"),
        ({"state": State.RUNNING, "schedule": at(window=EIGHT)}, "running, in a window"),
        ({"state": State.RUNNING, "schedule": at(window=NINE)}, "scheduled until 09:00: by day"),
        ({"until": NOW + 60, "schedule": at(window=NINE)}, "paused until 09:00: complaints"),
    ],
)
def test_an_order_in_a_few_words(changes: dict[str, Any], said: str) -> None:
    values: dict[str, Any] = {"state": State.PAUSED, "reason": "complaints", "actor": "kim", "at": NOW - 60, **changes}
    assert briefly(Order(Reach.CAMPAIGN, 1, "", **values), NOW) == said
