"""What a message turned out to be: the values that the reader gives and the policy takes."""

from dataclasses import dataclass, field
from enum import StrEnum

from bounce.fields import FeedbackReport
from bounce.outcome import Action, BounceClass


class Kind(StrEnum):
    """What a message is."""

    BOUNCE = "bounce"
    DELAY = "delay"
    COMPLAINT = "complaint"
    OPT_OUT = "opt-out"
    AUTH_FAILURE = "auth-failure"
    AUTO_REPLY = "auto-reply"
    UNSUBSCRIBE = "unsubscribe"
    CHALLENGE = "challenge"
    RECEIPT = "receipt"
    OTHER = "other"


class RecognisedBy(StrEnum):
    """How a recipient was recognised, the most trusted first."""

    TOKEN = "token"  # noqa: S105 - a kind of evidence, no secret
    REPORT = "report"
    HEADER = "header"
    ORIGINAL = "original"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient that a message reports on.

    `address` is as reported ("" where only our token names the person), `original` the address that was sent to where
    the report tells both. `diagnostic` is as received: `outcome.redact` it before it is logged or stored. `certain` is
    False where a sole witness says it who is often wrong (see `reader`).
    """

    address: str = field(repr=False)
    action: Action | None
    status: str
    reply_code: int
    remote_mta: str
    diagnostic: str = field(repr=False)
    bounce_class: BounceClass
    permanent: bool
    recognised_by: RecognisedBy
    certain: bool = False
    original: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Reading:
    """One message, read.

    `token` is what `own` made of the first of our token addresses, None without one. `feedback_type` is that of an
    RFC 5965 report in lower case, "dmarc-aggregate" or "tls-report" for those reports, else "". `reports` are the
    fields of all feedback reports in the message.
    """

    kind: Kind
    recipients: tuple[Recipient, ...] = ()
    feedback_type: str = ""
    token: object | None = field(default=None, repr=False)
    token_found_in: str = ""
    reporting_mta: str = ""
    reports: tuple[FeedbackReport, ...] = field(default=(), repr=False)


Judgement = tuple[Kind, str, list[Recipient]]
"""Kind, feedback type and recipients: what the reader's parts give."""
