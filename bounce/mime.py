"""A MIME reader for mail that others broke: it never raises, and its time is bounded by the size of the message.

The standard library's parser is right about right mail, but slow (1 ms for 4 kB), recursive, and loses a report when
headers, boundaries or line ends are damaged. This one looks no deeper than a report can be, cuts what is oversized,
and mends what mail systems are known to break: a blank line or an mbox line before the headers, a header that lost
its Content-Type, a boundary that is not the one announced, CR or CRLF or LF.
"""

import binascii
import codecs
import html
import itertools
import quopri
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bounce.patterns import sayable

MAX_DEPTH = 6
"""A report has three levels (multipart/report, message/rfc822, its parts); gateways wrap it once or twice."""
MAX_PARTS = 64
MAX_HEADER_BYTES = 64 * 1024
MAX_FIELDS = 400
MAX_VALUE_CHARACTERS = 8 * 1024
MAX_TEXT_BYTES = 64 * 1024
"""Of one part, before and after decoding: a diagnosis stands at the top."""
MAX_ENCODED_BYTES = 1 << 20
"""Of a message that was encoded whole: each level of such nesting decodes all of it again."""

Headers = list[tuple[str, str]]


@dataclass(slots=True)
class Entity:
    """A message or body part: header fields (names in lower case, values unfolded) and its undecoded body."""

    headers: Headers
    body: bytes
    content_type: str = "text/plain"
    children: list["Entity"] = field(default_factory=list)
    _firsts: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._firsts = dict(reversed(self.headers))

    def first(self, name: str) -> str:
        """The first value of `name` (in lower case), or ""."""
        return self._firsts.get(name, "")

    def all(self, name: str) -> list[str]:
        """Every value of `name` (in lower case)."""
        return [value for known, value in self.headers if known == name]

    def walk(self) -> Iterator["Entity"]:
        """This entity and all parts below it, in their order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def text(self, prepare: Callable[[str], str] = str) -> str:
        """The body as text: transfer encoding and charset undone, HTML reduced to its words after `prepare`."""
        decoded = _transfer_decoded(self.body[:MAX_TEXT_BYTES], self.first("content-transfer-encoding"))
        text = _charset_decoded(decoded[:MAX_TEXT_BYTES], parameter(self.first("content-type"), "charset"))
        return strip_html(prepare(text)) if self.content_type == "text/html" else text


_CR_IS_LF = bytes.maketrans(b"\r", b"\n")
_MBOX_LINES = 3


def parse(message: bytes) -> Entity:
    """The message's structure, whatever it is."""
    if b"\r\n" in message:
        message = message.replace(b"\r\n", b"\n")
    if b"\r" in message:
        message = message.translate(_CR_IS_LF)
    return _entity(mended_start(message), 0, "text/plain")


def mended_start(message: bytes) -> bytes:
    """`message` from its first header line on."""
    message = message.lstrip(b"\n \t\x00\xef\xbb\xbf")
    for _ in range(_MBOX_LINES):
        if not message.startswith((b"From ", b">From ")):
            break
        message = message.partition(b"\n")[2].lstrip(b"\n")
    return message


_MEDIA_TYPE = re.compile(r"[\w.+-]{1,80}/[\w.+-]{1,80}")


def _entity(data: bytes, depth: int, default_type: str) -> Entity:
    header_end = _header_end(data)
    entity = Entity(fields(data[: min(header_end, MAX_HEADER_BYTES)]), data[header_end:].removeprefix(b"\n"))
    announced = entity.first("content-type")
    media_type = _MEDIA_TYPE.match(announced)
    entity.content_type = media_type.group().lower() if media_type else default_type
    if depth < MAX_DEPTH:
        _add_children(entity, announced, depth)
    return entity


def _add_children(entity: Entity, announced: str, depth: int) -> None:
    if entity.content_type.startswith("multipart/"):
        default = "message/rfc822" if entity.content_type == "multipart/digest" else "text/plain"
        bodies = _split(entity.body, parameter(announced, "boundary"))
        entity.children = [_entity(body, depth + 1, default) for body in bodies]
    elif entity.content_type in {"message/rfc822", "message/global"} and entity.body:
        inner = entity.body
        if entity.first("content-transfer-encoding"):
            inner = _transfer_decoded(inner[:MAX_ENCODED_BYTES], entity.first("content-transfer-encoding"))
        entity.children = [_returned(mended_start(inner), depth)]
    elif not announced or entity.content_type == "text/plain":
        # The header that announced the parts was lost on the way; the parts are still there.
        boundary = _sniffed_boundary(entity.body)
        if boundary:
            entity.content_type = "multipart/mixed"
            entity.children = [_entity(body, depth + 1, "text/plain") for body in _split_at(entity.body, boundary)]


