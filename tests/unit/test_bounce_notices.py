"""Whole messages as mail systems, providers and people of many kinds send them, written anew in tests/data/notices.

X-Expected in each says what it must be taken for: kind, feedback type, and for each recipient the classes and the
policy's steps that are right ("a|b" where more than one is).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bounce.policy import Policy
from bounce.reader import read
from bounce.reading import Reading
from bounce.report import messages

NOTICES = Path(__file__).parents[1] / "data" / "notices"


@dataclass(frozen=True)
class Expected:
    """What a notice must be taken for."""

    kinds: list[str]
    feedback_type: str
    people: list[tuple[str, list[str], list[str]]]


def expected(said: str) -> Expected:
    kind, *people = (part.strip() for part in said.split(";"))
    kinds, _, feedback_type = kind.partition("/")
    split = [person.split() for person in people]
    return Expected(kinds.split("|"), feedback_type, [(a, c.split("|"), s.split("|")) for a, c, s in split])


def notices() -> Iterator[tuple[str, str, bytes]]:
    for file in sorted(NOTICES.glob("*.mbox")):
        for _, message in messages(str(file)):
            _, name, said = message.decode("utf-8").split("\n", 3)[:3]
            yield name.removeprefix("X-Name: "), said.removeprefix("X-Expected: "), message


def check(reading: Reading, said: str) -> None:
    right = expected(said)
    assert reading.kind in right.kinds
    assert reading.feedback_type == right.feedback_type
    assert [recipient.address for recipient in reading.recipients] == [address for address, *_ in right.people]
    for recipient, (_, classes, steps) in zip(reading.recipients, right.people, strict=True):
        assert recipient.bounce_class in classes
        assert Policy().of_report(reading.kind, recipient, authentic=True).step in steps


@pytest.mark.parametrize(("said", "message"), [pytest.param(*rest, id=name) for name, *rest in notices()])
def test_what_it_is_and_what_follows(said: str, message: bytes) -> None:
    check(read(message), said)
    check(read(message.replace(b"\n", b"\r\n")), said)
    check(read(message.replace(b"\n", b"\r")), said)


def test_there_are_many() -> None:
    assert len(list(notices())) >= 88
