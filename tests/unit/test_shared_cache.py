"""The cache of routing: one load for all who ask at once, bounds, and time by a clock of the test's."""

import asyncio

import pytest

from mta.shared_cache import Entry, SharedCache


class Loader:
    """Counts loads; one that is held waits for `go_on`."""

    def __init__(self, clock: list[float]) -> None:
        self.loads: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.error: Exception | None = None
        self._clock = clock

    async def __call__(self, key: str) -> Entry[str]:
        self.loads.append(key)
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return Entry(key.upper(), self._clock[0] + 10)


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def cache(clock: list[float]) -> SharedCache[str]:
    return SharedCache(3, lambda: clock[0])


async def test_an_entry_holds_until_it_expires(cache: SharedCache[str], clock: list[float]) -> None:
    load = Loader(clock)
    assert await cache.get("a", load) == Entry("A", 10.0)
    clock[0] = 9.9
    assert (await cache.get("a", load)).value == "A"
    clock[0] = 10.0
    assert await cache.get("a", load) == Entry("A", 20.0)
    assert load.loads == ["a", "a"]


async def test_those_who_ask_at_once_share_a_load(cache: SharedCache[str], clock: list[float]) -> None:
    load = Loader(clock)
    load.go_on.clear()
    waiting = [asyncio.create_task(cache.get("a", load)) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    load.go_on.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [Entry("A", 10.0)] * 49
    assert load.loads == ["a"]


async def test_a_failed_load_reaches_all_and_is_not_kept(cache: SharedCache[str], clock: list[float]) -> None:
    load = Loader(clock)
    load.error = ValueError("no")
    results = await asyncio.gather(*(cache.get("a", load) for _ in range(2)), return_exceptions=True)
    assert [type(result) for result in results] == [ValueError, ValueError]
    load.error = None
    assert (await cache.get("a", load)).value == "A"
    assert len(load.loads) == 2


async def test_the_least_recently_used_goes_first(cache: SharedCache[str], clock: list[float]) -> None:
    load = Loader(clock)
    for key in ("a", "b", "c", "a", "d", "a", "b"):
        await cache.get(key, load)
    assert load.loads == ["a", "b", "c", "d", "b"]
    assert len(cache) == 3


async def test_closing_ends_what_is_under_way(cache: SharedCache[str], clock: list[float]) -> None:
    load = Loader(clock)
    load.go_on.clear()
    waiting = asyncio.create_task(cache.get("a", load))
    await asyncio.sleep(0)
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(cache) == 0


async def test_a_hundred_thousand_keys_stay_within_bounds(cache: SharedCache[str], clock: list[float]) -> None:
    load = Loader(clock)
    for number in range(100_000):
        await cache.get(str(number), load)
    assert len(cache) == 3
