"""What a recipient's mail looks like on the wire."""

import re

import pytest

from mta.message import Message, parse
from mta.render import Identity, RenderError, stuffed
from mta.signing import ED25519_SHA256
from suppression.digest import MessageClass
from suppression.tokens import Purpose, Token
from tests.support.mail import IDENTITY, NOW, PLAIN, RENDERER, TOKENS, rendered, template_of
from tests.support.verifiers import signing_key, unstuffed

TRANSACTIONAL = MessageClass.TRANSACTIONAL
HEAD = b"From: news@example.com\r\n"


def seen(raw: bytes, message_class: MessageClass = MessageClass.CAMPAIGN, person: int = 5) -> Message:
    """The message as its recipient gets it."""
    return parse(unstuffed(rendered(raw, message_class=message_class, person=person).wire))


def token_in(value: bytes) -> Token:
    match = re.search(rb"[a-z2-7]{63}", value)
    assert match is not None
    return TOKENS.read(match[0].decode())


def test_campaign_mail_has_both_ways_to_unsubscribe() -> None:
    message = seen(PLAIN)
    (value,) = message.values(b"List-Unsubscribe")
    web, mail = value.split(b", ")
    assert web.startswith(b"<https://u.example.net/u/")
    assert mail.endswith(b"@mail.example.net?subject=unsubscribe>")
    assert token_in(web) == Token(Purpose.ONE_CLICK, 1, 2, 3, 5, 4)
    assert token_in(mail) == Token(Purpose.UNSUBSCRIBE_MAIL, 1, 2, 3, 5, 4)
    assert message.values(b"List-Unsubscribe-Post") == [b"List-Unsubscribe=One-Click"]


def test_the_submitters_unsubscribe_fields_give_way() -> None:
    raw = HEAD + b"list-unsubscribe: <https://example.org/x>\r\nLIST-UNSUBSCRIBE-POST: nothing\r\n\r\nx\r\n"
    message = seen(raw)
    assert len(message.values(b"List-Unsubscribe")) == 1
    assert message.values(b"List-Unsubscribe-Post") == [b"List-Unsubscribe=One-Click"]
    assert b"example.org" not in b"".join(message.fields)


def test_transactional_mail_is_given_no_way_to_unsubscribe() -> None:
    message = seen(PLAIN, TRANSACTIONAL)
    assert message.values(b"List-Unsubscribe") == message.values(b"List-Unsubscribe-Post") == []


def test_what_is_forwarded_keeps_the_fields_that_others_signed() -> None:
    raw = HEAD + b"List-Unsubscribe: <https://example.org/x>\r\n\r\nx\r\n"
    assert seen(raw, TRANSACTIONAL).values(b"List-Unsubscribe") == [b"<https://example.org/x>"]


def test_the_return_path_is_a_token() -> None:
    address = rendered(PLAIN).return_path
    assert address.endswith("@mail.example.net")
    assert TOKENS.read(address.partition("@")[0]) == Token(Purpose.RETURN_PATH, 1, 2, 3, 5, 4)


def test_no_two_recipients_share_a_token() -> None:
    found = [re.findall(rb"[a-z2-7]{63}", rendered(HEAD + b"\r\nx\r\n", person=person).wire) for person in range(-9, 9)]
    tokens = [token for one in found for token in one]
    assert len(tokens) == 18 * 3 == len(set(tokens))


def test_what_is_absent_is_added() -> None:
    message = seen(HEAD + b"\r\nx\r\n")
    (identifier,) = message.values(b"Message-ID")
    assert token_in(identifier) == Token(Purpose.REPLY, 1, 2, 3, 5, 4)
    assert identifier.endswith(b"@mail.example.net>")
    assert message.values(b"Date") == [b"Sun, 15 Jun 2025 15:06:40 +0000"]
    assert message.values(b"Feedback-ID") == [b"spring:news.example.com:acme:heed"]


def test_answers_are_asked_for_where_they_are_wanted_and_nobody_else_gets_them() -> None:
    def reply_to(
        raw: bytes, message_class: MessageClass = MessageClass.CAMPAIGN, *, wanted: bool = True
    ) -> list[bytes]:
        wire = rendered(raw, message_class=message_class, answers_wanted=wanted).wire
        return parse(unstuffed(wire)).values(b"Reply-To")

    (address,) = reply_to(PLAIN)
    assert token_in(address) == Token(Purpose.REPLY, 1, 2, 3, 5, 4)
    assert address.endswith(b"@mail.example.net>")
    assert reply_to(PLAIN, wanted=False) == reply_to(PLAIN, TRANSACTIONAL) == []
    assert reply_to(b"Reply-To: desk@example.com\r\n" + PLAIN) == [b"desk@example.com"]


def test_what_is_present_is_kept() -> None:
    own = b"Message-ID: <x>\r\nDate: never\r\nFeedback-ID: a:b:c:d\r\nPrecedence: bulk\r\nAuto-Submitted: no\r\n"
    message = seen(HEAD + own + b"\r\nx\r\n")
    for line in own.splitlines():
        name, _, value = line.partition(b": ")
        assert message.values(name) == [value]


def test_what_must_not_travel_is_dropped() -> None:
    message = seen(
        HEAD + b"Return-Path: <a@example.com>\r\nBCC: b@example.org\r\nResent-Bcc: c@example.org\r\n"
        b"X-Campaign: spring\r\nX-Other: stays\r\n\r\nx\r\n"
    )
    for name in (b"Return-Path", b"Bcc", b"Resent-Bcc", b"X-Campaign"):
        assert message.values(name) == []
    assert message.values(b"X-Other") == [b"stays"]


