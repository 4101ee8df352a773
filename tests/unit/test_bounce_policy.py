"""What follows from a bounce or complaint."""

import pytest

from bounce.outcome import Action, BounceClass, Outcome, Stage, Trouble
from bounce.policy import DAY_SECONDS, Policy, Step
from bounce.reading import Kind, Recipient, RecognisedBy
from suppression.digest import Kind as SuppressionKind

NOW = 100 * DAY_SECONDS
POLICY = Policy()


def recipient(bounce_class: BounceClass, *, permanent: bool = True, certain: bool = True) -> Recipient:
    return Recipient(
        "box@example.org", Action.FAILED, "5.0.0", 550, "", "", bounce_class, permanent, RecognisedBy.REPORT, certain
    )


def outcome(bounce_class: BounceClass, stage: Stage = Stage.RCPT, status: str = "5.0.0") -> Outcome:
    action = Action.FAILED if status.startswith("5") else Action.DELAYED
    return Outcome(action, status, 550, "", "", bounce_class, Trouble.RECIPIENT, stage)


@pytest.mark.parametrize("bounce_class", sorted(BounceClass))
def test_steps_by_class(bounce_class: BounceClass) -> None:
    at_once = {BounceClass.UNKNOWN_USER, BounceClass.UNKNOWN_HOST, BounceClass.MOVED}
    counted = {BounceClass.MAILBOX_DISABLED, BounceClass.MAILBOX_FULL, BounceClass.NULL_MX}
    expected = Step.SUPPRESS if bounce_class in at_once else Step.COUNT if bounce_class in counted else Step.NOTHING
    reported = POLICY.of_report(Kind.BOUNCE, recipient(bounce_class), authentic=True)
    answered = POLICY.of_outcome(outcome(bounce_class))
    assert reported.step is answered.step is expected
    assert (reported.kind is SuppressionKind.HARD_BOUNCE) == (expected is Step.SUPPRESS)
    assert reported.reason
    assert "@" not in reported.reason


@pytest.mark.parametrize("kind", sorted(set(Kind) - {Kind.BOUNCE, Kind.COMPLAINT, Kind.OPT_OUT}))
def test_only_bounces_and_complaints_can_suppress(kind: Kind) -> None:
    assert POLICY.of_report(kind, recipient(BounceClass.UNKNOWN_USER), authentic=True).step is Step.NOTHING


def test_complaints_and_opt_outs_suppress() -> None:
    person = recipient(BounceClass.NONE)
    complaint = POLICY.of_report(Kind.COMPLAINT, person, authentic=True)
    opt_out = POLICY.of_report(Kind.OPT_OUT, person, authentic=True)
    assert (complaint.step, complaint.kind) == (Step.SUPPRESS, SuppressionKind.COMPLAINT)
    assert (opt_out.step, opt_out.kind) == (Step.SUPPRESS, SuppressionKind.UNSUBSCRIBE)


@pytest.mark.parametrize("kind", [Kind.BOUNCE, Kind.COMPLAINT, Kind.OPT_OUT])
def test_what_anyone_could_have_written_does_nothing(kind: Kind) -> None:
    assert POLICY.of_report(kind, recipient(BounceClass.UNKNOWN_USER), authentic=False).step is Step.NOTHING


def test_a_doubtful_unknown_user_is_counted() -> None:
    doubtful = recipient(BounceClass.UNKNOWN_USER, certain=False)
    assert POLICY.of_report(Kind.BOUNCE, doubtful, authentic=True).step is Step.COUNT
    earlier = [NOW - DAY_SECONDS, NOW - 2 * DAY_SECONDS]
    third = POLICY.of_report(Kind.BOUNCE, doubtful, authentic=True, earlier=earlier, now=NOW)
    assert third.step is Step.SUPPRESS
    assert "3 times in 30 days" in third.reason


def test_a_temporary_failure_does_nothing() -> None:
    passing = recipient(BounceClass.UNKNOWN_USER, permanent=False)
    assert POLICY.of_report(Kind.BOUNCE, passing, authentic=True).step is Step.NOTHING
    assert POLICY.of_outcome(outcome(BounceClass.UNKNOWN_USER, status="4.1.1")).step is Step.NOTHING


def test_unknown_user_after_the_content_needs_its_code() -> None:
    assert POLICY.of_outcome(outcome(BounceClass.UNKNOWN_USER, Stage.DOT)).step is Step.COUNT
    assert POLICY.of_outcome(outcome(BounceClass.UNKNOWN_USER, Stage.DOT, "5.1.1")).step is Step.SUPPRESS


def test_counts_leave_the_window() -> None:
    full = recipient(BounceClass.MAILBOX_FULL)
    old = [NOW - 31 * DAY_SECONDS] * 5
    assert POLICY.of_report(Kind.BOUNCE, full, authentic=True, earlier=old, now=NOW).step is Step.COUNT
    assert (
        Policy(threshold=0).of_report(Kind.BOUNCE, full, authentic=True, earlier=[NOW] * 9, now=NOW).step is Step.COUNT
    )


def test_what_is_about_us_can_not_be_configured_to_suppress() -> None:
    with pytest.raises(ValueError, match="policy"):
        Policy(at_once=frozenset({BounceClass.POLICY}))
    with pytest.raises(ValueError, match="reputation"):
        Policy(counted=frozenset({BounceClass.REPUTATION, BounceClass.MAILBOX_FULL}))
