"""What a node says of itself: the order of its sites, and what its campaigns are in for."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from mta.node_state import campaign_state, merged_sites
from mta.orders import Order, Reach, Schedule, State, Window

NOW = 1_800_000_000.0
ROW = {"id": 3, "tenant_id": 1, "held": 0, "created_at": datetime.fromtimestamp(NOW - 600, UTC)}
SHUT = Schedule("", "kim", NOW, window=Window.parse("mon", "09:00-10:00", "UTC"))
OPEN = Schedule("", "kim", NOW, window=Window.parse("", "", "UTC"))


def order(reach: Reach, target: int, state: State = State.PAUSED, **changes: Any) -> Order:
    return Order(reach, target, "", **{"state": state, "reason": "", "actor": "kim", "at": NOW, **changes})


def site(name: str, waiting: int = 0, rests: float = 0.0, campaigns: Sequence[int] = ()) -> dict[str, Any]:
    return {"site": name, "waiting": waiting, "connections": 1, "busy": 0, "limit": 9, "suspended_until": rests,
            "failures": 0, "last_reply": "", "campaigns": list(campaigns)}  # fmt: skip


def test_sites_that_rest_come_before_idle_ones() -> None:
    workers = [{"sites": [site("idle"), site("rests", rests=NOW + 9), site("busy", 4)]}, {"sites": [site("idle")]}]
    assert [each["site"] for each in merged_sites(workers)] == ["busy", "rests", "idle"]


def test_a_site_names_the_campaigns_that_wait_in_any_worker() -> None:
    workers = [{"sites": [site("mx", 2, campaigns=[3, 4])]}, {"sites": [site("mx", 1, campaigns=[4, 5])]}]
    assert [each["campaigns"] for each in merged_sites(workers)] == [[3, 4, 5]]
    assert workers[0]["sites"][0]["campaigns"] == [3, 4]


@pytest.mark.parametrize(
    ("orders", "changes", "said"),
    [
        ([], {}, "running"),
        ([], {"held": 1}, "held: see heed explain"),
        ([order(Reach.CAMPAIGN, 3)], {"held": 1}, "PAUSED"),
        ([order(Reach.CAMPAIGN, 4), order(Reach.LIST, 1), order(Reach.TENANT, 2)], {}, "running"),
        ([order(Reach.TENANT, 1)], {}, "tenant PAUSED"),
        ([order(Reach.TENANT, 1), order(Reach.CAMPAIGN, 3, State.CANCELLED)], {}, "CANCELLED"),
        ([order(Reach.TENANT, 1), order(Reach.CAMPAIGN, 3, State.RUNNING, schedule=OPEN)], {}, "tenant PAUSED"),
        ([order(Reach.TENANT, 1, until=NOW)], {}, "running"),
        ([order(Reach.TENANT, 1, State.CANCELLED)], {}, "tenant CANCELLED"),
        ([order(Reach.TENANT, 1, State.CANCELLED, at=NOW - 601)], {}, "running"),
        ([order(Reach.TENANT, 1, State.CANCELLED, at=NOW - 601, schedule=SHUT)], {}, "tenant CANCELLED"),
        ([order(Reach.CAMPAIGN, 3, State.RUNNING, schedule=OPEN)], {}, "RUNNING"),
        ([order(Reach.CAMPAIGN, 3, State.RUNNING, schedule=SHUT)], {}, "RUNNING"),
    ],
)
def test_a_campaign_says_whose_order_stops_it(orders: list[Order], changes: dict[str, Any], said: str) -> None:
    assert campaign_state({**ROW, **changes}, orders, NOW, lambda each: each.state.name) == said
