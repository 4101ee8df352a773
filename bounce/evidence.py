"""A message's parts, sorted by what they are evidence of: structure only, what it means is the reader's business."""

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bounce.fields import MAX_GROUPS, DeliveryStatus, FeedbackReport, delivery_status, feedback_report
from bounce.mime import MAX_TEXT_BYTES, Entity, Headers, decoded_words, parse
from bounce.text import Notice, addresses, notice
from bounce.vocabulary import PURE_MAIL_SYSTEM

MAX_TOKEN_CANDIDATES = 40
MAX_REPORTS = 50
_MAX_RELABELLED_BYTES = 16 * 1024

_STATUS_TYPES = frozenset(
    {
        "message/delivery-status",
        "message/global-delivery-status",
        "message/xdelivery-status",
        "message/x-delivery-status",
        "text/delivery-status",
    },
)
_ORIGINAL_TYPES = frozenset(
    {
        "message/rfc822",
        "message/global",
        "text/rfc822-headers",
        "text/rfc822-header",
        "message/rfc822-headers",
        "message/global-headers",
        "text/rfc822",
        "message/partial",
    },
)
# what a gateway puts before a subject: "[EXTERNAL] Automatic reply"
_TAG = re.compile(r"\A\s*(?:\[[^\[\]\s]{1,20}\]\s*)+(?=\S)")
_NULL_PATH = re.compile(r"\s*<?\s*(?:mailer-daemon(?:@[^>]*)?)?\s*>?\s*\Z", re.I)
_STATUS_IN_TEXT = re.compile(rb"(?im)^[ \t]{0,8}(?:final|original)-recipient[ \t]*:")
_FIELDS_FIRST = re.compile(
    rb"(?i)\s{0,20}(?:reporting-mta|reporting-ua|original-envelope-id|received-from-mta|arrival-date|final-recipient"
    rb"|original-recipient)[ \t]*:[^\n]*(?:\n(?:[ \t][^\n]*|[\w-]{1,60}[ \t]*:[^\n]*)?)*+\s*\Z"
)
_DISPOSITION = re.compile(rb"(?im)^disposition[ \t]*:")
_FEEDBACK_IN_TEXT = re.compile(rb"(?im)^feedback-type[ \t]*:")


@dataclass
class Evidence:
    """Everything in a message that the reader looks at. Complete once `read_notice` has run."""

    top: Entity
    subject: str
    sender: str
    status: DeliveryStatus | None = None
    reports: list[FeedbackReport] = field(default_factory=list)
    original: Headers = field(default_factory=list)
    text: str = ""
    signatures: str = ""
    disposition: bool = False
    attachments: list[str] = field(default_factory=list)
    has_original_part: bool = False
    wrapped: DeliveryStatus | None = None
    status_is_prose: bool = False

    def original_values(self, name: str) -> list[str]:
        """Values of a header field of the returned original."""
        return [value for known, value in self.original if known == name]

    @functools.cached_property
    def people_of_original(self) -> list[str]:
        """To and Cc of the returned original, in order, without repetition; its list's own address is nobody's."""
        found: dict[str, str] = {}
        lists = {address.lower() for value in self.original_values("list-post") for address in addresses(value)}
        headers = ("to", "cc") if any(self.original_values(name) for name in ("to", "cc")) else ("x-original-to",)
        for name in headers:
            for value in self.original_values(name)[:5]:
                for address in addresses(value):
                    found.setdefault(address.lower(), address)
        return [address for key, address in found.items() if key not in lists]

    @functools.cached_property
    def null_sender(self) -> bool:
        """The message came with the null reverse-path, or with what some systems write in its place."""
        return self.sender.strip() == "<>" or any(
            _NULL_PATH.match(value) is not None for value in self.top.all("return-path")
        )


def collect(message: bytes) -> Evidence:
    """The evidence in `message`; never raises."""
    top = parse(message)
    subject = _TAG.sub("", decoded_words(top.first("subject")))
    evidence = Evidence(top, subject, decoded_words(top.first("from")))
    _sort(top, evidence)
    return evidence


