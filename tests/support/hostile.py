"""Messages of up to 10 MB, each made of what is slow for some parser: one line of what it aims at."""

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
    "noise": lambda: random.Random(4711).randbytes(SIZE),
    "noise as text": lambda: DAEMON % b"text/plain" + random.Random(4712).randbytes(SIZE - 200),
}
