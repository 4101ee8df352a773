"""Delivery status notifications, read back with the standard library's parser and with our own reader."""

import email
import email.policy
from dataclasses import replace
from email.message import EmailMessage
from typing import Any

import pytest

from bounce.outcome import Action, BounceClass, Outcome, Stage, Trouble
from bounce.reader import read
from bounce.reading import Kind
from mta.dsn import MAX_ORIGINAL_OCTETS, DsnError, Report, compose, xtext_decoded
from mta.message import MAX_LINE_OCTETS, parse
from mta.octets import has_bare_line_ends

ORIGINAL = (
    b"From: Shop <news@example.com>\r\nTo: bob@example.org\r\nSubject: Spring\r\nMessage-ID: <1@example.com>\r\n"
    b"X-Long: one\r\n two\r\n\r\nThe body.\r\n.\r\n"
)
REFUSED = Outcome(
    action=Action.FAILED,
    status="5.1.1",
    reply_code=550,
    diagnostic="5.1.1 <address>: no such user",
    remote_mta="mx1.example.org",
    bounce_class=BounceClass.UNKNOWN_USER,
    trouble=Trouble.RECIPIENT,
    stage=Stage.RCPT,
)
DEFERRED = replace(
    REFUSED, action=Action.DELAYED, status="4.2.2", reply_code=452, bounce_class=BounceClass.MAILBOX_FULL
)
EXPIRED = replace(
    REFUSED,
    status="5.4.7",
    bounce_class=BounceClass.EXPIRED,
    stage=Stage.EXPIRY,
    diagnostic="expired; last: 4.2.2 full",
)
DELIVERED = replace(REFUSED, action=Action.DELIVERED, status="2.0.0", reply_code=250, bounce_class=BounceClass.NONE)
FAILED_REPORT = Report("bob@example.org", Action.FAILED, REFUSED, attempted_at=1_750_000_100)


def composed(*reports: Report, **changes: Any) -> bytes:
    arguments: dict[str, Any] = {
        "hostname": "mx.example.net",
        "sender": "app@example.com",
        "original": ORIGINAL,
        "ret": "",
        "envid": "",
        "queue_id": "01ABC",
        "received_at": 1_750_000_000.0,
        "now": 1_750_000_200.0,
    }
    return compose(reports=reports or (FAILED_REPORT,), **arguments | changes)


def parts_of(content: bytes) -> tuple[EmailMessage, EmailMessage, EmailMessage, EmailMessage]:
    """The notice and its three parts."""
    assert not has_bare_line_ends(content)
    assert max(map(len, content.split(b"\r\n"))) <= MAX_LINE_OCTETS
    notice = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(notice, EmailMessage)
    assert notice.defects == []
    text, status, returned = notice.iter_parts()
    assert isinstance(text, EmailMessage)
    assert isinstance(status, EmailMessage)
    assert isinstance(returned, EmailMessage)
    return notice, text, status, returned


def blocks_of(content: bytes) -> list[dict[str, str]]:
    """The fields of the status part: of the message, and of each recipient."""
    _, _, status, _ = parts_of(content)
    blocks: Any = status.get_payload()
    return [{name.lower(): str(value) for name, value in block.items()} for block in blocks if block.items()]


def test_the_form_of_a_failure() -> None:
    content = composed()
    notice, text, status, returned = parts_of(content)
    assert notice.get_content_type() == "multipart/report"
    assert notice["Content-Type"].params["report-type"] == "delivery-status"
    assert notice["From"] == "Mail delivery <MAILER-DAEMON@mx.example.net>"
    assert notice["To"] == "app@example.com"
    assert notice["Subject"] == "Your message could not be delivered"
    assert notice["Auto-Submitted"] == "auto-replied"
    assert notice["In-Reply-To"] == "<1@example.com>"
    assert notice["Message-ID"].endswith("@mx.example.net>")
    assert notice["Date"] == "Sun, 15 Jun 2025 15:10:00 +0000"
    assert text.get_content_type() == "text/plain"
    assert status.get_content_type() == "message/delivery-status"
    assert returned.get_content_type() == "text/rfc822-headers"
    assert content.isascii()


def test_the_fields_of_a_failure() -> None:
    message, recipient = blocks_of(composed())
    assert message == {
        "reporting-mta": "dns; mx.example.net",
        "x-heed-queue-id": "01ABC",
        "arrival-date": "Sun, 15 Jun 2025 15:06:40 +0000",
    }
    assert recipient == {
        "final-recipient": "rfc822; bob@example.org",
        "action": "failed",
        "status": "5.1.1",
        "remote-mta": "dns; mx1.example.org",
        "diagnostic-code": "smtp; 550 5.1.1 <address>: no such user",
        "last-attempt-date": "Sun, 15 Jun 2025 15:08:20 +0000",
    }


def test_a_person_understands_it() -> None:
    _, text, _, _ = parts_of(composed())
    words = " ".join(text.get_content().split())
    assert "could not be delivered to the following recipients. It will not be tried again: <bob@example.org>" in words
    assert "There is no such address." in words
    assert "mx1.example.org said: 550 5.1.1 <address>: no such user" in words


