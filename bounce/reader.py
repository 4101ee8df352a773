"""One message in, one reading out: what it is, and for each recipient what became of it.

In order of trust: our token, RFC 3464 or 5965 fields, known headers (X-Failed-Recipients), the returned original's
header, then the text, by its layout. Ordinary mail that speaks of failures must stay `other`: text alone makes a
bounce only where a mail system sent it, and a person's address in it counts only where recipients stand.

`Recipient.certain` says whether two witnesses agree (text and enhanced code, text and the command it answered), or one
that is not mistaken for another. "User unknown" in answer to the content, after RCPT had been accepted, is what
filters say: there the claim stays, but is not certain. Never raises; time is bounded whatever the input.
"""

import re
from collections.abc import Callable

from bounce import evidence as ev
from bounce.classify import ABOUT_THE_PERSON, TEXT_CHARACTERS, Cause, shipped
from bounce.evidence import Evidence
from bounce.fields import RecipientFields, reply_code, status
from bounce.json_notice import sns_notice
from bounce.outcome import Action, BounceClass
from bounce.patterns import Finder, sayable
from bounce.reading import Kind, Reading, Recipient, RecognisedBy
from bounce.text import Failure, Notice, addresses, failures
from bounce.vocabulary import (
    ANSWERED_DATA,
    ANSWERED_RCPT,
    AUTO_REPLY_SUBJECT,
    CHALLENGE,
    DELAY,
    FAILED_WORDS,
    FAILURE_SUBJECT,
    GIVEN_UP,
    MAIL_SYSTEM,
    NO_REPLY,
    NOTICE_OPENING,
    PURE_MAIL_SYSTEM,
    UNSUBSCRIBE,
)

MAX_MESSAGE_BYTES = 10 << 20
"""What is longer is cut: a report stands before what it returns."""

_FORWARDED = Finder(
    r"^\s*(?:re|fwd?|aw|wg|sv|vs|rif|r|tr|antw|odp|res|enc|rv|ynt|回复|转发|答复|回覆|轉寄)\s*(?:\[\d+\])?\s*[:：]"
)


def read(message: bytes, own: Callable[[str], object | None] | None = None) -> Reading:
    """What `message` is. `own` gives the value of one of our token addresses or links, None for any other text."""
    evidence = ev.collect(message[:MAX_MESSAGE_BYTES])
    parted = ev.read_notice(evidence)
    value, where = ev.token(evidence, parted, own) if own else (None, "")
    kind, feedback_type, recipients = _judge(evidence, parted)
    if value is not None and not recipients and kind in {Kind.BOUNCE, Kind.DELAY, Kind.COMPLAINT, Kind.OPT_OUT}:
        # The person is known although every address was redacted or stripped.
        recipients = [_told("", parted.text, kind, RecognisedBy.TOKEN)]
    mta = evidence.status.reporting_mta if evidence.status else ""
    return Reading(kind, tuple(recipients), feedback_type, value, where, mta, tuple(evidence.reports))


_Judgement = tuple[Kind, str, list[Recipient]]


def _judge(evidence: Evidence, parted: Notice) -> _Judgement:
    """The most structured evidence decides."""
    if evidence.reports:
        return _feedback(evidence)
    aggregate = _aggregate_report(evidence)
    if aggregate:
        return Kind.OTHER, aggregate, []
    told = evidence.status is not None and bool(evidence.status.recipients)
    if told and not (evidence.status_is_prose and not _is_bounce_notice(evidence, parted)):
        return _delivery_status(evidence, parted)
    if evidence.disposition:
        return Kind.RECEIPT, "", []
    notification = sns_notice(evidence.text)
    if notification is not None:
        return notification
    if _is_microsoft_complaint(evidence):
        people = _complainants(evidence)
        return Kind.COMPLAINT, "abuse", [_complaint(person, RecognisedBy.HEADER) for person in people]
    return _prose(evidence, parted)


# -- RFC 5965 ---------------------------------------------------------------------------------------------------------

_OPT_OUTS = frozenset({"opt-out", "opt-out-list", "optout", "unsubscribe"})
_AUTH_FAILURES = frozenset({"auth-failure", "dkim", "dmarc", "spf", "auth-failure-report"})


