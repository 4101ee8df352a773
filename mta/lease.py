"""A recipient in the memory of the worker that leases it, and what an attempt's outcome makes of it.

settle() is the one place where an outcome becomes final, deferred or expired (D4), and where it is decided whether the
envelope sender is owed a notice (RFC 3461 §4.1, §5.2). Pure: chance and time are arguments.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bounce.outcome import Action, BounceClass, Outcome, Stage, Trouble
from bounce.trouble import expired
from mta.queue import Completion, FinalState
from mta.vault import Address
from suppression.digest import MessageClass


@dataclass(slots=True, eq=False)
class Lease:
    """One recipient of one message, ours until it is settled. Times in epoch seconds."""

    message_id: int
    ordinal: int
    tenant_id: int
    list_id: int
    campaign_id: int
    message_class: MessageClass
    person: int
    keys: tuple[int, ...]
    address: Address = field(repr=False)
    received_at: float
    expires_at: float
    attempts: int = 0
    delay_reported: bool = False
    last_outcome: Outcome | None = None
    scoped_at: int = 0  # which groups the keys know of (Scopes.position)
    due_at: float = 0.0  # ClaimedRow.due_at
    handed_at: float = 0.0  # when content and final dot of the last attempt were handed to the socket

    def completion(
        self,
        state: FinalState | None,
        outcome: Outcome | None,
        *,
        now: float,
        site: str,
        attempts: int | None = None,
        due_at: float = 0.0,
        delay_reported: bool = False,
        notice: str = "",
        tried: bool = False,
        attempt_seconds: float = 0.0,
        held: bool = False,
    ) -> Completion:
        """What this lease came to, with all that the journal needs to say it again."""
        return Completion(
            self.message_id,
            self.ordinal,
            state,
            self.attempts if attempts is None else attempts,
            now,
            outcome,
            site,
            due_at,
            delay_reported,
            notice,
            self.tenant_id,
            self.list_id,
            self.campaign_id,
            self.person,
            self.received_at,
            tried,
            attempt_seconds,
            held,
            self.due_at,
        )

    @property
    def domain(self) -> str:
        """The recipient's domain, as given."""
        return self.address.domain


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again. waits_seconds: before the second, third … attempt, the last one repeating."""

    waits_seconds: Sequence[float]
    jitter: float
    delay_notice_seconds: float
    notices: bool = True

    def wait_seconds(self, attempts: int, chance: float) -> float:
        """The wait after so many attempts (1 or more); chance in 0…1 spreads it by the jitter, both ways."""
        wait = self.waits_seconds[min(attempts, len(self.waits_seconds)) - 1]
        return wait * (1 + self.jitter * (2 * chance - 1))


_CANCELLED: Final = Outcome(
    Action.FAILED, "5.3.0", 0, "cancelled by the operator", "", BounceClass.OTHER, Trouble.MESSAGE, Stage.ORDER
)
_FINAL: Final = {
    Action.DELIVERED: FinalState.DELIVERED,
    Action.RELAYED: FinalState.DELIVERED,
    Action.FAILED: FinalState.BOUNCED,
}


def settle(
    lease: Lease,
    outcome: Outcome,
    policy: RetryPolicy,
    *,
    now: float,
    chance: float,
    site: str,
    not_before: float = 0.0,
    attempt_seconds: float = 0.0,
) -> Completion:
    """What this attempt's outcome makes of the recipient; not_before: when its site can be tried again at all."""
    attempts = min(lease.attempts + 1, 32_000)
    state = _FINAL.get(outcome.action)
    if state is not None:
        notice = _notice(lease, "relayed" if state is FinalState.DELIVERED else "failed", policy)
        # a delivery counts from its final dot, which is what the suppression log is compared with
        at = lease.handed_at if state is FinalState.DELIVERED and lease.handed_at else now
        return lease.completion(
            state,
            outcome,
            now=at,
            site=site,
            attempts=attempts,
            notice=notice,
            tried=True,
            attempt_seconds=attempt_seconds,
        )
    if now >= lease.expires_at:
        return expire(lease, policy, now=now, site=site, last=outcome, attempts=attempts)
    # an attempt at the very end of the lifetime would come too late: the expiry itself is the next thing to do
    wait = policy.wait_seconds(attempts, chance)
    due_at = min(max(now + wait, not_before + wait * chance), lease.expires_at)
    notice = ""
    if not lease.delay_reported and now - lease.received_at >= policy.delay_notice_seconds:
        notice = _notice(lease, "delayed", policy)
    reported = lease.delay_reported or bool(notice)
    return lease.completion(
        None,
        outcome,
        now=now,
        site=site,
        attempts=attempts,
        due_at=due_at,
        delay_reported=reported,
        notice=notice,
        tried=True,
        attempt_seconds=attempt_seconds,
    )


def expire(
    lease: Lease,
    policy: RetryPolicy,
    *,
    now: float,
    site: str = "",
    last: Outcome | None = None,
    attempts: int | None = None,
) -> Completion:
    """The recipient's lifetime is over."""
    outcome = expired(last or lease.last_outcome)
    notice = _notice(lease, "failed", policy)
    return lease.completion(FinalState.EXPIRED, outcome, now=now, site=site, attempts=attempts, notice=notice)


def withhold(lease: Lease, outcome: Outcome, *, now: float, site: str = "") -> Completion:
    """The recipient is suppressed: final, and nobody is told by mail."""
    return lease.completion(FinalState.SUPPRESSED, outcome, now=now, site=site)


def give_back(lease: Lease, *, now: float, due_at: float, site: str = "", outcome: Outcome | None = None) -> Completion:
    """Back to the queue without an attempt of its own, until its turn can really come."""
    due_at = min(due_at, lease.expires_at)
    reason = outcome or lease.last_outcome
    return lease.completion(None, reason, now=now, site=site, due_at=due_at, delay_reported=lease.delay_reported)


def hold(lease: Lease, *, now: float, site: str = "") -> Completion:
    """Set aside by an operator's order, as it was: no attempt was made."""
    return lease.completion(
        None, lease.last_outcome, now=now, site=site, due_at=now, delay_reported=lease.delay_reported, held=True
    )


def cancel(lease: Lease, *, now: float, site: str = "") -> Completion:
    """Cancelled by an operator's order: final. Told by mail only where NOTIFY=FAILURE was given in so many words."""
    notice = "failed" if "FAILURE" in lease.address.notify.split(",") else ""
    return lease.completion(FinalState.CANCELLED, _CANCELLED, now=now, site=site, notice=notice)


def _notice(lease: Lease, action: str, policy: RetryPolicy) -> str:
    """The action to report, or nothing: NOTIFY decides where it was given, else failures alone are reported."""
    wanted = {"relayed": "SUCCESS", "failed": "FAILURE", "delayed": "DELAY"}[action]
    asked = lease.address.notify.split(",") if lease.address.notify else ["FAILURE"]
    return action if policy.notices and wanted in asked else ""
