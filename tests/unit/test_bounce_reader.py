"""What a message is: the kinds, whom it is about, and what must not be taken for a bounce."""

from pathlib import Path

import pytest

from bounce.outcome import Action, BounceClass
from bounce.policy import Policy, Step
from bounce.reader import read
from bounce.reading import Kind, RecognisedBy
from tests.support.bounces import Failed, Shape, bounce


def mail(header: str, body: str = "", kind: str = "text/plain; charset=utf-8") -> bytes:
    return f"{header}\nMIME-Version: 1.0\nContent-Type: {kind}\n\n{body}".encode()


def parts(*bodies: str) -> str:
    return "".join(f"--cut\n{body}\n" for body in bodies) + "--cut--\n"


REPORT = "multipart/report; report-type=delivery-status; boundary=cut"
MIXED = "multipart/mixed; boundary=cut"
DAEMON = "From: MAILER-DAEMON@mx.example.net\nTo: news@example.com\n"
FAILED = (
    "Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example.net\n\n"
    "Final-Recipient: rfc822; box@example.org\nAction: {action}\nStatus: {status}\n"
)


def one_failed(status: str, diagnostic: str) -> str:
    head = "Final-Recipient: rfc822; box@example.org\nAction: failed"
    return f"{head}\nStatus: {status}\nDiagnostic-Code: smtp; {diagnostic}"


def dsn(fields: str, prose: str = "It went wrong.") -> bytes:
    return mail(
        DAEMON + "Subject: Undelivered Mail Returned to Sender",
        parts(f"Content-Type: text/plain\n\n{prose}", f"Content-Type: message/delivery-status\n\n{fields}"),
        REPORT,
    )


NOT_BOUNCES = {
    "someone asks about a bounce": mail(
        "From: Ann <ann@example.com>\nSubject: Re: Undelivered Mail Returned to Sender",
        "I got this:\n\n> <box@example.org>: 550 5.1.1 user unknown\n\nCan you help?",
    ),
    "someone pastes a report": mail(
        "From: Ann <ann@example.com>\nSubject: look",
        "They sent:\n\nFinal-Recipient: rfc822; box@example.org\nAction: failed\nStatus: 5.1.1\n",
    ),
    "someone forwards a bounce": mail(
        "From: Ann <ann@example.com>\nSubject: Fwd: bounce",
        parts(
            "Content-Type: text/plain\n\nsee below",
            "Content-Type: message/rfc822\n\n" + bounce([Failed()]).decode(),
        ),
        MIXED,
    ),
    "a postmaster is a person": mail(
        "From: postmaster@example.com\nSubject: Your account",
        "Your mailbox is full. Write to\nhelp@example.com\nfor more.",
    ),
    "a shop could not deliver a parcel": mail(
        "From: noreply@shop.example.com\nReturn-Path: <b@shop.example.com>\nSubject: Delivery failed",
        "We could not deliver your parcel. Write to\n\nsupport@shop.example.com\n\nor call.",
    ),
    "someone left": mail(
        "From: Ann <ann@example.com>\nReturn-Path: <>\nSubject: What is new",
        "This mailbox is no longer in use. Write to\n\nbob@example.com\n",
    ),
    "someone is away": mail(
        "From: Ann <ann@example.com>\nAuto-Submitted: auto-replied\nReturn-Path: <>\nSubject: Automatic reply: hello",
        "Unknown user of this office until May. Ask bob@example.com.",
    ),
}


@pytest.mark.parametrize("name", NOT_BOUNCES)
def test_no_bounce(name: str) -> None:
    reading = read(NOT_BOUNCES[name])
    assert reading.kind not in {Kind.BOUNCE, Kind.DELAY}
    assert not reading.recipients


