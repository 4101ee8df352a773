"""Fields of machine-readable reports: RFC 3464 and 6533 delivery status, RFC 5965 feedback reports.

Read as they are found, not as they should be: groups without their empty line, fields of one group apart, folding
without indentation, addresses without their type. Nothing here raises.
"""

import re
from dataclasses import dataclass, field

from bounce.mime import Headers, fields
from bounce.outcome import Action

MAX_GROUPS = 500
"""Recipients in one report: more than any MTA puts into one."""


@dataclass(slots=True)
class RecipientFields:
    """One per-recipient group of a delivery status."""

    address: str = field(default="", repr=False)
    original: str = field(default="", repr=False)
    action: Action | None = None
    status: str = ""
    diagnostic: str = field(default="", repr=False)
    remote_mta: str = ""


@dataclass(slots=True)
class DeliveryStatus:
    """The fields of one delivery-status part."""

    reporting_mta: str
    recipients: list[RecipientFields]


_RECIPIENT_FIELDS = frozenset({"final-recipient", "original-recipient", "x-actual-recipient"})


def delivery_status(body: bytes) -> DeliveryStatus:
    """What a delivery-status part says, per recipient; no recipients where it says nothing usable."""
    groups = [fields(_dedented(group)) for group in re.split(rb"\n[ \t]*\n", body, maxsplit=MAX_GROUPS)[:MAX_GROUPS]]
    mta = ""
    collected: list[Headers] = []
    for group in groups:
        for run in _runs(group):
            names = {name for name, _ in run}
            mta = mta or _typed(_first(run, "reporting-mta"))
            if names & _RECIPIENT_FIELDS:
                collected.append(run)
            elif collected:
                # A group that lost its recipient to a stray empty line belongs to the one before.
                collected[-1].extend(run)
    return DeliveryStatus(mta, [_recipient(run) for run in collected])


def _runs(group: Headers) -> list[Headers]:
    """`group` cut where a field that a recipient has once comes again: the empty line between two was lost."""
    runs: list[Headers] = [[]]
    seen: set[str] = set()
    for name, value in group:
        if name in seen and name in {"final-recipient", "original-recipient"}:
            runs.append([])
            seen = set()
        seen.add(name)
        runs[-1].append((name, value))
    return runs


def _dedented(group: bytes) -> bytes:
    group = group.lstrip(b"\n")
    return re.sub(rb"(?m)^[ \t]{1,40}([A-Za-z-]{1,40}:)", rb"\1", group) if group[:1] in (b" ", b"\t") else group


def _recipient(group: Headers) -> RecipientFields:
    firsts = dict(reversed(group))
    final, original, actual = (
        typed_address(firsts.get(name, "")) for name in ("final-recipient", "original-recipient", "x-actual-recipient")
    )
    diagnostics = [untyped_diagnostic(value) for name, value in group if name == "diagnostic-code"]
    # Sun's server gives the reason as a comment to the code.
    comment = firsts.get("status", "").partition("(")[2].rstrip(") ")
    if original and "." not in final.rpartition("@")[2]:
        # A name inside of the reporting host: what was sent to is the address.
        final = original
    return RecipientFields(
        address=final or original or actual,
        original=original,
        action=action(firsts.get("action", "")),
        status=status(firsts.get("status", "")),
        # A program's exit status is no text.
        diagnostic=" ".join(text for text in diagnostics if _WORD.search(text)) or comment,
        remote_mta=_typed(firsts.get("remote-mta", "")),
    )


_WORD = re.compile(r"[^\W\d]")


def _first(group: Headers, name: str) -> str:
    return next((value for known, value in group if known == name), "")


def _typed(value: str) -> str:
    """A host name without its type, its comment and its brackets: "dns; mx.example.com (192.0.2.1)"."""
    name = value.rpartition(";")[2].strip().partition(" ")[0].strip("<>()\"'.,")
    return name if re.fullmatch(r"[\w.:\[\]-]{1,255}", name) else ""


_ACTIONS: dict[str, Action] = {
    **{str(action): action for action in Action},
    "failure": Action.FAILED,
    "fail": Action.FAILED,
    "expired": Action.FAILED,
    "deliverable": Action.DELIVERED,
    "delay": Action.DELAYED,
    "deferred": Action.DELAYED,
}


def action(value: str) -> Action | None:
    """The Action field's meaning ("failed (bad address)" included), None where it has none."""
    word = re.match(r"\s*([a-z]{1,20})", value.lower())
    return _ACTIONS.get(word.group(1)) if word else None


# Three times as fast as a pattern that looks behind before it looks for the digit.
_STATUS = re.compile(r"([245])(?<![\d.][245])\s?\.\s?(\d{1,3})\s?\.\s?(\d{1,3})(?![\d.]*\d)")


