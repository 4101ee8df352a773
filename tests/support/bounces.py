"""Bounces of many makes, written anew for each test: the layouts are those of the MTAs, the words are ours."""

import base64
import quopri
from dataclasses import dataclass, replace

PROSE = {
    "en": "Your message could not be delivered. This is what the other side said:",
    "de": "Ihre Nachricht konnte nicht zugestellt werden. Die Gegenseite sagte dazu:",
    "fr": "Votre message n'a pas pu être remis. Voici la réponse reçue :",
    "es": "No se ha podido entregar su mensaje. Esta es la respuesta recibida:",
    "pt": "Não foi possível entregar a sua mensagem. A resposta foi:",
    "pl": "Nie można dostarczyć wiadomości. Odpowiedź serwera:",
    "ru": "Ваше сообщение не доставлено. Ответ сервера:",
    "ja": "メールを配信できませんでした。相手側の応答:",
    "zh": "您的邮件无法投递。对方的答复：",
    "ko": "메일을 배달하지 못했습니다. 상대 서버의 응답:",
    "tr": "İletiniz teslim edilemedi. Karşı tarafın yanıtı:",
    "ar": "تعذر تسليم رسالتك. رد الخادم:",
}
SUBJECTS = {
    "en": "Undelivered Mail Returned to Sender",
    "de": "Unzustellbar: Ihre Nachricht",
    "fr": "Non remis : votre message",
    "es": "No se puede entregar: su mensaje",
    "pt": "Não entregue: a sua mensagem",
    "pl": "Niedostarczona wiadomość",
    "ru": "Недоставленное сообщение",
    "ja": "配信不能通知",
    "zh": "系统退信",
    "ko": "배달 실패",
    "tr": "Teslim edilemedi: iletiniz",
    "ar": "تعذر التسليم",
}


@dataclass(frozen=True)
class Failed:
    """One failed recipient."""

    address: str = "anna.person@example.org"
    status: str = "5.1.1"
    reply: str = "550 5.1.1 No such user here"


@dataclass(frozen=True)
class Shape:
    """What a bounce looks like; the result of reading it must depend on none of this."""

    make: str = "dsn"
    language: str = "en"
    reporter: str = "mx1.example.net"
    remote: str = "mail.example.org"
    encoding: str = "8bit"
    returned: str = "headers"
    reverse_headers: bool = False
    fold: bool = False
    line_end: bytes = b"\n"
    lead: bytes = b""


MAKES = ("dsn", "dsn-mixed", "postfix-text", "exim", "qmail", "sendmail")
SENDER = "news@example.com"


def bounce(failed: list[Failed], shape: Shape = Shape()) -> bytes:
    """A bounce of `failed` in the given shape."""
    if shape.make.startswith("dsn"):
        header, body = _dsn(failed, shape)
    else:
        header, body = _plain(failed, shape)
    if shape.reverse_headers:
        header = header[::-1]
    lines = [_folded(line) if shape.fold else line for line in header]
    message = shape.lead + "\n".join(lines).encode() + b"\n\n" + body
    return message.replace(b"\n", shape.line_end)


def _folded(line: str) -> str:
    name, _, value = line.partition(": ")
    return f"{name}:\n {value}"


def _header(shape: Shape, subject: str) -> list[str]:
    encoded = base64.b64encode(subject.encode()).decode()
    return [
        "Return-Path: <>",
        f"Received: by {shape.reporter} id 4711; Mon, 2 Mar 2026 10:00:00 +0000",
        "Date: Mon, 2 Mar 2026 10:00:00 +0000",
        f"From: MAILER-DAEMON@{shape.reporter} (Mail Delivery System)",
        f"Subject: {subject if subject.isascii() else f'=?utf-8?B?{encoded}?='}",
        f"To: {SENDER}",
        f"Message-ID: <4711@{shape.reporter}>",
    ]


