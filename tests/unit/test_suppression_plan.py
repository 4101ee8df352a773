"""What the log is told to write, given what is in force."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from suppression.digest import Digest, Effect, Kind, Scope
from suppression.entry import GENESIS, Action, Channel, Entry, NewEntry, chain
from suppression.plan import Lift, plan_lifts, plan_suppressions

DIGEST = Digest(bytes(32))
KEY = DIGEST.key(Scope.LIST, 5, 7, 9)


def asked(**changes: Any) -> NewEntry:
    given: dict[str, Any] = {
        "person": 5, "scope": Scope.LIST, "kind": Kind.UNSUBSCRIBE, "tenant_id": 7, "list_id": 9,
        "channel": Channel.WEB, "actor": "token:abc",
    }  # fmt: skip
    return NewEntry(**{**given, **changes})


def row(key: int, kind: Kind, effect: Effect, position: int) -> dict[str, Any]:
    return {
        "key": key,
        "kind": kind,
        "effect": effect,
        "position": position,
        "at": datetime.fromtimestamp(position, UTC),
    }


def lift(*kinds: Kind) -> Lift:
    return Lift(5, Scope.LIST, frozenset(kinds), 7, 9, Channel.CLI, "operator", "asked by phone")


def test_a_new_suppression_gets_the_next_position() -> None:
    plan = plan_suppressions([asked()], [KEY], [], position=41, now=1.5)
    assert [(entry.position, entry.at, entry.effect) for entry in plan.new] == [(42, 1.5, Effect.CAMPAIGN)]
    assert plan.answers == [(42, False)]


def test_one_that_is_in_force_is_found() -> None:
    plan = plan_suppressions([asked()], [KEY], [row(KEY, Kind.UNSUBSCRIBE, Effect.CAMPAIGN, 17)], 41, 1.5)
    assert (plan.new, plan.found, plan.answers) == ([], [17], [(17, True)])


def test_the_same_twice_in_one_call_is_written_once() -> None:
    plan = plan_suppressions([asked(), asked()], [KEY, KEY], [], 41, 1.5)
    assert len(plan.new) == 1
    assert plan.answers == [(42, False), (42, True)]


def test_another_kind_is_another_entry_and_the_strongest_counts() -> None:
    complaint = asked(kind=Kind.COMPLAINT)
    plan = plan_suppressions([complaint, asked()], [KEY, KEY], [], 41, 1.5)
    assert [entry.effect for entry in plan.new] == [Effect.ALL, Effect.ALL]


def test_a_lift_says_what_is_left() -> None:
    rows = [row(KEY, Kind.UNSUBSCRIBE, Effect.CAMPAIGN, 3), row(KEY, Kind.COMPLAINT, Effect.ALL, 4)]
    both = plan_lifts([lift(Kind.UNSUBSCRIBE, Kind.COMPLAINT)], [KEY], rows, Action.LIFT_BY_OPERATOR, 41, 1.5)
    assert [(entry.kind, entry.effect) for entry in both] == [
        (Kind.UNSUBSCRIBE, Effect.ALL), (Kind.COMPLAINT, Effect.NOTHING),
    ]  # fmt: skip
    only = plan_lifts([lift(Kind.COMPLAINT)], [KEY], rows, Action.LIFT_BY_OPERATOR, 41, 1.5)
    assert [(entry.kind, entry.effect, entry.position) for entry in only] == [(Kind.COMPLAINT, Effect.CAMPAIGN, 42)]


def test_what_is_not_in_force_can_not_be_lifted() -> None:
    rows = [row(KEY, Kind.UNSUBSCRIBE, Effect.CAMPAIGN, 3)]
    assert plan_lifts([lift(Kind.COMPLAINT)], [KEY], rows, Action.LIFT_BY_OPERATOR, 41, 1.5) == []
    twice = [lift(Kind.UNSUBSCRIBE), lift(Kind.UNSUBSCRIBE)]
    assert len(plan_lifts(twice, [KEY, KEY], rows, Action.LIFT_BY_OPERATOR, 41, 1.5)) == 1


def test_a_lift_leaves_what_is_not_older_than_it() -> None:
    rows = [row(KEY, Kind.UNSUBSCRIBE, Effect.CAMPAIGN, 3), row(KEY, Kind.MANUAL, Effect.ALL, 4)]
    dated = replace(lift(Kind.UNSUBSCRIBE, Kind.MANUAL), older_than=4.0)
    lifted = plan_lifts([dated], [KEY], rows, Action.LIFT_BY_CONSENT, 41, 5.0)
    assert [(entry.kind, entry.effect) for entry in lifted] == [(Kind.UNSUBSCRIBE, Effect.ALL)]


@pytest.mark.parametrize(
    "changes",
    [{"tenant_id": -1}, {"tenant_id": 1 << 31}, {"tenant_id": 0}, {"list_id": 0}, {"person": 1 << 63},
     {"message_id": -1}, {"campaign_id": 1 << 31}, {"scope": 9}, {"kind": 0}, {"channel": "carrier pigeon"}],
)  # fmt: skip
def test_a_bad_entry_is_refused_before_it_shares_a_transaction(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # enums have texts of their own
        asked(**changes)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("bob@example.com called", "<address> called"),
        ("from <Bob.Jones@example.com>, by phone", "from <<address>>, by phone"),
        ("two\nlines\0", "two lines"),
        ("x" * 600, "x" * 500),
        ("a @ b", "a <address> b"),
    ],
)
def test_no_address_gets_into_a_reason(given: str, kept: str) -> None:
    assert asked(reason=given).reason == kept


def entry(position: int = 1, **changes: Any) -> Entry:
    given: dict[str, Any] = {
        "position": position, "at": 1_790_000_000.123456, "action": Action.SUPPRESS, "scope": Scope.LIST,
        "kind": Kind.UNSUBSCRIBE, "effect": Effect.CAMPAIGN, "tenant_id": 7, "list_id": 9, "campaign_id": 11,
        "cancelled": 2, "message_id": 1 << 40, "person": -5, "key": 44, "channel": "web", "actor": "token:abc",
        "reason": "", "previous": b"", "hash": b"",
    }  # fmt: skip
    return Entry(**{**given, **changes})


def test_known_answer_of_the_chain() -> None:
    one, two = chain([entry(1), entry(2, reason="für immer")], GENESIS)
    assert one.hash.hex() == "3ce345086b8ab4ff4f6b62f4fbcb8f260ab3d28d32df1c2be28d862115d30b71"
    assert (one.previous, two.previous) == (GENESIS, one.hash)
    assert two.hash == two.computed_hash() != one.hash


@pytest.mark.parametrize(
    "changes",
    [{"position": 2}, {"at": 1_790_000_000.123457}, {"action": Action.LIFT_BY_OPERATOR}, {"scope": Scope.TENANT},
     {"kind": Kind.LEGAL}, {"effect": Effect.ALL}, {"tenant_id": 8}, {"list_id": 8}, {"campaign_id": 8},
     {"cancelled": 3}, {"message_id": 8}, {"person": 8}, {"key": 46}, {"channel": "cli"}, {"actor": "x"},
     {"reason": "x"}, {"channel": "webtoken", "actor": ":abc"}],
)  # fmt: skip
def test_every_field_is_bound(changes: dict[str, Any]) -> None:
    assert chain([entry(**changes)], GENESIS)[0].hash != chain([entry()], GENESIS)[0].hash
