"""Every notice that Heed writes itself (mta/dsn.py), read by its own reader: what goes out means what it says."""

import itertools
from dataclasses import replace

import pytest

from bounce.classify import ABOUT_THE_PERSON
from bounce.outcome import Action, BounceClass, Outcome, Stage, Trouble
from bounce.policy import Policy, Step
from bounce.reader import read
from bounce.reading import Kind, Reading, RecognisedBy
from bounce.trouble import expired, from_reply, no_such_domain, null_mx, suppressed
from mta.dsn import Report, compose

SENDER = "news@example.com"
ORIGINAL = (
    b"From: News <news@example.com>\r\nTo: readers@example.com\r\nSubject: Mailbox full? 550 5.1.1 user unknown\r\n"
    b"Message-ID: <1@example.com>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    b"Final-Recipient: rfc822; somebody@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n<else@example.org>: "
    b"gone\r\n"
)
INTERNATIONAL = ORIGINAL.replace(b"News <", "Grüße <".encode())

REPLIES = {
    (550, "5.1.1 <bob@example.org>: Recipient address rejected: User unknown"): BounceClass.UNKNOWN_USER,
    (552, "5.2.2 Mailbox full"): BounceClass.MAILBOX_FULL,
    (550, "5.2.1 The account is disabled"): BounceClass.MAILBOX_DISABLED,
    (552, "5.3.4 Message size exceeds fixed limit"): BounceClass.TOO_LARGE,
    (550, "5.7.26 DMARC check failed"): BounceClass.AUTHENTICATION,
    (554, "5.7.1 Message rejected as spam"): BounceClass.CONTENT,
    (554, "5.7.1 Client host [192.0.2.1] blocked using zen.example.net"): BounceClass.REPUTATION,
    (550, "5.7.1 Relaying denied"): BounceClass.RELAYING_DENIED,
    (554, "5.4.6 Too many hops"): BounceClass.ROUTING_LOOP,
}
LATER = {
    (452, "4.2.2 Mailbox full"): BounceClass.MAILBOX_FULL,
    (450, "4.7.1 Greylisted, try again in 300 seconds"): BounceClass.GREYLISTED,
    (451, "4.7.0 Too many messages, slow down: rate limit exceeded"): BounceClass.RATE_LIMITED,
    (451, "4.3.0 Internal error"): BounceClass.SYSTEM,
}
DELIVERED = Outcome(
    Action.DELIVERED, "2.0.0", 250, "ok", "mx.example.org", BounceClass.NONE, Trouble.RECIPIENT, Stage.DOT
)


def said(code: int, text: str, recipient: str = "bob@example.org") -> Outcome:
    return from_reply(Stage.RCPT, code, text, remote_mta="mx.example.org", recipient=recipient)


def reading(
    *reports: Report,
    original: bytes = ORIGINAL,
    sender: str = SENDER,
    ret: str = "",
    envid: str = "",
    utf8: bool = False,
) -> Reading:
    notice = compose(
        hostname="heed.example.net",
        sender=sender,
        reports=reports,
        original=original,
        ret=ret,
        envid=envid,
        queue_id="01ABC",
        received_at=1_750_000_000.0,
        now=1_750_000_200.0,
        smtputf8=utf8,
    )
    return read(notice)


@pytest.mark.parametrize("ret", ["", "FULL", "HDRS"])
@pytest.mark.parametrize(("reply", "bounce_class"), REPLIES.items())
def test_a_failure(reply: tuple[int, str], bounce_class: BounceClass, ret: str) -> None:
    outcome = said(*reply)
    assert outcome.bounce_class is bounce_class
    notice = reading(Report("bob@example.org", Action.FAILED, outcome, attempted_at=1_750_000_100), ret=ret)
    (told,) = notice.recipients
    assert (notice.kind, notice.reporting_mta) == (Kind.BOUNCE, "heed.example.net")
    assert (told.address, told.action, told.recognised_by) == ("bob@example.org", Action.FAILED, RecognisedBy.REPORT)
    assert (told.status, told.reply_code, told.remote_mta) == (outcome.status, reply[0], "mx.example.org")
    assert (told.bounce_class, told.permanent) == (bounce_class, True)
    policy = Policy()
    assert policy.of_report(notice.kind, told, authentic=True).step is policy.of_outcome(outcome).step


@pytest.mark.parametrize("ret", ["FULL", "HDRS"])
@pytest.mark.parametrize(("reply", "bounce_class"), LATER.items())
def test_a_delay(reply: tuple[int, str], bounce_class: BounceClass, ret: str) -> None:
    outcome = said(*reply)
    notice = reading(Report("bob@example.org", Action.DELAYED, outcome, retry_until=1_750_400_000), ret=ret)
    (told,) = notice.recipients
    assert notice.kind is Kind.DELAY
    assert (told.action, told.status, told.permanent) == (Action.DELAYED, outcome.status, False)
    assert told.bounce_class is bounce_class
    assert Policy().of_report(notice.kind, told, authentic=True).step is Step.NOTHING


