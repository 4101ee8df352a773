"""SMTP commands of a client, parsed (RFC 5321 §4.1, RFC 1870, 3461, 4865, 6152, 6531). Plain functions, no state.

Raises CommandError with the complete reply. No reply repeats what the client sent.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from suppression.digest import AddressError, normalise

MAX_PATH: Final = 256  # octets, RFC 5321 §4.5.3.1.3, with the angle brackets
MAX_LOCAL_PART: Final = 64  # octets, §4.5.3.1.1

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]"
_LOCAL_PART: Final = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*|\"(?:[^\x00-\x1f\x7f\"\\]|\\[\x20-\x7e])*\"")
_LABEL = r"[A-Za-z0-9_\x80-\U0010ffff](?:[A-Za-z0-9_\x80-\U0010ffff-]{0,61}[A-Za-z0-9_\x80-\U0010ffff])?"
_DOMAIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*|\[(?:IPv6:[0-9A-Fa-f:.]+|[0-9.]+)\]")
_PARAMETER: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e\x80-\U0010ffff]+))?")
_XTEXT: Final = re.compile(r"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})*")
_WITH_VALUE: Final = frozenset({"RET", "ENVID", "NOTIFY", "ORCPT", "HOLDFOR", "HOLDUNTIL"})
_HOLD_FOR: Final = re.compile(r"[0-9]{1,9}")
_HOLD_UNTIL: Final = re.compile(r"(?i)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)")
_NOTIFY: Final = frozenset({"SUCCESS", "FAILURE", "DELAY"})


class CommandError(Exception):
    """A command that is refused; reply is the whole answer, without CRLF. person: the recipient, where that is why."""

    def __init__(self, reply: str, reason: str = "syntax", person: int | None = None) -> None:
        super().__init__(reply)
        self.reply = reply
        self.reason = reason
        self.person = person


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL: the reverse-path (empty for the null sender) and its parameters. size is in octets, 0 when not given."""

    sender: str = field(repr=False)
    size: int = 0
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    hold_seconds: int = 0
    hold_until: float = 0.0

    def release_at(self, now: float) -> float:
        """When it may be delivered (RFC 4865), in epoch seconds; 0 for at once."""
        return now + self.hold_seconds if self.hold_seconds else self.hold_until if self.hold_until > now else 0.0


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT: the forward-path and RFC 3461's NOTIFY and ORCPT."""

    recipient: str = field(repr=False)
    notify: str = ""
    orcpt: str = field(default="", repr=False)


def parse_mail(argument: str) -> Mail:
    """Read what follows MAIL."""
    path, parameters = _split(argument, "FROM:", "501 5.5.4 Syntax: MAIL FROM:<address>")
    smtputf8 = "SMTPUTF8" in parameters
    values: dict[str, str] = {}
    for name, value in parameters.items():
        if name not in {"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH", "HOLDFOR", "HOLDUNTIL"}:
            raise CommandError("555 5.5.4 Unknown MAIL parameter")
        values[name] = value
    size = values.get("SIZE", "0")
    if not size.isascii() or not size.isdigit() or len(size) > 20:
        raise CommandError("501 5.5.4 SIZE takes a number of octets")
    body = values.get("BODY", "7BIT").upper()
    if body not in {"7BIT", "8BITMIME"}:
        raise CommandError("501 5.5.4 BODY is 7BIT or 8BITMIME")
    if smtputf8 and values["SMTPUTF8"]:
        raise CommandError("501 5.5.4 SMTPUTF8 takes no value")
    ret = values.get("RET", "").upper()
    if ret not in {"", "FULL", "HDRS"}:
        raise CommandError("501 5.5.4 RET is FULL or HDRS")
    envid = values.get("ENVID", "")
    if len(envid) > 100 or not _XTEXT.fullmatch(envid):
        raise CommandError("501 5.5.4 ENVID is xtext of up to 100 characters")
    sender = check_address(path, smtputf8=smtputf8) if path else ""
    return Mail(sender, int(size), body == "8BITMIME", smtputf8, ret, envid, *_hold(values))