@pytest.mark.parametrize("action", [Action.RELAYED, Action.DELIVERED, Action.EXPANDED])
def test_good_news(action: Action) -> None:
    content = composed(Report("bob@example.org", action, DELIVERED), ret="FULL")
    _, recipient = blocks_of(content)
    assert (recipient["action"], recipient["status"]) == (action.value, "2.0.0")
    assert "last-attempt-date" not in recipient
    assert parts_of(content)[3].get_content_type() == "text/rfc822-headers"
    assert "could not" not in parts_of(content)[1].get_content()


def test_a_delay() -> None:
    content = composed(Report("bob@example.org", Action.DELAYED, DEFERRED, retry_until=1_750_400_000), ret="FULL")
    notice, text, _, returned = parts_of(content)
    _, recipient = blocks_of(content)
    assert notice["Subject"] == "Your message is delayed"
    assert (recipient["action"], recipient["status"]) == ("delayed", "4.2.2")
    assert recipient["will-retry-until"] == "Fri, 20 Jun 2025 06:13:20 +0000"
    assert "Tried again until Fri, 20 Jun 2025 06:13:20 +0000." in text.get_content()
    assert returned.get_content_type() == "text/rfc822-headers"


def test_several_recipients_each_under_what_became_of_them() -> None:
    reports = (
        Report("late@example.org", Action.DELAYED, DEFERRED),
        Report("gone@example.org", Action.FAILED, REFUSED),
        Report("there@example.org", Action.RELAYED, DELIVERED),
        Report("old@example.org", Action.FAILED, EXPIRED),
    )
    content = composed(*reports)
    text = parts_of(content)[1].get_content()
    places = [text.index(name) for name in ("gone@", "old@", "late@", "there@")]
    assert places == sorted(places)
    assert parts_of(content)[0]["Subject"] == "Your message could not be delivered"
    assert [block["final-recipient"] for block in blocks_of(content)[1:]] == [
        f"rfc822; {report.recipient}" for report in reports
    ]


def test_our_own_words_are_no_reply_of_the_peer() -> None:
    content = composed(Report("bob@example.org", Action.FAILED, EXPIRED))
    assert blocks_of(content)[1]["diagnostic-code"] == "X-Heed; expired; last: 4.2.2 full"
    assert "said" not in parts_of(content)[1].get_content()


@pytest.mark.parametrize(
    ("ret", "size", "content_type"),
    [
        ("FULL", 0, "message/rfc822"),
        ("full", 0, "message/rfc822"),
        ("HDRS", 0, "text/rfc822-headers"),
        ("", 0, "text/rfc822-headers"),
        ("FULL", MAX_ORIGINAL_OCTETS, "text/rfc822-headers"),
    ],
)
def test_what_is_returned(ret: str, size: int, content_type: str) -> None:
    content = composed(ret=ret, original=ORIGINAL + b"x" * size)
    returned = parts_of(content)[3]
    assert returned.get_content_type() == content_type
    whole = content_type == "message/rfc822"
    assert (b"The body." in content) == whole
    assert b"X-Long: one\r\n two\r\n" in content
    if whole:
        assert ORIGINAL in content


def test_envelope_id_and_original_recipient() -> None:
    report = replace(FAILED_REPORT, original_recipient="rfc822;Bob+2Bx@example.org")
    message, recipient = blocks_of(composed(report, envid="QQ+2B314159"))
    assert message["original-envelope-id"] == "QQ+314159"
    assert recipient["original-recipient"] == "rfc822; Bob+x@example.org"


@pytest.mark.parametrize(
    "text", ["a+0D+0ABcc:+20x", "a+00", "a b", "a+2", "a+zz", "a+E4", "a=b", "", "\xe4", "a\r\nb", "a+2b"]
)
def test_xtext_that_must_not_stand_in_a_field(text: str) -> None:
    assert xtext_decoded(text) is None
    report = replace(FAILED_REPORT, original_recipient=f"rfc822;{text}")
    message, recipient = blocks_of(composed(report, envid=text))
    assert "original-envelope-id" not in message
    assert "original-recipient" not in recipient


@pytest.mark.parametrize("smtputf8", [True, False])
def test_an_international_original_recipient_has_the_form_that_every_notice_may_hold(smtputf8: bool) -> None:
    report = replace(FAILED_REPORT, original_recipient="utf-8;jörg@bücher.example")
    content = composed(report, smtputf8=smtputf8)
    assert b"\r\nOriginal-Recipient: utf-8; j\\x{F6}rg@b\\x{FC}cher.example\r\n" in content
    assert read(content).recipients[0].original == "jörg@bücher.example"


@pytest.mark.parametrize("orcpt", ["bob@example.org", ";bob@example.org", "r f c;x", "rfc822;" + "x" * 600])
def test_an_original_recipient_without_its_form_is_left_out(orcpt: str) -> None:
    assert "original-recipient" not in blocks_of(composed(replace(FAILED_REPORT, original_recipient=orcpt)))[1]


