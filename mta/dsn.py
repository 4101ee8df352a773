"""Delivery status notifications: what the envelope sender of a message is told (RFC 3461, RFC 3464, RFC 6533).

`compose` writes one notice about any number of a message's recipients: a text for people, the same for programs, and
the original or its header. Who is owed a notice is decided elsewhere (NOTIFY); it leaves with the null reverse-path.
Whatever came from outside (xtext, host names, addresses) is checked before it stands in a field, so that none of it can
begin another one. A notice about international mail has the forms of RFC 6533; it needs SMTPUTF8 only where its
sender's address is not ASCII, and 8BITMIME where what it returns is not. Raises `DsnError`, without any address.
"""

import re
import secrets
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bounce.outcome import Action, BounceClass, Outcome, Stage
from mta.message import parse
from mta.render import date_text

MAX_ORIGINAL_OCTETS = 256 * 1024
"""Longest original that is returned whole, even when RET=FULL asks for it; of a longer one, its header is."""

MAX_ENVID_CHARACTERS = 100
"""RFC 3461 §4.4."""

_TEXT_COLUMNS = 76
_DEFAULT_STATUS = {
    Action.FAILED: "5.0.0",
    Action.DELAYED: "4.0.0",
    Action.DELIVERED: "2.0.0",
    Action.RELAYED: "2.0.0",
    Action.EXPANDED: "2.0.0",
}
_SUBJECTS = {
    Action.FAILED: "Your message could not be delivered",
    Action.DELAYED: "Your message is delayed",
    Action.RELAYED: "Your message was handed on",
    Action.DELIVERED: "Your message was delivered",
    Action.EXPANDED: "Your message was delivered to a list",
}
_OPENINGS = {
    Action.FAILED: "Your message could not be delivered to the following recipients. It will not be tried again:",
    Action.DELAYED: "Your message could not be delivered yet to the following recipients. You need not do anything: "
    "delivery is tried again, and you will hear of it if that fails for good:",
    Action.RELAYED: "Your message was accepted by the mail system of the following recipients. That system does not "
    "confirm deliveries, so that this is the last you will hear of it:",
    Action.DELIVERED: "Your message was delivered to the following recipients:",
    Action.EXPANDED: "Your message was delivered to the following lists, which send it on to their members:",
}
_REASONS = {
    BounceClass.UNKNOWN_USER: "There is no such address.",
    BounceClass.UNKNOWN_HOST: "There is no such domain.",
    BounceClass.NULL_MX: "The domain takes no mail.",
    BounceClass.MAILBOX_DISABLED: "The mailbox is disabled.",
    BounceClass.MAILBOX_FULL: "The mailbox is full.",
    BounceClass.MOVED: "The recipient has moved to another address.",
    BounceClass.POLICY: "The recipient's mail system does not want the message.",
    BounceClass.CONTENT: "The recipient's mail system does not like the message's content.",
    BounceClass.AUTHENTICATION: "The recipient's mail system could not verify where the message comes from.",
    BounceClass.REPUTATION: "The recipient's mail system does not take mail from here.",
    BounceClass.RATE_LIMITED: "The recipient's mail system takes no more mail for the moment.",
    BounceClass.GREYLISTED: "The recipient's mail system asks to try again later.",
    BounceClass.TOO_LARGE: "The message is too large.",
    BounceClass.TLS_REQUIRED: "The recipient's mail system insists on an encrypted connection.",
    BounceClass.SMTPUTF8_UNSUPPORTED: "The recipient's mail system does not support international addresses.",
    BounceClass.RELAYING_DENIED: "The mail system found for the domain does not take mail for it.",
    BounceClass.ROUTING_LOOP: "The message went round in circles.",
    BounceClass.SYSTEM: "The recipient's mail system has a problem.",
    BounceClass.NETWORK: "The recipient's mail system could not be reached.",
    BounceClass.EXPIRED: "It could not be delivered in the time that it had.",
    BounceClass.SUPPRESSED: "The recipient does not want to get such mail.",
}

_REPORT_TYPE = {False: "delivery-status", True: "global-delivery-status"}
_RETURNED_AS = {
    False: ("message/rfc822", "text/rfc822-headers"),
    True: ("message/global", "message/global-headers"),
}

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_ENCODED = re.compile(r"\+([0-9A-F]{2})")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]{1,40}")
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
_MESSAGE_ID = re.compile(rb"<[!-;=?-~]{1,250}@[!-;=?-~]{1,250}>")


