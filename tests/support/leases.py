"""Makers of leases, outcomes and completions for the tests of queue and delivery."""

from typing import Any

from bounce.outcome import Action, BounceClass, Outcome, Stage, Trouble
from mta.lease import Lease
from mta.queue import Completion, FinalState
from mta.vault import Address
from suppression.digest import MessageClass

NOW = 1_750_000_000.0


def outcome(action: Action = Action.DELAYED, **changes: Any) -> Outcome:
    """A peer's answer to RCPT."""
    status = {Action.FAILED: "5.1.1", Action.DELAYED: "4.2.0"}.get(action, "2.0.0")
    given: dict[str, Any] = {
        "status": status, "reply_code": 450, "diagnostic": "later", "remote_mta": "mx.example.net",
        "bounce_class": BounceClass.OTHER, "trouble": Trouble.RECIPIENT, "stage": Stage.RCPT,
    }  # fmt: skip
    return Outcome(action, **{**given, **changes})


def lease(*, notify: str = "", message_class: MessageClass = MessageClass.CAMPAIGN, **changes: Any) -> Lease:
    """A recipient received at NOW that lives an hour."""
    given: dict[str, Any] = {
        "message_id": 1, "ordinal": 0, "tenant_id": 7, "list_id": 9, "campaign_id": 3, "person": 5, "keys": (2, 4),
        "received_at": NOW, "expires_at": NOW + 3_600,
    }  # fmt: skip
    given |= changes
    return Lease(message_class=message_class, address=Address("anna@example.net", notify), **given)


def completion(message_id: int = 16, ordinal: int = 0, state: FinalState | None = None, **changes: Any) -> Completion:
    """A deferral by a minute, or a final state."""
    given: dict[str, Any] = {
        "attempts": 1, "at": NOW, "outcome": outcome(), "site": "mx.example.net", "due_at": NOW + 60, "tenant_id": 7,
        "list_id": 9, "campaign_id": 3, "person": 5, "received_at": NOW, "tried": True,
    }  # fmt: skip
    return Completion(message_id, ordinal, state, **{**given, **changes})