def _feedback(evidence: Evidence) -> _Judgement:
    """One kind for the mail, the gravest of its reports; recipients of all."""
    types = [report.feedback_type for report in evidence.reports]
    counted = [kind for kind in types if kind not in _AUTH_FAILURES and kind != "not-spam"]
    if not counted:
        failure = next((kind for kind in types if kind in _AUTH_FAILURES), "")
        kind = Kind.AUTH_FAILURE if failure else Kind.OTHER
        people = _reported(evidence, types) or _complainants(evidence)
        return kind, failure or types[0], [_complaint(person, RecognisedBy.REPORT) for person in people]
    opted_out = all(kind in _OPT_OUTS for kind in counted)
    people = _reported(evidence, counted)
    by = RecognisedBy.REPORT
    if not people:
        people, by = _complainants(evidence), RecognisedBy.ORIGINAL
    main = next((kind for kind in counted if kind not in _OPT_OUTS), counted[0])
    return Kind.OPT_OUT if opted_out else Kind.COMPLAINT, main, [_complaint(person, by) for person in people]


def _reported(evidence: Evidence, types: list[str]) -> list[str]:
    people: dict[str, str] = {}
    for report in evidence.reports:
        if report.feedback_type in types:
            for person in report.recipients:
                people.setdefault(person.lower(), person)
    return list(people.values())


_COMPLAINANT_HEADERS = ("x-hmxmroriginalrecipient", "x-original-recipient", "x-rcpt-to", "x-envelope-to")


def _complainants(evidence: Evidence) -> list[str]:
    """Who complained, where the report does not say: the recipients of the returned message, if one is named."""
    for name in _COMPLAINANT_HEADERS:
        found = [address for value in evidence.original_values(name) for address in addresses(value)]
        if found:
            return found[:1]
    people = [address for value in evidence.original_values("to")[:2] for address in addresses(value)]
    return people if len(people) == 1 else []


def _is_microsoft_complaint(evidence: Evidence) -> bool:
    """JMRP: a bare message/rfc822 from the complaint desk, with the recipient in a header of its own."""
    if not evidence.has_original_part:
        return False
    if evidence.original_values("x-hmxmroriginalrecipient"):
        return True
    return "complaint about message from" in evidence.subject.lower() and "staff@" in evidence.sender.lower()


def _complaint(address: str, by: RecognisedBy) -> Recipient:
    return Recipient(address, None, "", 0, "", "", BounceClass.NONE, False, by, certain=by is not RecognisedBy.TEXT)


_DMARC_SUBJECT = Finder(r"report[ _-]domain:|\bdmarc\b.{0,40}\b(?:aggregate|report)|aggregate report.{0,80}submitter")


def _aggregate_report(evidence: Evidence) -> str:
    """RFC 7489 aggregate and RFC 8460 TLS reports: they speak of a domain, never of a person."""
    announced = evidence.top.first("content-type").lower()
    if "tlsrpt" in announced or any("tlsrpt" in attachment for attachment in evidence.attachments):
        return "tls-report"
    packed = ("gzip", "zip", "xml", "octet-stream")
    attached = [announced, *evidence.attachments]
    if any(kind in attachment for attachment in attached for kind in packed) and (
        _DMARC_SUBJECT.search(evidence.subject)
        or any("!" in attachment and ".xml" in attachment for attachment in attached)
    ):
        return "dmarc-aggregate"
    return ""


# -- RFC 3464 ---------------------------------------------------------------------------------------------------------


def _delivery_status(evidence: Evidence, parted: Notice) -> _Judgement:
    groups = _distinct(evidence.status.recipients if evidence.status else [])
    nameless = [group for group in groups if not group.address]
    if nameless:
        _name(nameless, evidence, parted)
    delayed = bool(DELAY.search(evidence.subject))
    told = {failure.address.lower(): failure.said for failure in failures(parted.text, ())}
    recipients = [
        _reported_recipient(group, _said_of(group.address, told, parted, len(groups)), parted, delayed)
        for group in groups
    ]
    return _kind_of(recipients), "", recipients


def _distinct(groups: list[RecipientFields]) -> list[RecipientFields]:
    """One group per recipient: a report that names one twice says it of one person; the later fills the gaps."""
    kept: dict[str, RecipientFields] = {}
    for number, group in enumerate(groups):
        first = kept.setdefault(group.address.lower() or f"#{number}", group)
        if first is not group:
            first.status, first.diagnostic = first.status or group.status, first.diagnostic or group.diagnostic
            first.action = first.action or group.action
    return list(kept.values())


def _name(groups: list[RecipientFields], evidence: Evidence, parted: Notice) -> None:
    """Groups whose Final-Recipient says nothing get their address from elsewhere, if that is unambiguous."""
    failed = _failed_header(evidence) or [
        failure.address for failure in failures(parted.text, _outsiders(evidence)) if failure.strong
    ]
    people = failed or evidence.people_of_original
    if len(people) == len(groups):
        for group, person in zip(groups, people, strict=True):
            group.address = person