def parse_rcpt(argument: str, *, smtputf8: bool) -> Rcpt:
    """Read what follows RCPT."""
    path, parameters = _split(argument, "TO:", "501 5.5.4 Syntax: RCPT TO:<address>")
    if not parameters.keys() <= {"NOTIFY", "ORCPT"}:
        raise CommandError("555 5.5.4 Unknown RCPT parameter")
    if path.lower() == "postmaster":
        raise CommandError("550 5.1.1 No mailbox here; postmaster's mail goes to the inbound listener", "recipient")
    notify = parameters.get("NOTIFY", "").upper()
    words = set(notify.split(",")) if notify else set()
    if words and words != {"NEVER"} and not words <= _NOTIFY:
        raise CommandError("501 5.5.4 NOTIFY is NEVER, or some of SUCCESS, FAILURE, DELAY")
    orcpt = parameters.get("ORCPT", "")
    if orcpt and (len(orcpt) > 500 or not re.fullmatch(r"[A-Za-z0-9-]+;\S+", orcpt)):
        raise CommandError("501 5.5.4 ORCPT is type;xtext of up to 500 characters")
    return Rcpt(check_address(path, smtputf8=smtputf8), notify, orcpt)


def check_address(path: str, *, smtputf8: bool) -> str:
    """The address itself, if it is well-formed and fits; raises CommandError."""
    local, _, domain = path.rpartition("@")
    if not smtputf8 and not path.isascii():
        raise CommandError("553 5.6.7 Address needs SMTPUTF8", "address")
    try:
        if len(path.encode()) > MAX_PATH - 2 or len(local.encode()) > MAX_LOCAL_PART:
            raise CommandError("501 5.1.3 Address is too long", "address")
        if not _LOCAL_PART.fullmatch(local) or not _DOMAIN.fullmatch(domain):
            raise CommandError("501 5.1.3 Address is not well-formed", "address")
        normalise(path)
    except (AddressError, UnicodeError):
        raise CommandError("501 5.1.3 Address is not well-formed", "address") from None
    return path


def _hold(values: dict[str, str]) -> tuple[int, float]:
    """HOLDFOR and HOLDUNTIL, of which there is at most one (RFC 4865 §4)."""
    span, until = values.get("HOLDFOR"), values.get("HOLDUNTIL")
    if span is not None and until is not None:
        raise CommandError("501 5.5.4 HOLDFOR or HOLDUNTIL, not both")
    if span is not None and not _HOLD_FOR.fullmatch(span):
        raise CommandError("501 5.5.4 HOLDFOR takes a number of seconds")
    if until is None:
        return int(span or 0), 0.0
    if not _HOLD_UNTIL.fullmatch(until):
        raise CommandError("501 5.5.4 HOLDUNTIL takes a time such as 2027-01-31T12:00:00Z")
    try:
        return 0, datetime.fromisoformat(until.upper()).timestamp()
    except (ValueError, OverflowError):
        raise CommandError("501 5.5.4 HOLDUNTIL takes a time such as 2027-01-31T12:00:00Z") from None


def _split(argument: str, keyword: str, syntax: str) -> tuple[str, dict[str, str]]:
    """The path without angle brackets and source route, and the parameters by upper-case name."""
    if argument[: len(keyword)].upper() != keyword:
        raise CommandError(syntax)
    rest = argument[len(keyword) :].lstrip(" ")
    if not rest.startswith("<"):
        raise CommandError(syntax)
    end = _closing(rest)
    if end < 0:
        raise CommandError(syntax)
    path, tail = rest[1:end], rest[end + 1 :]
    if path.startswith("@"):  # a source route, RFC 5321 appendix C: accepted and ignored
        path = path.partition(":")[2]
        if not path:  # nothing is left of it: that must not become the null sender
            raise CommandError("501 5.1.3 Address is not well-formed", "address")
    if tail and not tail.startswith(" "):
        raise CommandError(syntax)
    parameters: dict[str, str] = {}
    for word in tail.split():
        match = _PARAMETER.fullmatch(word)
        if match is None or match[1].upper() in parameters:
            raise CommandError("501 5.5.4 Parameters are keyword or keyword=value, each once")
        name, value = match[1].upper(), match[2] or ""
        if not value and name in _WITH_VALUE:
            raise CommandError(f"501 5.5.4 {name} takes a value")
        parameters[name] = value
    return path, parameters


def _closing(rest: str) -> int:
    """Where the angle bracket closes that rest opens; a quoted local part may hold one too."""
    quoted = False
    skip = False
    for place, character in enumerate(rest):
        if skip:
            skip = False
        elif quoted and character == "\\":
            skip = True
        elif character == '"':
            quoted = not quoted
        elif character == ">" and not quoted:
            return place
    return -1
