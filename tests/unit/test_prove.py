"""A person's story: which deliveries the log forbade, and how it is told."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from suppression.digest import AddressError, Effect, Kind, MessageClass, Scope
from suppression.entry import GENESIS, Action, Entry, chain
from suppression.prove import Attempt, Story, digest_text, late_attempts, person_of
from suppression.scopes import Member, Scopes
from suppression.tokens import Purpose, Token, Tokens
from tests.support.suppressions import DIGEST


class Keys:
    """One key."""

    current_id = 1

    def token_key(self, key_id: int) -> bytes:
        return {1: b"k" * 32}[key_id]


TOKENS = Tokens(Keys())
CAMPAIGN, TRANSACTIONAL = MessageClass.CAMPAIGN, MessageClass.TRANSACTIONAL


def entry(position: int, at: float, scope: Scope, effect: Effect, action: Action = Action.SUPPRESS) -> Entry:
    key = DIGEST.key(scope, 5, 7, 9)
    return Entry(
        position, at, action, scope, Kind.UNSUBSCRIBE, effect, 7, 9, 0, 3, 0, 5, key, "web", "token:x", "", b"", b""
    )


def attempt(at: float, **changes: Any) -> Attempt:
    given: dict[str, Any] = {
        "state": "delivered", "tenant_id": 7, "list_id": 9, "campaign_id": 1, "message_id": 255,
        "message_class": CAMPAIGN, "status": "2.0.0",
    }  # fmt: skip
    return Attempt(at, **{**given, **changes})


LEFT_LIST = [entry(1, 100.0, Scope.LIST, Effect.CAMPAIGN)]
CAME_BACK = [*LEFT_LIST, entry(2, 200.0, Scope.LIST, Effect.NOTHING, Action.LIFT_BY_CONSENT)]


@pytest.mark.parametrize(
    ("entries", "made", "late"),
    [
        ([], attempt(1.0), False),
        (LEFT_LIST, attempt(99.0), False),
        (LEFT_LIST, attempt(100.0), False),
        (LEFT_LIST, attempt(101.0), True),
        (LEFT_LIST, attempt(101.0, state="suppressed"), False),
        (LEFT_LIST, attempt(101.0, state="bounced"), False),
        (LEFT_LIST, attempt(101.0, list_id=8), False),
        (LEFT_LIST, attempt(101.0, tenant_id=6), False),
        (LEFT_LIST, attempt(101.0, message_class=TRANSACTIONAL), False),
        ([entry(1, 100.0, Scope.EVERYTHING, Effect.ALL)], attempt(101.0, tenant_id=6, list_id=0), True),
        ([entry(1, 100.0, Scope.EVERYTHING, Effect.ALL)], attempt(101.0, message_class=TRANSACTIONAL), True),
        ([entry(1, 100.0, Scope.TENANT, Effect.CAMPAIGN)], attempt(101.0, list_id=8), True),
        (CAME_BACK, attempt(150.0), True),
        (CAME_BACK, attempt(201.0), False),
        (list(reversed(CAME_BACK)), attempt(201.0), False),
    ],
)
def test_what_the_log_forbade_at_its_time_is_late(entries: list[Entry], made: Attempt, late: bool) -> None:
    assert late_attempts(entries, [made], Scopes(DIGEST)) == ([made] if late else [])


@pytest.mark.parametrize(
    ("entries", "at", "late"),
    [
        (LEFT_LIST, 104.0, False),
        (LEFT_LIST, 106.0, True),
        (CAME_BACK, 199.0, True),
        (CAME_BACK, 202.0, False),
        (CAME_BACK, 206.0, False),
    ],
)
def test_what_came_or_went_within_the_bound_is_not_late(entries: list[Entry], at: float, late: bool) -> None:
    assert bool(late_attempts(entries, [attempt(at)], Scopes(DIGEST), 5.0)) == late


def story(*, late: bool = False) -> Story:
    attempts = [attempt(50.0), attempt(150.0, state="delivered" if late else "suppressed", status="5.7.1")]
    entries = chain(LEFT_LIST, GENESIS)
    return Story(5, entries, [], attempts, late_attempts(entries, attempts, Scopes(DIGEST)), 12, b"h" * 32)


def test_a_group_binds_its_tenants_from_their_joining_on_by_what_was_said_before() -> None:
    key = DIGEST.key(Scope.GROUP, 5, 0, 3)
    said = [entry(1, 100.0, Scope.GROUP, Effect.ALL)._replace(key=key, tenant_id=8, list_id=3)]
    scopes = Scopes(DIGEST)
    assert late_attempts(said, [attempt(300.0)], scopes) == []
    scopes.learn([Member(2, datetime.fromtimestamp(200.0, UTC), 7, 3)])
    made = [attempt(at, message_class=TRANSACTIONAL) for at in (150.0, 203.0, 206.0)]
    assert late_attempts(said, made, scopes) == made[1:]
    assert late_attempts(said, made, scopes, 5.0) == made[2:]


def test_a_story_is_told_in_order() -> None:
    lines = story().as_text().splitlines()
    assert [line.partition("  ")[2].partition(" ")[0] for line in lines[1:4]] == [
        "delivered",
        "suppressed:",
        "suppressed",
    ]
    assert lines[0] == "person 0000000000000005"
    assert lines[-2] == "nothing was sent after a suppression"
    assert "BROKEN" not in story().as_text()


def test_what_must_not_be_is_told_loudly() -> None:
    assert "SENT AFTER A SUPPRESSION" in story(late=True).as_text()
    assert len(story(late=True).as_dict()["sent_after_suppression"]) == 1


def test_a_story_is_plain_json_with_the_chain_s_hashes() -> None:
    told = json.loads(json.dumps(story().as_dict()))
    [told_entry] = told["entries"]
    assert told_entry["previous"] == GENESIS.hex()
    assert told_entry["intact"]
    assert told["head"] == {"position": 12, "hash": (b"h" * 32).hex()}


def test_an_entry_whose_hash_is_wrong_is_told() -> None:
    broken = Story(5, LEFT_LIST, [], [], [], 1, b"")
    assert "BROKEN" in broken.as_text()
    assert not broken.as_dict()["entries"][0]["intact"]


def test_a_person_is_named_by_address_token_or_digest() -> None:
    person = DIGEST.person("bob@example.com")
    token = TOKENS.issue(Token(Purpose.ONE_CLICK, 7, 9, 1, person, 1))
    for text in ("Bob@example.com", f" {token}\n", token.upper(), digest_text(person), digest_text(person).upper()):
        assert person_of(text, DIGEST, TOKENS) == person


@pytest.mark.parametrize("text", ["", "bob", "a" * 63, "x" * 16, "a@"])
def test_nobody_is_named_by_anything_else(text: str) -> None:
    with pytest.raises(AddressError):
        person_of(text, DIGEST, TOKENS)