def _returned(data: bytes, depth: int) -> Entity:
    """A message within one. Of what was returned only the header counts, unless it is a report itself."""
    message = _entity(data, MAX_DEPTH, "text/plain")
    if depth == 0 or message.content_type == "multipart/report":
        _add_children(message, message.first("content-type"), depth + 1)
    return message


_HEADER = re.compile(rb"(?:[!-9;-~]{1,80}[ \t]*:[^\n]*(?:\n|\Z)|[ \t][^\n]*(?:\n|\Z)|>From [^\n]*\n)*+")


def _header_end(data: bytes) -> int:
    """Where the header block ends: at the first empty line, or at a line that can't belong to a header."""
    match = _HEADER.match(data, 0, MAX_HEADER_BYTES)
    end = match.end() if match else 0
    if end < MAX_HEADER_BYTES:
        return end
    # An oversized header: what is beyond the limit is skipped, not read as the body.
    empty = data.find(b"\n\n", end - 1)
    return len(data) if empty < 0 else empty + 1


# Long, many, and never asked for: only that they are there. Their values are "".
_UNREAD = frozenset(
    {
        *("received", "x-received", "dkim-signature", "x-google-dkim-signature", "domainkey-signature"),
        *("arc-seal", "arc-message-signature", "arc-authentication-results"),
    },
)


# A field and the lines that go on with it: folded ones, and those that are none.
_FIELD = re.compile(r"(?m)^([!-9;-~]{1,80})[ \t]*:([^\n]*(?:\n(?![!-9;-~]{1,80}[ \t]*:)[^\n]*)*)")


def fields(block: bytes) -> Headers:
    """Header fields of `block`, unfolded. A line that is neither a field nor folded is taken as folded."""
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError:
        text = "\n".join(_decoded_line(line) for line in block.split(b"\n"))
    found: Headers = []
    for match in _FIELD.finditer(text):
        name = match[1].lower()
        found.append((name, "" if name in _UNREAD else _value(match[2])))
        if len(found) >= MAX_FIELDS:
            break
    return found


