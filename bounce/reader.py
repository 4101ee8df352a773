"""One message in, one reading out: what it is, and for each recipient what became of it.

In order of trust: our token, RFC 3464 or 5965 fields, known headers (X-Failed-Recipients), the returned original's
header, then the text, by its layout. Ordinary mail that speaks of failures must stay `other`. Never raises; time is
bounded whatever the input.

    evidence (mime, fields, text)  ─►  complaints | reports | notices  ─►  classify, certainty  ─►  Reading
"""

from collections.abc import Callable

from bounce import evidence as ev
from bounce.classify import TEXT_CHARACTERS
from bounce.complaints import aggregate_report, complainants, complaint, feedback, is_microsoft_complaint
from bounce.evidence import Evidence
from bounce.json_notice import sns_notice
from bounce.notices import is_automatic, is_bounce_notice, notice, said_of
from bounce.reading import Judgement, Kind, Reading, RecognisedBy
from bounce.reports import delivery_status
from bounce.text import Notice, addresses
from bounce.vocabulary import AUTO_REPLY_SUBJECT, CHALLENGE, UNSUBSCRIBE

MAX_MESSAGE_BYTES = 4 << 20
"""What is longer is cut: a report stands before what it returns, and is never as long."""


def read(message: bytes, own: Callable[[str], object | None] | None = None) -> Reading:
    """What `message` is. `own` gives the value of one of our token addresses or links, None for any other text."""
    evidence = ev.collect(message[:MAX_MESSAGE_BYTES])
    parted = ev.read_notice(evidence)
    value, where = ev.token(evidence, parted, own) if own else (None, "")
    kind, feedback_type, recipients = _judge(evidence, parted)
    if value is not None and not recipients and kind in {Kind.BOUNCE, Kind.DELAY, Kind.COMPLAINT, Kind.OPT_OUT}:
        # The person is known although every address was redacted or stripped.
        recipients = [said_of("", parted.text, kind, RecognisedBy.TOKEN)]
    mta = evidence.status.reporting_mta if evidence.status else ""
    return Reading(kind, tuple(recipients), feedback_type, value, where, mta, tuple(evidence.reports))


def _judge(evidence: Evidence, parted: Notice) -> Judgement:
    """The most structured evidence decides."""
    if evidence.reports:
        return feedback(evidence)
    aggregate = aggregate_report(evidence)
    if aggregate:
        return Kind.OTHER, aggregate, []
    told = evidence.status is not None and bool(evidence.status.recipients)
    if told and not (evidence.status_is_prose and not is_bounce_notice(evidence, parted)):
        return delivery_status(evidence, parted)
    if evidence.disposition:
        return Kind.RECEIPT, "", []
    notification = sns_notice(evidence.text)
    if notification is not None:
        return notification
    if is_microsoft_complaint(evidence):
        people = complainants(evidence)
        return Kind.COMPLAINT, "abuse", [complaint(person, RecognisedBy.HEADER) for person in people]
    return _prose(evidence, parted)


def _prose(evidence: Evidence, parted: Notice) -> Judgement:
    if is_bounce_notice(evidence, parted):
        if evidence.wrapped is not None and evidence.wrapped.recipients:
            evidence.status = evidence.wrapped
            return delivery_status(evidence, parted)
        judged = notice(evidence, parted)
        if judged is not None:
            return judged
    subject = evidence.subject.strip()
    first_line = next((line for line in parted.text.splitlines() if line.strip()), "")[:200]
    if UNSUBSCRIBE.search(subject) or (not subject and UNSUBSCRIBE.search(first_line)):
        senders = addresses(evidence.sender)[:1]
        return Kind.UNSUBSCRIBE, "", [complaint(person, RecognisedBy.HEADER) for person in senders]
    if (
        CHALLENGE.search(subject)
        or CHALLENGE.search(evidence.sender)
        or (is_automatic(evidence) and CHALLENGE.search(parted.text[:TEXT_CHARACTERS]))
    ):
        return Kind.CHALLENGE, "", []
    # A program sent what has the null path; what is no report of a mail system answers for a person.
    if is_automatic(evidence) or AUTO_REPLY_SUBJECT.search(subject) or evidence.null_sender:
        return Kind.AUTO_REPLY, "", []
    return Kind.OTHER, "", []
