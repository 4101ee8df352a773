"""The promise, measured afterwards: deliveries of both classes are compared with the log, and late ones counted."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from metrics import registry
from mta.proof import Proof
from suppression.digest import Kind, MessageClass, Scope
from tests.support.node import Clock, Node, node
from tests.support.suppressions import asked

BOB = 5
DELIVERED, CANCELLED = 1, 5
BOUND_SECONDS = 5.0


def counted() -> tuple[float, float]:
    """How many deliveries were compared, and how many were late."""
    return registry.compared._value.get(), registry.sends_after_suppression._value.get()


async def settled(n: Node, at: float, message_class: MessageClass, state: int = DELIVERED) -> None:
    """An outcome as the worker writes it."""
    await n.execute(
        "INSERT INTO outcome (message_id, ordinal, tenant_id, list_id, campaign_id, message_class, state, attempts,"
        " person, received_at, at, status, reply_code, class, remote_mta, diagnostic)"
        " VALUES (1, 0, 7, 9, 1, $1, $2, 1, $3, $4, $4, '2.0.0', 250, '', '', '')",
        int(message_class), state, BOB, datetime.fromtimestamp(at, UTC),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "scope", "message_class", "late"),
    [
        (Kind.HARD_BOUNCE, Scope.TENANT, MessageClass.TRANSACTIONAL, 1),
        (Kind.COMPLAINT, Scope.LIST, MessageClass.TRANSACTIONAL, 1),
        (Kind.MANUAL, Scope.TENANT, MessageClass.TRANSACTIONAL, 1),
        (Kind.LEGAL, Scope.EVERYTHING, MessageClass.TRANSACTIONAL, 1),
        (Kind.UNSUBSCRIBE, Scope.EVERYTHING, MessageClass.TRANSACTIONAL, 1),
        (Kind.UNSUBSCRIBE, Scope.LIST, MessageClass.TRANSACTIONAL, 0),
        (Kind.UNSUBSCRIBE, Scope.LIST, MessageClass.CAMPAIGN, 1),
    ],
)
async def test_what_was_sent_after_it_was_forbidden_is_counted(
    database_url: str, tmp_path: Path, kind: Kind, scope: Scope, message_class: MessageClass, late: int
) -> None:
    clock = Clock()
    async with node(database_url, tmp_path, now=clock) as n:
        [entry] = await n.parts.log.append([asked(BOB, kind=kind, scope=scope)])
        clock.seconds = entry.at
        proof = Proof(n.parts, tmp_path / "heads")
        for seconds in (-1.0, BOUND_SECONDS - 0.1, BOUND_SECONDS + 0.1):
            await settled(n, entry.at + seconds, message_class)
        await settled(n, entry.at + BOUND_SECONDS + 1, message_class, CANCELLED)
        before = counted()
        clock.seconds += 20
        await proof.turn()
        assert counted()[1] == before[1]  # not yet: an outcome may still be on its way
        clock.seconds += 60
        await proof.turn()
        await proof.turn()
        assert counted() == (before[0] + 3, before[1] + late)


async def test_nothing_is_late_where_all_was_kept(database_url: str, tmp_path: Path) -> None:
    clock = Clock()
    async with node(database_url, tmp_path, now=clock) as n:
        [entry] = await n.parts.log.append([asked(BOB, kind=Kind.COMPLAINT)])
        clock.seconds = entry.at
        proof = Proof(n.parts, tmp_path / "heads")
        before = counted()
        await settled(n, entry.at - 0.001, MessageClass.TRANSACTIONAL)
        clock.seconds += 60
        await proof.turn()
        assert counted() == (before[0] + 1, before[1])