class DsnError(Exception):
    """No notice can be written: the sender is the null reverse-path, or an address can't stand in a header."""


@dataclass(frozen=True, slots=True)
class Report:
    """One recipient of a notice. Times in epoch seconds; `original_recipient` is ORCPT as it was given, or ""."""

    recipient: str = field(repr=False)
    action: Action
    outcome: Outcome
    original_recipient: str = field(default="", repr=False)
    attempted_at: float = 0.0
    retry_until: float = 0.0


def compose(
    *,
    hostname: str,
    sender: str,
    reports: Sequence[Report],
    original: bytes,
    ret: str,
    envid: str,
    queue_id: str,
    received_at: float,
    now: float,
    smtputf8: bool = False,
) -> bytes:
    """The complete notice to `sender`, the original's envelope sender.

    `ret`, `envid`: RET and ENVID as they were given in MAIL, or "". `smtputf8`: whether the original's envelope had it.
    """
    addresses = [sender, *(report.recipient for report in reports)]
    _check(addresses, smtputf8)
    header = b"".join(parse(original).fields)
    international = smtputf8 and not ("".join(addresses).isascii() and header.isascii())
    worst = next(action for action in _SUBJECTS if any(report.action is action for report in reports))
    whole = ret.upper() == "FULL" and worst is Action.FAILED and len(original) <= MAX_ORIGINAL_OCTETS
    status = _status(hostname, reports, envid, queue_id, received_at)
    message, headers = _RETURNED_AS[international]
    parts = (
        _part("text/plain; charset=utf-8", _text(hostname, reports, now).encode()),
        _part(f"message/{_REPORT_TYPE[international]}", status.encode()),
        _part(message, original) if whole else _part(headers, header),
    )
    boundary = secrets.token_hex(16)
    head = _fields(
        ("From", f"Mail delivery <MAILER-DAEMON@{hostname}>"),
        ("To", f"<{sender}>"),
        ("Subject", _SUBJECTS[worst]),
        ("Date", date_text(now)),
        ("Message-ID", f"<{secrets.token_hex(16)}@{hostname}>"),
        ("In-Reply-To", _identifier(original)),
        ("Auto-Submitted", "auto-replied"),
        ("MIME-Version", "1.0"),
        ("Content-Transfer-Encoding", None if all(map(bytes.isascii, parts)) else "8bit"),
        ("Content-Type", f'multipart/report; report-type={_REPORT_TYPE[international]};\r\n\tboundary="{boundary}"'),
    )
    preamble = "\r\nThis is a delivery status notification in MIME format.\r\n"
    separator, end = f"\r\n--{boundary}\r\n".encode(), f"\r\n--{boundary}--\r\n".encode()
    return (head + preamble).encode() + b"".join(separator + part for part in parts) + end


def xtext_decoded(text: str) -> str | None:
    """What xtext (RFC 3461 §4) stands for; None when it is malformed, or stands for more than printable ASCII."""
    if _XTEXT.fullmatch(text) is None:
        return None
    decoded = _ENCODED.sub(lambda match: chr(int(match[1], 16)), text)
    return decoded if decoded.isascii() and decoded.isprintable() else None


def _check(addresses: Sequence[str], smtputf8: bool) -> None:
    """An address must not end the field that it stands in, nor bring 8-bit text where it may not be."""
    if len(addresses) < 2 or not all(addresses):
        raise DsnError("a notice goes to somebody, about at least one recipient")
    if not all(map(str.isprintable, addresses)):
        raise DsnError("an address that can't stand in a header")
    if not (smtputf8 or "".join(addresses).isascii()):
        raise DsnError("an international address in an envelope without SMTPUTF8")


def _text(hostname: str, reports: Sequence[Report], now: float) -> str:
    """What a person reads: the recipients of each action, each with the reason in words and the peer's reply."""
    lines = [f"This is the mail system at {hostname}."]
    for action, opening in _OPENINGS.items():
        concerned = [report for report in reports if report.action is action]
        if concerned:
            lines += ["", *textwrap.wrap(opening, _TEXT_COLUMNS)]
        for report in concerned:
            lines += ["", f"  <{report.recipient}>", *_explained(report)]
    lines += ["", f"This notice was written on {date_text(now)}.", ""]
    return "\r\n".join(lines)


