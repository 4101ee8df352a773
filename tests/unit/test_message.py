"""Parsing of submitted messages, and what is refused at the door."""

import time

import pytest

from mta.message import (
    MAX_HEADER_OCTETS,
    MAX_LINE_OCTETS,
    MAX_RECEIVED,
    mailbox_domain,
    parse,
    refuse,
)
from mta.octets import first_leading_dot, has_bare_line_ends
from suppression.digest import MessageClass

HEAD = b"From: news@example.com\r\nTo: someone@example.org\r\n"


def reply_to(
    raw: bytes, *, smtputf8: bool = False, eight_bit: bool = True, message_class: MessageClass = MessageClass.CAMPAIGN
) -> str | None:
    """The refusal's code and status, or None."""
    refusal = refuse(raw, smtputf8=smtputf8, eight_bit=eight_bit, message_class=message_class)
    if b"\0" not in raw and not has_bare_line_ends(raw):  # what a DataReader lets pass
        parsed = parse(raw)
        again = refuse(raw, smtputf8=smtputf8, eight_bit=eight_bit, message_class=message_class, parsed=parsed)
        assert again == refusal
    return refusal.reply[:9] if refusal else None


def test_fields_stay_as_they_were_and_values_are_unfolded() -> None:
    message = parse(b"From: a@example.com\r\nSubject: one\r\n\ttwo \r\n\r\nbody\r\n")
    assert message.fields == (b"From: a@example.com\r\n", b"Subject: one\r\n\ttwo \r\n")
    assert message.body == b"body\r\n"
    assert message.values(b"SUBJECT") == [b"one\ttwo"]


@pytest.mark.parametrize(
    ("raw", "fields", "body"),
    [
        (b"", 0, b""),
        (b"\r\n", 0, b""),
        (b"\r\nbody\r\n", 0, b"body\r\n"),
        (b"A: b\r\n", 1, b""),
        (b"A: b", 1, b""),
        (b"A: b\r\n\r\n", 1, b""),
        (b"A: b\r\n\r\nbody", 1, b"body\r\n"),
        (b"A: b\r\nno field\r\nC: d\r\n\r\nx\r\n", 1, b"no field\r\nC: d\r\n\r\nx\r\n"),
        (b" folded first\r\nA: b\r\n\r\nx\r\n", 0, b" folded first\r\nA: b\r\n\r\nx\r\n"),
        (b"A : b\r\n\r\nx\r\n", 0, b"A : b\r\n\r\nx\r\n"),
        (b"\r\n folded\r\n\r\n", 0, b" folded\r\n\r\n"),
        (b"A: b\r\n\r\n\r\nx\r\n", 1, b"\r\nx\r\n"),
        (b"A: b\r\n \r\n\r\nx\r\n", 1, b"x\r\n"),
    ],
)
def test_parse_takes_anything(raw: bytes, fields: int, body: bytes) -> None:
    message = parse(raw)
    assert (len(message.fields), message.body) == (fields, body)


def test_no_content_in_a_repr() -> None:
    assert "example" not in repr(parse(HEAD + b"\r\nexample\r\n"))


