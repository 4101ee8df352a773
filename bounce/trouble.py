"""What a failure means, and for whom: this recipient, this message, this session, this site. The one place that says.

Every function returns an `Outcome` that holds no address. Unknown failure is temporary, so that an error nobody has
thought of can't lose mail. Nothing here raises, whatever the peer wrote.

Before the first MAIL nothing has been said about any recipient: a refusal at connect, greeting, EHLO or STARTTLS is
temporary even with a 5xx code (another MX host, or a later time, may take the mail), as in Postfix's smtp_trouble.c.
"""

import errno
import socket
import ssl

from bounce.classify import ABOUT_THE_PERSON, shipped
from bounce.outcome import Action, BounceClass, Outcome, Stage, Trouble, redact
from bounce.patterns import linear, sayable

_BEFORE_MAIL = frozenset({Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.STARTTLS})

_BEFORE_RCPT = _BEFORE_MAIL | {Stage.MAIL}

ABOUT_US = frozenset(
    {
        BounceClass.REPUTATION,
        BounceClass.RATE_LIMITED,
        BounceClass.NETWORK,
        BounceClass.SYSTEM,
        BounceClass.TLS_REQUIRED,
    },
)
"""Classes that another mail to the same site would meet too."""

_NEVER_FINAL = frozenset({BounceClass.GREYLISTED, BounceClass.TLS_REQUIRED})
"""Causes that pass by themselves, or by another session, even where the peer says 5xx."""

_PROTOCOL_ERRORS = frozenset({500, 502, 503})
"""Command unknown or out of sequence: the dialogue went wrong, which says nothing about the mail."""

_TOO_MANY_RECIPIENTS = linear(r"(?i)too many (recipients|rcpt)")

_ENHANCED = linear(r"(?m)(?:^|[\s#(\[])([245])\.(\d{1,3})\.(\d{1,3})(?:$|[\s:;,)\]-])")

_STATUS_OF_CLASS: dict[BounceClass, str] = {
    BounceClass.UNKNOWN_USER: "1.1",
    BounceClass.UNKNOWN_HOST: "1.2",
    BounceClass.NULL_MX: "1.10",
    BounceClass.MAILBOX_DISABLED: "2.1",
    BounceClass.MAILBOX_FULL: "2.2",
    BounceClass.MOVED: "1.6",
    BounceClass.POLICY: "7.1",
    BounceClass.CONTENT: "7.7",
    BounceClass.AUTHENTICATION: "7.26",
    BounceClass.REPUTATION: "7.1",
    BounceClass.RATE_LIMITED: "7.0",
    BounceClass.GREYLISTED: "7.0",
    BounceClass.TOO_LARGE: "3.4",
    BounceClass.TLS_REQUIRED: "7.10",
    BounceClass.SMTPUTF8_UNSUPPORTED: "6.7",
    BounceClass.RELAYING_DENIED: "7.1",
    BounceClass.ROUTING_LOOP: "4.6",
    BounceClass.SYSTEM: "3.0",
    BounceClass.NETWORK: "4.0",
    BounceClass.EXPIRED: "4.7",
}


def from_reply(stage: Stage, code: int, text: str, *, remote_mta: str, recipient: str) -> Outcome:
    """The meaning of an SMTP reply; `text` may have several lines, an enhanced code or none, and anything else.

    `recipient` is only used to keep it out of the diagnostic; "" where the reply concerns no single one.
    """
    text = sayable(text)
    if 200 <= code < 300:
        return _outcome(stage, code, text, remote_mta, recipient, BounceClass.NONE, Action.DELIVERED, "2.0.0")
    if not 400 <= code < 600:
        return _outcome(stage, code, text, remote_mta, recipient, BounceClass.SYSTEM, Action.DELAYED, "4.5.0")
    quoted = enhanced_status(text)
    bounce_class = shipped().cause(text, quoted, code, before_rcpt=stage in _BEFORE_RCPT).bounce_class
    action = Action.FAILED if _is_final(stage, code, text, bounce_class) else Action.DELAYED
    detail = quoted.partition(".")[2] or _STATUS_OF_CLASS.get(bounce_class, "0.0")
    status = f"{5 if action is Action.FAILED else 4}.{detail}"
    return _outcome(stage, code, text, remote_mta, recipient, bounce_class, action, status)