@pytest.mark.parametrize(
    ("message", "kind", "feedback_type"),
    [
        (dsn(FAILED.split("\n\n", 1)[1].format(action="delayed", status="4.4.1")), Kind.DELAY, ""),
        (dsn(FAILED.split("\n\n", 1)[1].format(action="delivered", status="2.1.5")), Kind.RECEIPT, ""),
        (
            mail(
                "From: ann@example.com\nSubject: Read: hello",
                parts("\nread", "Content-Type: message/disposition-notification\n\nDisposition: automatic; deleted"),
                "multipart/report; report-type=disposition-notification; boundary=cut",
            ),
            Kind.RECEIPT,
            "",
        ),
        (mail("From: ann@example.com\nSubject: Abwesenheitsnotiz"), Kind.AUTO_REPLY, ""),
        (mail("From: ann@example.com\nX-Autoreply: yes\nSubject: hello"), Kind.AUTO_REPLY, ""),
        (mail("From: ann@example.com\nSubject: Re: unsubscribe"), Kind.UNSUBSCRIBE, ""),
        (mail("From: ann@example.com\nSubject: Se désabonner".replace("Se d", "D")), Kind.UNSUBSCRIBE, ""),
        (mail("From: ann@example.com\nSubject:", "unsubscribe\n"), Kind.UNSUBSCRIBE, ""),
        (mail("From: ann@example.com\nSubject: how do I unsubscribe a friend?"), Kind.OTHER, ""),
        (mail("From: ann@example.com\nSubject: Please confirm your message"), Kind.CHALLENGE, ""),
        (
            mail(
                "From: r@example.net\nSubject: Report Domain: example.com Submitter: example.net Report-ID: 1",
                "QUJD",
                "application/gzip; name=example.net!example.com!1!2.xml.gz",
            ),
            Kind.OTHER,
            "dmarc-aggregate",
        ),
        (
            mail(
                "From: r@example.net\nSubject: Report Domain: example.com",
                parts("\nhello"),
                "multipart/report; report-type=tlsrpt; boundary=cut",
            ),
            Kind.OTHER,
            "tls-report",
        ),
        (b"", Kind.OTHER, ""),
    ],
)
def test_kinds(message: bytes, kind: Kind, feedback_type: str) -> None:
    reading = read(message)
    assert (reading.kind, reading.feedback_type) == (kind, feedback_type)


def test_a_report_is_believed_field_by_field() -> None:
    reading = read(
        dsn(
            "Reporting-MTA: dns; mx.example.net\n\n"
            "Original-Recipient: rfc822; news-box@example.org\nFinal-Recipient: rfc822; <box@example.org> (Box)\n"
            "Action: Failed (no mailbox)\nStatus: 5.1.1 (unknown)\nRemote-MTA: dns; mail.example.org (192.0.2.1)\n"
            "Diagnostic-Code: smtp; 550 5.1.1 no such\n user\n"
        ),
    )
    (recipient,) = reading.recipients
    assert (recipient.address, recipient.original) == ("box@example.org", "news-box@example.org")
    assert (recipient.action, recipient.status, recipient.reply_code) == (Action.FAILED, "5.1.1", 550)
    assert (recipient.remote_mta, recipient.bounce_class) == ("mail.example.org", BounceClass.UNKNOWN_USER)
    assert recipient.permanent
    assert recipient.certain
    assert recipient.recognised_by is RecognisedBy.REPORT
    assert reading.reporting_mta == "mx.example.net"


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ("Final-Recipient: box@example.org\nAction: failed\nStatus: 5.1.1", "box@example.org"),
        ("Final-Recipient: RFC822;<>\nOriginal-Recipient: rfc822;box@example.org\nAction: failed", "box@example.org"),
        ("Final-Recipient: rfc822; @relay.example.net:box@example.org\nAction: failed", "box@example.org"),
        (
            "Final-Recipient: rfc822; box@inside\nOriginal-Recipient: rfc822; box@example.org\nAction: failed",
            "box@example.org",
        ),
        ("Final-Recipient: utf-8; b\\x{F6}x@example.org\nAction: failed", "böx@example.org"),
        ('Final-Recipient: rfc822; "the box"@example.org\nAction: failed', '"the box"@example.org'),
        ("  Final-Recipient: rfc822; box@example.org\n  Action: failed", "box@example.org"),
        ("Status: 5.1.1\nAction: failed\nFinal-Recipient: rfc822; box@example.org", "box@example.org"),
        ("X-Actual-Recipient: rfc822; box@example.org\nAction: failed", "box@example.org"),
    ],
)
def test_recipients_are_found_however_they_are_written(fields: str, address: str) -> None:
    assert [recipient.address for recipient in read(dsn(fields)).recipients] == [address]


