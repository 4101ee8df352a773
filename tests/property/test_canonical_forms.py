"""Our canonical forms are dkimpy's on random messages, and whatever is rendered verifies."""

import hashlib
import re
from base64 import b64encode

from dkim.canonicalization import Relaxed
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mta.message import mailbox_domain, parse, refuse
from mta.octets import first_leading_dot, has_bare_line_ends
from mta.render import stuffed
from mta.signing import RSA_SHA256, body_hash, canonical_body, canonical_fields
from suppression.digest import MessageClass
from tests.support.mail import rendered
from tests.support.verifiers import dkimpy_verdicts, signing_key, unstuffed

# Every octet but CR and LF; blanks, tabs, dots and line ends far more often than chance would have them.
octets = st.integers(0, 255).filter(lambda code: code not in b"\r\n").map(lambda code: bytes((code,)))
pieces = (
    st.sampled_from([b" ", b"\t", b"  ", b" \t ", b"\r\n", b"\r\n\r\n", b".", b"\r\n.", b"x", b"\v", b"\f"]) | octets
)
lines = st.lists(pieces, max_size=40).map(b"".join)
bodies = lines.map(lambda text: text + b"\r\n") | st.just(b"")

blank = st.sampled_from([b"", b" ", b"\t", b"  \t", b"\r\n ", b"\r\n\t ", b" \r\n ", b"\r\n \r\n\t"])
words = st.text('abcXYZ,;:<>@()"=?\xfc\v\f', min_size=1, max_size=8).map(str.encode)
values = st.lists(st.tuples(blank, words, blank), max_size=5).map(lambda parts: b"".join(map(b"".join, parts)))
names = st.sampled_from(
    [b"To", b"TO", b"Subject", b"subject", b"Cc", b"Reply-To", b"Date", b"Message-ID", b"X-Other", b"List-Id",
     b"Content-Type", b"MIME-Version", b"Feedback-ID", b"List-Unsubscribe", b".odd", b"Bcc", b"References"]
)  # fmt: skip
fields = st.tuples(names, values).map(lambda pair: pair[0] + b":" + pair[1] + b"\r\n")
headers = st.lists(fields, max_size=12).map(lambda found: b"From: news@example.com\r\n" + b"".join(found))


@given(bodies)
@example(b" \r\n")
@example(b"\t\r\n\r\n")
@example(b"x \t\r\n \r\n\r\n")
def test_our_body_is_dkimpys(body: bytes) -> None:
    assert canonical_body(body) == Relaxed.canonicalize_body(body)
    assert body_hash(body) == b64encode(hashlib.sha256(Relaxed.canonicalize_body(body)).digest())


@given(fields)
@example(b"A:\r\n")
@example(b"A: \x0b\r\n")
@example(b"A: b \r\n")
def test_our_field_is_dkimpys(raw_field: bytes) -> None:
    ((name, value),) = Relaxed.canonicalize_headers([raw_field.split(b":", 1)])
    assert canonical_fields([raw_field]) == [(name, name + b":" + value)]


@given(st.text() | st.text('a@<>(),;:"\\. =?[]\u3002\xfc', max_size=30))
def test_any_text_has_a_domain_or_none(text: str) -> None:
    domain = mailbox_domain(text)
    assert domain is None or (domain.isascii() and domain == domain.lower() and "@" not in domain)
    assert domain is None or mailbox_domain(f"Shop <a@{domain}>") == domain


@settings(deadline=None)
@given(headers, bodies | lines)
def test_whatever_is_rendered_verifies(header: bytes, body: bytes) -> None:
    key = signing_key(RSA_SHA256)
    content = unstuffed(rendered(header + b"\r\n" + body.replace(b"\0", b""), key).wire)
    assert dkimpy_verdicts(content, [key]) == [True]


@given(lines)
def test_the_peer_sees_what_was_stuffed(text: bytes) -> None:
    wire = stuffed(text)
    assert unstuffed(wire) == text
    assert b"\r\n.\r\n" not in b"\r\n" + wire + b"\r\n"


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"x"])).map(b"".join))
def test_bare_line_ends_are_found(raw: bytes) -> None:
    assert has_bare_line_ends(raw) == bool(re.search(rb"\r(?!\n)|(?<!\r)\n", raw))


@given(st.lists(st.sampled_from([b".", b"\n", b"\r\n", b"x"])).map(b"".join))
def test_leading_dots_are_found(text: bytes) -> None:
    before = text.find(b"\n.")
    assert first_leading_dot(text) == (before if before < 0 else before + 1)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b":", b" ", b"A", b"From: a@example.com", b"\0"]) | octets))
def test_parse_takes_anything_and_loses_nothing(parts: list[bytes]) -> None:
    raw = b"".join(parts)
    message = parse(raw)
    joined = b"".join(message.fields) + message.body
    assert joined.replace(b"\r\n", b"") == raw.replace(b"\r\n", b"")
    refusal = refuse(raw, smtputf8=True, eight_bit=True, message_class=MessageClass.CAMPAIGN)
    assert refusal is None or refusal.reply.startswith("550 5.")