def _original(failed: list[Failed]) -> str:
    return (
        f"Return-Path: <{SENDER}>\n"
        "Received: from app.example.com by out.example.com; Mon, 2 Mar 2026 09:59:00 +0000\n"
        f"From: News <{SENDER}>\n"
        f"To: {', '.join(person.address for person in failed)}\n"
        "Subject: What is new\n"
        "Message-ID: <campaign-1@example.com>\n"
        "MIME-Version: 1.0\n"
    )


def _part(headers: str, text: str, encoding: str) -> bytes:
    raw = text.encode()
    if encoding == "base64":
        raw = base64.encodebytes(raw)
    elif encoding == "quoted-printable":
        raw = quopri.encodestring(raw)
    return f"{headers}\nContent-Transfer-Encoding: {encoding}\n\n".encode() + raw + b"\n"


def _dsn(failed: list[Failed], shape: Shape) -> tuple[list[str], bytes]:
    kind = "multipart/report; report-type=delivery-status" if shape.make == "dsn" else "multipart/mixed"
    header = [
        *_header(shape, SUBJECTS[shape.language]),
        "MIME-Version: 1.0",
        f'Content-Type: {kind}; boundary="=_cut/1"',
    ]
    said = "\n".join(f"<{person.address}>: host {shape.remote} said: {person.reply}" for person in failed)
    groups = "".join(
        f"\nFinal-Recipient: rfc822; {person.address}\nAction: failed\nStatus: {person.status}\n"
        f"Remote-MTA: dns; {shape.remote}\nDiagnostic-Code: smtp; {person.reply}\n"
        for person in failed
    )
    parts = [
        _part("Content-Type: text/plain; charset=utf-8", f"{PROSE[shape.language]}\n\n{said}\n", shape.encoding),
        f"Content-Type: message/delivery-status\n\nReporting-MTA: dns; {shape.reporter}\n{groups}\n".encode(),
    ]
    if shape.returned == "full":
        parts.append(f"Content-Type: message/rfc822\n\n{_original(failed)}\nHello, this is what is new.\n".encode())
    elif shape.returned == "headers":
        parts.append(f"Content-Type: text/rfc822-headers\n\n{_original(failed)}\n".encode())
    return header, b"--=_cut/1\n" + b"--=_cut/1\n".join(parts) + b"--=_cut/1--\n"


_SEPARATORS = {
    "postfix-text": "",
    "exim": "------ This is a copy of the message, including all the headers. ------",
    "qmail": "--- Below this line is a copy of the message.",
    "sendmail": "   ----- Original message follows -----",
}


def _plain(failed: list[Failed], shape: Shape) -> tuple[list[str], bytes]:
    blocks = {
        "postfix-text": "".join(f"<{p.address}>: host {shape.remote} said:\n    {p.reply}\n\n" for p in failed),
        "exim": "".join(
            f"  {p.address}\n    SMTP error from remote mail server after RCPT TO:<{p.address}>:\n"
            f"    host {shape.remote}: {p.reply}\n"
            for p in failed
        ),
        "qmail": "".join(
            f"<{p.address}>:\n{shape.remote} does not like recipient.\nIt said: {p.reply}\n\n" for p in failed
        ),
        "sendmail": "".join(
            f">>> RCPT To:<{p.address}>\n<<< {p.reply}\n{p.reply[:4]}<{p.address}>... {p.reply[4:]}\n" for p in failed
        ),
    }
    original = "" if shape.returned == "none" else f"\n{_SEPARATORS[shape.make]}\n\n{_original(failed)}\nHello.\n"
    text = f"{PROSE[shape.language]}\n\n{blocks[shape.make]}{original}"
    header = [*_header(shape, SUBJECTS[shape.language]), "MIME-Version: 1.0"]
    encoded = _part("Content-Type: text/plain; charset=utf-8", text, shape.encoding)
    head, _, body = encoded.partition(b"\n\n")
    return [*header, *head.decode().split("\n")], body


def variant(shape: Shape, **changes: object) -> Shape:
    """`shape` with some of it changed."""
    return replace(shape, **changes)  # type: ignore[arg-type]


__all__ = ["MAKES", "PROSE", "SENDER", "SUBJECTS", "Failed", "Shape", "bounce", "variant"]