@pytest.mark.parametrize(
    ("value", "domain"),
    [
        ("a@example.com", "example.com"),
        ("a@EXAMPLE.com", "example.com"),
        ("<a@example.com>", "example.com"),
        ("Shop <a@example.com>", "example.com"),
        ('"Shop, the" <a@example.com>', "example.com"),
        ('"x@example.org" <a@example.com>', "example.com"),
        ("x@example.org <a@example.com>", "example.com"),
        ("[Shop] News! <a@example.com>", "example.com"),
        ("=?utf-8?q?x=40example=2Eorg?= <a@example.com>", "example.com"),
        ("a@example.com (a comment)", "example.com"),
        ("(x@example.org) a@example.com", "example.com"),
        ("(<x@example.org> (nested \\) )) Shop <a@example.com>", "example.com"),
        ('"a@example.org"@example.com', "example.com"),
        ('"a\\"b"@example.com', "example.com"),
        ('"<a@example.org>" <a@example.com>', "example.com"),
        ("a@xn--bcher-kva.example.com", "xn--bcher-kva.example.com"),
        ("a@bücher.example.com", "xn--bcher-kva.example.com"),
        ("jörg@example.com", "example.com"),
        ("root@localhost", "localhost"),
        ("a@my_host.example.com", "my_host.example.com"),
    ],
)
def test_the_domain_of_one_mailbox(value: str, domain: str) -> None:
    assert mailbox_domain(value) == domain


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a",
        "<>",
        "@example.com",
        "a@",
        "a@example.com, b@example.org",
        "<a@example.com>, <b@example.org>",
        "<a@example.com> <b@example.org>",
        "<a@example.com> b@example.org",
        "Shop, the <a@example.com>",
        "a@example.com; b@example.org",
        "Friends: a@example.com;",
        "Friends: a@example.com, b@example.org;",
        "undisclosed-recipients:;",
        "<@example.org:a@example.com>",
        "<@example.org,@example.net:a@example.com>",
        "a@example.org@example.com",
        "a@[192.0.2.1]",
        "a@[IPv6:2001:db8::1]",
        "a@=?utf-8?q?example.com?=",
        "a@example..com",
        "a@example.com.",
        "a@-example.com",
        "a@exa mple.com",
        "a @example.com",
        "a@(comment)example.com",
        "a(comment)@example.com",
        "<a@example.com",
        "a@example.com>",
        '"open <a@example.com>',
        "(open <a@example.com>",
        'a@"example.com"',
        "a@example.com\x00",
        "a@" + "x." * 127 + "com",
        "a@" + "x" * 64 + ".com",
        "a@exa\u2044mple.com",
    ],
)
def test_what_is_not_one_mailbox_with_a_domain_name(value: str) -> None:
    assert mailbox_domain(value) is None


def test_a_hostile_author_field_takes_linear_time() -> None:
    started = time.perf_counter()
    for text in ("(" * 60_000, '"' * 60_001, "<" * 60_000, "a@" * 30_000, " " * 60_000 + "a", '\\"' * 30_000):
        assert mailbox_domain(text) is None
    assert time.perf_counter() - started < 1


def test_two_author_fields_have_no_domain() -> None:
    assert parse(b"From: a@example.com\r\nFrom: a@example.com\r\n\r\n").from_domain() is None
    assert parse(b"To: a@example.com\r\n\r\n").from_domain() is None


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"<news.example.com>", "news.example.com"),
        (b"The News <News.Example.com>", "news.example.com"),
        (b'"a <b>" <news.example.com>', "news.example.com"),
        (b"(x) News\r\n <news.example.com> (comment)", "news.example.com"),
        (b"news.example.com", "news.example.com"),
        (b"<alice@example.com>", None),
        (b"", None),
        (b"two words", None),
        (b"<a> <b>", None),
        (b"<" + b"x" * 256 + b">", None),
        (b"<b\xc3\xbccher.example.com>", None),
    ],
)
def test_the_list(value: bytes, name: str | None) -> None:
    assert parse(b"List-Id: " + value + b"\r\n\r\n").list_name() == name


def test_8_bit_content_is_known() -> None:
    message = parse(b"Subject: \xc3\xbc\r\n\r\nx\r\n")
    assert (message.internationalised, message.eight_bit) == (True, False)
    message = parse(b"Subject: u\r\n\r\n\xc3\xbc\r\n")
    assert (message.internationalised, message.eight_bit) == (False, True)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (HEAD + b"\r\nx\r\n", None),
        (HEAD, None),
        (HEAD + b"\r\n", None),
        (HEAD + b"\r\na\0b\r\n", "550 5.6.0"),
        (HEAD + b"\r\na\nb\r\n", "550 5.6.0"),
        (HEAD + b"\r\na\rb\r\n", "550 5.6.0"),
        (HEAD + b"\r\na\r\r\nb\r\n", "550 5.6.0"),
        (HEAD + b"\r\na\n.\nb\r\n", "550 5.6.0"),
        (HEAD + b"\r\na\n\rb\r\n", "550 5.6.0"),
        (HEAD + b"X: a\nBcc: b\r\n\r\nx\r\n", "550 5.6.0"),
        (b"", "550 5.6.0"),
        (b"\r\nx\r\n", "550 5.6.0"),
        (b"Just text\r\nand more\r\n", "550 5.6.0"),
        (HEAD + b"Just text\r\n\r\nx\r\n", "550 5.6.0"),
        (HEAD + b"X : y\r\n\r\nx\r\n", "550 5.6.0"),
        (b"From me Mon Jan 1\r\n" + HEAD + b"\r\nx\r\n", "550 5.6.0"),
        (b"To: a@example.org\r\n\r\nx\r\n", "550 5.6.0"),
        (HEAD + b"From: b@example.com\r\n\r\nx\r\n", "550 5.6.0"),
        (b"From: a@example.com, b@example.org\r\n\r\nx\r\n", "550 5.6.0"),
        (HEAD + b"X: " + b"x" * (MAX_LINE_OCTETS - 3) + b"\r\n\r\nx\r\n", None),
        (HEAD + b"X: " + b"x" * (MAX_LINE_OCTETS - 2) + b"\r\n\r\nx\r\n", "550 5.6.0"),
        (HEAD + b"X: y\r\n" * (MAX_HEADER_OCTETS // 6) + b"\r\nx\r\n", "550 5.6.0"),
        (HEAD + b"X: y\r\n" * 1000 + b"\r\nx\r\n", "550 5.6.0"),
        (HEAD + b"X: y\r\n" * 900 + b"\r\nx\r\n", None),
        (HEAD + b"Received: x\r\n" * MAX_RECEIVED + b"\r\nx\r\n", None),
        (HEAD + b"Received: x\r\n" * (MAX_RECEIVED + 1) + b"\r\nx\r\n", "550 5.4.6"),
        (HEAD + b"List-Id: <a.example.com>\r\nList-Id: <b.example.com>\r\n\r\nx\r\n", "550 5.6.0"),
        (HEAD + b"Subject: \xc3\xbc\r\n\r\nx\r\n", "550 5.6.7"),
    ],
)
def test_refusals(raw: bytes, code: str | None) -> None:
    assert reply_to(raw) == code


