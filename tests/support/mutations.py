"""What changes a message but not what it says: each function gives it changed, or None where it has nothing to do.

They work on the text of the message, without a parser, so that they share no mistake with the reader.
"""

import base64
import quopri
import re
from collections.abc import Callable

OTHER_WORDS = "Geachte afzender,\n\nmet uw bericht ging het niet goed. Zie hieronder.\n\nMet vriendelijke groet\n"
"""Prose of no rule in a language of few rules: what is left is what the fields say."""

_FIELD = re.compile(rb"[^\n]*(?:\n[ \t][^\n]*)*\n?")
_BOUNDARY = re.compile(
    rb"(?is)^content-type:\s*multipart/[^;\n]+;(?:[^\n]*\n[ \t])*?[^\n]*?boundary\s*=\s*\"?([^\"\n;]+)", re.M
)
_ORIGINAL = re.compile(
    rb"(?im)^content-type:\s*(?:message/(?:rfc822|global)\b|text/rfc822|message/(?:rfc822|global)-headers)"
)
_STATUS = re.compile(rb"(?im)^content-type:\s*message/(?:global-)?delivery-status")
_TEXT = re.compile(rb"(?im)^content-type:\s*text/plain")
_ENCODED = re.compile(rb"(?im)^content-transfer-encoding:\s*(?:base64|quoted-printable)")


def _split(message: bytes) -> tuple[bytes, bytes]:
    head, _, body = message.partition(b"\n\n")
    return head + b"\n", body


def _fields(head: bytes) -> list[bytes]:
    return [field for field in _FIELD.findall(head) if field.strip()]


def _parts(message: bytes) -> tuple[bytes, bytes, list[bytes]] | None:
    """(head, boundary, preamble and parts and epilogue) of a multipart message."""
    head, body = _split(message)
    found = _BOUNDARY.search(head)
    if found is None:
        return None
    boundary = found.group(1).strip()
    if b"\n--" + boundary + b"--" not in body:
        return None
    return head, boundary, re.split(rb"(?m)^--" + re.escape(boundary) + rb"(?:--)?[ \t]*(?:\n|\Z)", body)


def _joined(head: bytes, boundary: bytes, parts: list[bytes]) -> bytes:
    delimiter = b"--" + boundary
    inner = b"".join(delimiter + b"\n" + part for part in parts[1:-1])
    return head + b"\n" + parts[0] + inner + delimiter + b"--\n" + parts[-1]


def reordered(message: bytes) -> bytes:
    """The header's fields in the opposite order."""
    head, body = _split(message)
    fields = [field if field.endswith(b"\n") else field + b"\n" for field in _fields(head)]
    return b"".join(reversed(fields)) + b"\n" + body


def folded(message: bytes) -> bytes:
    """Every field of the header folded after its name, and where it has a semicolon."""
    head, body = _split(message)
    fields = [re.sub(rb";[ \t]*", b";\n\t", re.sub(rb":[ \t]*", b":\n ", field, count=1)) for field in _fields(head)]
    return b"".join(fields) + b"\n" + body


def unfolded(message: bytes) -> bytes:
    """Every field of the header on one line."""
    head, body = _split(message)
    return re.sub(rb"\n[ \t]+", b" ", head) + b"\n" + body


def shouted(message: bytes) -> bytes:
    """Field names of the header in capitals."""
    head, body = _split(message)
    return re.sub(rb"(?m)^[A-Za-z-]+:", lambda match: match.group().upper(), head) + b"\n" + body


