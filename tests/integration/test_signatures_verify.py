"""Every rendered message verifies with dkimpy and with OpenDKIM, whatever shape its content has."""

from pathlib import Path

import pytest

from mta.message import MAX_LINE_OCTETS
from mta.signing import ED25519_SHA256, RSA_SHA256
from suppression.digest import MessageClass
from tests.support.mail import PLAIN, rendered
from tests.support.verifiers import dkimpy_verdicts, needs_opendkim, opendkim_verdicts, signing_key, unstuffed

HEAD = b"From: news@example.com\r\nTo: someone@example.org\r\nSubject: s\r\n"

SHAPES = {
    "plain": PLAIN,
    "folded fields": b"From: Shop\r\n <news@example.com>\r\nSubject: a\r\n\tb\r\n  c  \r\nTo:a@example.org\r\n\r\n",
    "field names in odd case": b"FROM: news@example.com\r\nsUBJECT:x\r\nmime-VERSION:1.0\r\n\r\nx\r\n",
    "blank continuation": HEAD + b"X-Odd: a\r\n \t \r\nReply-To:\r\n \r\n r@example.com\r\n\r\nx\r\n",
    "empty field": b"From: news@example.com\r\nSubject:\r\nTo: \r\n\r\nx\r\n",
    "8-bit body": HEAD + b"Content-Type: text/plain; charset=utf-8\r\n\r\ngr\xc3\xbc\xc3\x9fe \xff\xfe\r\n",
    "8-bit header": b"From: J\xc3\xb6rg <news@example.com>\r\nSubject: gr\xc3\xbc\xc3\x9fe\r\n\r\nx\r\n",
    "international author": "From: jörg@bücher.example.com\r\nSubject: grüße\r\n\r\nx\r\n".encode(),
    "a thousand recipients in sight": HEAD + b"To: x@example.org\r\n" * 990 + b"\r\nx\r\n",
    "empty body": HEAD + b"\r\n",
    "header only": HEAD,
    "header only without the last line end": HEAD.removesuffix(b"\r\n"),
    "body of blank lines": HEAD + b"\r\n\r\n\r\n\r\n",
    "body of white space": HEAD + b"\r\n \t \r\n\t\r\n",
    "trailing blank lines": HEAD + b"\r\nx\r\n\r\n \r\n\r\n",
    "white space at line ends": HEAD + b"\r\nx \t \r\n\ty\t\tz  \r\n  w\r\n",
    "no final CRLF": HEAD + b"\r\nx",
    "no final CRLF after white space": HEAD + b"\r\nx \t",
    "leading dots": HEAD + b"\r\n.\r\n..\r\n.x\r\n. y\r\n",
    "a field that begins with a dot": b".odd: x\r\n" + HEAD + b"\r\nx\r\n",
    "longest header line": HEAD + b"References: " + b"x" * (MAX_LINE_OCTETS - 12) + b"\r\n\r\nx\r\n",
    "very long body line": HEAD + b"\r\n" + b"word  \t" * 40_000 + b"end\r\n",
    "repeated fields": HEAD + b"To: b@example.org\r\nSubject: t\r\nTo: c@example.org\r\nX: 1\r\nX: 2\r\n\r\nx\r\n",
    "control characters": HEAD + b"X-Odd: \x0ba\x0cb\x0b\r\nReply-To: \x0c r@example.com \x0b\r\n\r\nx\x0b \x0c\r\n",
    "an unsubscribe of the submitter's": HEAD + b"List-Unsubscribe: <mailto:x@example.org>\r\n\r\nx\r\n",
    "no subject and no recipient": b"From: news@example.com\r\n\r\nx\r\n",
    "a signature of the submitter's": b"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=x; h=from; bh=A; b=A\r\n"
    + HEAD
    + b"\r\nx\r\n",
    "a line that looks like a mailbox file": HEAD + b"\r\nFrom me to you\r\n>From x\r\n",
}  # fmt: skip

KEY_SETS = {"rsa": (RSA_SHA256,), "ed25519": (ED25519_SHA256,), "both": (RSA_SHA256, ED25519_SHA256)}


@pytest.mark.parametrize("algorithms", KEY_SETS.values(), ids=KEY_SETS)
@pytest.mark.parametrize("raw", SHAPES.values(), ids=SHAPES)
def test_dkimpy_verifies(raw: bytes, algorithms: tuple[str, ...]) -> None:
    if ED25519_SHA256 in algorithms:
        pytest.importorskip("nacl", reason="dkimpy verifies Ed25519 by PyNaCl")
    keys = [signing_key(algorithm) for algorithm in algorithms]
    content = unstuffed(rendered(raw, *keys).wire)
    assert dkimpy_verdicts(content, keys) == [True] * len(keys)


