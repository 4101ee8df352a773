"""The sentences of `heed explain`: one cause each, with what would change it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bounce.outcome import Stage
from bounce.trouble import from_reply
from mta import explain
from mta.orders import Order, Reach, State
from mta.tracing import Happened, Waits, masked
from suppression.digest import Kind, Scope
from suppression.entry import Channel, NewEntry
from suppression.plan import plan_suppressions

NOW = 1_800_000_000.0
TIME = datetime.fromtimestamp(NOW, UTC)
BUSY = from_reply(Stage.RCPT, 450, "4.2.1 try later", remote_mta="mx.example.net", recipient="anna@example.net")
SITE = {"site": "mx.example.net", "waiting": 0, "connections": 0, "busy": 0, "limit": 20, "suspended_until": 0.0,
        "failures": 0, "last_reply": ""}  # fmt: skip


def waits(**changes: Any) -> Waits:
    values: dict[str, Any] = {
        "message_id": 1, "ordinal": 0, "person": 7, "state": "queued", "transactional": False, "attempts": 0,
        "due_at": TIME, "expires_at": TIME + timedelta(days=5), "received_at": TIME, "site": "", "last_outcome": None,
        "worker_id": 0, "node": "", "tenant_id": 1, "list_id": 2, "campaign_id": 3, "sealed_address": b"", **changes,
    }  # fmt: skip
    return Waits(**values)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (waits(), "due since"),
        (waits(due_at=TIME + timedelta(hours=1), site=""), "scheduled by its submitter for 2027-01-15 09:00:00 UTC"),
        (
            waits(due_at=TIME + timedelta(seconds=9), site="mx.example.net"),
            "waits until mx.example.net has room for it, and is looked at again at 2027-01-15 08:00:09 UTC",
        ),
        (waits(due_at=TIME + timedelta(hours=1), attempts=2, last_outcome=BUSY),
         "deferred until 2027-01-15 09:00:00 UTC after attempt 2: 450 4.2.1 try later"),
        (waits(state="leased", worker_id=4, node="mx1"), "memory of worker 4 of mx1"),
        (waits(state="leased", worker_id=4), "which is gone"),
        (waits(expires_at=TIME), "lifetime was over"),
    ],
)  # fmt: skip
def test_a_recipient_that_waits(given: Waits, said: str) -> None:
    assert said in explain.of_waiting(given, [], NOW)


@pytest.mark.parametrize(
    ("orders", "said"),
    [
        ([{}], "It is held until the order is lifted; it expires at 2027-01-20"),
        ([{"until": NOW + 60}], "It is held until 2027-01-15 08:01:00 UTC;"),
        ([{"until": NOW + 60}, {"until": NOW + 120}], "It is held until 2027-01-15 08:02:00 UTC;"),
        ([{"until": NOW + 60}, {}], "It is held until the order is lifted;"),
        ([{"until": NOW - 60}], "no order holds it any more"),
        ([], "no order holds it any more"),
        ([{}, {"state": State.CANCELLED}], "about to be reported as cancelled"),
        ([{"cancelled_at": NOW}], "about to be reported as cancelled"),
        ([{"cancelled_at": NOW - 1}], "It is held until the order is lifted;"),
    ],
)
def test_what_is_held_says_until_when(orders: list[dict[str, Any]], said: str) -> None:
    values: dict[str, Any] = {"state": State.PAUSED, "reason": "", "actor": "kim", "at": NOW - 600}
    about = [Order(Reach.CAMPAIGN, 3, "", **{**values, **changes}) for changes in orders]
    assert said in explain.of_waiting(waits(state="held"), about, NOW)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Kind.UNSUBSCRIBE, "until the person's own, newer consent lifts that"),
        (Kind.HARD_BOUNCE, "until `heed suppress remove --kind hard-bounce` lifts that"),
        (Kind.COMPLAINT, "until `heed suppress remove --kind complaint` lifts that"),
    ],
)
def test_a_suppression_says_what_lifts_it(kind: Kind, said: str) -> None:
    asked = NewEntry(7, Scope.LIST, kind, 1, 2, Channel.CLI, "kim")
    (entry,) = plan_suppressions([asked], [1], [], 0, NOW).new
    (sentence,) = explain.of_suppression([entry], True)
    assert said in sentence
    assert ("suppress remove" in sentence) is (kind is not Kind.UNSUBSCRIBE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"suspended_until": NOW + 60, "last_reply": "4.4.1 timed out"},
            "rests until 2027-01-15 08:01:00 UTC after 4.4.1",
        ),
        ({"waiting": 9, "connections": 20}, "has all 20 connections of this node in use and 9 recipients waiting"),
        ({"connections": 3, "busy": 2}, "mx.example.net is being delivered to over 2 connections of this node."),
        ({"connections": 1}, "mx.example.net has 1 connection of this node open and idle."),
        ({"connections": 2, "waiting": 9}, "mx.example.net has 2 connections of this node being opened."),
    ],
)
def test_a_site(changes: dict[str, Any], said: str) -> None:
    (sentence,) = explain.of_site("mx.example.net", {**SITE, **changes}, None, NOW)
    assert said in sentence


def test_a_site_that_only_the_database_knows() -> None:
    (sentence,) = explain.of_site("mx.example.net", None, BUSY, NOW)
    assert sentence == "mx.example.net said last: 450 4.2.1 try later (mx.example.net), " + f"{BUSY.bounce_class}."


def test_orders_say_whose_they_are_and_how_they_end() -> None:
    paused = Order(Reach.TENANT, 1, "", State.PAUSED, "complaints", "kim", NOW - 60, NOW + 60)
    running = Order(Reach.CAMPAIGN, 1, "", State.RUNNING, "", "kim", NOW)
    (sentence,) = explain.of_orders([paused, running], NOW)
    assert sentence.startswith(
        "Its tenant is paused by kim since 2027-01-15 07:59:00 UTC, until 2027-01-15 08:01:00 UTC"
    )
    assert "heed campaign resume" in sentence
    cancelled = Order(Reach.CAMPAIGN, 1, "", State.CANCELLED, "wrong price", "kim", NOW)
    assert explain.of_orders([cancelled], NOW) == [
        "Its campaign is cancelled by kim since 2027-01-15 08:00:00 UTC: wrong price."
    ]


def test_a_node_that_sends_nothing_says_so() -> None:
    assert explain.of_node({"ready": True, "reasons": []}) == []
    assert "list is stale" in explain.of_node({"ready": False, "reasons": ["list is stale"]})[0]
    assert "No daemon answers" in explain.of_node(None)[0]


@pytest.mark.parametrize(
    ("kind", "said"), [("Delivery", "delivered at 2027-01-15 08:00:00 UTC by mx"), ("Bounce", "nothing more is tried")]
)
def test_what_is_final(kind: str, said: str) -> None:
    event = Happened(TIME, kind, 1, 0, 3, 1, 250, "2.0.0", "", "mx", "mx", "ok", "mx1", 12, None, None, None)
    assert said in explain.of_end(event)
    assert event.as_dict()["ordinal"] == 0


def test_an_event_is_a_line() -> None:
    event = {"at": TIME, "queue_id": "0H2", "type": "Bounce", "recipient": "a…@example.net", "status": "5.1.1"}
    said = {"diagnostic": "no\nsuch user", "remote_mta": "mx\r\n"}
    assert explain.event_line({**event, **said}) == (
        "2027-01-15 08:00:00.000  0H2  Bounce  a…@example.net  5.1.1 no such user  by mx"
    )


@pytest.mark.parametrize(
    ("address", "shown"), [("anna@example.net", "a…@example.net"), ('"a@b"@example.net', '"…@example.net')]
)
def test_an_address_is_masked(address: str, shown: str) -> None:
    assert masked(address) == shown
