"""The outcome of one attempt for one recipient, in the words of RFC 3463 and RFC 3464.

Logs, events, retries, bounces and suppression all read this one value. `Outcome` never carries an address: its
diagnostic goes through `redact` first, whoever builds it. Values are plain JSON both ways (`as_dict`, `from_dict`).
"""

import base64
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from bounce.patterns import linear

DIAGNOSTIC_CHARACTERS = 500
"""Longest diagnostic text that an outcome carries: a remote server chose it, and it is stored per recipient."""

_REDACT_CHARACTERS = 8 * DIAGNOSTIC_CHARACTERS
_REDACTED = "<address>"


class BounceClass(StrEnum):
    """Why mail was not delivered, as far as code and text tell."""

    NONE = "none"
    UNKNOWN_USER = "unknown-user"
    UNKNOWN_HOST = "unknown-host"
    NULL_MX = "null-mx"
    MAILBOX_DISABLED = "mailbox-disabled"
    MAILBOX_FULL = "mailbox-full"
    MOVED = "moved"
    POLICY = "policy"
    CONTENT = "content"
    AUTHENTICATION = "authentication"
    REPUTATION = "reputation"
    RATE_LIMITED = "rate-limited"
    GREYLISTED = "greylisted"
    TOO_LARGE = "too-large"
    TLS_REQUIRED = "tls-required"
    SMTPUTF8_UNSUPPORTED = "smtputf8-unsupported"
    RELAYING_DENIED = "relaying-denied"
    ROUTING_LOOP = "routing-loop"
    SYSTEM = "system"
    NETWORK = "network"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"
    OTHER = "other"


class Action(StrEnum):
    """What the reporting MTA did, RFC 3464 §2.3.3."""

    DELIVERED = "delivered"
    DELAYED = "delayed"
    FAILED = "failed"
    RELAYED = "relayed"
    EXPANDED = "expanded"


class Trouble(StrEnum):
    """Whom a failure concerns: what else it is worth trying, now or ever, with the same peer."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    SESSION = "session"
    SITE = "site"


class Stage(StrEnum):
    """Where in the delivery the outcome was decided."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"
    RSET = "rset"
    ROUTE = "route"
    SIGN = "sign"
    EXPIRY = "expiry"
    SUPPRESSION = "suppression"
    ORDER = "order"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recipient in one attempt.

    `status` is an enhanced status code ("5.1.1"), `reply_code` the SMTP reply (0: there was none), `diagnostic` is
    redacted, printable and at most `DIAGNOSTIC_CHARACTERS` long, `remote_mta` a host name or "".
    """

    action: Action
    status: str
    reply_code: int
    diagnostic: str
    remote_mta: str
    bounce_class: BounceClass
    trouble: Trouble
    stage: Stage

    @property
    def permanent(self) -> bool:
        """True when this recipient must not be tried again."""
        return self.action is Action.FAILED

    def as_dict(self) -> dict[str, str | int]:
        """Plain JSON values; `from_dict` gives the same outcome back."""
        return {
            "action": self.action.value,
            "status": self.status,
            "reply_code": self.reply_code,
            "diagnostic": self.diagnostic,
            "remote_mta": self.remote_mta,
            "bounce_class": self.bounce_class.value,
            "trouble": self.trouble.value,
            "stage": self.stage.value,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The outcome that `as_dict` described. Raises KeyError or ValueError for anything else."""
        return cls(
            action=Action(values["action"]),
            status=str(values["status"]),
            reply_code=int(values["reply_code"]),
            diagnostic=str(values["diagnostic"]),
            remote_mta=str(values["remote_mta"]),
            bounce_class=BounceClass(values["bounce_class"]),
            trouble=Trouble(values["trouble"]),
            stage=Stage(values["stage"]),
        )


# One run of characters on each side of an "@", however the "@" is written (percent, quoted-printable, xtext, HTML). By
# re2: a server may send kilobytes without an "@", and that must not cost the square of them.
_AT_MARKS = ("@", "\uff20", "%40", "=40", "+40", "&#64;", "&commat;")
_AT = r"(?:@|\x{ff20}|%40|=40|\+40|&#64;|&commat;)"
_ATOM = r"[^\s<>()\[\],;\"'@\x{ff20}]+"
_ADDRESS = linear(rf"(?i)\"[^\"\n]*\"{_AT}{_ATOM}|{_ATOM}{_AT}(?:{_ATOM}|\[[^\]\s]*\])")
# In links to a server's own pages: base64 of an address, alone or in a query. Its other characters come with "?", ">"
# and "~" only, and are what such a word ends at.
_BASE64 = linear(r"[A-Za-z0-9]{16,}")
_LONG_WORD = re.compile(r"[A-Za-z0-9]{16}")
# Brackets that stood around an address, and the domain of one whose local part alone was known.
_AROUND = re.compile(r"<<address>(?:@[^\s<>]+)?>|<address>@[^\s<>]+")
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def printable(text: str) -> str:
    """`text` on one line: every run of white space and control characters is one space."""
    return _UNPRINTABLE.sub(" ", text).strip()


def redact(text: str, recipient: str) -> str:
    """`text` for a log: printable, bounded, and every address in it replaced by "<address>".

    Replaced are the recipient and its local part in any case and in the encodings that servers quote them in, and
    everything else of the form x@y.
    """
    if len(text) > _REDACT_CHARACTERS:
        # The cut could leave half an address that no pattern knows any more, so that its word goes too.
        text = text[:_REDACT_CHARACTERS].rpartition(" ")[0]
    text = printable(text)
    lowered = text.lower()
    # Most replies quote no address: looking first saves compiling a pattern for each recipient.
    quoted = [spelling for spelling in _spellings(recipient) if spelling.lower() in lowered]
    if quoted:
        known = "|".join(re.escape(spelling) for spelling in sorted(quoted, key=len, reverse=True))
        text = re.sub(rf"(?<!\w)(?:{known})(?!\w)", _REDACTED, text, flags=re.IGNORECASE)
    if any(mark in lowered for mark in _AT_MARKS):
        text = _ADDRESS.sub(_REDACTED, text)
    text = _BASE64.sub(lambda word: _REDACTED if _hides_address(word[0]) else word[0], text)
    if _REDACTED in text:
        text = _AROUND.sub(_REDACTED, text)
    return text[:DIAGNOSTIC_CHARACTERS]


def may_quote(text: str, recipient: str) -> bool:
    """Whether `redact` could find something in a line: a quick no for nearly every reply to a success."""
    local = recipient.rpartition("@")[0]
    return "@" in text or not text.isprintable() or local.lower() in text.lower() or _LONG_WORD.search(text) is not None


def _hides_address(word: str) -> bool:
    """Whether a word is base64 of a text with an address in it."""
    whole = len(word) - (len(word) % 4 == 1)  # no base64 has such a length: the last character is not of it
    decoded = base64.b64decode(word[:whole] + "=" * (-whole % 4))
    return b"@" in decoded and decoded.isascii() and decoded.decode("ascii").isprintable()


def _spellings(recipient: str) -> set[str]:
    """Every way in which a server is known to quote `recipient` or its local part."""
    recipient = printable(recipient)
    local, at, _domain = recipient.rpartition("@")
    if not at:
        local = recipient
    plain = local.strip('"')
    encoded = base64.b64encode(recipient.encode("utf-8", "replace")).decode("ascii").rstrip("=")
    names = {recipient, local, plain, plain.partition("+")[0], encoded}
    names |= {urllib.parse.quote(name, safe="", errors="replace") for name in (recipient, local, plain)}
    return {name for name in names if name}
