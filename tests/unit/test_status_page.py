"""The status page: what it shows, and that nothing in it comes from elsewhere or runs."""

import re
from xml.etree import ElementTree

import pytest

from metrics.history import History
from metrics.status_page import number, page
from tests.support.status import NOW, example


def test_it_is_one_document_without_scripts_or_requests() -> None:
    text = page(example())
    assert "<script" not in text
    assert not re.search(r"https?://|src=|@import|url\(", text)
    assert "prefers-color-scheme:dark" in text


def test_what_comes_from_outside_is_escaped() -> None:
    text = page(example())
    assert "<b>spring</b>" not in text
    assert "&lt;b&gt;spring&lt;/b&gt;" in text
    assert "complaints &amp; worse" in text


def test_each_chart_is_well_formed_with_a_line_for_each_series() -> None:
    charts = re.findall(r"<svg.*?</svg>", page(example()))
    assert len(charts) == 5
    lines = [svg.count("<polyline") for svg in charts]
    assert lines == [2, 3, 3, 2, 0]
    for svg in charts:
        ElementTree.fromstring(re.sub(r"=([^\"\s>/][^\s>]*)", r'="\1"', svg))  # noqa: S314


def test_it_says_what_is_not_ready() -> None:
    assert "not ready</span>: workers are starting" in page(example())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.034, "0.034"),
        (0.00123, "0.0012"),
        (7.25, "7.25"),
        (42.26, "42.3"),
        (950, "950"),
        (12_345, "12.3 k"),
        (1.2e6, "1.2 M"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_rates_are_what_a_counter_grew_by_and_survive_a_restart() -> None:
    history = History()
    for at, value in ((0.0, 100.0), (10.0, 150.0), (20.0, 20.0)):
        history.add(NOW + at, {"x_total": value})
    assert history.rates("x_total") == [(NOW + 10, 5.0), (NOW + 20, 2.0)]
    assert history.values("y") == [(NOW, 0.0), (NOW + 10, 0.0), (NOW + 20, 0.0)]


def test_an_hour_is_kept_and_no_more() -> None:
    history = History(3)
    for at in range(10):
        history.add(float(at), {"x": at})
    assert history.values("x") == [(7.0, 7), (8.0, 8), (9.0, 9)]