def _reported_recipient(group: RecipientFields, prose: str, parted: Notice, delayed: bool) -> Recipient:
    action = group.action or _action_by(group.status, delayed)
    diagnostic = group.diagnostic
    known = status(group.diagnostic)
    # A generic x.0.0 in the field with a specific code in the diagnostic: the latter was copied, the former made up.
    code = known if known and group.status[1:] in {"", ".0.0", ".5.0"} else group.status or known
    said = diagnostic if diagnostic.strip() else prose
    cause = shipped().cause(said, code, reply_code(said))
    if cause.told_by not in {"text", "code"} and said is diagnostic and action is not Action.DELIVERED:
        better = shipped().cause(prose, code, reply_code(said))
        cause = better if better.told_by == "text" else cause
    if action in {Action.DELIVERED, Action.RELAYED, Action.EXPANDED}:
        cause = Cause(BounceClass.NONE, "")
    cause = _late(cause, action)
    return Recipient(
        address=group.address,
        action=action,
        status=code,
        reply_code=reply_code(diagnostic),
        remote_mta=group.remote_mta,
        diagnostic=sayable(said[:TEXT_CHARACTERS]),
        bounce_class=cause.bounce_class,
        permanent=_is_permanent(action, code, reply_code(diagnostic), cause),
        recognised_by=RecognisedBy.REPORT,
        certain=_is_certain(cause, code, said, parted.text) and not _is_contradicted(prose, cause),
        original=group.original,
    )


def _late(cause: Cause, action: Action | None) -> Cause:
    """A delay that nothing explains is a matter of time."""
    unexplained = cause.told_by not in {"text", "code"} and cause.bounce_class in {
        BounceClass.OTHER,
        BounceClass.POLICY,
    }
    return Cause(BounceClass.EXPIRED, "") if action is Action.DELAYED and unexplained else cause


def _action_by(code: str, delayed: bool) -> Action:
    if delayed:
        return Action.DELAYED
    return Action.DELIVERED if code.startswith("2") else Action.FAILED


def _said_of(address: str, told: dict[str, str], parted: Notice, count: int) -> str:
    """What the text for people says of this recipient; all of it, where there is but one."""
    said = told.get(address.lower(), "")
    if said:
        return said if count > 1 else f"{said} {parted.text[:TEXT_CHARACTERS]}"
    return parted.text[:TEXT_CHARACTERS] if count == 1 else ""


def _kind_of(recipients: list[Recipient]) -> Kind:
    actions = {recipient.action for recipient in recipients}
    if Action.FAILED in actions:
        return Kind.BOUNCE
    return Kind.DELAY if Action.DELAYED in actions else Kind.RECEIPT


def _is_permanent(action: Action | None, code: str, reply: int, cause: Cause) -> bool:
    """Whether the failure lasts: an enhanced code of class 5 or a 5xx reply, none of class 4, and no passing cause."""
    if action is not Action.FAILED or cause.bounce_class in {
        BounceClass.EXPIRED,
        BounceClass.GREYLISTED,
        BounceClass.NETWORK,
    }:
        return False
    if code:
        return code.startswith("5") and not (400 <= reply < 500)
    return not 400 <= reply < 500 and cause.bounce_class is not BounceClass.OTHER and not cause.expired


_CODES_OF_PERSON = frozenset(
    {"1.0", "1.1", "1.2", "1.3", "1.6", "1.10", "1.351", "4.4", "4.1", "4.310", "4.312", "7.17", "7.18"}
)


def _is_contradicted(prose: str, cause: Cause) -> bool:
    """The text for people gives another reason than the fields: one of the two is wrong."""
    if cause.bounce_class not in ABOUT_THE_PERSON:
        return False
    reasons = {rule.bounce_class for rule in shipped().matching(prose) if not rule.weak}
    return bool(reasons - {cause.bounce_class, BounceClass.EXPIRED}) and cause.bounce_class not in reasons


def _is_certain(cause: Cause, code: str, said: str, prose: str) -> bool:
    """Whether a second witness stands beside the cause."""
    if cause.certain:
        return True
    if code.partition(".")[2] in _CODES_OF_PERSON or status(said).partition(".")[2] in _CODES_OF_PERSON:
        return True
    if ANSWERED_DATA.search(said) or ANSWERED_DATA.search(prose[:TEXT_CHARACTERS]):
        return False
    return bool(ANSWERED_RCPT.search(said) or ANSWERED_RCPT.search(prose[:TEXT_CHARACTERS]))


# -- Text -------------------------------------------------------------------------------------------------------------


