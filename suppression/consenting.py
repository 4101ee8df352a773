"""Who consented: asked at submission where a tenant requires a consent, for many connections in one question.

A recorded consent is for ever: what ends it is a suppression, and the gate knows those. So a yes is kept in memory, and
only what is not known there is asked of the database. Raises DatabaseUnavailable, also when no answer came in time:
without one nobody knows, and the mail must come again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from config.database import DatabaseUnavailable
from suppression.consent import Consents

ALL_LISTS: Final = 0
"""Stands for the list in a consent to all mail of a tenant."""

ANSWER_SECONDS: Final = 5.0
_AT_ONCE: Final = 2_000
_KEPT: Final = 100_000

Pair = tuple[int, int]
"""Person and tenant."""


class Consenting:
    """One worker's knowledge of consents."""

    def __init__(self, consents: Consents, *, answer_within_seconds: float = ANSWER_SECONDS) -> None:
        self._consents = consents
        self._within = answer_within_seconds
        self._lists: OrderedDict[Pair, frozenset[int]] = OrderedDict()
        self._waiting: dict[Pair, asyncio.Future[frozenset[int]]] = {}
        self._asking: asyncio.Task[None] | None = None

    def known(self, person: int, tenant_id: int, list_id: int | None = None) -> bool:
        """Whether a consent to the list is known without asking; None: to any list, ALL_LISTS: to all of them."""
        return _includes(self._lists.get((person, tenant_id), frozenset()), list_id)

    async def lacking(self, persons: Iterable[int], tenant_id: int, list_id: int | None = None) -> set[int]:
        """Those of these persons of whom no such consent is recorded."""
        unknown = [person for person in persons if not self.known(person, tenant_id, list_id)]
        if unknown:
            answers = [self._ask((person, tenant_id)) for person in unknown]
            try:
                async with asyncio.timeout(self._within):
                    found = await asyncio.gather(*map(asyncio.shield, answers))
            except TimeoutError:
                raise DatabaseUnavailable("nobody says in time who consented") from None
            # by the answers themselves: what is kept of them may have made room for others meanwhile
            return {person for person, lists in zip(unknown, found, strict=True) if not _includes(lists, list_id)}
        return set()

    def _ask(self, pair: Pair) -> "asyncio.Future[frozenset[int]]":
        answer = self._waiting.get(pair)
        if answer is None:
            answer = self._waiting[pair] = asyncio.get_running_loop().create_future()
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_for_all(), name="consents")
        return answer

    async def _ask_for_all(self) -> None:
        try:
            while self._waiting:
                pairs = list(self._waiting)[:_AT_ONCE]
                answers = {pair: self._waiting.pop(pair) for pair in pairs}
                try:
                    found = await self._consents.lists_of(pairs)
                except Exception as error:
                    for answer in answers.values():
                        answer.set_exception(DatabaseUnavailable(f"who consented is not known: {type(error).__name__}"))
                        answer.exception()  # whoever asked may have given up
                else:
                    for pair, answer in answers.items():
                        lists = frozenset(found.get(pair, ()))
                        self._keep(pair, lists)
                        answer.set_result(lists)
        finally:
            self._asking = None

    def _keep(self, pair: Pair, lists: frozenset[int]) -> None:
        if lists:
            self._lists[pair] = lists
            self._lists.move_to_end(pair)
            if len(self._lists) > _KEPT:
                self._lists.popitem(last=False)


def _includes(lists: frozenset[int], list_id: int | None) -> bool:
    return bool(lists) if list_id is None else ALL_LISTS in lists or list_id in lists
