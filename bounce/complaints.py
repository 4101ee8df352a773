"""Complaints: RFC 5965 feedback reports, Microsoft's mails without one, and reports about domains that are none.

One mail may hold several reports; the gravest names the mail. Who complained is asked in this order: the report, the
headers that providers add, the returned message if it went to one person.
"""

from collections.abc import Sequence

from bounce.evidence import Evidence
from bounce.outcome import BounceClass
from bounce.patterns import Finder
from bounce.reading import Judgement, Kind, Recipient, RecognisedBy
from bounce.text import addresses

_OPT_OUTS = frozenset({"opt-out", "opt-out-list", "optout", "unsubscribe"})


_AUTH_FAILURES = frozenset({"auth-failure", "dkim", "dmarc", "spf", "auth-failure-report"})


def feedback(evidence: Evidence) -> Judgement:
    """One kind for the mail, the gravest of its reports; recipients of all."""
    types = [report.feedback_type for report in evidence.reports]
    kind, main = gravest(types)
    counted = [name for name in types if gravest([name])[0] in {Kind.COMPLAINT, Kind.OPT_OUT}]
    return kind, main, _people(evidence, counted or types)


def gravest(types: Sequence[str]) -> tuple[Kind, str]:
    """What feedback types (at least one, in lower case) make of a mail, and which of them does."""
    by_gravity = sorted(types, key=_gravity)
    return _FEEDBACK_KINDS[_gravity(by_gravity[0])], by_gravity[0]


def _gravity(feedback_type: str) -> int:
    if feedback_type in _AUTH_FAILURES:
        return 2
    return 3 if feedback_type == "not-spam" else int(feedback_type in _OPT_OUTS)


_FEEDBACK_KINDS = (Kind.COMPLAINT, Kind.OPT_OUT, Kind.AUTH_FAILURE, Kind.OTHER)


def _people(evidence: Evidence, types: list[str]) -> list[Recipient]:
    people = _reported(evidence, types)
    if people:
        return [complaint(person, RecognisedBy.REPORT) for person in people]
    return [complaint(person, RecognisedBy.ORIGINAL) for person in complainants(evidence)]


def _reported(evidence: Evidence, types: list[str]) -> list[str]:
    people: dict[str, str] = {}
    for report in evidence.reports:
        if report.feedback_type in types:
            for person in report.recipients:
                people.setdefault(person.lower(), person)
    return list(people.values())


_COMPLAINANT_HEADERS = ("x-hmxmroriginalrecipient", "x-original-recipient", "x-rcpt-to", "x-envelope-to")


def complainants(evidence: Evidence) -> list[str]:
    """Who complained, where the report does not say: the recipients of the returned message, if one is named."""
    for name in _COMPLAINANT_HEADERS:
        found = [address for value in evidence.original_values(name) for address in addresses(value)]
        if found:
            return found[:1]
    people = [address for value in evidence.original_values("to")[:2] for address in addresses(value)]
    return people if len(people) == 1 else []


def is_microsoft_complaint(evidence: Evidence) -> bool:
    """JMRP: a bare message/rfc822 from the complaint desk, with the recipient in a header of its own."""
    if not evidence.has_original_part:
        return False
    if evidence.original_values("x-hmxmroriginalrecipient"):
        return True
    return "complaint about message from" in evidence.subject.lower() and "staff@" in evidence.sender.lower()


def complaint(address: str, by: RecognisedBy) -> Recipient:
    """A recipient of whom nothing failed: who complained, asked for an end, or is named beside it."""
    return Recipient(address, None, "", 0, "", "", BounceClass.NONE, False, by, certain=by is not RecognisedBy.TEXT)


_DMARC_SUBJECT = Finder(r"report[ _-]domain:|\bdmarc\b.{0,40}\b(?:aggregate|report)|aggregate report.{0,80}submitter")


# RFC 7489 §7.2.1.1: receiver "!" domain "!" begin "!" end, perhaps an identifier, and how it is packed.
_DMARC_FILE = Finder(r"!\d{1,12}!\d{1,12}\S{0,100}\.(?:xml|zip|gz)|!\S{0,200}\.xml")


def aggregate_report(evidence: Evidence) -> str:
    """RFC 7489 aggregate and RFC 8460 TLS reports: they speak of a domain, never of a person."""
    announced = evidence.top.first("content-type").lower()
    if "tlsrpt" in announced or any("tlsrpt" in attachment for attachment in evidence.attachments):
        return "tls-report"
    packed = ("gzip", "zip", "xml", "octet-stream")
    attached = [announced, *evidence.attachments]
    named = evidence.subject if evidence.has_original_part else f"{evidence.subject}\n{evidence.text[:500]}"
    if any(kind in attachment for attachment in attached for kind in packed) and (
        _DMARC_SUBJECT.search(named) or any(_DMARC_FILE.search(attachment) for attachment in attached)
    ):
        return "dmarc-aggregate"
    return ""