@pytest.mark.parametrize("bare", [b"\r", b"\n"])
@pytest.mark.parametrize("place", [0, 1, 2**18 - 1, 2**18, 2**18 + 1, 2**19 + 1])
def test_a_bare_line_end_is_found_wherever_it_is(bare: bytes, place: int) -> None:
    clean = b"x" * (2**18 - 1) + b"\r\n" + b"y" * 2**18 + b"\r\n"
    assert not has_bare_line_ends(clean)
    assert has_bare_line_ends(clean[:place] + bare + clean[place:])


@pytest.mark.parametrize("place", [1, 2, 2**18 - 1, 2**18, 2**18 + 1, 2**19 + 1])
def test_a_leading_dot_is_found_wherever_it_is(place: int) -> None:
    text = b"." * 2**19 + b".." * 10
    assert first_leading_dot(text) == -1
    assert first_leading_dot(text[: place - 1] + b"\n" + text[place:]) == place


@pytest.mark.parametrize("raw", [b"\r", b"\n", b"\n\r", b"\r\r\n", b"\r\n\n", b"x\r", b"\nx"])
def test_short_bare_line_ends(raw: bytes) -> None:
    assert has_bare_line_ends(raw)
    assert not has_bare_line_ends(b"")
    assert not has_bare_line_ends(b"\r\n\r\n")


def test_8_bit_content_is_refused_where_it_is_not_permitted() -> None:
    header, body = HEAD + b"Subject: \xc3\xbc\r\n\r\nx\r\n", HEAD + b"\r\n\xc3\xbc\r\n"
    assert reply_to(header, smtputf8=True) is None
    assert reply_to(HEAD + b"Subject: \xff\r\n\r\nx\r\n", smtputf8=True) == "550 5.6.7"
    assert reply_to(body) is None
    assert reply_to(body, eight_bit=False) == "550 5.6.3"


@pytest.mark.parametrize("name", [b"List-Id", b"LIST-UNSUBSCRIBE", b"List-Post"])
def test_transactional_mail_is_no_list_mail(name: bytes) -> None:
    raw = HEAD + name + b": <x.example.com>\r\n\r\nx\r\n"
    assert reply_to(raw) is None
    assert reply_to(raw, message_class=MessageClass.TRANSACTIONAL) == "550 5.7.1"


def test_no_refusal_quotes_the_message() -> None:
    secret = b"secret"
    for raw in (
        b"From: secret@x@y\r\n\r\n",
        b"secret text\r\n",
        HEAD + b"X: secret\n\r\n\r\n",
        b"From: secret:;\r\n\r\n",
    ):
        refusal = refuse(raw, smtputf8=False, eight_bit=True, message_class=MessageClass.CAMPAIGN)
        assert refusal is not None
        assert secret.decode() not in refusal.reply
        assert refusal.reply.isascii()
        assert len(refusal.reply) <= 510
