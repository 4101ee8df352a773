"""Notices meant for people: where the returned original begins, whom a notice is about, what it says.

Works by layout, so that the language of the prose does not matter: an address alone on its line, an address that opens
a paragraph, an address in a quoted SMTP command or reply. Prose that merely mentions an address names nobody.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from bounce.fields import clean_address
from bounce.mime import Headers, fields
from bounce.patterns import linear
from bounce.vocabulary import DELIVERED_WORDS, FAILED_WORDS

MAX_LINES = 400
MAX_LINE_CHARACTERS = 1000
MAX_RECIPIENTS = 200

_ORIGINAL_FIELDS = frozenset(
    {
        *(
            "received",
            "return-path",
            "message-id",
            "from",
            "to",
            "cc",
            "date",
            "subject",
            "mime-version",
            "content-type",
        ),
        *("content-transfer-encoding", "dkim-signature", "domainkey-signature", "reply-to", "sender", "x-mailer"),
        *("delivered-to", "list-unsubscribe", "list-id", "authentication-results", "received-spf", "x-received"),
        *("x-google-dkim-signature", "references", "in-reply-to", "feedback-id", "precedence", "errors-to"),
        *("user-agent", "arc-seal", "x-original-to", "envelope-to"),
    },
)
_FIELD = re.compile(r"[ \t>|]{0,8}([A-Za-z][A-Za-z0-9-]{1,60})[ \t]?:")

# The lines that mail systems put before what they return. Where the words are others, the header block tells.
_MARKER = linear(
    r"(?i)^[\s>*#=_-]*(?:"
    r"-+ ?(?:this is a copy of|original message|below this line|the header of the original|the body of the original"
    r"|returned (?:message|mail)|unsent message|message (?:header|text|content|body)|original mail"
    r"|forwarded message|start of (?:original|returned)|copy of (?:the )?(?:original|your))"
    r"|(?:original|returned) message (?:follows|headers?|begins|below|text)"
    r"|original (?:message|mail)\W*$|original mail as follows|original message as received"
    r"|the original message (?:was|is) (?:attached|below)\W*$"
    r"|below (?:this line is|is) (?:a copy of|the (?:original|header))"
    r"|included is a copy of the message header"
    r"|-{2,} ?(?:original|returned|unsent|forwarded)[^\n]{0,60}-*"
    r"|message headers? follows?|full message headers?:?$|original message headers?:?$"
    r"|begin(?:ning)? of (?:original|returned) message"
    r")"
)


@dataclass(slots=True)
class Notice:
    """What a notice says before the returned original, the original's header and what follows that, as far as there."""

    text: str = field(repr=False)
    original: Headers = field(repr=False)
    rest: str = field(default="", repr=False)


def notice(text: str) -> Notice:
    """`text` parted at the returned original."""
    lines = [line[:MAX_LINE_CHARACTERS] for line in text[: 64 * 1024].split("\n", MAX_LINES)[:MAX_LINES]]
    summary: Headers = []
    block = _header_block(lines)
    while block is not None and _is_summary(lines, block):
        # "Your message, From: … To: … Subject: …, did not reach": the notice goes on after it.
        end = _block_end(lines, block)
        summary = summary or _original(lines[block:end])
        lines = lines[:block] + lines[end:]
        block = _header_block(lines)
    cut = next((number for number in _candidates(lines) if number and _MARKER.match(lines[number])), None)
    ends = [number for number in (cut, block) if number is not None]
    if not ends:
        return Notice("\n".join(lines), summary)
    start = block if block is not None else ends[0]
    rest = "\n".join(lines[_block_end(lines, block) :]) if block is not None else ""
    return Notice("\n".join(lines[: min(ends)]), _original(lines[start:]) or summary, rest)


def _is_summary(lines: list[str], block: int) -> bool:
    """Whether a header block only describes the original: indented, and without what a mail system writes on top."""
    if lines[block][:1] not in (" ", "\t"):
        return False
    names = {
        match.group(1).lower() for line in lines[block : _block_end(lines, block)] if (match := _FIELD.match(line))
    }
    return not names & {"received", "return-path", "delivered-to", "dkim-signature"}


def _block_end(lines: list[str], block: int) -> int:
    return next((number for number in range(block, len(lines)) if not lines[number].strip()), len(lines))


def _candidates(lines: list[str]) -> Iterator[int]:
    """The lines that hold a word of `_MARKER`."""
    for number, line in enumerate(lines):
        low = line.lower()
        if "original" in low or "message" in low or "returned" in low or "below this line" in low or "copy of" in low:
            yield number


def _header_block(lines: list[str]) -> int | None:
    """The line at which at least three fields of a message header stand together, one of them a mail system's own."""
    start, names = -1, set[str]()
    for number, line in enumerate(lines):
        match = _FIELD.match(line) if ":" in line else None
        if match and match.group(1).lower() in _ORIGINAL_FIELDS:
            start = number if start < 0 else start
            names.add(match.group(1).lower())
            if len(names) >= 3 and names & _ONLY_IN_HEADERS:
                return start
        elif not (start >= 0 and (match or line[:1] in (" ", "\t", ">"))):
            start, names = -1, set()
    return None