def _sort(entity: Entity, evidence: Evidence) -> None:
    kind = entity.content_type
    inner = entity is not evidence.top and (kind in _ORIGINAL_TYPES or _is_message(entity))
    if inner or kind in {"message/rfc822", "message/global"}:
        _take_original(entity, evidence)
    elif kind in _STATUS_TYPES:
        if evidence.status is None:
            evidence.status = delivery_status(_plain_body(entity))
        elif len(evidence.status.recipients) < MAX_GROUPS:
            evidence.status.recipients.extend(delivery_status(_plain_body(entity)).recipients)
    elif kind in {"message/feedback-report", "message/x-feedback-report"}:
        if len(evidence.reports) < MAX_REPORTS:
            evidence.reports.append(feedback_report(_plain_body(entity)))
    elif kind in {"message/disposition-notification", "message/global-disposition-notification"}:
        evidence.disposition = True
    elif entity.children:
        for child in _chosen(entity):
            _sort(child, evidence)
    elif entity is not evidence.top and _is_relabelled(entity):
        _take_fields(_plain_body(entity), evidence)
    elif kind in {"text/plain", "text/html"} or "/" not in kind:
        if len(evidence.text) < MAX_TEXT_BYTES:
            text, signature = _without_signature(entity.text())
            evidence.text = f"{evidence.text}\n\n{text}" if evidence.text else text
            evidence.signatures += signature
    else:
        evidence.attachments.append(
            f"{kind} {entity.first('content-disposition')} {entity.first('content-type')}".lower()
        )


def _is_relabelled(entity: Entity) -> bool:
    """Whether a part is one of report fields and nothing else, that lost its media type.

    A longer one is read as text, as far as that is read: sixty such parts must not cost more than a report may.
    """
    if len(entity.body) > _MAX_RELABELLED_BYTES:
        return False
    if entity.content_type == "application/octet-stream":
        return _FIELDS_FIRST.match(_plain_body(entity)) is not None
    return entity.content_type == "text/plain" and _FIELDS_FIRST.match(entity.body) is not None


def _take_fields(body: bytes, evidence: Evidence) -> None:
    """Report fields that lost their media type."""
    if _DISPOSITION.search(body):
        evidence.disposition = True
    elif evidence.status is None:
        evidence.status = delivery_status(body)
        evidence.status_is_prose = True
    elif len(evidence.status.recipients) < MAX_GROUPS:
        evidence.status.recipients.extend(delivery_status(body).recipients[:MAX_GROUPS])


def _without_signature(text: str) -> tuple[str, str]:
    """`text` without what stands below "-- " (RFC 3676 §4.3), and that; what holds a report or an original stays."""
    above, mark, below = text.partition("\n-- \n")
    if not mark or not above.strip() or _STATUS_IN_TEXT.search(below.encode("utf-8", "replace")):
        return text, ""
    return (text, "") if notice(below).original else (above, f"\n{below}")


def _chosen(entity: Entity) -> list[Entity]:
    """The parts of an entity that say each something of their own: of a text and its HTML the text."""
    plain = [child for child in entity.children if child.content_type == "text/plain" and child.body.strip()]
    if entity.content_type == "multipart/alternative" and plain:
        return [child for child in entity.children if child.content_type != "text/html"]
    return entity.children


def _is_message(entity: Entity) -> bool:
    """A body part that is itself a message: its own MIME header was forgotten."""
    names = {name for name, _ in entity.headers}
    return "received" in names or {"message-id", "from", "date"} <= names


def _plain_body(entity: Entity) -> bytes:
    """A report part's body; some gateways encode what must not be encoded, some put a MIME message into it."""
    if entity.first("content-transfer-encoding").strip().lower() in {"base64", "quoted-printable"}:
        return entity.text().encode("utf-8", "replace")
    return entity.body[: 1 << 20]


def _take_original(entity: Entity, evidence: Evidence) -> None:
    evidence.has_original_part = True
    if evidence.original:
        return
    if _is_message(entity):
        evidence.original = entity.headers
    elif entity.children:
        evidence.original = entity.children[0].headers
        evidence.wrapped = _wrapped_status(entity.children[0])
    else:
        evidence.original = parse(_plain_body(entity)[:65536]).headers


