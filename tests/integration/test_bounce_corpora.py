"""Bounces, complaints and auto-replies that other people's software wrote, against labels made by three readers.

The mails are not part of this project: HEED_CORPORA names their folder (default: shared/corpora beside the checkout).
sisimai's reasons are coarser and finer than our classes; RIGHT says which classes agree with a reason.
"""

import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bounce.mime import mended_start
from bounce.outcome import Action, BounceClass
from bounce.policy import Policy, Step
from bounce.reader import read
from bounce.reading import Kind, Reading, Recipient
from tests.support.mutations import SAME, in_other_words, with_plain_subject, without_original
from tests.support.notices import is_kept_in_other_words, is_kept_without_original, is_same

CORPORA = Path(os.environ.get("HEED_CORPORA") or Path(__file__).parents[2].parent / "shared" / "corpora")
SISIMAI = CORPORA / "sisimai"
MAILS = sorted((SISIMAI / "maildir" / "bsd").glob("*"))

pytestmark = pytest.mark.skipif(not SISIMAI.is_dir(), reason=f"no corpora at {CORPORA} (set HEED_CORPORA)")

RIGHT = {
    "userunknown": "unknown-user",
    "hostunknown": "unknown-host null-mx",
    "hasmoved": "moved",
    "suspend": "mailbox-disabled",
    "filtered": "policy content mailbox-disabled other unknown-user",
    "mailboxfull": "mailbox-full",
    "blocked": "reputation policy authentication",
    "rejected": "policy authentication content reputation",
    "policyviolation": "policy content reputation",
    "authfailure": "authentication",
    "requireptr": "authentication",
    "securityerror": "policy content authentication tls-required",
    "spamdetected": "content authentication",
    "virusdetected": "content policy",
    "contenterror": "content",
    "networkerror": "network routing-loop unknown-host null-mx",
    "expired": "expired network system",
    "systemerror": "system",
    "mailererror": "system",
    "systemfull": "system mailbox-full",
    "norelaying": "relaying-denied",
    "notaccept": "null-mx",
    "toomanyconn": "rate-limited reputation",
    "exceedlimit": "too-large",
    "mesgtoobig": "too-large",
    "speeding": "rate-limited",
    "badreputation": "reputation rate-limited",
    "notcompliantrfc": "content",
    "syntaxerror": "system",
    "delivered": "none",
}
MAY_SUPPRESS = {"userunknown", "hostunknown", "hasmoved"}
# Labelled "filtered" although reply and code both say that there is no such mailbox (550 5.1.1).
CODE_AND_TEXT_AGREE = {"lhost-receivingses-01.eml", "lhost-receivingses-02.eml"}


@cache
def labels() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SISIMAI / "labels.json").read_text("utf-8"))
    return found


@cache
def reading(name: str) -> Reading:
    return read((SISIMAI / "maildir" / "bsd" / name).read_bytes())


def labelled(name: str) -> set[str]:
    """The addresses that the labels name; a placeholder stands for "withheld"."""
    people = (person["address"].lower() for person in labels()[name]["recipients"])
    return {person for person in people if person and not person.startswith("undisclosed")}


def told(name: str) -> set[str]:
    return {recipient.address.lower() for recipient in reading(name).recipients if recipient.address}


def pairs() -> Iterator[tuple[str, dict[str, Any], Recipient]]:
    for name, label in labels().items():
        ours = {recipient.address.lower(): recipient for recipient in reading(name).recipients}
        for person in label["recipients"]:
            if person["address"].lower() in ours:
                yield name, person, ours[person["address"].lower()]


def test_exact_recipients_on_98_percent_of_the_agreed_mails() -> None:
    agreed = [name for name, label in labels().items() if label["agreed"]]
    assert len(agreed) == 508
    wrong = [name for name in agreed if labelled(name) != told(name)]
    assert len(wrong) <= 0.02 * len(agreed), wrong


def test_class_in_agreement_on_95_percent() -> None:
    compared = [(name, person, ours) for name, person, ours in pairs() if person["reason"] in RIGHT]
    wrong = [name for name, person, ours in compared if ours.bounce_class not in RIGHT[person["reason"]].split()]
    assert len(compared) > 550
    assert len(wrong) <= 0.05 * len(compared), wrong


def test_nobody_is_suppressed_wrongly_and_few_are_missed() -> None:
    policy = Policy()
    wrong, missed, due = [], [], 0
    for name, person, ours in pairs():
        if person["reason"] in {"feedback", "vacation"}:
            continue
        decision = policy.of_report(reading(name).kind, ours, authentic=True)
        if decision.step is Step.SUPPRESS and person["reason"] not in MAY_SUPPRESS and name not in CODE_AND_TEXT_AGREE:
            wrong.append(name)
        if person["hard"] and person["reason"] in MAY_SUPPRESS:
            due += 1
            if decision.step is not Step.SUPPRESS:
                missed.append(name)
    assert not wrong
    assert len(missed) <= 0.2 * due, missed