def test_a_hostile_peer_can_not_add_fields() -> None:
    outcome = replace(REFUSED, remote_mta="mx\r\nX: y", diagnostic="a\r\nStatus: 2.0.0\x0b\xfc \u2028", status="9\r\n")
    content = composed(Report("bob@example.org", Action.FAILED, outcome))
    _, recipient = blocks_of(content)
    assert "remote-mta" not in recipient
    assert recipient["status"] == "5.0.0"
    assert content.count(b"\r\nStatus: ") == 1
    assert content.isascii()


@pytest.mark.parametrize("identifier", [b"<a@b>, <c@d>", b"x", b"<a b@c>", b"<" + b"x" * 400 + b"@y>", b"<\xc3\xbc@y>"])
def test_an_odd_identifier_is_not_repeated(identifier: bytes) -> None:
    content = composed(original=b"Message-ID: " + identifier + b"\r\n\r\n")
    assert parse(content).values(b"in-reply-to") == []


def test_an_8_bit_original_is_returned_as_it_is() -> None:
    original = b"From: a@example.com\r\n\r\ngr\xc3\xbc\xc3\x9fe\r\n"
    content = composed(original=original, ret="FULL")
    notice, _, status, returned = parts_of(content)
    assert original in content
    assert notice["Content-Transfer-Encoding"] == returned["Content-Transfer-Encoding"] == "8bit"
    assert status["Content-Transfer-Encoding"] is None
    assert parse(content).eight_bit
    assert not parse(content).internationalised


@pytest.mark.parametrize("ret", ["FULL", "HDRS"])
def test_international_mail_has_its_own_forms(ret: str) -> None:
    report = Report("jörg@bücher.example.org", Action.FAILED, REFUSED)
    original = "From: jörg@example.com\r\n\r\nx\r\n".encode()
    content = composed(report, original=original, sender="jörg@example.com", smtputf8=True, ret=ret)
    notice, text, status, returned = parts_of(content)
    assert notice["Content-Type"].params["report-type"] == "global-delivery-status"
    assert status.get_content_type() == "message/global-delivery-status"
    assert returned.get_content_type() == ("message/global" if ret == "FULL" else "message/global-headers")
    assert "Final-Recipient: utf-8; jörg@bücher.example.org\r\n".encode() in content
    assert "<jörg@bücher.example.org>" in text.get_content()
    assert parse(content).values(b"To") == ["<jörg@example.com>".encode()]
    assert parse(content).internationalised


def test_smtputf8_without_anything_international_keeps_the_ordinary_form() -> None:
    content = composed(smtputf8=True)
    assert content.isascii()
    assert parts_of(content)[2].get_content_type() == "message/delivery-status"


@pytest.mark.parametrize(
    "changes",
    [
        {"sender": ""},
        {"sender": "a@example.com\r\nBcc: x@example.org"},
        {"sender": "a\0@example.com"},
        {"sender": "jörg@example.com"},
        {"reports": (replace(FAILED_REPORT, recipient=""),)},
        {"reports": (replace(FAILED_REPORT, recipient="a\n@example.org"),)},
        {"reports": (replace(FAILED_REPORT, recipient="a\u2028@example.org"),), "smtputf8": True},
        {"reports": (replace(FAILED_REPORT, recipient="a\udc80@example.org"),), "smtputf8": True},
    ],
)
def test_what_can_not_be_written(changes: dict[str, Any]) -> None:
    reports = changes.pop("reports", (FAILED_REPORT,))
    with pytest.raises(DsnError) as raised:
        composed(*reports, **changes)
    assert "example" not in str(raised.value)


def test_about_nobody_nothing_is_written() -> None:
    with pytest.raises(DsnError):
        compose(
            hostname="mx.example.net",
            sender="app@example.com",
            reports=(),
            original=ORIGINAL,
            ret="",
            envid="",
            queue_id="",
            received_at=0,
            now=0,
        )


def test_a_report_shows_no_address() -> None:
    assert "bob" not in repr(replace(FAILED_REPORT, original_recipient="rfc822;bob@example.org"))


@pytest.mark.parametrize(
    ("action", "outcome", "kind"),
    [(Action.FAILED, REFUSED, Kind.BOUNCE), (Action.DELAYED, DEFERRED, Kind.DELAY)],
)
def test_our_own_reader_understands_it(action: Action, outcome: Outcome, kind: Kind) -> None:
    reading = read(composed(Report("bob@example.org", action, outcome), ret="FULL"))
    assert reading.kind is kind
    (recipient,) = reading.recipients
    assert recipient.address == "bob@example.org"


@pytest.mark.parametrize("bounce_class", BounceClass)
def test_every_cause_of_failure_has_its_words(bounce_class: BounceClass) -> None:
    text = parts_of(composed(replace(FAILED_REPORT, outcome=replace(REFUSED, bounce_class=bounce_class))))[1]
    wordless = "  <bob@example.org>\r\n    mx1.example.org said:" in text.get_content()
    assert wordless == (bounce_class in (BounceClass.NONE, BounceClass.OTHER))
