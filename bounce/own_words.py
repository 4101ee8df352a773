"""What the author of an answer wrote: its text without what it quotes, without a signature.

By structure, so that the language matters little: lines behind ">", HTML block quotes, the line with a colon over a
quotation, Outlook's block of header fields, a line of dashes or underscores, "-- " (RFC 3676 §4.3). Text below a
quotation is the author's again, but for what Outlook quotes: that goes on to the end. What isn't recognised as quoted
is taken for written, which can only make the reading of it less certain. Never raises; linear in the text.
"""

import re
import unicodedata
from collections.abc import Sequence

from bounce.mime import Entity
from bounce.patterns import linear
from bounce.vocabulary import reply_words

MAX_LINES = 400
MAX_LINE_CHARACTERS = 1000
MAX_PARTS = 8
"""Of the message's own text: pictures may stand between them."""

_QUOTED = re.compile(r"[ \t]{0,3}[>|]")
_RULE = linear(r"^(?:--|[ \t]*[-_=*]{5,}|[ \t]*[-_]{2,} ?\S.* ?[-_]{2,})[ \t]*$")
_WHEN_OR_WHO = re.compile(r"@|\b\d{1,2} ?[:.h] ?\d\d\b|\b(?:19|20)\d\d\b")
_LABEL = re.compile(r"\W{0,5}(\w[\w ]{0,20}?)\*{0,2}[ \t]{0,2}[:\uff1a]")
_BLOCK_LINES = 8
_ATTRIBUTION_LINES = 3

_BLOCKQUOTE = linear(r"(?i)<(/?)blockquote\b[^>]*>")
# The elements in which webmail and Outlook put an original that is no block quote; it goes on to the end.
_ORIGINAL = linear(
    r"(?i)<[a-z]+\b[^>]{0,500}(?:divRplyFwdMsg|appendonsend|yahoo_quoted|OutlookMessageHeader|ms-outlook-mobile-reference)"
)
_COMBINING = dict.fromkeys(range(0x0300, 0x0370))


def own_text(message: Entity) -> str:
    """The words of the author of `message`, from its plain text or else from its HTML."""
    plain = "\n".join(part.text() for part in _inline(message, "text/plain")[:MAX_PARTS])
    if plain.strip():
        return without_quotes(plain)
    parts = _inline(message, "text/html")[:MAX_PARTS]
    return without_quotes("\n".join(part.text(_html_quotes_marked) for part in parts))


def without_quotes(text: str) -> str:
    """`text` without what is quoted and signed."""
    lines = [line[:MAX_LINE_CHARACTERS].rstrip() for line in text.split("\n", MAX_LINES)[:MAX_LINES]]
    kept: list[str] = []
    for number, line in enumerate(lines):
        if _QUOTED.match(line):
            _drop_attribution(kept)
        elif _ends_own(lines, number):
            break
        else:
            kept.append(line)
    _drop_attribution(kept)
    return "\n".join(kept).strip()


def folded(text: str) -> str:
    """In lower case, without accents, hyphens being blanks: as `reply_words` has its patterns."""
    text = unicodedata.normalize("NFKD", text.casefold()).translate(_COMBINING)
    return text.translate(_SAME)


_SAME = str.maketrans({"\u2019": "'", "\u2018": "'", "`": "'", "-": " ", "\u2010": " ", "\u2011": " ", "\u00a0": " "})


def _inline(entity: Entity, kind: str) -> list[Entity]:
    """Parts of a type that are the message's own text, in order: no attachments, nothing of an attached message."""
    if entity.content_type.startswith("message/"):
        return []
    if entity.children:
        return [part for child in entity.children for part in _inline(child, kind)]
    attached = entity.first("content-disposition").lower().startswith("attachment")
    return [entity] if entity.content_type == kind and not attached else []


def _html_quotes_marked(html: str) -> str:
    """HTML with one quoted line in place of each block quote."""
    original = _ORIGINAL.search(html)
    if original is not None:
        html = html[: original.start()]
    kept: list[str] = []
    depth = position = 0
    for tag in _BLOCKQUOTE.finditer(html):
        if depth == 0:
            kept.append(html[position : tag.start()])
            kept.append("<br>&gt;<br>")
        depth = max(depth - 1, 0) if tag.group(1) else depth + 1
        position = tag.end()
    if depth == 0:
        kept.append(html[position:])
    return "".join(kept)


def _drop_attribution(kept: list[str]) -> None:
    """Take away the line over a quotation: up to three lines of one paragraph, with a colon at the end."""
    end = len(kept)
    while end and not kept[end - 1].strip():
        end -= 1
    if not end or kept[end - 1].rstrip()[-1] not in ":\uff1a":
        return
    for start in range(end - 1, max(end - 1 - _ATTRIBUTION_LINES, -1), -1):
        if not kept[start].strip():
            return
        told = " ".join(kept[start:end])
        if _WHEN_OR_WHO.search(told) or _WROTE.search(folded(told)):
            # The time may stand in the line above that which has the name.
            while start and end - start < _ATTRIBUTION_LINES and _BEGINS.match(folded(kept[start - 1])):
                start -= 1
            del kept[start:]
            return


_WROTE = linear(rf"\b(?:{'|'.join(reply_words('quotation')['wrote'])})\b")
_BEGINS = re.compile(r"(?:on|am|le|el) .*\d")


def _ends_own(lines: Sequence[str], number: int) -> bool:
    line = lines[number]
    return (bool(line) and line[0] in "-_=* \t" and bool(_RULE.search(line))) or _is_header_block(lines, number)


def _is_header_block(lines: Sequence[str], number: int) -> bool:
    """Whether Outlook's "From: … Sent: … To: … Subject: …" begins here."""
    if _label(lines[number]) not in _FIRST:
        return False
    following = [_label(line) for line in lines[number + 1 : number + _BLOCK_LINES]]
    return len(_OTHERS.intersection(following)) >= 2


def _label(line: str) -> str:
    match = _LABEL.match(line)
    return folded(match.group(1)).strip() if match else ""


_FIRST = frozenset(reply_words("quotation")["first_label"])
_OTHERS = frozenset(reply_words("quotation")["other_label"])
