"""What unseen mail will do to the reader: everything that is not the result may change, and the result may not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounce.outcome import Action, BounceClass
from bounce.reader import read
from bounce.reading import Kind
from tests.support.bounces import MAKES, PROSE, Failed, Shape, bounce
from tests.support.mutations import SAME, in_other_words, with_plain_subject, without_original
from tests.support.notices import Notice, has_signs, is_kept_in_other_words, is_kept_without_original, is_same, notices

LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,14}[a-z0-9])?", fullmatch=True)
# Words that a rule or a role could take for something else, if addresses and hosts counted as evidence.
TRAPS = st.sampled_from(
    [
        "spam",
        "quota",
        "unknown",
        "policy",
        "blocked",
        "mailbox.full",
        "virus",
        "relay",
        "dkim",
        "user",
        "greylist",
        "rate-limit",
    ]
)
HOSTS = st.builds("{}.{}.example.net".format, TRAPS.filter(lambda s: "." not in s) | LABELS, LABELS)
LOCALS = TRAPS | st.from_regex(r"[a-z][a-z0-9._+-]{0,30}[a-z0-9]", fullmatch=True).filter(lambda s: ".." not in s)
ADDRESSES = st.builds("{}@{}.example.org".format, LOCALS, LABELS)

CAUSES = {
    BounceClass.UNKNOWN_USER: ("5.1.1", "550 5.1.1 No such user here"),
    BounceClass.MAILBOX_FULL: ("5.2.2", "552 5.2.2 The mailbox is full"),
    BounceClass.MAILBOX_DISABLED: ("5.2.1", "550 5.2.1 The account is disabled"),
    BounceClass.CONTENT: ("5.7.1", "554 5.7.1 Refused: looks like spam"),
    BounceClass.AUTHENTICATION: ("5.7.26", "550 5.7.26 The mail fails SPF and DKIM checks"),
    BounceClass.REPUTATION: ("5.7.1", "554 5.7.1 Your server is on a blocklist"),
}

SHAPES = st.builds(
    Shape,
    make=st.sampled_from(MAKES),
    language=st.sampled_from(sorted(PROSE)),
    reporter=HOSTS,
    remote=HOSTS,
    encoding=st.sampled_from(["8bit", "base64", "quoted-printable"]),
    returned=st.sampled_from(["headers", "full", "none"]),
    reverse_headers=st.booleans(),
    fold=st.booleans(),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    lead=st.sampled_from([b"", b"\n", b"From MAILER-DAEMON Mon Mar  2 10:00:00 2026\n", b"\n\n\n"]),
)


@settings(max_examples=400, deadline=None)
@given(shape=SHAPES, address=ADDRESSES, cause=st.sampled_from(sorted(CAUSES)))
def test_shape_and_surroundings_change_nothing(shape: Shape, address: str, cause: BounceClass) -> None:
    status, reply = CAUSES[cause]
    reading = read(bounce([Failed(address, status, reply)], shape))
    assert reading.kind is Kind.BOUNCE
    assert [recipient.address for recipient in reading.recipients] == [address]
    (recipient,) = reading.recipients
    assert recipient.bounce_class is cause
    assert recipient.permanent
    assert recipient.action is Action.FAILED
    assert recipient.status == status


@settings(max_examples=150, deadline=None)
@given(shape=SHAPES, addresses=st.lists(ADDRESSES, min_size=2, max_size=6, unique_by=str.lower), data=st.data())
def test_each_of_several_recipients_has_its_own_fate(shape: Shape, addresses: list[str], data: st.DataObject) -> None:
    causes = {address: data.draw(st.sampled_from(sorted(CAUSES))) for address in addresses}
    reading = read(bounce([Failed(address, *CAUSES[cause]) for address, cause in causes.items()], shape))
    assert {recipient.address: recipient.bounce_class for recipient in reading.recipients} == causes


ALL = list(notices())


@settings(max_examples=600, deadline=None)
@given(notice=st.sampled_from(ALL), names=st.lists(st.sampled_from(sorted(SAME)), min_size=1, max_size=4, unique=True))
def test_the_form_of_a_notice_changes_nothing(notice: Notice, names: list[str]) -> None:
    changed = notice.message
    for name in names:
        changed = SAME[name](changed) or changed
    assert is_same(notice.message, changed), (notice.name, names)


@pytest.mark.parametrize("notice", ALL, ids=lambda notice: notice.name)
def test_what_the_fields_say_needs_no_prose_no_original_and_no_subject(notice: Notice) -> None:
    in_other = in_other_words(notice.message)
    assert in_other is None or is_kept_in_other_words(notice.message, in_other)
    stripped = without_original(notice.message)
    assert stripped is None or is_kept_without_original(notice.message, stripped)
    if has_signs(notice.message):
        assert is_same(notice.message, with_plain_subject(notice.message))


# What turns one part of a message into another kind of part, wherever it lands.
SPLICES = st.sampled_from(
    [
        b"\n\n",
        b"\r",
        b"--=_cut/1\n",
        b"\nContent-Type: message/rfc822\n\n",
        b"\nContent-Type: multipart/mixed; boundary=a\n\n--a\n",
        b"\nContent-Type: text/html; charset=utf-7\n\n+2Qk-",
        b"\nContent-Transfer-Encoding: base64\n",
        b"charset=unicode_escape ",
        b"\x1b$B",
        b"&#99999999999999999999;",
        b'{"notificationType":"Bounce","bounce":[{}]}',
        b"Final-Recipient: utf-8;\\x{D800}\\x{110000}@",
        b"=?utf-8?b?",
    ],
)


@settings(max_examples=200, deadline=None)
@given(shape=SHAPES, cut=st.floats(0.0, 1.0), noise=st.binary(max_size=30) | SPLICES)
def test_damage_never_raises_and_never_invents_an_address(shape: Shape, cut: float, noise: bytes) -> None:
    message = bounce([Failed()], shape)
    place = int(len(message) * cut)
    for damaged in (message[:place], message[place:], message[:place] + noise + message[place:]):
        for recipient in read(damaged).recipients:
            assert "@" in recipient.address or not recipient.address


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_are_read(message: bytes) -> None:
    read(message)


@settings(max_examples=200, deadline=None)
@given(body=st.text(max_size=2000), subject=st.text(max_size=60))
def test_what_people_write_is_no_bounce(body: str, subject: str) -> None:
    flat = " ".join(subject.split())
    message = f"From: Ann <ann@example.com>\nTo: bob@example.org\nSubject: {flat}\nMIME-Version: 1.0\n\n{body}"
    assert read(message.encode("utf-8", "replace")).kind is not Kind.BOUNCE
