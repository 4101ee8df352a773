"""RFC 3464 reports: for each recipient what the fields say, and what the text for people adds to them."""

from bounce.certainty import is_certain, is_contradicted, is_permanent, late
from bounce.classify import TEXT_CHARACTERS, Cause, share, shipped
from bounce.evidence import Evidence
from bounce.fields import RecipientFields, reply_code, status
from bounce.notices import failed_header, outsiders
from bounce.outcome import Action, BounceClass
from bounce.patterns import sayable
from bounce.reading import Judgement, Kind, Recipient, RecognisedBy
from bounce.text import Notice, failures
from bounce.vocabulary import DELAY


def delivery_status(evidence: Evidence, parted: Notice) -> Judgement:
    """What the delivery status in `evidence` says; the kind is that of the gravest action in it."""
    groups = _distinct(evidence.status.recipients if evidence.status else [])
    nameless = [group for group in groups if not group.address]
    if nameless:
        _name(nameless, evidence, parted)
    delayed = bool(DELAY.search(evidence.subject))
    told: dict[str, str] = {}
    if len(groups) > 1:
        told = {failure.address.lower(): failure.said for failure in failures(parted.text, ())}
    room = share(len(groups))
    recipients = [
        _reported_recipient(group, _said_of(group.address, told, parted, len(groups))[:room], parted, delayed, room)
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
    failed = failed_header(evidence) or [
        failure.address for failure in failures(parted.text, outsiders(evidence)) if failure.strong
    ]
    people = failed or evidence.people_of_original
    if len(people) == len(groups):
        for group, person in zip(groups, people, strict=True):
            group.address = person


def _reported_recipient(group: RecipientFields, prose: str, parted: Notice, delayed: bool, room: int) -> Recipient:
    action = group.action or _action_by(group.status, delayed)
    diagnostic = group.diagnostic[:room]
    known = status(diagnostic)
    # A generic x.0.0 in the field with a specific code in the diagnostic: the latter was copied, the former made up.
    code = known if known and group.status[1:] in {"", ".0.0", ".5.0"} else group.status or known
    said = diagnostic if diagnostic.strip() else prose
    cause = shipped().cause(said, code, reply_code(said))
    if cause.told_by not in {"text", "code"} and said is diagnostic and action is not Action.DELIVERED:
        better = shipped().cause(prose, code, reply_code(said))
        cause = better if better.told_by == "text" else cause
    if action in {Action.DELIVERED, Action.RELAYED, Action.EXPANDED}:
        cause = Cause(BounceClass.NONE, "")
    cause = late(cause, action)
    return Recipient(
        address=group.address,
        action=action,
        status=code,
        reply_code=reply_code(diagnostic),
        remote_mta=group.remote_mta,
        diagnostic=sayable(said),
        bounce_class=cause.bounce_class,
        permanent=is_permanent(action, code, reply_code(diagnostic), cause),
        recognised_by=RecognisedBy.REPORT,
        certain=(is_certain(cause, code, said, parted.text) or _looked_itself(group, cause, said))
        and not is_contradicted(prose, cause),
        original=group.original,
    )


def _looked_itself(group: RecipientFields, cause: Cause, said: str) -> bool:
    """The reporting host knows it from tables of its own: it names no host that it asked, and no reply.

    Exim has no code for that; of an unrouteable address it can't say which half is unknown, and either half will do.
    """
    named = cause.told_by == "text" or cause.bounce_class is BounceClass.UNKNOWN_HOST
    return named and not (group.remote_mta or group.diagnostic.strip() or reply_code(said))


def _action_by(code: str, delayed: bool) -> Action:
    if delayed:
        return Action.DELAYED
    return Action.DELIVERED if code.startswith("2") else Action.FAILED


def _said_of(address: str, told: dict[str, str], parted: Notice, count: int) -> str:
    """What the text for people says of this recipient; all of it, where there is but one."""
    return parted.text[:TEXT_CHARACTERS] if count == 1 else told.get(address.lower(), "")


def _kind_of(recipients: list[Recipient]) -> Kind:
    actions = {recipient.action for recipient in recipients}
    if Action.FAILED in actions:
        return Kind.BOUNCE
    return Kind.DELAY if Action.DELAYED in actions else Kind.RECEIPT