def enhanced_status(text: str) -> str:
    """The first enhanced status code in `text` ("5.1.1"), or "". Leading zeros are dropped, 5.0.0 may be returned."""
    match = _ENHANCED.search(sayable(text[:4000]))
    return "" if match is None else ".".join(str(int(match.group(part))) for part in (1, 2, 3))


def _is_final(stage: Stage, code: int, text: str, bounce_class: BounceClass) -> bool:
    if code < 500 or stage in _BEFORE_MAIL or stage is Stage.RSET:
        return False
    if bounce_class in _NEVER_FINAL or (code in _PROTOCOL_ERRORS and bounce_class is BounceClass.SYSTEM):
        return False
    # RFC 5321 §4.5.3.1.10: 552 to RCPT with this meaning asks for another transaction, as 452 does.
    return not (stage is Stage.RCPT and _TOO_MANY_RECIPIENTS.search(text[:4000]))


def _outcome(
    stage: Stage,
    code: int,
    text: str,
    remote_mta: str,
    recipient: str,
    bounce_class: BounceClass,
    action: Action,
    status: str,
) -> Outcome:
    return Outcome(
        action=action,
        status=status,
        reply_code=code,
        diagnostic=redact(text, recipient),
        remote_mta=remote_mta,
        bounce_class=bounce_class,
        trouble=_trouble(stage, code, text, bounce_class),
        stage=stage,
    )


def _trouble(stage: Stage, code: int, text: str, bounce_class: BounceClass) -> Trouble:
    """Whom it concerns; for a success, whose success it is."""
    if stage in _BEFORE_MAIL:
        return Trouble.SITE
    if code == 421:
        return Trouble.SITE if bounce_class in {BounceClass.REPUTATION, BounceClass.RATE_LIMITED} else Trouble.SESSION
    if stage is Stage.RSET or not 200 <= code < 600 or 300 <= code < 400:
        return Trouble.SESSION
    if code in _PROTOCOL_ERRORS and bounce_class is BounceClass.SYSTEM:
        return Trouble.SESSION
    if stage is Stage.RCPT:
        return _trouble_at_rcpt(text, bounce_class)
    one_mailbox = bounce_class is BounceClass.SYSTEM and _ABOUT_ONE_MAILBOX.search(text[:4000])
    if (one_mailbox or bounce_class in ABOUT_THE_PERSON) and stage is not Stage.MAIL:
        return Trouble.RECIPIENT
    return Trouble.SITE if bounce_class in ABOUT_US else Trouble.MESSAGE


def _trouble_at_rcpt(text: str, bounce_class: BounceClass) -> Trouble:
    """Blocklists are often asked at RCPT only; a rate may be the site's for us or the one mailbox's."""
    if bounce_class in {BounceClass.REPUTATION, BounceClass.TLS_REQUIRED}:
        return Trouble.SITE
    if bounce_class is BounceClass.RATE_LIMITED and not _ABOUT_ONE_MAILBOX.search(text[:4000]):
        return Trouble.SITE
    return Trouble.RECIPIENT


_ABOUT_ONE_MAILBOX = linear(r"(?i)\b(recipients?|rcpt|the user|this user|mailbox)\b")

_REFUSED = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EADDRNOTAVAIL})
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC})


def from_exception(stage: Stage, error: BaseException, *, remote_mta: str) -> Outcome:
    """The meaning of a failure without a reply; always temporary. Foreign exception texts are not quoted."""
    status, diagnostic, bounce_class = _without_reply(stage, error)
    trouble = Trouble.SITE if stage in _BEFORE_MAIL else Trouble.SESSION
    return Outcome(Action.DELAYED, status, 0, diagnostic, remote_mta, bounce_class, trouble, stage)


