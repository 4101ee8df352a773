"""What commands print: JSON with UTC times, and tables whose cells mean nothing but themselves."""

import datetime
import json

import pytest

from mta import terminal


def test_names_from_outside_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table("campaign", "count", rows=[("[spring] \x1b[2Jsale", 1), ("[/wrong]", None)], empty="nothing")
    shown = capsys.readouterr().out
    assert "[spring] [2Jsale" in shown
    assert "[/wrong]" in shown
    assert "None" not in shown


def test_what_strangers_wrote_controls_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("a\x1b[2J\x08b\x9b31m\x7f [spring]\tü\n.")
    terminal.complain("\x07no\r")
    assert capsys.readouterr() == ("a[2Jb31m [spring]\tü\n.\n", "no\n")


def test_a_row_is_a_line_however_narrow_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "mx1." + "a-rather-long-name." * 9 + "example.net:2525"
    time = "2026-11-30 07:12:33"
    terminal.table("site", "name", "oldest", rows=[(name, "two\nlines", time), ("mx", "", time)], empty="nothing")
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 3
    assert name in shown[1]
    assert "two lines" in shown[1]
    assert all(time in line for line in shown[1:])
    assert max(map(len, shown)) < 250


def test_an_empty_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table("campaign", rows=[], empty="nothing there")
    assert capsys.readouterr().out == "nothing there\n"


def test_times_are_utc_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({"at": datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)})
    assert json.loads(capsys.readouterr().out) == {"at": "2024-01-02T03:04:05Z"}