def test_a_group_that_lost_its_empty_line_or_got_one_too_many() -> None:
    joined = "".join(
        f"Final-Recipient: rfc822; {name}@example.org\nAction: failed\nStatus: 5.{n}.1\n"
        for n, name in [(1, "a"), (2, "b")]
    )
    parted = "Final-Recipient: rfc822; a@example.org\n\nAction: failed\n\nStatus: 5.1.1\n"
    assert [(r.address, r.status) for r in read(dsn(joined)).recipients] == [
        ("a@example.org", "5.1.1"),
        ("b@example.org", "5.2.1"),
    ]
    assert [(r.address, r.status) for r in read(dsn(parted)).recipients] == [("a@example.org", "5.1.1")]


def test_a_recipient_named_twice_is_one() -> None:
    group = "Final-Recipient: rfc822; box@example.org\nAction: failed\nStatus: 5.1.1\n\n"
    assert len(read(dsn(group * 2)).recipients) == 1


def test_the_text_of_the_report_counts_more_than_a_made_up_code() -> None:
    fields = one_failed("5.0.0", "552 5.2.2 full")
    (recipient,) = read(dsn(fields)).recipients
    assert (recipient.status, recipient.bounce_class) == ("5.2.2", BounceClass.MAILBOX_FULL)


def test_unknown_user_after_the_content_is_doubtful() -> None:
    fields = one_failed("5.0.0", "550 user unknown")
    for command, certain in [("RCPT TO", True), ("end of DATA", False)]:
        prose = f"<box@example.org>: host mx.example.org said: 550 user unknown (in reply to {command} command)"
        (recipient,) = read(dsn(fields, prose)).recipients
        assert recipient.bounce_class is BounceClass.UNKNOWN_USER
        assert recipient.certain is certain


DOUBTFUL = (Path(__file__).parents[1] / "data" / "doubtful_replies.txt").read_text("utf-8").splitlines()[1:]


@pytest.mark.parametrize("reply", DOUBTFUL)
def test_a_code_whose_text_speaks_of_something_else_suppresses_nobody(reply: str) -> None:
    prose = f"<box@example.org>: host mx.example.org said: {reply} (in reply to RCPT TO command)"
    reading = read(dsn(one_failed(reply.split()[1], reply), prose))
    (recipient,) = reading.recipients
    assert Policy().of_report(reading.kind, recipient, authentic=True).step is not Step.SUPPRESS


OWN_TABLES = "Final-Recipient: rfc822;box@example.org\nAction: failed\nStatus: 5.0.0\n"


@pytest.mark.parametrize(
    ("reason", "bounce_class", "certain"),
    [
        ("No such person at this address", BounceClass.UNKNOWN_USER, True),
        ("Unrouteable address", BounceClass.UNKNOWN_HOST, True),
        ("mailbox unavailable", BounceClass.UNKNOWN_USER, False),
        ("550 no such user here", BounceClass.UNKNOWN_USER, False),
    ],
)
def test_a_host_that_asked_nobody_knows_its_own_users(reason: str, bounce_class: BounceClass, certain: bool) -> None:
    prose = f"The following address(es) failed:\n\n  box@example.org\n    {reason}\n"
    (recipient,) = read(dsn(OWN_TABLES, prose)).recipients
    assert (recipient.bounce_class, recipient.certain) == (bounce_class, certain)
    (relayed,) = read(dsn(f"{OWN_TABLES}Remote-MTA: dns; mx.example.org\n", prose)).recipients
    assert not relayed.certain


def test_a_report_that_contradicts_itself_is_doubtful() -> None:
    fields = one_failed("5.1.1", "550 5.1.1 user unknown")
    (recipient,) = read(dsn(fields, "The mailbox is full.")).recipients
    assert not recipient.certain


def test_a_failed_report_with_a_temporary_code_is_not_permanent() -> None:
    fields = one_failed("4.4.7", "450 4.1.1 user unknown")
    (recipient,) = read(dsn(fields)).recipients
    assert not recipient.permanent


