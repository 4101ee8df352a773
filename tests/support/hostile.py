"""Messages of up to 10 MB, each made of what is slow for some parser: one line of what it aims at."""

import base64
import random
from collections.abc import Callable
from itertools import count

SIZE = 10 << 20
DAEMON = b"From: MAILER-DAEMON@example.com\nSubject: Undelivered mail\nContent-Type: %s\n\n"
PART = DAEMON % b"multipart/report; boundary=x" + b"--x\nContent-Type: %s\n\n"
GROUP = b"Final-Recipient: rfc822; a%d@example.com\nAction: failed\nStatus: 5.0.0\n\n"


def _fill(start: bytes, unit: bytes) -> Callable[[], bytes]:
    return lambda: (start + unit * (SIZE // len(unit)))[:SIZE]


def _numbered(start: bytes, unit: bytes) -> Callable[[], bytes]:
    def make() -> bytes:
        numbers = count()
        return (start + b"".join(unit % next(numbers) for _ in range(SIZE // len(unit))))[:SIZE]

    return make


def _nested(depth: int) -> Callable[[], bytes]:
    level = b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n'
    return lambda: b"From: a@example.com\n" + b"".join(level % (number, number) for number in range(depth))


def _text(unit: bytes) -> Callable[[], bytes]:
    return _fill(DAEMON % b"text/plain", unit)


def _parts(header: bytes, content: bytes) -> Callable[[], bytes]:
    part = b"--x\nContent-Type: " + header + b"\n\n" + content * (128 * 1024 // len(content)) + b"\n"
    return _fill(DAEMON % b"multipart/report; boundary=x", part)


def _deep(header: bytes, depth: int) -> Callable[[], bytes]:
    """All of it within `depth` levels, so that each level is all of it again."""
    return lambda: (b"From: MAILER-DAEMON@x.example\nSubject: fail\n" + header * depth + b"x\n" * (SIZE // 2))[:SIZE]


def _encoded_deep() -> bytes:
    message = b"From: a@b.example\n\n" + b"y" * (2 << 20)
    for _ in range(4):
        head = b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n"
        message = head + base64.encodebytes(message)
    return (b"From: MAILER-DAEMON@x.example\nSubject: fail\n" + message)[:SIZE]


def _noise_in(charset: bytes) -> Callable[[], bytes]:
    return lambda: DAEMON % (b"text/plain; charset=" + charset) + random.Random(4713).randbytes(SIZE - 200)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "spaces": _fill(b"", b" "),
    "line ends": _fill(b"", b"\n"),
    "carriage returns": _fill(b"", b"\r"),
    "crlf": _fill(b"", b"\r\n"),
    "zeros": _fill(b"", b"\0"),
    "one header line": _fill(b"Subject: ", b"a"),
    "header fields": _fill(b"", b"X: y\n"),
    "header folds": _fill(b"X: y\n", b" z\n"),
    "encoded words": _fill(b"Subject: ", b"=?a?b?"),
    "addresses in a header": _fill(b"To: ", b"a@b.example,"),
    "quotes in a header": _fill(b"To: ", b'"'),
    "parameters": _fill(b"Content-Type: multipart/mixed; ", b"a=b; "),
    "boundary without end": _fill(b'Content-Type: multipart/mixed; boundary="', b"a"),
    "mbox lines": _fill(b"", b"From x\n"),
    "one text line": _text(b"a "),
    "1 MB lines": _text(b"a" * (1 << 20) + b"\n"),
    "at signs": _text(b"a@b "),
    "no domain": _text(b"x.y.z@ "),
    "source routes": _text(b"@a,"),
    "failures": _text(b"<a@example.com>: 550 user unknown\n"),
    "many failures": _numbered(DAEMON % b"text/plain", b"<a%d@example.com>: 550 user unknown\n"),
    "commands": _text(b"rcpt to: "),
    "reply codes": _text(b"550 "),
    "status codes": _text(b"5.1."),
    "dashes": _text(b"-"),
    "header blocks": _text(b"From: a\nTo: b\nSubject: c\n\n"),
    "indented header blocks": _text(b"  From: a\n  To: b\n  Message-ID: c\n\n"),
    "wide characters": _text("名".encode()),
    "status fields in text": _text(b"Final-Recipient: rfc822;a@example.com\n\n"),
    "feedback fields in text": _text(b"Feedback-Type: abuse\n"),
    "symbols": _text(b"+"),
    "symbols in a word": _text(b"a" + b"'+" * 40_000 + b"b"),
    "nothing but dashes in lines": _text(b"-" * 999 + b"\n"),
    "dashes and a word": _text(b"--a " + b"- " * 400 + b"x\n"),
    "quotations without end": _text(b"On 1 May 2025 at 10:11 a@b wrote:\n> x\n"),
    "requests": _text(b"please unsubscribe me from the list "),
    "html quotations": _fill(DAEMON % b"text/html", b"<blockquote>a</blockquote>"),
    "html quotations in another": _fill(DAEMON % b"text/html", b"<blockquote>a"),
    "json": _text(b'{"notificationType":"Bounce","a":['),
    "json brackets": _fill(DAEMON % b"text/plain" + b'{"notificationType":"Bounce","a":', b"["),
    "parts": _fill(DAEMON % b"multipart/report; boundary=x", b"--x\nContent-Type: text/plain\n\na\n"),
    "boundaries": _fill(DAEMON % b"multipart/report; boundary=x", b"--x\n"),
    "almost boundaries": _fill(DAEMON % b"multipart/report; boundary=zz", b"\n--xy"),
    "nested 1,000 deep": _nested(1_000),
    "nested 100,000 deep": _nested(100_000),
    "messages in messages": _fill(b"", b"Content-Type: message/rfc822\n\n"),
    "groups": _numbered(PART % b"message/delivery-status", GROUP),
    "groups and prose": _numbered(
        PART % b"text/plain"
        + b"<a@example.com>: failed so and so\n" * 400
        + b"\n--x\nContent-Type: message/delivery-status\n\n",
        GROUP,
    ),
    "one long diagnosis": _fill(
        PART % b"message/delivery-status" + b"Final-Recipient: rfc822; a@b.example\nDiagnostic-Code: ", b"5."
    ),
    "complaints": _fill(PART % b"message/feedback-report", b"Feedback-Type: abuse\nOriginal-Rcpt-To: a@example.com\n"),
    "base64": _fill(DAEMON % b"text/plain\nContent-Transfer-Encoding: base64", b"QUFB"),
    "quoted-printable": _fill(DAEMON % b"text/plain\nContent-Transfer-Encoding: quoted-printable", b"=41=\n"),
    "html brackets": _fill(DAEMON % b"text/html", b"<"),
    "html tags": _fill(DAEMON % b"text/html", b"<a "),
    "html scripts": _fill(DAEMON % b"text/html", b"<script>"),
    "html comments": _fill(DAEMON % b"text/html", b"<!--"),
    "html entities": _fill(DAEMON % b"text/html", b"&#x"),
    "iso-2022-jp": _fill(DAEMON % b"text/plain; charset=iso-2022-jp", b"\x1b$B$3"),
    "utf-7": _fill(DAEMON % b"text/plain; charset=utf-7", b"+A"),
    "punycode": _fill(DAEMON % b"text/plain; charset=punycode" + b"\xff", b"a-"),
    "no charset at all": _fill(DAEMON % b"text/plain; charset=zlib", b"\xff\xfe"),
    "many reports": _parts(
        b"message/delivery-status",
        b"Final-Recipient: rfc822; a@b.example\nStatus: 5.1.1\nDiagnostic-Code: smtp; spam\n\n",
    ),
    "many complaints": _parts(b"message/feedback-report", b"Feedback-Type: abuse\nOriginal-Rcpt-To: a@b.example\n"),
    "many relabelled reports": _parts(b"text/plain", b"Final-Recipient: rfc822; a@b.example\n\n"),
    "many that only begin like reports": _fill(
        DAEMON % b"multipart/report; boundary=x",
        b"--x\nContent-Type: text/plain\n\nReporting-MTA: x\n" + b"\n \n" * 5_000 + b"no more\n",
    ),
    "many attachments of octets": _fill(
        DAEMON % b"multipart/report; boundary=x",
        b"--x\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n" + b"QUJD\n" * 3_200,
    ),
    "many signatures": _parts(b"text/plain", b"x\n-- \nFrom: a@b.example\n"),
    "many texts": _parts(b"text/plain", b"<a@b.example>: 550 user unknown\n"),
    "many encoded texts": _parts(
        b"text/plain\nContent-Transfer-Encoding: base64", b"PGFAYi5leGFtcGxlPjogNTUwIHVzZXIgdW5rbm93bgo=\n"
    ),
    "many returned": _parts(b"message/rfc822", b"From: a@b.example\nTo: b@c.example\nMessage-ID: x\n"),
    "long diagnoses": _numbered(
        PART % b"message/delivery-status",
        b"Final-Recipient: rfc822; a%d@example.com\nDiagnostic-Code: smtp; "
        + b"550 user.quota.spam.example a@b.example " * 90
        + b"\n\n",
    ),
    "escaped addresses": _fill(
        PART % b"message/delivery-status", b"Final-Recipient: utf-8;" + b"\\x{41}" * 150 + b"@b.example\n\n"
    ),
    "one long word in fields": _fill(
        PART % b"message/delivery-status", b"Final-Recipient: rfc822;" + b"a" * 800 + b"@b.example\n\n"
    ),
    "at signs in fields": _fill(PART % b"message/delivery-status", b"Final-Recipient: rfc822;" + b"@" * 900 + b"\n\n"),
    "bare addresses": _numbered(DAEMON % b"text/plain", b"<a%d@b.example>:\n"),
    "links": _text(b"https://a.example/b/c "),
    "marks of an original": _text(b"-" * 900 + b" original message\n"),
    "deep multiparts": _deep(b"Content-Type: multipart/mixed; boundary=b\n\n--b\n", 30),
    "deep messages": _deep(b"Content-Type: message/rfc822\n\n", 30),
    "deep encoded messages": _encoded_deep,
    "names of attachments": _fill(b'Content-Type: application/gzip; name="', b"!1!2"),
    "html table": _fill(DAEMON % b"text/html", b"<tr><td>a@b.example</td><td>550 user unknown</td></tr>"),
    "html ends": _fill(DAEMON % b"text/html", b"<style></style>"),
    "gb18030": _noise_in(b"gb18030"),
    "euc-jis-2004": _noise_in(b"euc_jisx0213"),
    "hz": _fill(DAEMON % b"text/plain; charset=hz", b"~{"),
    "null paths": _fill(b"From: a@b.example\nReturn-Path:", b" "),
    "noise": lambda: random.Random(4711).randbytes(SIZE),
    "noise as text": lambda: DAEMON % b"text/plain" + random.Random(4712).randbytes(SIZE - 200),
}
