"""A submitted message: its fields and body, and the reasons to refuse one at the door.

`parse` never raises: a line that is no header field ends the header, and what follows is body. `refuse` is strict where
two readers could see two different messages (bare CR or LF, NUL, malformed header lines, a From that is not one
mailbox), and gives the whole reply; no reply quotes the message. What `refuse` passes can be signed and sent as it is:
nothing is ever downgraded, re-encoded or re-wrapped on its way.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

import idna

from mta.octets import has_bare_line_ends
from suppression.digest import MessageClass

MAX_LINE_OCTETS = 998
"""Longest header line without its CRLF (RFC 5322 §2.1.1). Body lines are the submitter's own matter."""

MAX_HEADER_OCTETS = 64 * 1024
MAX_FIELDS = 1000
MAX_RECEIVED = 100
"""Trace fields after which a message is going in circles (RFC 5321 §6.3)."""

MAX_DOMAIN_CHARACTERS = 253

_FIELD_START = re.compile(rb"([!-9;-~]+):")
_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_ATOM = r"[^\s<>,;:@()\[\]\\\"]+"
_ADDR_SPEC = rf"(?:{_ATOM}|\")@({_ATOM})"
# An "@" in an unquoted display name is a common fault and does no harm, because the angle brackets decide. A comma, a
# semicolon or a colon there would make it a list or a group (RFC 5322 §3.4).
_MAILBOX = re.compile(rf"[^<>,;:]*<{_ADDR_SPEC}>|{_ADDR_SPEC}")
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LIST_ID = re.compile(r"(?:[^<>]*<\s*)?([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,255})(?:\s*>)?\s*")


class Refusal(NamedTuple):
    """Why a message is not taken: a complete SMTP reply without the CRLF, and without any address."""

    reply: str


@dataclass(frozen=True, slots=True)
class Message:
    """Raw header fields, folded as received, each with its CRLF; the body, which is empty or ends in CRLF; and the
    fields' names in lower case.
    """

    fields: tuple[bytes, ...] = field(repr=False)
    body: bytes = field(repr=False)
    names: tuple[bytes, ...] = field(repr=False)

    @property
    def eight_bit(self) -> bool:
        """True when the body needs BODY=8BITMIME (RFC 6152)."""
        return not self.body.isascii()

    @property
    def internationalised(self) -> bool:
        """True when the header needs SMTPUTF8 (RFC 6531)."""
        return not all(map(bytes.isascii, self.fields))

    def values(self, name: bytes) -> list[bytes]:
        """Unfolded, stripped values of every field of that name, top to bottom."""
        wanted = name.lower()
        return [unfolded(raw) for known, raw in zip(self.names, self.fields, strict=True) if known == wanted]

    def from_domain(self) -> str | None:
        """Domain of the author as A-label in lower case; None unless From is one mailbox with a domain name."""
        authors = self.values(b"from")
        return mailbox_domain(authors[0].decode("utf-8", "replace")) if len(authors) == 1 else None

    def list_name(self) -> str | None:
        """The list's identifier (RFC 2919) in lower case; None without one that can be read."""
        values = self.values(b"list-id")
        bare = _without_comments(values[0].decode("utf-8", "replace")) if values else None
        match = _LIST_ID.fullmatch(bare) if bare else None
        return match[1].lower() if match else None


def name_of(raw_field: bytes) -> bytes:
    """A field's name in lower case."""
    return raw_field[: raw_field.find(b":")].lower()


def unfolded(raw_field: bytes) -> bytes:
    """A field's value on one line, without white space around it."""
    return raw_field[raw_field.find(b":") + 1 :].replace(b"\r\n", b"").strip(b" \t")


def parse(raw: bytes) -> Message:
    """The parts of a message whose lines end in CRLF and whose dots are unstuffed. Never raises."""
    end = 0 if raw.startswith(b"\r\n") else raw.find(b"\r\n\r\n")
    head = raw.removesuffix(b"\r\n") if end < 0 else raw[:end]
    fields: list[bytes] = []
    names: list[bytes] = []
    used = 0
    for line in _FIELD_END.split(head):
        name = _FIELD_START.match(line)
        if name is None:
            break
        fields.append(line + b"\r\n")
        names.append(name[1].lower())
        used += len(line) + 2
    body = raw[used:].removeprefix(b"\r\n")
    return Message(tuple(fields), body if not body or body.endswith(b"\r\n") else body + b"\r\n", tuple(names))


def mailbox_domain(text: str) -> str | None:
    """Domain (A-label, lower case) of the one mailbox in an address field's value; None for anything else.

    Two mailboxes, a group, a source route, an address literal, an encoded word or white space in the address: None.
    """
    bare = _without_comments(text) if '"' in text or "(" in text else text
    match = _MAILBOX.fullmatch(bare.strip()) if bare else None
    return domain_name(match[1] or match[2]) if match else None