_ONLY_IN_HEADERS = frozenset(
    {
        "received",
        "return-path",
        "message-id",
        "mime-version",
        "content-type",
        "dkim-signature",
        "delivered-to",
        "x-mailer",
    }
)


def _original(lines: list[str]) -> Headers:
    while lines and not _FIELD.match(lines[0]):
        lines = lines[1:]
    indent = len(lines[0]) - len(lines[0].lstrip(" \t>|")) if lines else 0
    block: list[str] = []
    for line in lines[:200]:
        if block and not line[indent:].strip():
            break
        block.append(line[indent:])
    return fields("\n".join(block).encode("utf-8", "replace"))


# Latin, Greek and Cyrillic: the letters of scripts that write without spaces would make their prose part of an address.
_LETTERS = r"A-Za-z0-9_\u00c0-\u024f\u0370-\u052f"
_LOCAL_BACKWARDS = re.compile(rf"\"[^\"\n@]{{1,64}}\"|[{_LETTERS}.!#$%&*+/=?^`{{|}}~'-]{{1,100}}")
_DOMAIN = re.compile(rf"(?:[{_LETTERS}-]{{1,63}}\.){{1,10}}[{_LETTERS}-]{{2,63}}")
_MAX_AT_SIGNS = 500
# What may stand before an address that opens its line, and what must follow for it to be the line's subject.
_LEAD = re.compile(r"^[\s>*\-\u2022\u30fb|]{0,40}(?:[\"'<\u201c\u300c\[(]|mailto:|smtp:|rfc822;){0,3}\s{0,3}$", re.I)
_TAIL = re.compile(
    r"^[>\"'\u201d\u300d)\]]{0,3}\s{0,3}(?:\(?<?\s*(?:mailto:)?[^\s>)]{0,300}@[^\s>)]{0,300}[>)]{1,2}\s{0,3})?"
    r"(?:$|[:,;\u3001\uff1a]|\.{2,}|\.?$|[(\[]|\s-|on (?:\w{3},|\d)|\s{2,}|\t)"
)
_ALONE = re.compile(r"[>\"'\])]{0,3}\W{0,3}$")
_MAILBOX = re.compile(r"[\"']?\s{1,3}<([^\s<>]{1,255}@[^\s<>]{1,255})>")
# An Internet address in one of X.400, as Exchange has them.
_X400 = re.compile(r"\bdda:$", re.I)
_COMMAND = re.compile(r"(?:rcpt\s{1,3}to|data|recipient)\s{0,3}:?\s{0,3}<?\s{0,3}$", re.I)
_REPLY_LEAD = re.compile(r"^[\s<>\-*]{0,12}(?:[2-5]\d\d[ -])?(?:[245]\.\d{1,3}\.\d{1,3} )?<?$")
_REPLY_TAIL = re.compile(r"^>?(?:\.{2,3}|:)\s")
_LABEL = re.compile(r"^[^\n:\uff1a@]{2,60}[:\uff1a]\s{0,20}<?$")


@dataclass(slots=True)
class Failure:
    """One recipient that a notice names, and what it says about it."""

    address: str = field(repr=False)
    said: str = field(repr=False)
    strong: bool


def addresses(text: str) -> list[str]:
    """Every address in `text`, cleaned, in order."""
    found = (clean_address(text[start:end]) for start, end in _spans(text))
    return [address for address in found if address]


def mentioned(text: str) -> list[str]:
    """Every address in `text` that is not said to be where something came from."""
    found = (
        clean_address(text[start:end])
        for start, end in _spans(text)
        if not _FROM.search(text[max(start - 20, 0) : start])
    )
    return [address for address in found if address]


