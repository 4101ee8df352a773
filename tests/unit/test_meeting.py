"""Calls that meet: how many statements they make, and whose error is whose."""

import asyncio
from collections.abc import Sequence
from itertools import chain

import pytest

from config.database import DatabaseUnavailable
from mta.meeting import MOST, Meeting


class Committed:
    """What was committed, statement by statement; waits for `go`, fails for `poison` and while `down`."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()
        self.poison: int | None = None
        self.down = False

    async def __call__(self, items: Sequence[int]) -> None:
        await self.go.wait()
        if self.down:
            raise DatabaseUnavailable("down")
        if self.poison in items:
            raise ValueError(f"not {self.poison}")
        self.batches.append(list(items))


async def ask(meeting: Meeting[int], committed: Committed, calls: Sequence[Sequence[int]]) -> list[object]:
    """Ask the first, and the others while it is being committed."""
    tasks = [asyncio.create_task(meeting.add(calls[0]))]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(meeting.add(items)) for items in calls[1:]]
    await asyncio.sleep(0)
    committed.go.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_comes_meanwhile_goes_together() -> None:
    committed = Committed()
    assert await ask(Meeting(committed), committed, [[1], [2, 3], [], [4]]) == [None] * 4
    assert list(chain.from_iterable(committed.batches)) == [1, 2, 3, 4]
    assert len(committed.batches) <= 2


async def test_a_statement_has_its_limit() -> None:
    committed = Committed()
    await ask(Meeting(committed), committed, [[0], *([n] * 200 for n in range(1, 8))])
    assert all(len(batch) <= MOST for batch in committed.batches)
    assert sum(map(len, committed.batches)) == 1401


async def test_what_can_not_be_stored_fails_nobody_else() -> None:
    committed = Committed()
    committed.poison = 3
    found = await ask(Meeting(committed), committed, [[1], [2], [3], [4]])
    assert [type(answer) for answer in found] == [type(None), type(None), ValueError, type(None)]
    assert sorted(chain.from_iterable(committed.batches)) == [1, 2, 4]


async def test_an_outage_is_everybodys_and_ends() -> None:
    committed = Committed()
    committed.down = True
    meeting = Meeting(committed)
    found = await ask(meeting, committed, [[1], [2], [3]])
    assert all(isinstance(answer, DatabaseUnavailable) for answer in found)
    committed.down = False
    await meeting.add([4])
    assert committed.batches == [[4]]


async def test_who_goes_away_stops_nobody() -> None:
    committed = Committed()
    meeting = Meeting(committed)
    gone = asyncio.create_task(meeting.add([1]))
    await asyncio.sleep(0)
    stays = asyncio.create_task(meeting.add([2]))
    await asyncio.sleep(0)
    gone.cancel()
    committed.go.set()
    await stays
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert sorted(chain.from_iterable(committed.batches)) == [1, 2]