@pytest.mark.parametrize("name", ["alice@example.org", "two words", "a\r\nBcc: x", "", "a:b", "x" * 65, "gr\xfc\xdfe"])
def test_a_feedback_id_takes_the_number_for_a_name_that_is_not_plain(name: str) -> None:
    template = template_of(PLAIN, campaign_name=name)
    assert b"Feedback-ID: 3:news.example.com:acme:heed\r\n" in template.tail


def test_the_trace_field_names_the_queue_id_and_nobody() -> None:
    (value,) = seen(PLAIN).values(b"Received")
    assert value == b"by mx.example.net (Heed) id 01ABC;\tSun, 15 Jun 2025 15:06:40 +0000"


def test_signatures_come_first_and_the_order_of_the_rest_stays() -> None:
    wire = rendered(HEAD + b"X-A: 1\r\nX-B: 2\r\nX-A: 3\r\n\r\nx\r\n", signing_key(ED25519_SHA256)).wire
    assert wire.startswith(b"DKIM-Signature: v=1; a=ed25519-sha256;")
    assert b"\r\nX-A: 1\r\nX-B: 2\r\nX-A: 3\r\n" in wire


def test_a_signature_of_the_submitters_stays_below_ours() -> None:
    raw = b"DKIM-Signature: v=1; a=x; d=example.org; s=x;\r\n h=from; bh=x; b=x\r\n" + PLAIN
    values = parse(rendered(raw, signing_key(ED25519_SHA256)).wire).values(b"DKIM-Signature")
    assert len(values) == 2
    assert values[1] == b"v=1; a=x; d=example.org; s=x; h=from; bh=x; b=x"


@pytest.mark.parametrize("body", [b".\r\n", b"..\r\n.\r\n", b"a\r\n.\r\n", b".a", b"\r\n.\r\n.\r\n", b"a.\r\n", b""])
def test_no_line_of_the_wire_is_a_lone_dot(body: bytes) -> None:
    wire = rendered(HEAD + b"\r\n" + body).wire
    assert b"\r\n.\r\n" not in b"\r\n" + wire
    assert wire.endswith(b"\r\n")
    expected = body if not body or body.endswith(b"\r\n") else body + b"\r\n"
    assert parse(unstuffed(wire)).body == expected


def test_stuffing() -> None:
    assert stuffed(b".a\r\n..\r\nb.\r\n") == b"..a\r\n...\r\nb.\r\n"


def test_a_field_that_begins_with_a_dot() -> None:
    wire = rendered(b".a: b\r\n" + HEAD + b"\r\nx\r\n").wire
    assert b"\r\n..a: b\r\n" in wire


def test_8_bit_content_goes_as_it_came() -> None:
    body = b"gr\xc3\xbc\xc3\x9fe \xff\r\n"
    assert seen(HEAD + b"Content-Transfer-Encoding: 8bit\r\n\r\n" + body).body == body


@pytest.mark.parametrize("body", [b"a\nb\r\n", b"a\rb\r\n", b"a\0b\r\n", b"\n.\nMAIL FROM:<>\r\n"])
def test_content_that_could_end_the_message_early_never_goes(body: bytes) -> None:
    with pytest.raises(RenderError):
        template_of(HEAD + b"\r\n" + body)


@pytest.mark.parametrize("queue_id", ["", "a b", "a\r\nBcc: x", "x" * 65, "a;b"])
def test_a_queue_id_that_would_break_the_trace_field(queue_id: str) -> None:
    with pytest.raises(RenderError):
        template_of(PLAIN, queue_id=queue_id)


@pytest.mark.parametrize(
    "change",
    [
        {"hostname": "mx\r\nBcc: x"},
        {"hostname": ""},
        {"mail_domain": "Mail.example.net"},
        {"mail_domain": "a@b"},
        {"mail_domain": "x%s.example.net"},
        {"mail_domain": ".".join(["a" * 60] * 4)},
        {"web_url": "https://u.example.net/"},
        {"web_url": "ftp://u.example.net"},
        {"web_url": "https://u.example.net>"},
        {"web_url": "https://u.example.net/%b"},
        {"feedback_id": "a b"},
        {"feedback_id": "a\r\n"},
    ],
)
def test_an_identity_that_would_break_a_header(change: dict[str, str]) -> None:
    good = {name: getattr(IDENTITY, name) for name in ("hostname", "mail_domain", "web_url", "feedback_id")}
    with pytest.raises(ValueError, match=r"is|are|has"):
        Identity(**good | change)


def test_no_generated_line_is_too_long() -> None:
    identity = Identity("m" * 63 + ".example.net", ".".join(["a" * 46] * 4), "https://" + "u" * 300, "f" * 64)
    renderer = type(RENDERER)(identity, TOKENS, lambda: NOW)
    template = template_of(HEAD + b"\r\nx\r\n", signing_key(ED25519_SHA256), renderer=renderer)
    assert max(map(len, renderer.render(template, 1).wire.split(b"\r\n"))) <= 998


def test_no_content_and_no_address_in_a_repr() -> None:
    template = template_of(PLAIN)
    assert "example" not in repr(template)
    assert repr(RENDERER.render(template, 5)) == "Rendered()"


def test_a_template_knows_its_size() -> None:
    assert template_of(PLAIN).size > len(PLAIN)