def _wrapped_status(message: Entity) -> DeliveryStatus | None:
    """The delivery status of a report that a gateway put whole into a report of its own."""
    if "delivery-status" not in message.first("content-type"):
        return None
    parts = (part for part in message.walk() if part.content_type in _STATUS_TYPES or _is_relabelled(part))
    return next((delivery_status(_plain_body(part)) for part in parts), None)


def _start_of_fields(body: bytes, start: re.Pattern[bytes]) -> int:
    """Where the fields begin: with the paragraph before the one that names a recipient, if that holds fields too."""
    match = start.search(body)
    position = body.rfind(b"\n\n", 0, match.start()) if match else 0
    before = body.rfind(b"\n\n", 0, max(position, 0))
    if _REPORTING.match(body[before if before > 0 else 0 : max(position, 0)].lstrip()):
        position = before
    return max(position, 0)


_REPORTING = re.compile(rb"(?i)(?:reporting-mta|original-envelope-id|received-from-mta|arrival-date)[ \t]*:")


def _is_report(headers: Headers) -> bool:
    values = {name: value for name, value in headers if name in {"from", "return-path"}}
    return values.get("return-path", "").strip() == "<>" or bool(PURE_MAIL_SYSTEM.search(values.get("from", "")))


def read_notice(evidence: Evidence) -> Notice:
    """The text for people, without the returned original; its header is kept if no part had it.

    Report fields that lost their MIME part stand in that text, and are read from there.
    """
    parted = notice(evidence.text)
    if parted.rest and _is_report(parted.original):
        # A gateway returns a notice in words of its own: what counts is in the inner one.
        inner = notice(parted.rest)
        parted = Notice(f"{parted.text}\n\n{inner.text}", inner.original, "")
    if not evidence.original:
        evidence.original = parted.original
    if "-" in parted.text and (evidence.status is None or not evidence.reports):
        body = parted.text.encode("utf-8", "replace")
        if evidence.status is None and _STATUS_IN_TEXT.search(body):
            position = _start_of_fields(body, _STATUS_IN_TEXT)
            _take_fields(body[position:], evidence)
            parted.text = body[:position].decode("utf-8", "replace")
        if not evidence.reports and _FEEDBACK_IN_TEXT.search(body):
            report = feedback_report(body[_start_of_fields(body, _FEEDBACK_IN_TEXT) :])
            if any(name in {"user-agent", "version", "source-ip"} for name, _ in report.fields):
                evidence.reports.append(report)
    return parted


_LINK = re.compile(r"https?://[^\s<>\"']{1,300}")
_OWN_HEADERS = ("to", "delivered-to", "x-original-to", "envelope-to", "x-envelope-to", "in-reply-to", "references")
_OWN_ORIGINAL = ("return-path", "message-id", "x-original-message-id", "list-unsubscribe", "sender", "reply-to", "from")


def token(evidence: Evidence, parted: Notice, own: Callable[[str], object | None]) -> tuple[object | None, str]:
    """What `own` makes of the first address or link that it knows, and where that was found."""
    for number, (where, candidate) in enumerate(_candidates(evidence, parted)):
        if number >= MAX_TOKEN_CANDIDATES:
            break
        value = own(candidate)
        if value is not None:
            return value, where
    return None, ""


def _candidates(evidence: Evidence, parted: Notice) -> Iterator[tuple[str, str]]:
    for name in _OWN_HEADERS:
        for value in evidence.top.all(name)[:3]:
            yield from ((name, address) for address in addresses(value)[:5])
    for name in _OWN_ORIGINAL:
        for value in evidence.original_values(name)[:3]:
            yield from ((f"original {name}", address) for address in addresses(value)[:3])
            yield from ((f"original {name}", link.group(0)) for link in _LINK.finditer(value))
    for report in evidence.reports[:3]:
        for name, value in report.fields:
            if name in {"original-mail-from", "original-envelope-id", "original-message-id"}:
                yield from ((f"report {name}", address) for address in addresses(value)[:2])
    text = parted.text + evidence.signatures
    yield from (("text", address) for address in addresses(text) if len(address) > 40)
