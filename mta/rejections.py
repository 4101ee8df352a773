"""Refusals at submission as events of their tenant, counted: who is refused a million times fills nothing.

One event for each tenant, class of mail and kind of refusal in every few seconds, with their number. The first few of a
tenant whose recipient is known are events of their own, so that somebody can be told why a reader got nothing. What
nobody has authenticated for has no tenant, and is counted in the metrics alone. A worker that is killed loses what it
has not yet written: a refusal changes nothing, and its client was told.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from config.database import DatabaseUnavailable
from mta.events import REJECTION, Note
from suppression.digest import MessageClass

WRITE_SECONDS: Final = 5.0
_PEOPLE: Final = 20
"""Of a tenant, that are named by their digest until the next write."""


class Kind(NamedTuple):
    """What is counted together. reply: the whole of what the client was told, which repeats nothing that it sent."""

    tenant_id: int
    message_class: MessageClass
    reason: str
    reply: str


@dataclass(frozen=True, slots=True)
class _Person:
    kind: Kind
    person: int
    at: float


class Rejections:
    """Collects refusals. note: commits events, or raises DatabaseUnavailable; now: epoch seconds."""

    def __init__(self, note: Callable[[Sequence[Note]], Awaitable[None]], now: Callable[[], float] = time.time) -> None:
        self._note = note
        self._now = now
        self._counts: Counter[Kind] = Counter()
        self._people: list[_Person] = []
        self._named: Counter[int] = Counter()

    def add(self, kind: Kind, person: int | None = None) -> None:
        """A command was refused; person: the recipient that it named, where that was why."""
        if person is not None and self._named[kind.tenant_id] < _PEOPLE:
            self._named[kind.tenant_id] += 1
            self._people.append(_Person(kind, person, self._now()))
        else:
            self._counts[kind] += 1

    async def write_for_ever(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            with suppress(DatabaseUnavailable):  # counted on until it is back
                await self.write()

    async def write(self) -> None:
        """Have everything committed; where that fails, it is kept for the next time. Raises DatabaseUnavailable."""
        counts, people, now = self._counts, self._people, self._now()
        self._counts, self._people, self._named = Counter(), [], Counter()
        notes = [_note(one.kind, one.at, one.person) for one in people]
        notes += [_note(kind, now, None, count) for kind, count in counts.items()]
        try:
            await self._note(notes)
        except DatabaseUnavailable:
            self._counts += counts
            self._counts += Counter(one.kind for one in people)
            raise


def _note(kind: Kind, at: float, person: int | None, count: int = 1) -> Note:
    code, _, rest = kind.reply.partition(" ")
    status, _, text = rest.partition(" ")
    return Note(
        REJECTION, at, at, 0, person, kind.tenant_id, 0, 0, int(kind.message_class), reply_code=int(code),
        status=status, bounce_class=kind.reason, diagnostic=text, recipients=count,
    )  # fmt: skip