def _decoded_line(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _value(folded: str) -> str:
    value = folded[: 2 * MAX_VALUE_CHARACTERS]
    if "\n" in value:
        value = " ".join([line.strip() for line in value.split("\n")])
    value = value.strip()[:MAX_VALUE_CHARACTERS]
    return _charset_decoded(value.encode("utf-8"), "iso-2022-jp") if "\x1b$" in value else value


def _split(body: bytes, boundary: str) -> list[bytes]:
    if boundary:
        parts = _split_at(body, boundary.encode("utf-8", "replace"))
        if parts:
            return parts
    sniffed = _sniffed_boundary(body)
    return _split_at(body, sniffed) if sniffed else [body]


def _split_at(body: bytes, boundary: bytes) -> list[bytes]:
    """The parts between lines that start with "--boundary"; the last may lack its end."""
    delimiter = b"--" + boundary
    starts: list[tuple[int, int]] = []
    position = 0 if body.startswith(delimiter) else body.find(b"\n" + delimiter) + 1
    while (position or body.startswith(delimiter)) and len(starts) <= MAX_PARTS:
        content = body.find(b"\n", position)
        closing = body.startswith(delimiter + b"--", position)
        starts.append((position, len(body) if content < 0 or closing else content + 1))
        if closing or content < 0:
            break
        following = body.find(b"\n" + delimiter, content)
        if following < 0:
            starts.append((len(body), len(body)))
            break
        position = following + 1
    return [body[content:end].removesuffix(b"\n") for (_, content), (end, _) in itertools.pairwise(starts)]


_SNIFF = re.compile(rb"(?:^|\n)--([^\s-][^\n]{0,200}|-{1,30}[^\s-][^\n]{0,200})\n(?:[Cc]ontent-[A-Za-z-]{2,40}:|\n?\n)")
_SNIFF_BYTES = 16 * 1024
_PREAMBLE_LINES = 6


def _sniffed_boundary(body: bytes) -> bytes:
    """The boundary of a multipart body that was not announced, or b"": a "--…" line before a Content- field.

    Only at the top: further down, such a line belongs to a message that is quoted.
    """
    match = _SNIFF.search(body[:_SNIFF_BYTES])
    if match is None or b"ontent-" not in body[match.start() : match.end() + 400]:
        return b""
    if body.count(b"\n", 0, match.start()) - body.count(b"\n\n", 0, match.start()) > _PREAMBLE_LINES:
        return b""
    boundary = match.group(1).rstrip()
    return boundary if body.find(b"\n--" + boundary, match.end(1)) >= 0 else b""


_PARAMETER = re.compile(r"[;\s]\s*([\w*-]{1,40})\s*=\s*(?:\"([^\"]{0,300})\"?|([^\s;\"]{1,300}))")


def parameter(value: str, name: str) -> str:
    """The parameter `name` of a Content-Type value, or ""; RFC 2231 continuations are joined."""
    if name not in value.lower():
        return ""
    joined = ""
    for match in _PARAMETER.finditer(value[:2000]):
        found = match.group(1).lower()
        if found in {name, name + "*"}:
            return match.group(2) or match.group(3) or ""
        if found.startswith(name + "*"):
            joined += match.group(2) or match.group(3) or ""
    return joined


def _transfer_decoded(data: bytes, encoding: str) -> bytes:
    encoding = encoding.strip().lower()
    if encoding == "base64":
        return _base64(data)
    if encoding == "quoted-printable":
        return quopri.decodestring(data) if len(data) <= MAX_TEXT_BYTES else binascii.a2b_qp(data)
    return data


_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")


def _base64(data: bytes) -> bytes:
    """What can be decoded of `data`; a body that turns out to be plain text comes back as it is."""
    if b" " in data[:76].strip():
        return data
    clean = _NOT_BASE64.sub(b"", data)
    clean = clean[: len(clean) // 4 * 4] if len(clean) % 4 == 1 else clean + b"=" * (-len(clean) % 4)
    try:
        return binascii.a2b_base64(clean)
    except binascii.Error:
        return data


# Codecs that are no charset of mail, or whose time is not linear.
_NO_CHARSETS = frozenset({"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"})


def _charset_decoded(data: bytes, charset: str) -> str:
    """Text by the announced charset, else by what the bytes look like; undecodable bytes never fail."""
    if data.isascii() and b"\x1b" not in data:
        return data.decode("ascii")
    if b"\x1b$" in data[:4096]:
        charset = "iso-2022-jp"
    try:
        name = codecs.lookup(charset.strip("'\" ").encode("ascii", "ignore").decode() or "utf-8").name
        if name not in _NO_CHARSETS and name not in {"ascii", "utf-8"}:
            # Some charsets can say halves of characters, which nothing after this can.
            return sayable(data.decode(name, "replace"))
    except (LookupError, ValueError, TypeError, AssertionError):
        pass
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


_ENCODED_WORD = re.compile(r"=\?([\w*.:-]{1,40})\?([bBqQ])\?([^?\s]{0,400})\?=(?:\s+(?==\?))?")


def decoded_words(value: str) -> str:
    """A header value with its RFC 2047 encoded words undone."""
    return _ENCODED_WORD.sub(_decoded_word, value[:4000]) if "=?" in value else value


def _decoded_word(match: re.Match[str]) -> str:
    charset, encoding, payload = match.groups()
    raw = payload.encode("utf-8", "replace")
    data = _base64(raw) if encoding in "bB" else quopri.decodestring(raw.replace(b"_", b" "))
    return _charset_decoded(data, charset.partition("*")[0])


# Patterns of Python's own, twice as fast as re2's door for what is replaced; each stops at the next "<", so that none
# looks at a text more than once.
_HIDDEN = re.compile(r"<(?:(style|script|head)\b|!--)", re.I)
_HIDDEN_ENDS = {
    name: re.compile(rf"</{name}\s{{0,9}}>" if name else "-->", re.I) for name in ("style", "script", "head", "")
}
_BLOCK = re.compile(r"<(?:br|/?(?:p|div|tr|li|h[1-6]|table|pre|ul|ol))\b[^<>]*>", re.I)
_TAG = re.compile(r"</?[a-zA-Z!][^<>@]*>")


def _shown(text: str) -> str:
    """`text` without style, script, head and comments; one that has no end hides nothing."""
    pieces, position, endless = [], 0, set[str]()
    for match in _HIDDEN.finditer(text):
        name = (match[1] or "").lower()
        if match.start() < position or name in endless:
            continue
        end = _HIDDEN_ENDS[name].search(text, match.end())
        if end is None:
            endless.add(name)
            continue
        pieces.append(text[position : match.start()])
        position = end.end()
    return " ".join([*pieces, text[position:]])


# No character, and more digits than int() takes.
_LONG_NUMBER = re.compile(r"&#[xX]?[0-9a-fA-F]{8,}")


def strip_html(text: str) -> str:
    """The words of an HTML text, block elements on lines of their own. Addresses in angle brackets stay."""
    text = _TAG.sub(" ", _BLOCK.sub("\n", _shown(text)))
    return html.unescape(_LONG_NUMBER.sub(" ", text)).replace("\xa0", " ")