def test_known_headers_name_the_recipient() -> None:
    reading = read(mail(DAEMON + "X-Failed-Recipients: box@example.org\nSubject: ?", "It failed: 550 user unknown"))
    assert [(r.address, r.recognised_by) for r in reading.recipients] == [("box@example.org", RecognisedBy.HEADER)]


def test_the_original_names_the_recipient_where_nothing_else_does() -> None:
    original = "Received: x\nMessage-ID: <1@x>\nTo: box@example.org\n"
    body = f"It failed.\n\n--- Below this line is a copy of the message.\n\n{original}"
    reading = read(mail(DAEMON + "Subject: failure notice", body))
    assert [(r.address, r.recognised_by) for r in reading.recipients] == [("box@example.org", RecognisedBy.ORIGINAL)]


ABUSE = "Content-Type: message/feedback-report\n\nFeedback-Type: {kind}\nUser-Agent: x\nVersion: 1\n{more}"
RETURNED = (
    "Content-Type: message/rfc822\n\nReturn-Path: <token@t.example.com>\nMessage-ID: <token@t.example.com>\n"
    "To: {to}\nSubject: s\n\nx"
)


def arf(kind: str, more: str = "", to: str = "box@example.org") -> bytes:
    return mail(
        "From: fbl@example.net\nTo: abuse@example.com\nSubject: complaint",
        parts("\na complaint", ABUSE.format(kind=kind, more=more), RETURNED.format(to=to)),
        "multipart/report; report-type=feedback-report; boundary=cut",
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("abuse", Kind.COMPLAINT),
        ("Abuse", Kind.COMPLAINT),
        ("fraud", Kind.COMPLAINT),
        ("opt-out", Kind.OPT_OUT),
        ("auth-failure", Kind.AUTH_FAILURE),
        ("not-spam", Kind.OTHER),
    ],
)
def test_feedback_types(kind: str, expected: Kind) -> None:
    reading = read(arf(kind, "Original-Rcpt-To: <box@example.org>\nSource-IP: 192.0.2.1"))
    assert (reading.kind, reading.feedback_type) == (expected, kind.lower())
    assert [recipient.address for recipient in reading.recipients] == ["box@example.org"]
    assert reading.reports[0].first("source-ip") == "192.0.2.1"


def test_several_recipients_in_one_complaint() -> None:
    reading = read(arf("abuse", "Original-Rcpt-To: a@example.org\nOriginal-Rcpt-To: b@example.org"))
    assert [recipient.address for recipient in reading.recipients] == ["a@example.org", "b@example.org"]


def test_a_complaint_about_a_message_to_many_blames_nobody() -> None:
    assert read(arf("abuse", to="a@example.org, b@example.org")).recipients == ()


def test_a_redacted_complaint_is_recovered_by_our_token() -> None:
    reading = read(arf("abuse", to="redacted"), lambda text: 4711 if text == "token@t.example.com" else None)
    assert (reading.token, reading.token_found_in) == (4711, "original return-path")
    assert [(r.address, r.recognised_by) for r in reading.recipients] == [("", RecognisedBy.TOKEN)]


def test_microsofts_complaint_has_no_report() -> None:
    returned = (
        "Content-Type: message/rfc822\n\nX-HmXmrOriginalRecipient: box@example.org\nTo: x@example.com\nSubject: s\n\nx"
    )
    reading = read(
        mail("From: staff@hotmail.com\nSubject: complaint about message from 192.0.2.1", parts(returned), MIXED)
    )
    assert reading.kind is Kind.COMPLAINT
    assert [recipient.address for recipient in reading.recipients] == ["box@example.org"]


@pytest.mark.parametrize(
    ("message", "where"),
    [
        (mail("From: a@example.org\nTo: token@t.example.com\nSubject: x"), "to"),
        (mail("From: a@example.org\nIn-Reply-To: <token@t.example.com>\nSubject: x"), "in-reply-to"),
        (
            bounce([Failed()], Shape()).replace(b"<campaign-1@example.com>", b"<token@t.example.com>"),
            "original message-id",
        ),
        (
            bounce([Failed()], Shape()).replace(
                b"MIME-Version: 1.0\n\n--", b"List-Unsubscribe: <https://t.example.com/u/token>\n\n--"
            ),
            "original list-unsubscribe",
        ),
    ],
)
def test_our_token_is_found(message: bytes, where: str) -> None:
    reading = read(message, lambda text: 4711 if "token" in text else None)
    assert (reading.token, reading.token_found_in) == (4711, where)