_FROM = re.compile(r"(?<!generated )(?<!expanded )\b(?:from|von|от)[:\s<\"']{1,3}$", re.I)


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of what has the form of an address: outwards from each "@", so that its absence costs nothing."""
    sign = text.find("@")
    for _ in range(_MAX_AT_SIGNS):
        if sign < 0:
            return
        local = _LOCAL_BACKWARDS.match(text[max(sign - 100, 0) : sign][::-1])
        domain = _DOMAIN.match(text, sign + 1)
        if local and domain:
            yield sign - local.end(), domain.end()
        sign = text.find("@", domain.end() if domain else sign + 1)


def failures(text: str, outsiders: Collection[str]) -> list[Failure]:
    """Whom `text` names as recipients, by layout. `outsiders` (lower case) are meant only if no one else can be."""
    lines = text.split("\n")
    heads: list[tuple[int, str, str, bool]] = []
    heading = ""
    for number, line in enumerate(lines):
        if "@" not in line:
            heading = line if line.strip() else heading
        elif len(heads) < MAX_RECIPIENTS and not _is_good_news(heading):
            heads.extend((number, *head) for head in _heads(line, _is_prose(lines, number)))
    strong = [head for head in heads if head[3]]
    strong = _others(strong, outsiders) or strong or _others(heads, outsiders)
    starts = [number for number, *_ in strong]
    merged: dict[str, Failure] = {}
    for index, (number, address, tail, is_strong) in enumerate(strong):
        end = next((later for later in starts[index + 1 :] if later > number), len(lines))
        said = _said(tail, lines[number + 1 : end])
        known = merged.setdefault(address.lower(), Failure(address, "", is_strong))
        # Parted, so that no phrase arises from the end of one and the start of the other.
        known.said = f"{known.said}; {said}" if known.said and said else known.said or said
    return list(merged.values())


def _is_good_news(heading: str) -> bool:
    """Whether the last line before an address says that what follows was delivered."""
    return DELIVERED_WORDS.search(heading) and not FAILED_WORDS.search(heading)


def _others(heads: list[tuple[int, str, str, bool]], outsiders: Collection[str]) -> list[tuple[int, str, str, bool]]:
    return [head for head in heads if head[1].lower() not in outsiders]


_WRAPPED_CHARACTERS = 50


def _is_prose(lines: list[str], number: int) -> bool:
    """Whether line `number` goes on with a sentence, so that an address at its start is only where the line broke."""
    before = lines[number - 1].rstrip() if number else ""
    if len(before) < _WRAPPED_CHARACTERS or before[-1] in ":\uff1a-=*_.,;>)]|}" or "@" in before:
        return False
    indent, indent_before = (len(text) - len(text.lstrip()) for text in (lines[number], before))
    return indent <= indent_before


def _heads(line: str, prose: bool) -> list[tuple[str, str, bool]]:
    """(address, rest of the line, strong) for the addresses in `line` that stand where a recipient stands."""
    found: list[tuple[str, str, bool]] = []
    for start, end in _spans(line):
        address = clean_address(line[start:end])
        if not address:
            continue
        before, after = line[:start], line[end:]
        bracketed = _MAILBOX.match(after)
        if bracketed and clean_address(bracketed.group(1)):
            # A mailbox whose display name is an address.
            address, after = clean_address(bracketed.group(1)), after[bracketed.end() :]
        if _X400.search(before) and address[:5].lower() == "smtp=":
            found.append((address[5:], after.lstrip("; "), True))
            break
        leads = bool(_LEAD.match(before)) and not (prose and _ALONE.match(after))
        if _COMMAND.search(before):
            # With the command: which one was refused is half of the meaning.
            found.append((address, line, True))
            break
        if leads and (_TAIL.match(after) or (not prose and _speaks_of_failure(after))):
            found.append((address, after.lstrip("> :\t\"'"), True))
            break
        if _REPLY_LEAD.match(before) and _REPLY_TAIL.match(after):
            found.append((address, line, True))
            break
        if _LABEL.match(before) and not _is_from_original(before) and _TAIL.match(after):
            found.append((address, after.lstrip("> :\t"), bool(FAILED_WORDS.search(before))))
            break
    return found


_NO_RECIPIENTS = _ORIGINAL_FIELDS - {"to", "cc", "delivered-to", "x-original-to", "envelope-to"}


def _is_from_original(label: str) -> bool:
    """A field of a message's header, other than those of its recipients."""
    match = _FIELD.match(label)
    return match is not None and match.group(1).lower() in _NO_RECIPIENTS


def _speaks_of_failure(after: str) -> bool:
    """An address that opens its line, with a failure behind it: "a@example.com Error, code …"."""
    return after[:1] in (" ", ">") and bool(_FAILURE.match(after) or _CODE.search(after))


_FAILURE = re.compile(r">?\s{1,3}(?:error|[45]\d\d\b|[45]\.\d|\(|fail|unknown|not )", re.I)
_CODE = re.compile(r"\b[45]\.\d{1,3}\.\d{1,3}\b|\b5[0-7]\d[ -](?=\D)")


_WORD = re.compile(r"\w")
_REPLY = re.compile(r"(?:<<<\s{0,3})?[245]\d\d[ -]")
_NEXT_REPLY = re.compile(r"\s{0,3}(?:[245]\d\d[ -]|<<<|>>>|\.\.\.)")


def _said(tail: str, following: list[str]) -> str:
    """What stands with a recipient: the rest of its line and of its paragraph, or the next paragraph."""
    said = [tail.strip()] if tail.strip(" \t:;,.>)") else []
    empty = 0
    replied = bool(_REPLY.match(tail.strip()))
    for line in following[:25]:
        if replied and _NEXT_REPLY.match(line):
            break
        if line.strip():
            if _WORD.search(line):
                said.append(line.strip())
            empty = 0
            continue
        empty += 1
        if said and not said[-1].endswith(":") and (empty > 1 or len(said) > 1 or len(said[0]) > 40):
            break
    return " ".join(said)
