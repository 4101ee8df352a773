"""What follows for a person from a bounce or a complaint: suppress now, count, or nothing. Pure.

    at once   permanent and certain: unknown user, unknown host, moved; every complaint and opt-out
    counted   disabled and full mailboxes, null MX, and unknown users that only one doubtful witness claims:
              `threshold` of them within `window_days` suppress
    never     policy, content, authentication, reputation, rate, network, system, expired …: that is about us
    nothing   delays, auto-replies, receipts, auth-failure reports, and whatever came without a token of ours

A later success clears counts (the caller forgets them), never a suppression. An asynchronous bounce counts like one at
the dialogue. Every decision has a reason without any address, for `heed prove` and the log.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bounce.outcome import Action, BounceClass, Outcome, Stage
from bounce.reading import Kind, Recipient
from suppression.digest import Kind as SuppressionKind

DAY_SECONDS = 86_400.0


class Step(StrEnum):
    """What to do for this person."""

    SUPPRESS = "suppress"
    COUNT = "count"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Decision:
    """`kind` is that of the suppression entry; None unless `step` is SUPPRESS."""

    step: Step
    reason: str
    kind: SuppressionKind | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's choice. `threshold` counted bounces within `window_days` suppress; 0 never does."""

    at_once: frozenset[BounceClass] = frozenset({BounceClass.UNKNOWN_USER, BounceClass.UNKNOWN_HOST, BounceClass.MOVED})
    counted: frozenset[BounceClass] = frozenset(
        {BounceClass.MAILBOX_DISABLED, BounceClass.MAILBOX_FULL, BounceClass.NULL_MX},
    )
    threshold: int = 3
    window_days: int = 30

    def __post_init__(self) -> None:
        about_us = (self.at_once | self.counted) & _NEVER
        if about_us:
            names = ", ".join(sorted(about_us))
            raise ValueError(f"classes that say nothing about a person can't suppress: {names}")

    def of_outcome(self, outcome: Outcome, earlier: Sequence[float] = (), now: float = 0.0) -> Decision:
        """For a final answer at the dialogue. `earlier`: epoch seconds of this person's counted bounces."""
        if not outcome.permanent:
            return Decision(Step.NOTHING, f"{outcome.action}: not a permanent failure")
        certain = _is_certain_at(outcome.stage, outcome.status)
        return self._of_failure(outcome.bounce_class, outcome.status, certain, earlier, now)

    def of_report(
        self,
        kind: Kind,
        recipient: Recipient,
        *,
        authentic: bool,
        earlier: Sequence[float] = (),
        now: float = 0.0,
    ) -> Decision:
        """For one recipient of an inbound message. `authentic`: a valid token of ours came with it."""
        if kind not in {Kind.BOUNCE, Kind.COMPLAINT, Kind.OPT_OUT}:
            return Decision(Step.NOTHING, f"{kind}: says nothing lasting about the address")
        if not authentic:
            return Decision(Step.NOTHING, f"{kind} without a token of ours: anyone may have written it")
        if kind is Kind.COMPLAINT:
            return Decision(Step.SUPPRESS, "complaint: the person reported the mail", SuppressionKind.COMPLAINT)
        if kind is Kind.OPT_OUT:
            return Decision(Step.SUPPRESS, "opt-out: the person wants no more", SuppressionKind.UNSUBSCRIBE)
        if recipient.action is not Action.FAILED:
            return Decision(Step.NOTHING, f"{recipient.action or 'no action'}: not a failure")
        if not recipient.permanent and recipient.bounce_class not in self.counted:
            return Decision(Step.NOTHING, f"{recipient.bounce_class}: not permanent")
        return self._of_failure(recipient.bounce_class, recipient.status, recipient.certain, earlier, now)

    def _of_failure(
        self, bounce_class: BounceClass, status: str, certain: bool, earlier: Sequence[float], now: float
    ) -> Decision:
        said = f"{bounce_class} ({status})" if status else str(bounce_class)
        if bounce_class in self.at_once and certain:
            return Decision(Step.SUPPRESS, f"{said}: permanent", SuppressionKind.HARD_BOUNCE)
        if bounce_class not in self.at_once | self.counted:
            return Decision(Step.NOTHING, f"{said}: about the sender, the message or the way, not the person")
        since = now - self.window_days * DAY_SECONDS
        count = 1 + sum(since <= time <= now for time in earlier)
        if self.threshold and count >= self.threshold:
            reason = f"{said}: {count} times in {self.window_days} days"
            return Decision(Step.SUPPRESS, reason, SuppressionKind.HARD_BOUNCE)
        doubt = ", without a second witness" if bounce_class in self.at_once else ""
        return Decision(Step.COUNT, f"{said}{doubt}: {count} of {self.threshold} in {self.window_days} days")


_NEVER = frozenset(
    {
        BounceClass.NONE,
        BounceClass.POLICY,
        BounceClass.CONTENT,
        BounceClass.AUTHENTICATION,
        BounceClass.REPUTATION,
        BounceClass.RATE_LIMITED,
        BounceClass.GREYLISTED,
        BounceClass.TOO_LARGE,
        BounceClass.TLS_REQUIRED,
        BounceClass.RELAYING_DENIED,
        BounceClass.ROUTING_LOOP,
        BounceClass.SYSTEM,
        BounceClass.NETWORK,
        BounceClass.EXPIRED,
        BounceClass.SUPPRESSED,
        BounceClass.SMTPUTF8_UNSUPPORTED,
        BounceClass.OTHER,
    },
)

_CODES_OF_THE_ADDRESS = frozenset({"1.1", "1.2", "1.3", "1.6", "1.10"})


def _is_certain_at(stage: Stage, status: str) -> bool:
    """Whether an answer at this stage is one to the address: after RCPT was accepted, only the code can say so."""
    return stage in {Stage.RCPT, Stage.ROUTE} or status.partition(".")[2] in _CODES_OF_THE_ADDRESS
