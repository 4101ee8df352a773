"""Whole messages as mail systems, providers and people of many kinds send them, written anew in tests/data/notices.

X-Expected in each says what it must be taken for: kind, feedback type, and for each recipient the classes and the
policy's steps that are right ("a|b" where more than one is).
"""

from dataclasses import dataclass

import pytest

from bounce.policy import Policy
from bounce.reader import read
from bounce.reading import Kind, Reading
from tests.support.notices import Notice, notices


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


def check(reading: Reading, said: str) -> None:
    right = expected(said)
    assert reading.kind in right.kinds
    assert reading.feedback_type == right.feedback_type
    assert [recipient.address for recipient in reading.recipients] == [address for address, *_ in right.people]
    for recipient, (_, classes, steps) in zip(reading.recipients, right.people, strict=True):
        assert recipient.bounce_class in classes
        assert Policy().of_report(reading.kind, recipient, authentic=True).step in steps


@pytest.mark.parametrize("notice", list(notices()), ids=lambda notice: notice.name)
def test_what_it_is_and_what_follows(notice: Notice) -> None:
    check(read(notice.message), notice.expected)
    check(read(notice.message.replace(b"\n", b"\r\n")), notice.expected)
    check(read(notice.message.replace(b"\n", b"\r")), notice.expected)


def test_there_are_many() -> None:
    assert len(list(notices())) >= 385


_HTML_BODY = "<p>Delivery to the following recipient failed:</p><p>anna@example.net</p><p>user unknown</p>"


def test_a_disclaimer_beside_an_html_notice_hides_nothing() -> None:
    """A gateway puts a part of plain text beside what the mail system wrote as HTML only."""
    message = (
        "From: Mail Delivery Subsystem <mailer-daemon@mx.example.org>\nSubject: Undeliverable: hello\n"
        'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\n\n'
        f"--b\nContent-Type: text/html; charset=utf-8\n\n{_HTML_BODY}\n"
        "--b\nContent-Type: text/plain\n\nThis message was scanned. Example Ltd, 1 Street.\n--b--\n"
    ).encode()
    notice = read(message)
    assert notice.kind is Kind.BOUNCE
    assert [recipient.address for recipient in notice.recipients] == ["anna@example.net"]


@pytest.mark.parametrize("tag", ["[EXTERNAL] ", "[EXT][SPAM?] "])
def test_a_gateways_tag_before_the_subject_hides_nothing(tag: str) -> None:
    head = f"From: Anna <anna@example.net>\nTo: list@example.org\nSubject: {tag}"
    assert read(f"{head}Automatic reply: hello\n\nI am away.\n".encode()).kind is Kind.AUTO_REPLY
    assert read(f"{head}unsubscribe\n\n\n".encode()).kind is Kind.UNSUBSCRIBE