def test_auto_replies_delays_and_auth_failures_never_suppress() -> None:
    policy = Policy()
    for name in labels():
        found = reading(name)
        if found.kind in {Kind.AUTO_REPLY, Kind.DELAY, Kind.AUTH_FAILURE, Kind.OTHER, Kind.RECEIPT}:
            for recipient in found.recipients:
                assert policy.of_report(found.kind, recipient, authentic=True).step is Step.NOTHING, name
    assert {reading(name).kind for name in labels() if name.startswith("rfc3834")} == {Kind.AUTO_REPLY}


def test_complaints_are_told_apart() -> None:
    expected = {"abuse": Kind.COMPLAINT, "auth-failure": Kind.AUTH_FAILURE, "opt-out": Kind.OPT_OUT}
    wrong = {
        name
        for name, label in labels().items()
        for person in label["recipients"]
        if person["reason"] == "feedback" and reading(name).kind is not expected[person["feedback_type"]]
    }
    # A mail client's own unsubscribe mail is no feedback report.
    assert wrong == {"arf-26.eml"}
    assert reading("arf-26.eml").kind is Kind.UNSUBSCRIBE


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"], ids=["CRLF", "CR"])
def test_line_ends_change_nothing(line_end: bytes) -> None:
    for name in labels():
        message = (SISIMAI / "maildir" / "bsd" / name).read_bytes().replace(b"\r\n", b"\n")
        assert read(message.replace(b"\n", line_end)) == reading(name), name


@pytest.mark.parametrize("name", SAME)
def test_the_form_changes_nothing(name: str) -> None:
    for file in MAILS:
        message = mended_start(file.read_bytes().replace(b"\r\n", b"\n"))
        changed = SAME[name](message)
        assert changed is None or is_same(message, changed), file.name


def test_what_the_fields_say_needs_neither_prose_nor_original() -> None:
    for file in MAILS:
        message = mended_start(file.read_bytes().replace(b"\r\n", b"\n"))
        in_other, stripped = in_other_words(message), without_original(message)
        assert in_other is None or is_kept_in_other_words(message, in_other), file.name
        assert stripped is None or is_kept_without_original(message, stripped), file.name


def test_a_subject_that_says_nothing_hides_few() -> None:
    """Only what has no sign of a mail system but its words: a postmaster's text without the null path."""
    bounces = [file.read_bytes().replace(b"\r\n", b"\n") for file in MAILS]
    bounces = [message for message in bounces if read(message).kind in {Kind.BOUNCE, Kind.DELAY}]
    hidden = [message for message in bounces if not is_same(message, with_plain_subject(message))]
    assert len(hidden) <= 0.01 * len(bounces)
    assert not any(re.search(rb"(?im)^return-path:\s*<(?:mailer-daemon[^>]*)?>", message) for message in hidden)


def test_ordinary_and_broken_mail_is_no_bounce() -> None:
    reports = {"msg_16.txt", "msg_25.txt", "msg_43.txt"}
    for file in sorted((SISIMAI / "maildir" / "not").iterdir()):
        assert read(file.read_bytes()).kind is not Kind.BOUNCE, file.name
    for file in sorted((CORPORA / "mime_cpython").iterdir()):
        assert (read(file.read_bytes()).kind is Kind.BOUNCE) == (file.name in reports), file.name


def test_damaged_mail_is_read() -> None:
    for file in sorted((SISIMAI / "maildir" / "err").iterdir()):
        assert read(file.read_bytes()).kind in {Kind.BOUNCE, Kind.OTHER}, file.name


@pytest.mark.parametrize("number", range(1, 6))
def test_feedback_reports_field_by_field(number: int) -> None:
    place = CORPORA / "arf_mailauth" / "arf"
    expected = json.loads((place / f"{number:03}.json").read_text("utf-8"))
    (report,) = read((place / f"{number:03}.eml").read_bytes()).reports
    assert report.feedback_type.replace("-", "") == expected["feedback_type"].lower()
    for name in ("user_agent", "original_envelope_id", "original_mail_from", "dkim_domain"):
        assert report.first(name.replace("_", "-")) == (expected[name] or ""), name
    for name in ("source_ip", "reporting_mta"):
        assert report.bare(name.replace("_", "-")) == (expected[name] or ""), name
    assert int(report.first("version")) == expected["version"]
    assert report.all("reported-domain") == expected["reported_domain"]
    assert report.all("reported-uri") == expected["reported_uri"]
    flat = [" ".join(value.split()) for value in expected["authentication_results"]]
    assert [" ".join(value.split()) for value in report.all("authentication-results")] == flat


def test_other_peoples_reports() -> None:
    kinds = [read(file.read_bytes()).kind for file in sorted((CORPORA / "kumo" / "rfc5965").iterdir())]
    assert set(kinds) == {Kind.COMPLAINT}
    for file in sorted((CORPORA / "kumo" / "rfc3464").glob("?.eml")):
        found = read(file.read_bytes())
        assert found.kind in {Kind.BOUNCE, Kind.DELAY}, file.name
        assert all(recipient.action in {Action.FAILED, Action.DELAYED} for recipient in found.recipients)
        assert all(recipient.bounce_class is not BounceClass.NONE for recipient in found.recipients)
