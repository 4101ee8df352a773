"""What is counted against a person, and a delivery that clears it, however short a time events are kept."""

from datetime import timedelta
from pathlib import Path

import pytest

from bounce.outcome import Action, BounceClass
from mta.queue import FinalState
from suppression.digest import Kind
from tests.support.leases import completion, outcome
from tests.support.node import node

BOB = 5
DAY_SECONDS = 86_400.0


@pytest.mark.parametrize("retention_days", [7, 30])
@pytest.mark.parametrize(("delivered_days_ago", "suppressed"), [(14, False), (40, True)])
async def test_a_delivery_clears_what_was_counted_before_it_though_its_event_is_dropped(
    database_url: str, tmp_path: Path, retention_days: int, delivered_days_ago: int, suppressed: bool
) -> None:
    """Bounces of 28 and 21 days ago, and of today."""
    full = outcome(Action.FAILED, status="5.2.2", reply_code=552, bounce_class=BounceClass.MAILBOX_FULL)
    async with node(database_url, tmp_path) as here:
        tenant = await here.parts.accounts.add_tenant("acme")

        async def bounce(message_id: int, days_ago: int) -> None:
            at = here.parts.now() - days_ago * DAY_SECONDS
            said = completion(
                message_id, 0, FinalState.BOUNCED, at=at, outcome=full, person=BOB, tenant_id=tenant.id
            )  # fmt: skip
            await here.parts.hygiene.note_refusals([said])

        await bounce(16, 28)
        await bounce(32, 21)
        await here.execute(
            "INSERT INTO event (type, at, received_at, message_id, person, tenant_id, list_id, campaign_id,"
            " message_class) VALUES (1, now() - $1::interval, now() - $1::interval, 48, $2, $3, 1, 1, 0)",
            timedelta(days=delivered_days_ago), BOB, tenant.id,
        )  # fmt: skip
        await here.events.keep(retention_days)
        await bounce(64, 0)
        assert [entry.kind for entry in await here.parts.log.read_person(BOB)] == [Kind.HARD_BOUNCE] * suppressed
