"""Whether a failure lasts, and whether two witnesses agree on its cause.

"User unknown" in answer to the content, after RCPT had been accepted, is what filters say: there the claim stays, but
is not certain. A second witness is an enhanced code of its own, the command that was answered, or a text that nobody
writes for another reason.
"""

from bounce.classify import ABOUT_THE_PERSON, TEXT_CHARACTERS, Cause, shipped
from bounce.fields import status
from bounce.outcome import Action, BounceClass
from bounce.vocabulary import ANSWERED_DATA, ANSWERED_RCPT


def is_permanent(action: Action | None, code: str, reply: int, cause: Cause) -> bool:
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


def late(cause: Cause, action: Action | None) -> Cause:
    """A delay that nothing explains is a matter of time."""
    unexplained = cause.told_by not in {"text", "code"} and cause.bounce_class in {
        BounceClass.OTHER,
        BounceClass.POLICY,
    }
    return Cause(BounceClass.EXPIRED, "") if action is Action.DELAYED and unexplained else cause


_CODES_OF_PERSON = frozenset(
    {"1.0", "1.1", "1.2", "1.3", "1.6", "1.10", "1.351", "4.4", "4.1", "4.310", "4.312", "7.17", "7.18"}
)


def is_contradicted(prose: str, cause: Cause) -> bool:
    """The text for people gives another reason than the fields: one of the two is wrong."""
    if cause.bounce_class not in ABOUT_THE_PERSON:
        return False
    reasons = {rule.bounce_class for rule in shipped().matching(prose) if not rule.weak}
    return bool(reasons - {cause.bounce_class, BounceClass.EXPIRED}) and cause.bounce_class not in reasons


def is_certain(cause: Cause, code: str, said: str, prose: str) -> bool:
    """Whether a second witness stands beside the cause."""
    if cause.certain:
        return True
    if cause.told_by == "code":
        # Its only witness: the text speaks of something else.
        return False
    if code.partition(".")[2] in _CODES_OF_PERSON or status(said).partition(".")[2] in _CODES_OF_PERSON:
        return True
    if ANSWERED_DATA.search(said) or ANSWERED_DATA.search(prose[:TEXT_CHARACTERS]):
        return False
    return bool(ANSWERED_RCPT.search(said) or ANSWERED_RCPT.search(prose[:TEXT_CHARACTERS]))
