"""Reports: what they show, what they hide, and what an attacker gets who subtracts one from another."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mta.report import SHOWN_FROM, Blur, Report, report_of
from mta.report_page import page
from mta.tally import provider_of

START = datetime(2026, 11, 23, 10, tzinfo=UTC)
BLUR = Blur(bytes(range(32)), 10)


def tally(kind: str, count: int, **changes: Any) -> dict[str, Any]:
    given = {"hour": START, "type": kind, "provider": "Google", "class": "", "channel": "", "recipients": count}
    return {**given, **changes}


def made(tallies: list[dict[str, Any]], campaign_id: int = 1, blur: Blur = BLUR) -> Report:
    return report_of(tallies, tenant="acme", campaign="spring & <co>", campaign_id=campaign_id, as_of=START, blur=blur)


def spring(delivered: int = 9_000) -> list[dict[str, Any]]:
    return [
        tally("Reception", delivered + 500, provider=""),
        tally("Delivery", delivered // 2),
        tally("Delivery", delivered - delivered // 2, provider="Microsoft", hour=START + timedelta(hours=2)),
        tally("Bounce", 300, **{"class": "unknown-user"}),
        tally("Bounce", 3, **{"class": "policy"}),
        tally("Unsubscribe", 200, channel="one-click", provider=""),
        tally("Unsubscribe", 4, channel="mailto", provider=""),
        tally("Feedback", 9, provider=""),
    ]


def test_numbers_are_about_right() -> None:
    report = made(spring())
    assert report.totals["delivered"] == pytest.approx(9_000, abs=100)
    assert report.bounced_by_class.keys() == {"unknown-user"}
    assert report.unsubscribes_by_channel.keys() == {"one-click"}
    assert report.totals["complaints"] is None
    assert report.by_provider["Microsoft"]["delivered"] == pytest.approx(4_500, abs=100)
    assert [at for at, _ in report.over_time] == [START + timedelta(hours=hours) for hours in range(3)]
    assert report.over_time[1][1] is None


def test_a_small_cell_is_never_shown() -> None:
    for campaign_id in range(2_000):
        for count in range(10):
            assert BLUR.number(campaign_id, "complaints", count) is None
    numbers = [BLUR.number(campaign_id, "complaints", 60) for campaign_id in range(2_000)]
    assert all(number is None or number >= SHOWN_FROM * 10 for number in numbers)
    # at the border nothing is told by whether a number is there
    assert sum(BLUR.number(campaign_id, "complaints", 10) is not None for campaign_id in range(5_000)) < 75


def test_asking_again_teaches_nothing() -> None:
    assert made(spring()) == made(spring())


def test_another_key_gives_other_numbers() -> None:
    assert made(spring()).totals != made(spring(), blur=Blur(bytes(32), 10)).totals


def attack(count: int, member: bool, trial: int) -> float:
    """What an attacker sees who has two campaigns to nearly the same people: one recipient more in the second."""
    one = BLUR.number(2 * trial, "delivered", count)
    two = BLUR.number(2 * trial + 1, "delivered", count + member)
    return (two or 0) - (one or 0)


@pytest.mark.parametrize("count", [11, 50, 55, 57, 100, 1_002, 10_000])
def test_two_campaigns_with_one_recipient_more_can_not_be_subtracted(count: int) -> None:
    """The best that can be made of the difference: was the one delivered to? By any threshold it is close to a coin."""
    trials = 4_000
    without = sorted(attack(count, member=False, trial=trial) for trial in range(trials))
    with_one = sorted(attack(count, member=True, trial=trials + trial) for trial in range(trials))
    best = max(
        (sum(d < border for d in without) + sum(d >= border for d in with_one)) / (2 * trials)
        for border in range(-60, 61)
    )
    assert best < 0.56


def test_what_one_recipient_does_seldom_changes_a_report() -> None:
    """Who looks before and after learns something in one of min_cell cases only: mostly nothing moves at all."""
    seen = sum(
        BLUR.number(trial, "unsubscribes", 100 + trial % 500) != BLUR.number(trial, "unsubscribes", 101 + trial % 500)
        for trial in range(5_000)
    )
    assert seen / 5_000 < 1.15 / 10
    # nor can it be brought about where a change is to be expected: that is at another count in every campaign
    for count in range(200, 210):
        changed = [
            trial
            for trial in range(1_000)
            if BLUR.number(trial, "unsubscribes", count) != BLUR.number(trial, "unsubscribes", count + 1)
        ]
        assert 40 < len(changed) < 160


def test_a_number_stays_near_its_count() -> None:
    for count in (150, 1_000, 9_000):
        numbers = [BLUR.number(trial, "delivered", count) or 0 for trial in range(3_000)]
        assert sum(numbers) / len(numbers) == pytest.approx(count, abs=1.5)
        assert sum(abs(number - count) < 40 for number in numbers) > 0.9 * len(numbers)


def test_one_who_is_late_does_not_turn_hours_into_days() -> None:
    before = made([tally("Delivery", 5_000)])
    after = made([tally("Delivery", 5_000), tally("Delivery", 1, hour=START + timedelta(hours=100))])
    assert (after.unit, after.over_time) == (before.unit, before.over_time)


def test_bounces_that_came_by_mail_are_in_the_report() -> None:
    report = made([*spring(), tally("OOB", 400, **{"class": "unknown-user"})])
    assert report.totals["bounced_later"] == pytest.approx(400, abs=100)
    assert report.bounced_by_class["unknown-user"] == pytest.approx(700, abs=100)
    assert "bounced later" in page(report)


def test_a_long_campaign_is_shown_by_day() -> None:
    tallies = [tally("Delivery", 200, hour=START + timedelta(hours=hour)) for hour in range(24 * 5)]
    report = made(tallies)
    assert report.unit == "day"
    assert len(report.over_time) == 6


def test_nothing_happened() -> None:
    report = made([])
    assert set(report.totals.values()) == {None}
    assert report.over_time == []
    assert "<svg" not in page(report)


def test_the_page_needs_nothing_else_and_escapes_names() -> None:
    text = page(made(spring()))
    assert "spring &amp; &lt;co&gt;" in text
    assert "<co>" not in text
    assert text.count("<svg") == 4
    assert not re.search(r"(src|href)=|<script|<link|@import|url\(", text)


def test_json_and_csv_have_the_same_numbers() -> None:
    report = made(spring())
    rows = {(section, name, measure): number for section, name, measure, number in report.rows()}
    assert rows["total", "", "delivered"] == report.as_dict()["totals"]["delivered"]
    assert rows["provider", "Google", "delivered"] == report.by_provider["Google"]["delivered"]


@pytest.mark.parametrize(
    ("site", "provider"),
    [
        ("alt1.gmail-smtp-in.l.google.com,gmail-smtp-in.l.google.com", "Google"),
        ("example-com.mail.protection.outlook.com", "Microsoft"),
        ("127.0.0.1:2500", "other"),
        ("mx.example.net", "other"),
        ("", "other"),
    ],
)
def test_providers_are_bounded(site: str, provider: str) -> None:
    assert provider_of(site) == provider