def status(value: str) -> str:
    """The first enhanced status code in `value`, one of failure if there is one, or ""."""
    success = ""
    for kind, subject, detail in _STATUS.findall(value, 0, 4000):
        code = f"{kind}.{int(subject)}.{int(detail)}"
        if kind != "2":
            return code
        success = success or code
    return success


_HEXADECIMAL = re.compile(r"[0-9A-Fa-f]{1,6}")
_IN_BRACKETS = re.compile(r"<([^<>\s]{0,400}@[^<>\s]{1,400}|\"[^\"]{0,100}\"@[^<>\s]{1,400})>")
_SOURCE_ROUTE = re.compile(r"@[\w.-]{1,255}(?:,@[\w.-]{1,255}){0,8}:(?=[^\s:]{1,100}@)")
# Begins where a word begins and gives nothing back, so that a long word is looked at once.
_BARE = re.compile(
    r"(\"[^\"@]{1,100}\"@[^\s<>()\",;]{1,255}"
    r"|(?<![^\s<>()\",;:@])[^\s<>()\",;:@]{1,255}+(?::[^\s<>()\",;:@]{1,255}+)?+@[^\s<>()\",;:@]{1,255})"
)


def typed_address(value: str) -> str:
    """The address of an address field ("rfc822; <a@example.com> (comment)"), or ""."""
    kind, semicolon, rest = value.partition(";")
    text = (rest if semicolon and "@" not in kind else value)[:1000]
    if kind.strip().lower().startswith("utf-8"):
        text = _unescaped(text[:600])
    return address_in(text)


def _unescaped(text: str) -> str:
    """RFC 6533 §3, utf-8-addr-xtext: \\x{…} is the character of that number; what is none, or half of one, goes."""
    first, *others = text.split("\\x{")
    pieces = [first]
    for other in others:
        digits, _, rest = other.partition("}")
        number = int(digits, 16) if _HEXADECIMAL.fullmatch(digits) else 0
        pieces.append(chr(number) + rest if 0x20 < number < 0x110000 and not 0xD800 <= number < 0xE000 else rest)
    return "".join(pieces)


def address_in(text: str) -> str:
    """The first thing in `text` that has the form of an address, or ""."""
    if "@" not in text:
        return ""
    text = _SOURCE_ROUTE.sub("", text)
    match = _IN_BRACKETS.search(text) or _BARE.search(text)
    return clean_address(match.group(1)) if match else ""


_DOMAIN = re.compile(r"\[[\w.:]+\]|[^\W_](?:[\w.-]*[\w])?")


def clean_address(address: str) -> str:
    """`address` without what text around it left on it; "" where nothing sound remains."""
    address = address.strip().strip("<>'`").rstrip(".:,;?!").removeprefix("mailto:").removeprefix("smtp:")
    local, at, domain = address.rpartition("@")
    if not at or not local or not domain or len(address) > 320:
        return ""
    if not _DOMAIN.fullmatch(domain):
        return ""
    return address


_DIAGNOSTIC_TYPE = re.compile(r"\s*[A-Za-z0-9_.-]{1,40}\s*;\s*")


def untyped_diagnostic(value: str) -> str:
    """A Diagnostic-Code's text without its type ("smtp;")."""
    return _DIAGNOSTIC_TYPE.sub("", value, count=1) if _DIAGNOSTIC_TYPE.match(value) else value.strip()


_REPLY_CODE = re.compile(r"([45]\d\d)(?<![.,:/\w-]\d\d\d)(?=[\s:;,.\)\]-]|$)(?!\.\d|[\d:,])")


def reply_code(text: str) -> int:
    """The first thing in `text` that reads as an SMTP reply code of a failure, or 0."""
    match = _REPLY_CODE.search(text[:2000])
    return int(match.group(1)) if match else 0


@dataclass(slots=True)
class FeedbackReport:
    """RFC 5965: one complaint."""

    feedback_type: str
    recipients: list[str] = field(repr=False)
    fields: Headers = field(repr=False)

    def first(self, name: str) -> str:
        """The first value of field `name` (in lower case), or ""."""
        return _first(self.fields, name)

    def bare(self, name: str) -> str:
        """The first value of a field that holds a host or an IP address, without its type and comment."""
        return re.sub(r"\([^)]*\)?", "", self.first(name).rpartition(";")[2]).strip()

    def all(self, name: str) -> list[str]:
        """Every value of field `name` (in lower case)."""
        return [value for known, value in self.fields if known == name]


_COMPLAINANTS = ("original-rcpt-to", "removal-recipient", "x-original-rcpt-to", "original-recipient")


def feedback_report(body: bytes) -> FeedbackReport:
    """The fields of a feedback report; its type is in lower case, "" where it is missing."""
    found = fields(body.strip(b"\n"))
    kind = re.match(r"[\s\"']*([\w-]{0,40})", _first(found, "feedback-type"))
    people = [typed_address(value) for name, value in found if name in _COMPLAINANTS]
    return FeedbackReport(kind.group(1).lower() if kind else "", [person for person in people if person], found)
