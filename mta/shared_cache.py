"""A bounded cache whose concurrent misses of one key share one load, and whose entries live as long as it says."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

V = TypeVar("V")


class Entry(NamedTuple, Generic[V]):
    """A value and the time, by the cache's clock, until which it holds."""

    value: V
    expires_at: float


class SharedCache(Generic[V]):
    """At most `capacity` entries, the least recently used go first. `now` is a clock in seconds."""

    def __init__(self, capacity: int, now: Callable[[], float]) -> None:
        self._capacity, self._now = capacity, now
        self._entries: OrderedDict[str, Entry[V]] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Entry[V]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: str, load: Callable[[str], Awaitable[Entry[V]]]) -> Entry[V]:
        """The entry of `key`, loaded if there is none that still holds. What `load` raises reaches all who wait.

        A caller that is cancelled leaves the load to the others.
        """
        entry = self._entries.get(key)
        if entry is not None and entry.expires_at > self._now():
            self._entries.move_to_end(key)
            return entry
        task = self._loading.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._load(key, load))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._loaded(key, done))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End the loads under way."""
        tasks = list(self._loading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    async def _load(key: str, load: Callable[[str], Awaitable[Entry[V]]]) -> Entry[V]:
        return await load(key)

    def _loaded(self, key: str, task: asyncio.Task[Entry[V]]) -> None:
        del self._loading[key]
        if task.cancelled() or task.exception() is not None:
            return
        self._entries[key] = task.result()
        self._entries.move_to_end(key)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