def _recoded(message: bytes, encode: Callable[[bytes], bytes], name: bytes) -> bytes | None:
    """The first text, of the message or of its first part, in another transfer encoding."""
    split = _parts(message)
    if split is None:
        head, body = _split(message)
        if _ENCODED.search(head) or not (_TEXT.search(head) or b"ontent-" not in head) or not body.strip():
            return None
        head = re.sub(rb"(?im)^content-transfer-encoding:[^\n]*\n", b"", head)
        return head + b"Content-Transfer-Encoding: " + name + b"\n\n" + encode(body)
    head, boundary, parts = split
    if len(parts) < 4:
        return None
    own, _, text = parts[1].partition(b"\n\n")
    if not _TEXT.match(own) or _ENCODED.search(own):
        return None
    own = re.sub(rb"(?im)\n?^content-transfer-encoding:[^\n]*", b"", own)
    parts[1] = own + b"\nContent-Transfer-Encoding: " + name + b"\n\n" + encode(text)
    return _joined(head, boundary, parts)


def in_base64(message: bytes) -> bytes | None:
    """The text in base64."""
    return _recoded(message, base64.encodebytes, b"base64")


def in_quoted_printable(message: bytes) -> bytes | None:
    """The text in quoted-printable, folded within words as encoders do."""
    return _recoded(message, quopri.encodestring, b"quoted-printable")


def in_other_words(message: bytes) -> bytes | None:
    """A report whose text for people is another, without a name or a code in it."""
    split = _parts(message)
    if split is None or not _STATUS.search(message):
        return None
    head, boundary, parts = split
    if len(parts) < 4 or _STATUS.search(parts[1].partition(b"\n\n")[0]):
        return None
    parts[1] = b"Content-Type: text/plain; charset=utf-8\n\n" + OTHER_WORDS.encode()
    return _joined(head, boundary, parts)


def without_original(message: bytes) -> bytes | None:
    """Without the returned message or its header."""
    split = _parts(message)
    if split is None:
        return None
    head, boundary, parts = split
    kept = [parts[0]]
    kept += [part for part in parts[1:-1] if not _ORIGINAL.search(part.partition(b"\n\n")[0] + b"\n")]
    kept.append(parts[-1])
    return None if len(kept) == len(parts) else _joined(head, boundary, kept)


def with_plain_subject(message: bytes) -> bytes:
    """Under a subject that says nothing."""
    head, body = _split(message)
    return re.sub(rb"(?im)^subject:[^\n]*(?:\n[ \t][^\n]*)*", b"Subject: About your message", head) + b"\n" + body


def from_other_hosts(message: bytes) -> bytes:
    """With the hosts' names replaced by words that rules look for."""
    return re.sub(rb"\b(?:mx|mail|relay|smtp|gw|host)\d{0,2}\.(?=[\w-]+\.)", b"spam-policy.quota.", message)


def relabelled(message: bytes) -> bytes:
    """With report parts called text/plain, as gateways do that know no other type."""
    return re.sub(
        rb"(?im)^content-type:[ \t]*message/(?:(?:global-)?delivery-status|disposition-notification)",
        b"Content-Type: text/plain",
        message,
    )


SIGNATURE = "-- \nExample Ltd, 550 Main Street\ncarl.nobody@example.com\nmailbox full? 5.2.2: helpdesk@example.com\n"


def signed(message: bytes) -> bytes | None:
    """With a gateway's signature, an address and all, below the text for people."""
    split = _parts(message)
    if split is None:
        head, body = _split(message)
        return None if _ENCODED.search(head) or not body.strip() else message + b"\n" + SIGNATURE.encode()
    head, boundary, parts = split
    if len(parts) < 3:
        return None
    own = parts[1].partition(b"\n\n")[0]
    if not _TEXT.match(own) or _ENCODED.search(own):
        return None
    parts[1] += b"\n" + SIGNATURE.encode()
    return _joined(head, boundary, parts)


SAME: dict[str, Callable[[bytes], bytes | None]] = {
    "reordered": reordered,
    "folded": folded,
    "unfolded": unfolded,
    "shouted": shouted,
    "base64": in_base64,
    "quoted-printable": in_quoted_printable,
    "other hosts": from_other_hosts,
    "relabelled": relabelled,
    "signed": signed,
}
"""Nothing of the result may depend on these."""
