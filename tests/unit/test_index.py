"""The index: delta over base, positions without gaps, and the swap."""

from datetime import UTC, datetime
from pathlib import Path

import numpy
import pytest

from suppression import build
from suppression.base import Base
from suppression.digest import Effect, MessageClass
from suppression.entry import Action, Step
from suppression.index import MIN_DELTA_ENTRIES, Index

CAMPAIGN, TRANSACTIONAL = MessageClass.CAMPAIGN, MessageClass.TRANSACTIONAL


def digest(position: int) -> bytes:
    return position.to_bytes(32, "big")


def step(position: int, key: int, effect: Effect, action: Action = Action.SUPPRESS) -> Step:
    return Step(position, datetime.now(UTC), action, key, effect, digest(position - 1), digest(position))


def base_of(path: Path, position: int, keys: list[int]) -> Base:
    build.write(path, position, digest(position), [numpy.array(keys, dtype=numpy.int64)], len(keys))
    return Base.load(path)


def test_an_empty_index_blocks_nobody() -> None:
    assert not Index().blocks((2, 4, -6), CAMPAIGN)
    assert Index().position == 0


def test_effects_by_class_in_the_delta() -> None:
    index = Index()
    index.apply([step(1, 2, Effect.CAMPAIGN), step(2, 4, Effect.ALL)])
    assert index.blocks((2,), CAMPAIGN)
    assert not index.blocks((2,), TRANSACTIONAL)
    assert index.blocks((4,), CAMPAIGN)
    assert index.blocks((4,), TRANSACTIONAL)
    assert index.blocks((8, 6, 4), TRANSACTIONAL)
    assert not index.blocks((6, 8), CAMPAIGN)


def test_effects_by_class_in_the_base(tmp_path: Path) -> None:
    index = Index(base_of(tmp_path / "base", 9, [-8, 2, 5, 2**63 - 1]))
    assert [index.effect(key) for key in (-8, 2, 4, 2**63 - 2, 6, -10)] == [
        Effect.CAMPAIGN, Effect.CAMPAIGN, Effect.ALL, Effect.ALL, Effect.NOTHING, Effect.NOTHING,
    ]  # fmt: skip
    assert (index.position, index.hash) == (9, digest(9))


def test_a_lift_in_the_delta_hides_the_base(tmp_path: Path) -> None:
    index = Index(base_of(tmp_path / "base", 1, [2, 5]))
    index.apply([step(2, 4, Effect.NOTHING, Action.LIFT_BY_OPERATOR), step(3, 2, Effect.ALL)])
    assert [index.effect(key) for key in (2, 4)] == [Effect.ALL, Effect.NOTHING]


def test_the_newest_entry_of_a_key_counts() -> None:
    index = Index()
    index.apply([step(1, 2, Effect.ALL), step(2, 2, Effect.NOTHING), step(3, 2, Effect.CAMPAIGN)])
    assert index.effect(2) is Effect.CAMPAIGN


def test_a_signed_head_moves_the_position_only() -> None:
    index = Index()
    index.apply([step(1, 0, Effect.NOTHING, Action.SIGNED_HEAD)])
    assert (index.position, index.delta_entries) == (1, 0)


@pytest.mark.parametrize(
    "wrong", [step(3, 2, Effect.ALL), step(1, 2, Effect.ALL), step(2, 2, Effect.ALL)._replace(previous=digest(9))]
)
def test_a_gap_a_repetition_or_another_chain_is_refused(wrong: Step) -> None:
    index = Index()
    index.apply([step(1, 4, Effect.ALL)])
    with pytest.raises(ValueError, match="does not follow"):
        index.apply([wrong])
    assert (index.position, index.effect(2)) == (1, Effect.NOTHING)


def test_a_swap_keeps_what_came_after_the_new_base(tmp_path: Path) -> None:
    index = Index()
    index.apply(
        [step(1, 2, Effect.ALL), step(2, 4, Effect.CAMPAIGN), step(3, 2, Effect.NOTHING), step(4, 6, Effect.ALL)]
    )
    assert index.swap(base_of(tmp_path / "base", 2, [3, 4]))
    assert (index.position, index.base_position, index.delta_entries) == (4, 2, 2)
    assert [index.effect(key) for key in (2, 4, 6)] == [Effect.NOTHING, Effect.CAMPAIGN, Effect.ALL]


def test_a_base_that_is_ahead_replaces_everything(tmp_path: Path) -> None:
    index = Index()
    index.apply([step(1, 2, Effect.NOTHING)])
    assert index.swap(base_of(tmp_path / "base", 5, [3]))
    assert (index.position, index.hash, index.delta_entries) == (5, digest(5), 0)
    assert index.effect(2) is Effect.ALL
    index.apply([step(6, 2, Effect.NOTHING)])
    assert index.effect(2) is Effect.NOTHING


def test_an_older_base_changes_nothing(tmp_path: Path) -> None:
    index = Index(base_of(tmp_path / "new", 5, [3]))
    assert not index.swap(base_of(tmp_path / "old", 4, []))
    assert not index.swap(base_of(tmp_path / "same", 5, []))
    assert index.effect(2) is Effect.ALL


def test_pruning_is_spread_over_many_steps(tmp_path: Path) -> None:
    index = Index()
    count = MIN_DELTA_ENTRIES + 1
    index.apply(step(n, 2 * n, Effect.ALL) for n in range(1, count + 1))
    assert index.rebuild_due()
    base, position, _, changes = index.changes()
    build.write(tmp_path / "base", position, digest(position), build.merged(base, changes), len(changes))
    index.apply([step(count + 1, 2, Effect.NOTHING), step(count + 2, -2, Effect.ALL)])
    index.swap(Base.load(tmp_path / "base"))
    assert count - 600 < index.delta_entries < count
    for _ in range(count // 500 + 1):
        assert not index.rebuild_due()
        assert [index.effect(key) for key in (2, 4, -2)] == [Effect.NOTHING, Effect.ALL, Effect.ALL]
        index.apply([])
    assert index.delta_entries == 2
    assert not index.rebuild_due()
