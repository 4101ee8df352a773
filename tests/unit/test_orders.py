"""What follows from an operator's orders, at which time, for which mail."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from mta.orders import Book, Order, OrderError, Reach, Schedule, Standing, State, Stopped, Window, moment

NOW = 1_800_000_000.0


def order(reach: Reach = Reach.CAMPAIGN, target: int = 3, **changes: object) -> Order:
    values: dict[str, object] = {
        "site": "", "state": State.PAUSED, "reason": "complaints", "actor": "kim", "at": NOW, **changes,
    }  # fmt: skip
    return Order(reach, target, **values)  # type: ignore[arg-type]


def schedule(**changes: object) -> Schedule:
    return Schedule("office hours", "lee", NOW - 5, **changes)  # type: ignore[arg-type]


def berlin(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()


@pytest.mark.parametrize(
    ("given", "standing"),
    [
        (order(), Standing.HOLD),
        (order(target=4), Standing.GO),
        (order(Reach.LIST, 2), Standing.HOLD),
        (order(Reach.LIST, 3), Standing.GO),
        (order(Reach.TENANT, 1), Standing.HOLD),
        (order(Reach.SITE, 0, site="mx.example.net"), Standing.HOLD),
        (order(Reach.SITE, 0, site="mx.example.org"), Standing.GO),
        (order(state=State.RUNNING), Standing.GO),
        (order(state=State.CANCELLED), Standing.CANCEL),
        (order(until=NOW + 1), Standing.HOLD),
        (order(until=NOW), Standing.GO),
        (order(state=State.RUNNING, schedule=schedule(not_before=NOW + 1)), Standing.HOLD),
        (order(state=State.RUNNING, schedule=schedule(not_before=NOW)), Standing.GO),
    ],
)
def test_an_order_stops_what_it_is_about(given: Order, standing: Standing) -> None:
    assert Stopped.by([given], NOW).standing(1, 2, 3, NOW - 60, "mx.example.net") is standing


def test_the_gravest_order_wins() -> None:
    orders = [order(Reach.TENANT, 1), order(Reach.CAMPAIGN, 3, state=State.CANCELLED)]
    assert Stopped.by(orders, NOW).standing(1, 2, 3, NOW) is Standing.CANCEL


@pytest.mark.parametrize("reach", [Reach.LIST, Reach.TENANT, Reach.SITE])
def test_only_what_was_accepted_before_is_cancelled_beyond_a_campaign(reach: Reach) -> None:
    stopped = Stopped.by([order(reach, 7, site="mx.example.net", state=State.CANCELLED)], NOW)
    assert stopped.standing(7, 7, 3, NOW - 1, "mx.example.net") is Standing.CANCEL
    assert stopped.standing(7, 7, 3, NOW + 1, "mx.example.net") is Standing.GO


@pytest.mark.parametrize("state", [State.PAUSED, State.RUNNING])
@pytest.mark.parametrize("reach", list(Reach))
def test_what_was_cancelled_stays_so_whatever_is_said_later(reach: Reach, state: State) -> None:
    later = order(reach, 7, site="mx.example.net", state=state, cancelled_at=NOW)
    stopped = Stopped.by([later], NOW)
    assert stopped.standing(7, 7, 7, NOW - 1, "mx.example.net") is Standing.CANCEL
    new = Standing.HOLD if state is State.PAUSED else Standing.GO
    assert stopped.standing(7, 7, 7, NOW + 1, "mx.example.net") is new
    assert "what was accepted until 2027-01-15 08:00:00 UTC is cancelled" in later.says(NOW)


def test_a_schedule_holds_what_comes_after_a_cancel() -> None:
    cancelled = order(Reach.TENANT, 1, state=State.CANCELLED, schedule=schedule(not_before=NOW + 60))
    assert Stopped.by([cancelled], NOW).standing(1, 2, 3, NOW + 1) is Standing.HOLD


def test_a_state_and_a_schedule_have_each_their_own_giver() -> None:
    window = Window.parse("", "09:00-10:00", "")
    told = order(until=NOW + 60, schedule=schedule(window=window)).says(NOW)
    assert told == (
        "paused by kim since 2027-01-15 08:00:00 UTC, until 2027-01-15 08:01:00 UTC: complaints; outside its window "
        f"{window} by lee since 2027-01-15 07:59:55 UTC, until 2027-01-15 09:00:00 UTC: office hours"
    )
    assert order(state=State.RUNNING, schedule=schedule(window=window)).says(NOW + 3_600) == (
        f"running; it leaves only in {window}"
    )


def test_a_window_is_looked_at_again_when_the_time_of_day_is_set_back() -> None:
    now, clock = [NOW + 3_600.0], [50.0]
    book = Book(clock=lambda: clock[0], now=lambda: now[0])
    book.replace([order(state=State.RUNNING, schedule=schedule(window=Window.parse("", "09:00-10:00", "")))])
    assert book.standing(1, 2, 3, NOW) is Standing.GO
    now[0], clock[0] = NOW, 51.0
    assert book.standing(1, 2, 3, NOW) is Standing.HOLD


def test_a_site_that_is_not_known_yet_is_not_stopped() -> None:
    assert Stopped.by([order(Reach.SITE, 0, site="mx.example.net")], NOW).standing(1, 2, 3, NOW) is Standing.GO


def test_a_book_follows_the_time_without_being_told() -> None:
    now = [NOW]
    book = Book(clock=lambda: now[0], now=lambda: now[0])
    assert book.standing(1, 2, 3, NOW) is Standing.GO
    book.replace([order(until=NOW + 10)])
    assert book.standing(1, 2, 3, NOW) is Standing.HOLD
    now[0] = NOW + 10
    assert book.standing(1, 2, 3, NOW) is Standing.GO
    book.replace([])
    assert not book.stopped()


def test_a_book_that_nobody_confirms_goes_stale() -> None:
    clock = [100.0]
    book = Book(5.0, clock=lambda: clock[0])
    assert book.fresh()
    clock[0] = 105.5
    assert not book.fresh()
    book.confirm(105.0)
    assert book.fresh()


@pytest.mark.parametrize(
    ("days", "hours", "zone", "text"),
    [
        ("mon-fri", "09:00-17:30", "Europe/Berlin", "mon,tue,wed,thu,fri 09:00-17:30 Europe/Berlin"),
        ("fri-mon", "9-24", "", "mon,fri,sat,sun 09:00-24:00 UTC"),
        ("", "", "", "mon,tue,wed,thu,fri,sat,sun 00:00-24:00 UTC"),
    ],
)
def test_a_window_is_written_as_it_is_read(days: str, hours: str, zone: str, text: str) -> None:
    window = Window.parse(days, hours, zone)
    assert str(window) == text
    assert Window.from_text(text) == window


@pytest.mark.parametrize(
    ("days", "hours", "zone"),
    [("monday", "", ""), ("", "9", ""), ("", "25:00-26:00", ""), ("", "09:00-09:00", ""), ("", "", "Nowhere/Here")],
)
def test_what_is_no_window_is_refused(days: str, hours: str, zone: str) -> None:
    with pytest.raises(OrderError):
        Window.parse(days, hours, zone)


@pytest.mark.parametrize(
    ("at", "inside"),
    [
        ("2027-01-15T09:00", True),  # a Friday
        ("2027-01-15T08:59", False),
        ("2027-01-15T17:00", False),
        ("2027-01-16T12:00", False),
    ],
)
def test_a_window_is_in_its_own_time_zone(at: str, inside: bool) -> None:
    assert Window.parse("mon-fri", "09:00-17:00", "Europe/Berlin").contains(berlin(at)) is inside


@pytest.mark.parametrize(
    ("at", "inside"), [("2027-01-15T23:00", True), ("2027-01-16T05:59", True), ("2027-01-16T23:00", False)]
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_opens(at: str, inside: bool) -> None:
    assert Window.parse("fri", "22:00-06:00", "Europe/Berlin").contains(berlin(at)) is inside


def test_a_window_opens_next_on_a_day_of_its_own() -> None:
    window = Window.parse("mon-fri", "09:00-17:00", "Europe/Berlin")
    assert window.opens(berlin("2027-01-15T17:00")) == berlin("2027-01-18T09:00")
    assert window.opens(berlin("2027-01-15T10:00")) == berlin("2027-01-15T10:00")
    # over the change to summer time, which is on Sunday 28 March
    assert window.opens(berlin("2027-03-26T18:00")) == berlin("2027-03-29T09:00")


@pytest.mark.parametrize(
    ("given", "end"),
    [
        (order(), None),
        (order(until=NOW + 5), NOW + 5),
        (order(state=State.RUNNING, schedule=schedule(not_before=NOW + 7)), NOW + 7),
        (order(until=NOW + 5, schedule=schedule(not_before=NOW + 7)), NOW + 7),
        (order(state=State.CANCELLED), None),
        (order(state=State.RUNNING), None),
    ],
)
def test_an_order_says_when_it_ends_by_itself(given: Order, end: float | None) -> None:
    assert given.ends(NOW) == end


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("2h", 7_200), ("3d", 259_200), ("2027-01-15T08:00", 0), ("2027-01-15T09:30+01:00", 1_800)],
)
def test_a_moment_is_a_span_or_a_time(text: str, seconds: float) -> None:
    assert moment(text, 1_800_000_000.0) == 1_800_000_000.0 + seconds


def test_a_time_without_a_zone_is_of_the_zone_that_is_named() -> None:
    assert moment("2027-01-15T09:00", NOW, "Europe/Berlin") == NOW
    assert moment("2027-01-15T08:00Z", NOW, "Europe/Berlin") == NOW
    with pytest.raises(OrderError, match="no time zone"):
        moment("2027-01-15T09:00", NOW, "Mars/Base")


@pytest.mark.parametrize(
    "text",
    ["", "h", "tomorrow", "2 h", "-3h", "2027-13-01", "5000000d", "9999999999999999999d", "0001-01-01", "9999-12-31"],
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(OrderError):
        moment(text, NOW)
