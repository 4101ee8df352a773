"""Calls that meet share one statement, so that a flood of mail is no flood of transactions.

While one batch is being committed, what else is asked waits and goes together with the next: nobody waits for a timer.
Each caller returns after the commit of what it asked for, or gets the error that it met.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from config.database import DatabaseUnavailable

T = TypeVar("T")

MOST: Final = 500
"""Of one statement."""


class Meeting(Generic[T]):
    """Gathers what `commit` takes. A batch that fails, but not by an outage, is tried caller by caller: one can't fail
    the others.
    """

    def __init__(self, commit: Callable[[Sequence[T]], Awaitable[Any]]) -> None:
        self._commit = commit
        self._waiting: list[tuple[Sequence[T], asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def add(self, items: Sequence[T]) -> None:
        """Commit `items`. A caller that is cancelled does not undo what shares its statement."""
        if not items:
            return
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._commit_waiting(), name="meeting")
        await answer

    async def _commit_waiting(self) -> None:
        try:
            while self._waiting:
                batch = self._next()
                try:
                    await self._commit([item for items, _ in batch for item in items])
                except Exception as error:
                    await self._failed(batch, error)
                else:
                    for _, answer in batch:
                        _settle(answer, None)
        finally:
            self._task = None

    def _next(self) -> list[tuple[Sequence[T], "asyncio.Future[None]"]]:
        count = 0
        for number, (items, _) in enumerate(self._waiting):
            count += len(items)
            if number and count > MOST:
                batch, self._waiting = self._waiting[:number], self._waiting[number:]
                return batch
        batch, self._waiting = self._waiting, []
        return batch

    async def _failed(self, batch: list[tuple[Sequence[T], "asyncio.Future[None]"]], error: Exception) -> None:
        alone = len(batch) == 1
        for items, answer in batch:
            if alone or isinstance(error, DatabaseUnavailable):
                # Not the same object for all: each task adds to its traceback.
                _settle(answer, DatabaseUnavailable(str(error)) if isinstance(error, DatabaseUnavailable) else error)
                continue
            try:
                await self._commit(items)
            except Exception as own:
                _settle(answer, own)
            else:
                _settle(answer, None)


def _settle(answer: "asyncio.Future[None]", error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(None)
    else:
        answer.set_exception(error)