def _prose(evidence: Evidence, parted: Notice) -> _Judgement:
    if _is_bounce_notice(evidence, parted):
        if evidence.wrapped is not None and evidence.wrapped.recipients:
            evidence.status = evidence.wrapped
            return _delivery_status(evidence, parted)
        judged = _notice(evidence, parted)
        if judged is not None:
            return judged
    subject = evidence.subject.strip()
    first_line = next((line for line in parted.text.splitlines() if line.strip()), "")[:200]
    if UNSUBSCRIBE.search(subject) or (not subject and UNSUBSCRIBE.search(first_line)):
        senders = addresses(evidence.sender)[:1]
        return Kind.UNSUBSCRIBE, "", [_complaint(person, RecognisedBy.HEADER) for person in senders]
    if CHALLENGE.search(subject) or (_is_automatic(evidence) and CHALLENGE.search(parted.text[:TEXT_CHARACTERS])):
        return Kind.CHALLENGE, "", []
    if _is_automatic(evidence) or AUTO_REPLY_SUBJECT.search(subject):
        return Kind.AUTO_REPLY, "", []
    return Kind.OTHER, "", []


_AUTO_HEADERS = (
    "x-autoreply",
    "x-autorespond",
    "x-autoresponder",
    "x-auto-response",
    "x-mail-autoreply",
    "x-vacation",
    "x-autogenerated",
)


def _is_automatic(evidence: Evidence) -> bool:
    """RFC 3834 and its predecessors."""
    top = evidence.top
    submitted = top.first("auto-submitted").lower()
    if submitted.startswith(("auto-replied", "auto-generated")):
        return True
    if any(top.first(name) for name in _AUTO_HEADERS):
        return True
    return top.first("precedence").lower().strip() in {"auto_reply", "auto-reply"}


def _is_bounce_notice(evidence: Evidence, parted: Notice) -> bool:
    """Whether a mail system wrote this about mail that failed: who sent it, what it is called, what it has in it."""
    if evidence.top.first("x-failed-recipients"):
        return True
    subject = evidence.subject
    text = parted.text[:TEXT_CHARACTERS]
    if MAIL_SYSTEM.search(evidence.sender) and (_QUOTES_DIALOGUE.search(text) or NOTICE_OPENING.search(text)):
        return True
    if AUTO_REPLY_SUBJECT.search(subject) or _FORWARDED.search(subject):
        return False
    named = bool(FAILURE_SUBJECT.search(subject) or DELAY.search(subject))
    if PURE_MAIL_SYSTEM.search(evidence.sender) and (named or FAILED_WORDS.search(parted.text[:TEXT_CHARACTERS])):
        return True
    report = (
        "report-type" in evidence.top.first("content-type").lower() or evidence.top.content_type == "multipart/report"
    )
    if report and (named or evidence.null_sender):
        return True
    returned = bool(evidence.original)
    system = bool(MAIL_SYSTEM.search(evidence.sender))
    if named:
        return system or returned or evidence.null_sender
    # A postmaster may be a person, who writes about mail, and a person's auto-responder has the null sender: neither
    # returns the original below an address that stands as in a mail system's list of failures.
    if not returned or not (system or NO_REPLY.search(evidence.sender)):
        return False
    return any(failure.strong for failure in failures(parted.text, _outsiders(evidence)))


_QUOTES_DIALOGUE = Finder(r"(?:^|\n)\s*5\d\d[ -].*\n\s*rcpt to:|(?:^|\n)\s*(?:>>> )?rcpt to:.*\n\s*(?:<<< )?5\d\d[ -]")


def _notice(evidence: Evidence, parted: Notice) -> _Judgement | None:
    """The recipients that the notice names, None where it names none."""
    found, by = _named_failures(evidence, parted)
    if not found:
        return None
    delayed = _is_delay(evidence, parted)
    kind = Kind.DELAY if delayed else Kind.BOUNCE
    recipients = []
    for failure in found:
        said = failure.said
        if len(found) == 1 or not said.strip():
            said = f"{said}\n{parted.text}" if said.strip() else parted.text
        recipients.append(_told(failure.address, said, kind, by, failure.said))
    if not delayed and recipients and all(recipient.status.startswith("2") for recipient in recipients):
        return None
    return kind, "", recipients


def _is_delay(evidence: Evidence, parted: Notice) -> bool:
    if DELAY.search(evidence.subject):
        return True
    text = parted.text[:TEXT_CHARACTERS]
    return bool(DELAY.search(text)) and not GIVEN_UP.search(text)