def _explained(report: Report) -> Iterable[str]:
    outcome = report.outcome
    if report.action in (Action.FAILED, Action.DELAYED):
        reason = _REASONS.get(outcome.bounce_class)
        said = outcome.diagnostic.encode("ascii", "replace").decode("ascii")
        if outcome.reply_code and outcome.stage is not Stage.EXPIRY:
            said = f"{_host(outcome.remote_mta) or 'The peer'} said: {outcome.reply_code} {said}"
        for text in filter(None, (reason, said)):
            yield from textwrap.wrap(text, _TEXT_COLUMNS, initial_indent="    ", subsequent_indent="      ")
    if report.action is Action.DELAYED and report.retry_until:
        yield f"    Tried again until {date_text(report.retry_until)}."


def _status(hostname: str, reports: Sequence[Report], envid: str, queue_id: str, received_at: float) -> str:
    """What a program reads (RFC 3464 §2): a block about the message, and one about each recipient."""
    envelope_id = xtext_decoded(envid) if len(envid) <= MAX_ENVID_CHARACTERS else None
    message = _fields(
        ("Original-Envelope-Id", envelope_id),
        ("Reporting-MTA", f"dns; {hostname}"),
        ("X-Heed-Queue-Id", _host(queue_id)),
        ("Arrival-Date", date_text(received_at)),
    )
    return "\r\n".join((message, *(_recipient_fields(report) for report in reports)))


def _recipient_fields(report: Report) -> str:
    outcome = report.outcome
    status = outcome.status if _STATUS.fullmatch(outcome.status) else _DEFAULT_STATUS[report.action]
    remote = _host(outcome.remote_mta)
    return _fields(
        ("Original-Recipient", _original_recipient(report.original_recipient)),
        ("Final-Recipient", f"{'rfc822' if report.recipient.isascii() else 'utf-8'}; {report.recipient}"),
        ("Action", report.action.value),
        ("Status", status),
        ("Remote-MTA", f"dns; {remote}" if remote else None),
        ("Diagnostic-Code", _diagnostic(outcome)),
        ("Last-Attempt-Date", date_text(report.attempted_at) if report.attempted_at else None),
        (
            "Will-Retry-Until",
            date_text(report.retry_until) if report.retry_until and report.action is Action.DELAYED else None,
        ),
    )


def _diagnostic(outcome: Outcome) -> str | None:
    """Of type smtp only where it is a peer's reply, not where it is our own words."""
    text = " ".join(outcome.diagnostic.encode("ascii", "replace").decode("ascii").split())
    if not text.isprintable():
        text = ""
    if outcome.reply_code and outcome.stage is not Stage.EXPIRY:
        return f"smtp; {outcome.reply_code} {text}".rstrip()
    return f"X-Heed; {text}" if text else None


def _original_recipient(orcpt: str) -> str | None:
    """ORCPT decoded (RFC 3461 §6.3, RFC 6533 §3); None when there is none that can stand in a field."""
    kind, semicolon, encoded = orcpt.partition(";")
    if not semicolon or _ADDRESS_TYPE.fullmatch(kind) is None or len(orcpt) > 500:
        return None
    if kind.lower() == "utf-8" and encoded.isprintable():
        # The one form that may stand in every kind of notice.
        encoded = "".join(letter if letter.isascii() else f"\\x{{{ord(letter):X}}}" for letter in encoded)
    address = xtext_decoded(encoded)
    return f"{kind}; {address}" if address else None


def _fields(*pairs: tuple[str, str | None]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in pairs if value)


def _host(text: str) -> str | None:
    return text if _HOST.fullmatch(text) else None


def _part(content_type: str, content: bytes) -> bytes:
    transfer = None if content.isascii() else "8bit"
    return (
        _fields(("Content-Type", content_type), ("Content-Transfer-Encoding", transfer)) + "\r\n"
    ).encode() + content


def _identifier(original: bytes) -> str | None:
    """The message's own identifier, if it has one of the ordinary form: threads the notice with it."""
    identifiers = parse(original).values(b"message-id")
    if len(identifiers) != 1 or _MESSAGE_ID.fullmatch(identifiers[0]) is None:
        return None
    return identifiers[0].decode("ascii")
