"""The messages of tests/data/notices, and what reading them must give, for the tests that read and mutate them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bounce.classify import shipped
from bounce.evidence import collect
from bounce.fields import reply_code
from bounce.notices import is_automatic
from bounce.outcome import BounceClass
from bounce.policy import Policy, Step
from bounce.reader import read
from bounce.reading import Kind, Reading, Recipient, RecognisedBy
from bounce.report import messages
from bounce.vocabulary import MAIL_SYSTEM
from tests.support.mutations import from_other_hosts

NOTICES = Path(__file__).parents[1] / "data" / "notices"


@dataclass(frozen=True)
class Notice:
    """One message: `expected` is its X-Expected."""

    name: str
    expected: str
    message: bytes


def notices() -> Iterator[Notice]:
    """Every message of every file, in order, without its mbox line."""
    for file in sorted(NOTICES.glob("*.mbox")):
        for _, message in messages(str(file)):
            line, name, said = message.decode("utf-8").split("\n", 3)[:3]
            plain = message.removeprefix(line.encode() + b"\n")
            yield Notice(name.removeprefix("X-Name: "), said.removeprefix("X-Expected: "), plain)


def result(message: bytes) -> tuple[str, ...]:
    """What `message` says, and what follows, in values that a mutation must not change."""
    reading = read(message)
    people = [" ".join(fate(reading, recipient)) for recipient in reading.recipients]
    return (reading.kind, reading.feedback_type, *sorted(people))


def is_same(message: bytes, changed: bytes) -> bool:
    """Whether both give the same result, but for the hosts that `from_other_hosts` renames."""
    return [renamed(said) for said in result(message)] == [renamed(said) for said in result(changed)]


def renamed(said: str) -> str:
    """`said` with the hosts that `from_other_hosts` gives."""
    return from_other_hosts(said.encode()).decode()


def fate(reading: Reading, recipient: Recipient) -> tuple[str, ...]:
    """Of one recipient: the address, what happened, why, and the step."""
    step = Policy().of_report(reading.kind, recipient, authentic=True).step
    lasting = "permanent" if recipient.permanent else "passing"
    return (recipient.address, str(recipient.action), recipient.status, recipient.bounce_class, lasting, step)


def has_signs(message: bytes) -> bool:
    """Whether a report has another sign of a mail system than its subject: sender, report part, returned message."""
    reading, evidence = read(message), collect(message)
    if reading.kind not in {Kind.BOUNCE, Kind.DELAY, Kind.COMPLAINT, Kind.RECEIPT, Kind.AUTH_FAILURE}:
        return False
    returned = evidence.has_original_part or b"\nMessage-ID: " in message.partition(b"\n\n")[2]
    # A responder may have a mail system's name; under a subject that says nothing, its text is no notice.
    sender = MAIL_SYSTEM.search(evidence.sender) and not is_automatic(evidence)
    return sender or b"multipart/report" in message or returned


def is_kept_in_other_words(message: bytes, changed: bytes) -> bool:
    """Whether `changed`, a report with another prose, is read like `message`, as far as its fields tell.

    What prose alone can say may go with it: the reason, where no Diagnostic-Code and no specific Status gives one (or
    they only say that time ran out); and the second witness (which command was answered, another reason beside it), so
    that a suppression becomes a count or a count a suppression. Kind, people, actions and codes stay.
    """
    before, after = read(message), read(changed)
    if (before.kind, len(before.recipients)) != (after.kind, len(after.recipients)):
        return False
    return all(
        _is_kept(fate(before, old), fate(after, new), new)
        for old, new in zip(before.recipients, after.recipients, strict=True)
    )


def _is_kept(old: tuple[str, ...], new: tuple[str, ...], fields_only: Recipient) -> bool:
    cause = shipped().cause(fields_only.diagnostic, fields_only.status, reply_code(fields_only.diagnostic))
    if cause.told_by not in {"text", "code"} or cause.bounce_class is BounceClass.EXPIRED:
        return old[:3] == new[:3]
    return old[:-1] == new[:-1] and (old[-1] == new[-1] or {old[-1], new[-1]} == {Step.SUPPRESS, Step.COUNT})


def is_kept_without_original(message: bytes, changed: bytes) -> bool:
    """The same for the returned message. Gone with it may be whom only it named, a report that was in it, and the whole
    of a complaint that has no other part (Microsoft's).
    """
    before, after = read(message), read(changed)
    only_there = [r for r in before.recipients if r.recognised_by in {RecognisedBy.ORIGINAL, RecognisedBy.HEADER}]
    if after.kind is Kind.OTHER and before.kind is Kind.COMPLAINT:
        return not before.reports
    if before.kind is after.kind and b"\nFinal-Recipient" in message and b"\nFinal-Recipient" not in changed:
        return True
    return before.kind is after.kind and [fate(before, r) for r in before.recipients if r not in only_there] == [
        fate(after, r) for r in after.recipients if r not in only_there
    ]