def domain_name(text: str) -> str | None:
    """A domain name as A-labels in lower case; None when it can't be one. Underscores are let through."""
    if len(text) > MAX_DOMAIN_CHARACTERS:
        return None  # A-labels are no shorter than U-labels, and their making takes long
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True).decode("ascii")
        except UnicodeError:
            return None
    text = text.lower()
    return text if len(text) <= MAX_DOMAIN_CHARACTERS and _DOMAIN.fullmatch(text) else None


def _without_comments(text: str) -> str | None:
    """The text with a space for each comment and one double quote for each quoted string; None if either is open."""
    kept: list[str] = []
    depth, quoted = 0, False
    characters = iter(text)
    for character in characters:
        if character == "\\" and (quoted or depth):
            next(characters, None)
        elif quoted:
            quoted = character != '"'
        elif depth or character == "(":
            depth += (character == "(") - (character == ")")
            kept.append(" " if depth == 0 else "")
        else:
            quoted = character == '"'
            kept.append(character)
    return None if quoted or depth else "".join(kept)


def refuse(
    raw: bytes, *, smtputf8: bool, eight_bit: bool, message_class: MessageClass, parsed: Message | None = None
) -> Refusal | None:
    """Why this message can't be taken, or None.

    `smtputf8`, `eight_bit`: whether non-ASCII may be in the header, and in the body. Widely used mailers send 8-bit
    bodies without saying BODY=8BITMIME, so a server that offers 8BITMIME does well to pass True for the latter.
    `parsed`: what `parse(raw)` gave, of content that a DataReader let pass, which is not searched for NUL, bare CR and
    bare LF a second time.
    """
    reply = _oversize_header(raw) if parsed is not None else _bad_octets(raw) or _oversize_header(raw)
    if reply is None:
        message = parse(raw) if parsed is None else parsed
        reply = (
            _bad_header(raw, message)
            or _bad_eight_bit(message, smtputf8, eight_bit)
            or _bad_fields(message, message_class)
        )
    return Refusal(reply) if reply else None


def _bad_octets(raw: bytes) -> str | None:
    if b"\0" in raw:
        return "550 5.6.0 The message holds a NUL octet"
    if has_bare_line_ends(raw):
        return "550 5.6.0 The message holds a CR or LF that is not part of CRLF (RFC 5321 2.3.8)"
    return None


def _oversize_header(raw: bytes) -> str | None:
    """Before any splitting, so that a hostile header costs one search."""
    limit = MAX_HEADER_OCTETS
    if len(raw) > limit and not raw.startswith(b"\r\n") and raw.find(b"\r\n\r\n", 0, limit) < 0:
        return f"550 5.6.0 The header is larger than {limit} octets"
    return None


def _bad_header(raw: bytes, message: Message) -> str | None:
    if not message.fields:
        return "550 5.6.0 The message has no header"
    header = b"".join(message.fields)
    if raw[len(header) : len(header) + 2] not in (b"\r\n", b""):
        return "550 5.6.0 A header line is neither a field nor the continuation of one (RFC 5322 2.2)"
    if max(map(len, header.split(b"\r\n"))) > MAX_LINE_OCTETS:
        return f"550 5.6.0 A header line is longer than {MAX_LINE_OCTETS} octets (RFC 5322 2.1.1)"
    if len(message.fields) > MAX_FIELDS:
        return f"550 5.6.0 The header has more than {MAX_FIELDS} fields"
    return None


def _bad_eight_bit(message: Message, smtputf8: bool, eight_bit: bool) -> str | None:
    if message.internationalised:
        if not smtputf8:
            return "550 5.6.7 Non-ASCII header fields need SMTPUTF8 or RFC 2047 encoding"
        try:
            b"".join(message.fields).decode("utf-8")
        except UnicodeDecodeError:
            return "550 5.6.7 Header fields must be UTF-8 (RFC 6532)"
    if message.eight_bit and not eight_bit:
        return "550 5.6.3 An 8-bit body needs BODY=8BITMIME"
    return None


def _bad_fields(message: Message, message_class: MessageClass) -> str | None:
    names = message.names
    if names.count(b"from") != 1:
        return "550 5.6.0 The message must have exactly one From field (RFC 5322 3.6)"
    if message.from_domain() is None:
        return "550 5.6.0 From must hold exactly one mailbox with a domain name (quote a display name with , : or ;)"
    if names.count(b"received") > MAX_RECEIVED:
        return f"550 5.4.6 More than {MAX_RECEIVED} Received fields: the message is looping"
    if names.count(b"list-id") > 1:
        return "550 5.6.0 The message has more than one List-Id field (RFC 2919 3)"
    if message_class is MessageClass.TRANSACTIONAL and any(name.startswith(b"list-") for name in names):
        return "550 5.7.1 Mail to a list is campaign mail: this credential may submit transactional mail only"
    return None