@pytest.mark.parametrize("ret", ["FULL", "HDRS"])
@pytest.mark.parametrize("action", [Action.RELAYED, Action.DELIVERED, Action.EXPANDED])
def test_good_news(action: Action, ret: str) -> None:
    notice = reading(Report("bob@example.org", action, DELIVERED), ret=ret)
    (told,) = notice.recipients
    assert (notice.kind, told.action, told.bounce_class) == (Kind.RECEIPT, action, BounceClass.NONE)
    assert Policy().of_report(notice.kind, told, authentic=True).step is Step.NOTHING


OURS = {
    "null MX": null_mx(),
    "no such domain": no_such_domain(),
    "suppressed": suppressed(),
    "expired": expired(None),
    **{f"expired after {code} {text}": expired(said(code, text)) for code, text in LATER},
}


@pytest.mark.parametrize("name", OURS)
def test_what_we_found_out_ourselves(name: str) -> None:
    outcome = OURS[name]
    notice = reading(Report("bob@example.org", Action.FAILED, outcome), ret="FULL")
    (told,) = notice.recipients
    assert (notice.kind, told.address, told.status) == (Kind.BOUNCE, "bob@example.org", outcome.status)
    policy = Policy()
    meant, read_as = policy.of_outcome(outcome), policy.of_report(notice.kind, told, authentic=True)
    if outcome.bounce_class is BounceClass.EXPIRED:  # the reader names the last cause, which may be counted
        assert read_as.step is not Step.SUPPRESS
    else:
        assert read_as.step is meant.step
    if outcome.bounce_class in ABOUT_THE_PERSON:
        assert told.bounce_class is outcome.bounce_class


def test_each_recipient_has_its_own() -> None:
    full, gone = (
        said(code, text, "a@example.org") for code, text in [(552, "5.2.2 full"), (550, "5.1.1 unknown user")]
    )
    reports = [
        Report("late@example.org", Action.DELAYED, said(451, "4.3.0 Internal error")),
        Report("full@example.org", Action.FAILED, full),
        Report("there@example.org", Action.RELAYED, DELIVERED),
        Report("gone@example.org", Action.FAILED, gone),
    ]
    for order in itertools.permutations(reports):
        notice = reading(*order, ret="FULL")
        told = {recipient.address: recipient for recipient in notice.recipients}
        assert notice.kind is Kind.BOUNCE
        assert {address: each.action for address, each in told.items()} == {r.recipient: r.action for r in reports}
        assert told["gone@example.org"].bounce_class is BounceClass.UNKNOWN_USER
        assert told["full@example.org"].bounce_class is BounceClass.MAILBOX_FULL
        assert told["there@example.org"].bounce_class is BounceClass.NONE
        assert not told["late@example.org"].permanent


def test_a_hundred_recipients() -> None:
    outcome = said(550, "5.1.1 unknown user")
    addresses = [f"reader-{number}@example.org" for number in range(100)]
    notice = reading(*(Report(address, Action.FAILED, outcome) for address in addresses), ret="FULL")
    assert [recipient.address for recipient in notice.recipients] == addresses
    assert {recipient.bounce_class for recipient in notice.recipients} == {BounceClass.UNKNOWN_USER}


@pytest.mark.parametrize("ret", ["FULL", "HDRS"])
@pytest.mark.parametrize("original", [ORIGINAL, INTERNATIONAL])
@pytest.mark.parametrize("recipient", ["jörg@example.org", "用户@例え.example.org", "bob@example.org"])
@pytest.mark.parametrize("sender", [SENDER, "grüße@example.com"])
def test_international_mail(recipient: str, sender: str, original: bytes, ret: str) -> None:
    outcome = said(550, "5.1.1 User unknown", recipient)
    report = Report(recipient, Action.FAILED, outcome)
    notice = reading(report, original=original, sender=sender, ret=ret, envid="QQ+2B31", utf8=True)
    (told,) = notice.recipients
    assert (notice.kind, told.address, told.status) == (Kind.BOUNCE, recipient, "5.1.1")
    assert (told.bounce_class, told.certain) == (BounceClass.UNKNOWN_USER, True)


@pytest.mark.parametrize(
    ("orcpt", "original"),
    [
        ("rfc822;Alias+2Bx@example.org", "Alias+x@example.org"),
        ("rfc822;alias@example.org", "alias@example.org"),
        ("utf-8;j\\x{F6}rg@example.org", "jörg@example.org"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("ret", ["FULL", "HDRS"])
@pytest.mark.parametrize("envid", ["", "campaign-7", "QQ+2B314159+3B+20x"])
def test_the_original_recipient_and_the_envelope_id(orcpt: str, original: str, ret: str, envid: str) -> None:
    outcome = replace(said(550, "5.1.1 User unknown"), remote_mta="")
    report = Report("bob@example.org", Action.FAILED, outcome, original_recipient=orcpt)
    notice = reading(report, ret=ret, envid=envid)
    (told,) = notice.recipients
    assert (told.address, told.original) == ("bob@example.org", original)
    assert (notice.kind, told.bounce_class) == (Kind.BOUNCE, BounceClass.UNKNOWN_USER)
