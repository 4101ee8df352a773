"""What an attempt's outcome makes of a recipient: final, deferred or expired, and whether its sender is told."""

import pytest

from bounce.outcome import Action, BounceClass
from mta.lease import Lease, RetryPolicy, expire, give_back, settle, withhold
from mta.queue import Completion, FinalState
from tests.support.leases import NOW, lease, outcome

POLICY = RetryPolicy((60.0, 300.0, 900.0), jitter=0.1, delay_notice_seconds=600.0)
SILENT = RetryPolicy((60.0,), jitter=0.0, delay_notice_seconds=0.0, notices=False)


def settled(of: Lease, action: Action, *, now: float = NOW + 1, policy: RetryPolicy = POLICY) -> Completion:
    return settle(of, outcome(action), policy, now=now, chance=0.5, site="mx.example.net")


@pytest.mark.parametrize(
    ("attempts", "chance", "seconds"),
    [
        (1, 0.5, 60.0), (1, 0.0, 54.0), (1, 1.0, 66.0), (2, 0.5, 300.0), (3, 0.5, 900.0), (3, 1.0, 990.0),
        (4, 0.5, 900.0), (32_000, 0.0, 810.0),
    ],
)  # fmt: skip
def test_the_retry_schedule(attempts: int, chance: float, seconds: float) -> None:
    assert POLICY.wait_seconds(attempts, chance) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("action", "state"),
    [
        (Action.DELIVERED, FinalState.DELIVERED),
        (Action.RELAYED, FinalState.DELIVERED),
        (Action.FAILED, FinalState.BOUNCED),
        (Action.DELAYED, None),
    ],
)
def test_the_state_that_follows_from_an_action(action: Action, state: FinalState | None) -> None:
    came_to = settled(lease(attempts=2), action)
    assert (came_to.state, came_to.attempts, came_to.at, came_to.tried) == (state, 3, NOW + 1, True)
    assert came_to.site == "mx.example.net"
    assert came_to.outcome is not None
    assert came_to.outcome.action is action


def test_a_completion_has_all_that_the_journal_needs() -> None:
    of = lease(message_id=99, ordinal=4, tenant_id=1, list_id=2, campaign_id=3, person=-6)
    came_to = settled(of, Action.FAILED)
    assert came_to.key == (99, 4)
    assert (came_to.tenant_id, came_to.list_id, came_to.campaign_id, came_to.person) == (1, 2, 3, -6)
    assert came_to.received_at == NOW


@pytest.mark.parametrize(("attempts", "wait"), [(0, 60), (1, 300), (2, 900), (9, 900)])
def test_a_deferral_is_due_after_the_wait_of_its_attempt(attempts: int, wait: int) -> None:
    assert settled(lease(attempts=attempts), Action.DELAYED).due_at == pytest.approx(NOW + 1 + wait)


def test_attempts_stay_within_their_column() -> None:
    assert settled(lease(attempts=32_000), Action.DELAYED).attempts == 32_000


def test_a_deferral_waits_for_a_site_that_rests_and_spreads_what_waited_for_it() -> None:
    waits = [
        settle(lease(), outcome(), POLICY, now=NOW, chance=chance, site="s", not_before=NOW + 1_800).due_at
        for chance in (0.0, 0.5, 1.0)
    ]
    assert waits == pytest.approx([NOW + 1_800, NOW + 1_830, NOW + 1_866])


def test_a_deferral_is_never_due_after_the_end_of_the_lifetime() -> None:
    of = lease(expires_at=NOW + 30)
    assert settled(of, Action.DELAYED).due_at == NOW + 30
    assert give_back(of, now=NOW, due_at=NOW + 900).due_at == NOW + 30


@pytest.mark.parametrize("late_by", [0.0, 1.0])
def test_a_temporary_failure_at_the_end_of_the_lifetime_is_an_expiry(late_by: float) -> None:
    of = lease()
    came_to = settled(of, Action.DELAYED, now=of.expires_at + late_by)
    assert (came_to.state, came_to.attempts, came_to.notice) == (FinalState.EXPIRED, 1, "failed")
    assert came_to.outcome is not None
    assert came_to.outcome.bounce_class is BounceClass.EXPIRED


@pytest.mark.parametrize("action", [Action.DELIVERED, Action.FAILED])
def test_what_a_peer_said_for_good_counts_after_the_lifetime_too(action: Action) -> None:
    of = lease()
    state = settled(of, action, now=of.expires_at + 1).state
    assert state in {FinalState.DELIVERED, FinalState.BOUNCED}


def test_expiry_without_an_attempt_keeps_the_count_and_says_what_was_last_heard() -> None:
    last = outcome(remote_mta="mx.example.org", diagnostic="mailbox full")
    came_to = expire(lease(attempts=4, last_outcome=last), POLICY, now=NOW + 9_999)
    assert (came_to.state, came_to.attempts) == (FinalState.EXPIRED, 4)
    assert came_to.outcome is not None
    assert came_to.outcome.action is Action.FAILED
    assert "mailbox full" in came_to.outcome.diagnostic


@pytest.mark.parametrize(
    ("notify", "success", "failure", "delay"),
    [
        ("", "", "failed", ""),
        ("NEVER", "", "", ""),
        ("SUCCESS", "relayed", "", ""),
        ("FAILURE", "", "failed", ""),
        ("DELAY", "", "", "delayed"),
        ("SUCCESS,FAILURE,DELAY", "relayed", "failed", "delayed"),
    ],
)
def test_notify_decides_which_notices_are_owed(notify: str, success: str, failure: str, delay: str) -> None:
    of = lease(notify=notify)
    assert settled(of, Action.DELIVERED).notice == success
    assert settled(of, Action.FAILED).notice == failure
    assert expire(of, POLICY, now=NOW + 9_999).notice == failure
    assert settled(of, Action.DELAYED, now=NOW + 600).notice == delay
    assert settled(of, Action.DELAYED, now=NOW + 599).notice == ""


def test_a_delay_is_reported_once() -> None:
    first = settled(lease(notify="DELAY"), Action.DELAYED, now=NOW + 700)
    assert (first.notice, first.delay_reported) == ("delayed", True)
    again = settled(lease(notify="DELAY", delay_reported=True), Action.DELAYED, now=NOW + 900)
    assert (again.notice, again.delay_reported) == ("", True)
    assert give_back(lease(delay_reported=True), now=NOW, due_at=NOW).delay_reported


def test_without_notices_nothing_is_owed() -> None:
    of = lease(notify="SUCCESS,FAILURE,DELAY")
    for action in (Action.DELIVERED, Action.FAILED, Action.DELAYED):
        assert settled(of, action, policy=SILENT, now=NOW + 1_000).notice == ""
    assert expire(of, SILENT, now=NOW).notice == ""


def test_nobody_is_told_of_a_suppression() -> None:
    came_to = withhold(lease(notify="SUCCESS,FAILURE,DELAY"), outcome(Action.FAILED), now=NOW)
    assert (came_to.state, came_to.notice, came_to.tried) == (FinalState.SUPPRESSED, "", False)


def test_what_is_given_back_has_not_been_attempted() -> None:
    last = outcome(diagnostic="before")
    came_to = give_back(lease(attempts=3, last_outcome=last), now=NOW, due_at=NOW + 5, site="s")
    assert (came_to.state, came_to.attempts, came_to.tried, came_to.due_at) == (None, 3, False, NOW + 5)
    assert came_to.outcome is last


def test_no_repr_holds_the_address() -> None:
    assert "anna" not in repr(lease())
