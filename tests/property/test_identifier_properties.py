"""Ids: unlike, growing, in their lane, and the same after they were written down."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mta.identifiers import LANES, MessageIds, lane_of, message_id_of, queue_id, received_at

SECONDS = 1_750_000_000.0
lanes = st.integers(0, LANES - 1)


@given(st.lists(st.tuples(st.floats(-90_000, 90_000), lanes), min_size=1, max_size=50), st.integers(1, 10**6))
@example([(0.0, 15)] * 600, 3)
@example([(0.0, 0), (-90_000.0, 15), (1.0, 0)], 1_023)
def test_ids_grow_whatever_the_clock_does_and_keep_their_lane(steps: list[tuple[float, int]], worker: int) -> None:
    clock = iter([SECONDS + shift for shift, _ in steps])
    ids = MessageIds(worker, lambda: next(clock))
    made = [ids.next(lane) for _, lane in steps]
    assert made == sorted(set(made))
    assert [lane_of(each) for each in made] == [lane for _, lane in steps]
    assert all(0 < each < 2**63 for each in made)


@given(st.integers(1, 1_023), st.integers(1, 1_023), st.lists(lanes, min_size=1, max_size=30))
def test_workers_of_one_moment_never_make_the_same_id(one: int, other: int, chosen: list[int]) -> None:
    first, second = (MessageIds(worker, lambda: SECONDS) for worker in (one, other))
    common = {first.next(lane) for lane in chosen} & {second.next(lane) for lane in chosen}
    assert not common or one == other


@given(st.floats(1_704_067_200, 3_000_000_000), lanes)
def test_an_id_says_when_it_was_made(seconds: float, lane: int) -> None:
    assert received_at(MessageIds(1, lambda: seconds).next(lane)) == pytest.approx(seconds, abs=0.002)


@given(st.integers(0, 2**63 - 1))
@example(2**63 - 1)
def test_a_queue_id_is_the_id(message_id: int) -> None:
    text = queue_id(message_id)
    assert len(text) == 13
    assert not {"I", "L", "O", "U"}.intersection(text)
    assert message_id_of(text) == message_id_of(text.lower()) == message_id


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_queue_ids_sort_as_ids_do(one: int, other: int) -> None:
    assert (queue_id(one) < queue_id(other)) == (one < other)


@given(st.text(max_size=15) | st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=13, max_size=13))
@example("Z" * 13)
@example("8000000000000")
@example("ß" * 13)
def test_any_other_text_is_no_queue_id(text: str) -> None:
    try:
        message_id = message_id_of(text)
    except ValueError:
        return
    assert 0 <= message_id < 2**63
    assert queue_id(message_id) == text.upper()