def test_without_own_no_token_is_looked_for() -> None:
    assert read(bounce([Failed()])).token is None


def test_amazons_notification_by_mail() -> None:
    body = (
        '{"notificationType":"Bounce","bounce":{"bounceType":"Permanent","bouncedRecipients":[{"emailAddress":'
        '"box@example.org","status":"5.1.1","diagnosticCode":"smtp; 550 5.1.1 user unknown"}]}}\n\n--\nUnsubscribe: …'
    )
    reading = read(mail("From: no-reply@sns.example.com\nSubject: AWS Notification Message", body))
    assert reading.kind is Kind.BOUNCE
    assert [(r.address, r.bounce_class, r.permanent) for r in reading.recipients] == [
        ("box@example.org", BounceClass.UNKNOWN_USER, True)
    ]


@pytest.mark.parametrize("lost", ["content-type", "boundary", "blank line", "mbox"])
def test_damaged_structure_is_mended(lost: str) -> None:
    message = bounce([Failed()]).decode()
    if lost == "content-type":
        message = message.replace(
            'Content-Type: multipart/report; report-type=delivery-status; boundary="=_cut/1"\n', ""
        )
    elif lost == "boundary":
        message = message.replace('boundary="=_cut/1"', 'boundary="other"')
    elif lost == "blank line":
        message = "\n\n" + message
    else:
        message = ">From MAILER-DAEMON Mon Mar  2 10:00:00 2026\n" + message
    assert [recipient.address for recipient in read(message.encode()).recipients] == [Failed().address]


def test_no_address_in_a_repr() -> None:
    reading = read(bounce([Failed()]))
    assert "anna" not in repr(reading)
    assert "anna" not in repr(reading.recipients)


@pytest.mark.parametrize("charset", ["utf-7", "utf-16", "utf-32", "unicode_escape", "punycode", "zlib", "no such", ""])
def test_half_characters_and_odd_charsets_are_no_error(charset: str) -> None:
    head = (DAEMON + f"Subject: failure notice\nContent-Type: text/plain; charset={charset}\n\n").encode()
    for body in (
        b"<box@example.org>: +2Qk- +AAA- failed",
        b"\xd8\x00\xdc",
        b"&#" + b"9" * 5000 + b";",
        b"\\ud800 \\N{x}",
    ):
        read(head + body, lambda text: None)
        read(head.replace(b"text/plain", b"text/html") + body, lambda text: None)


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("宛先はbox@example.orgです。", "box@example.org"),
        ("收件人：box@example.org，不存在。", "box@example.org"),
        ("An Böx@exämple.org nicht zugestellt: Empfänger unbekannt", "Böx@exämple.org"),
        ("«box@example.org» не существует", "box@example.org"),
        ('"The Box"@example.org: user unknown', '"The Box"@example.org'),
        ("mailto:box@example.org: user unknown", "box@example.org"),
        ("box@example.org. was not found", "box@example.org"),
    ],
)
def test_an_address_ends_where_its_script_does(line: str, address: str) -> None:
    reading = read(mail(DAEMON + "Subject: Undelivered Mail", f"{line}\n"))
    assert [recipient.address for recipient in reading.recipients] == [address]


def test_a_bounce_that_names_nobody_is_about_the_person_of_our_token() -> None:
    message = mail(
        "From: MAILER-DAEMON@mx.example.net\nTo: token@t.example.com\nSubject: Returned mail",
        "Your message was not delivered: 550 5.1.1 user unknown.",
    )
    assert read(message).recipients == ()
    (recipient,) = read(message, lambda text: 4711 if "token" in text else None).recipients
    assert (recipient.address, recipient.bounce_class) == ("", BounceClass.UNKNOWN_USER)
    assert recipient.recognised_by is RecognisedBy.TOKEN