def _named_failures(evidence: Evidence, parted: Notice) -> tuple[list[Failure], RecognisedBy]:
    """Whom the notice is about: known headers first, then the layout, then the one recipient of the original."""
    outsiders = _outsiders(evidence)
    laid_out = failures(parted.text, outsiders)
    headed = _failed_header(evidence)
    if headed and not _contradicted(headed, laid_out, evidence):
        said = {failure.address.lower(): failure.said for failure in laid_out}
        return [Failure(person, said.get(person.lower(), ""), True) for person in headed], RecognisedBy.HEADER
    people = evidence.people_of_original
    sent_to = {person.lower() for person in people}
    laid_out = [
        failure for failure in laid_out if not _ROLE.match(failure.address) or failure.address.lower() in sent_to
    ]
    strong = [failure for failure in laid_out if failure.strong]
    if strong:
        return strong, RecognisedBy.TEXT
    meant = [failure for failure in laid_out if failure.address.lower() in sent_to] or (
        laid_out if len(laid_out) == 1 else []
    )
    if meant:
        return meant, RecognisedBy.TEXT
    mentioned = list(
        dict.fromkeys(address.lower() for address in addresses(parted.text) if address.lower() not in outsiders)
    )
    if sent_to & set(mentioned):
        return [Failure(person, "", True) for person in people if person.lower() in mentioned], RecognisedBy.ORIGINAL
    if len(people) == 1:
        return [Failure(people[0], "", True)], RecognisedBy.ORIGINAL
    if len(mentioned) == 1 and not _ROLE.match(mentioned[0]):
        return [Failure(mentioned[0], "", False)], RecognisedBy.TEXT
    return [], RecognisedBy.TEXT


_ROLE = re.compile(
    r"(?:support|help|helpdesk|service|contact|info|postmaster|abuse|admin|administrator|hostmaster|webmaster|noc|security|no-?reply|mailer-daemon)[\w.+-]{0,20}@",
    re.I,
)


def _contradicted(headed: list[str], laid_out: list[Failure], evidence: Evidence) -> bool:
    """The text names none of the header's recipients but those of the original: an alias was expanded before."""
    named = {failure.address.lower() for failure in laid_out if failure.strong}
    sent_to = {person.lower() for person in evidence.people_of_original}
    return bool(named) and named <= sent_to and not named & {person.lower() for person in headed}


def _failed_header(evidence: Evidence) -> list[str]:
    """Recipients in headers that mail systems are known to use for them."""
    found: dict[str, str] = {}
    for name in ("x-failed-recipients", "x-failed-recipient", "x-undelivered-to"):
        for value in evidence.top.all(name)[:20]:
            for address in addresses(value):
                found.setdefault(address.lower(), address)
    return list(found.values())


def _outsiders(evidence: Evidence) -> set[str]:
    """Addresses that can't be the failed recipient: who reports, and to whom, unless the original was sent to it."""
    outsiders = {
        address.lower() for name in ("from", "to", "reply-to") for address in addresses(evidence.top.first(name))
    }
    outsiders |= {
        address.lower()
        for name in ("from", "return-path", "sender")
        for value in evidence.original_values(name)
        for address in addresses(value)
    }
    outsiders |= {address.lower() for address in addresses(evidence.text) if _ROLE.match(address)}
    return outsiders - {person.lower() for person in evidence.people_of_original}


def _told(address: str, said: str, kind: Kind, by: RecognisedBy, own_words: str = "") -> Recipient:
    """A recipient of whom only words are known."""
    said = said[:TEXT_CHARACTERS]
    code, reply = status(own_words) or status(said), reply_code(own_words) or reply_code(said)
    cause = shipped().cause(own_words, code, reply) if own_words.strip() else None
    if cause is None or cause.told_by != "text":
        wider = shipped().cause(said, code, reply)
        cause = wider if cause is None or wider.told_by == "text" else cause
    action = Action.DELAYED if kind is Kind.DELAY else Action.FAILED if kind is Kind.BOUNCE else None
    cause = _late(cause, action)
    return Recipient(
        address=address,
        action=action,
        status=code,
        reply_code=reply,
        remote_mta=_host_in(said),
        diagnostic=sayable(own_words[:TEXT_CHARACTERS] or said),
        bounce_class=cause.bounce_class,
        permanent=_is_permanent(action, code, reply, cause),
        recognised_by=by,
        certain=_is_certain(cause, code, said, ""),
    )


_HOST = re.compile(
    r"(?:\bhost|\bserver|talking to|remote host|by|at)[: ]{1,3}<?((?:[A-Za-z0-9_-]{1,63}\.){1,10}[A-Za-z]{2,63})\b"
)


def _host_in(text: str) -> str:
    match = _HOST.search(text[:TEXT_CHARACTERS])
    return match.group(1) if match else ""