def _without_reply(stage: Stage, error: BaseException) -> tuple[str, str, BounceClass]:
    """Enhanced status, text and class; the more special exception first, as most are kinds of OSError."""
    where = f"at {stage}"
    if isinstance(error, ssl.SSLError):
        # Only errors that OpenSSL itself made have a reason.
        reason = getattr(error, "reason", None) or type(error).__name__
        return "4.7.5", f"TLS failed {where}: {redact(str(reason), '')}", BounceClass.TLS_REQUIRED
    if isinstance(error, TimeoutError):
        return "4.4.1" if stage is Stage.CONNECT else "4.4.2", f"timed out {where}", BounceClass.NETWORK
    if isinstance(error, socket.gaierror):
        return "4.4.3", f"host name lookup failed {where}", BounceClass.NETWORK
    if isinstance(error, EOFError | ConnectionError) and not _has_number(error, _REFUSED):
        return "4.4.2", f"connection lost {where}", BounceClass.NETWORK
    if isinstance(error, OSError) and error.errno in _OURS:
        return "4.3.1", f"out of local resources {where}: {errno.errorcode[error.errno]}", BounceClass.SYSTEM
    if isinstance(error, OSError):
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        return "4.4.1", f"network error {where}: {name}", BounceClass.NETWORK
    return "4.3.0", f"internal error {where}: {type(error).__name__}", BounceClass.SYSTEM


def _has_number(error: BaseException, numbers: frozenset[int]) -> bool:
    return isinstance(error, OSError) and error.errno in numbers


def expired(last: Outcome | None) -> Outcome:
    """The recipient's time is up; the last attempt's reason goes along. Final."""
    if last is None:
        return _local(Stage.EXPIRY, "5.4.7", "expired before the first attempt", BounceClass.EXPIRED)
    return Outcome(
        action=Action.FAILED,
        status="5.4.7",
        reply_code=last.reply_code,
        diagnostic=redact(f"expired; last attempt: {last.diagnostic}", ""),
        remote_mta=last.remote_mta,
        bounce_class=BounceClass.EXPIRED,
        trouble=Trouble.RECIPIENT,
        stage=Stage.EXPIRY,
    )


def suppressed() -> Outcome:
    """The recipient wants no such mail, by the suppression index. Final."""
    return _local(Stage.SUPPRESSION, "5.7.1", "recipient is suppressed", BounceClass.SUPPRESSED)


def null_mx() -> Outcome:
    """RFC 7505: the domain says that it takes no mail. Final."""
    return _local(Stage.ROUTE, "5.1.10", "the domain accepts no mail (null MX)", BounceClass.NULL_MX)


def no_such_domain() -> Outcome:
    """The DNS says, with authority, that the domain does not exist, or has neither MX nor address. Final."""
    return _local(Stage.ROUTE, "5.1.2", "no such domain", BounceClass.UNKNOWN_HOST)


def routing(status: str, diagnostic: str, bounce_class: BounceClass = BounceClass.NETWORK) -> Outcome:
    """Trouble on the way to a host, before any connection; `status` "5…" is final, anything else is temporary."""
    return _local(Stage.ROUTE, status, redact(diagnostic, ""), bounce_class)


def signing(diagnostic: str) -> Outcome:
    """The message should be signed and can't be: deferred, never sent unsigned."""
    return Outcome(
        Action.DELAYED, "4.7.0", 0, redact(diagnostic, ""), "", BounceClass.SYSTEM, Trouble.MESSAGE, Stage.SIGN
    )


def _local(stage: Stage, status: str, diagnostic: str, bounce_class: BounceClass) -> Outcome:
    action = Action.FAILED if status.startswith("5") else Action.DELAYED
    return Outcome(action, status, 0, diagnostic, "", bounce_class, Trouble.RECIPIENT, stage)