@needs_opendkim
@pytest.mark.parametrize("raw", SHAPES.values(), ids=SHAPES)
def test_opendkim_verifies(raw: bytes, tmp_path: Path) -> None:
    keys = [signing_key(RSA_SHA256), signing_key(ED25519_SHA256)]
    content = unstuffed(rendered(raw, *keys).wire)
    verdicts = opendkim_verdicts(content, keys, tmp_path)
    assert verdicts == {RSA_SHA256: "pass", ED25519_SHA256: "pass"}


GOOD = b"v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=x; h=from; bh=AAAA; b=AAAA"
FOREIGN = {
    "nothing": (b"", False),
    "words": (b"not a signature", False),
    "no tags": (b"=;;", False),
    "version only": (b"v=1;", False),
    "tag twice": (GOOD + b"; b=BBBB", False),
    "empty tag": (GOOD + b";;", False),
    "no domain": (GOOD.replace(b"d=example.org; ", b""), False),
    "no body hash": (GOOD.replace(b"bh=AAAA; ", b""), False),
    "endless time": (GOOD + b"; t=99999999999999999999999", False),
    "8-bit tag": (GOOD + b"; z=\xff", False),
    "control character": (GOOD + b"; z=\x01", False),
    "unknown version": (GOOD.replace(b"v=1", b"v=2"), True),
    "unknown tag": (GOOD + b"; zz=a=b", True),
    "folded": (GOOD.replace(b"; ", b";\r\n\t") + b" ;", True),
    "our own selector": (GOOD.replace(b"example.org; s=x", b"example.com; s=r1"), True),
}


@needs_opendkim
@pytest.mark.parametrize(("value", "kept"), FOREIGN.values(), ids=FOREIGN)
def test_a_signature_of_the_submitters_does_not_spoil_ours(value: bytes, kept: bool, tmp_path: Path) -> None:
    key = signing_key(RSA_SHA256)
    content = unstuffed(rendered(b"DKIM-Signature: " + value + b"\r\n" + PLAIN, key).wire)
    assert content.count(b"DKIM-Signature:") == 1 + kept
    assert opendkim_verdicts(content, [key], tmp_path) == {RSA_SHA256: "pass"}
    assert dkimpy_verdicts(content, [key]) == [True]


@needs_opendkim
@pytest.mark.parametrize("raw", [PLAIN, HEAD + b"\r\nx\r\n"], ids=["message-id of the submitter's", "of ours"])
def test_a_reply_to_of_ours_is_signed(raw: bytes, tmp_path: Path) -> None:
    keys = [signing_key(RSA_SHA256)]
    content = unstuffed(rendered(raw, *keys, answers_wanted=True).wire)
    assert opendkim_verdicts(content, keys, tmp_path) == {RSA_SHA256: "pass"}
    changed = content.replace(b"Reply-To: <", b"Reply-To: <a")
    assert opendkim_verdicts(changed, keys, tmp_path) != {RSA_SHA256: "pass"}


@needs_opendkim
def test_opendkim_verifies_transactional_mail(tmp_path: Path) -> None:
    keys = [signing_key(RSA_SHA256)]
    content = unstuffed(rendered(PLAIN, *keys, message_class=MessageClass.TRANSACTIONAL).wire)
    assert opendkim_verdicts(content, keys, tmp_path) == {RSA_SHA256: "pass"}


@pytest.mark.parametrize(
    ("found", "planted"),
    [
        (b"Subject: Spring", b"Subject: Winter"),
        (b"From: Shop", b"From: x@example.org\r\nFrom: Shop"),
        (b"From: Shop", b"Reply-To: x@example.org\r\nFrom: Shop"),
        (b"/u/", b"/v/"),
        (b"One-Click", b"Two-Click"),
        (b"Feedback-ID: spring", b"Feedback-ID: winter"),
        (b"Hello.", b"Hullo."),
    ],
    ids=["subject", "second author", "planted reply-to", "unsubscribe link", "one-click", "feedback id", "body"],
)
def test_a_change_on_the_way_breaks_the_signature(found: bytes, planted: bytes, tmp_path: Path) -> None:
    keys = [signing_key(RSA_SHA256)]
    content = unstuffed(rendered(PLAIN, *keys).wire).replace(found, planted)
    assert planted in content
    assert dkimpy_verdicts(content, keys) == [False]
