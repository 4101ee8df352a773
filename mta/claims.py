"""What comes to a worker out of the queue: due recipients are claimed while there is room, lane by lane.

Before a claim, what is due first at sites that are full is put off in one statement; that, and a claim for which there
was no room, is followed by a pause, so that a million recipients of a site that takes none cost others little. What was
claimed is never forgotten: a row that can't be read yet is looked at again, and rows of a claim whose answer was lost
are given back once it can't be under way any more. Raises DatabaseUnavailable.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from config.database import DatabaseUnavailable
from config.keyring import KeyringError
from config.log import LOG
from metrics import registry
from mta.accounts import Accounts
from mta.dispatch import Room, Span, pause_seconds
from mta.identifiers import LANES, first_id_at
from mta.lease import Lease
from mta.queue import ClaimedRow, Queue
from mta.vault import Address, VaultError
from suppression.digest import MessageClass
from suppression.scopes import Scopes

# longer than a statement can take before it fails, so that nothing of before is under way any more
_DOUBT_SECONDS: Final = 60.0
# until a recipient whose key is missing is looked at again
_UNREADABLE_SECONDS: Final = 600.0
# recipients looked at in one statement that puts off those of full sites
_PUT_OFF_AT_ONCE: Final = 5_000
_LEAST_PUT_OFF: Final = 100
# until a lane in which there was nothing to put off is looked at again for that
_NOTHING_SECONDS: Final = 5.0


class Deliverer(Protocol):
    """Who delivers what is claimed."""

    def accept(self, lease: Lease) -> bool:
        """Take a lease for which room was reserved; False when it went back for lack of room at its site."""
        ...

    def decline(self, lease: Lease, due_at: float, site: str) -> None:
        """Give a lease back to the queue at once."""
        ...

    def put_off(self, message_class: MessageClass, most: int) -> Sequence[Span]:
        """Sites where what is due of a class is to be put off, and until when. most: how many at once."""
        ...

    def were_put_off(self, spans: Sequence[Span], counts: Mapping[str, int]) -> None:
        """So many of campaigns were put off, by site."""
        ...

    def in_hand(self) -> Iterable[tuple[int, int]]:
        """Message id and ordinal of every lease whose outcome is not committed."""
        ...


class Claims:
    """The claims of one worker."""

    def __init__(
        self,
        queue: Queue,
        accounts: Accounts,
        scopes: Scopes,
        room: Room,
        deliverer: Deliverer,
        *,
        batch: int,
        poll_seconds: float,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`batch`: recipients of a claim at the most; `poll_seconds`: how often to look when nothing was due."""
        self._queue = queue
        self._accounts = accounts
        self._scopes = scopes
        self._room = room
        self._deliverer = deliverer
        self._batch = batch
        self._poll_seconds = poll_seconds
        self._now = now
        self._chance = chance
        self._first_lane = queue.worker_id
        self._unread: list[ClaimedRow] = []
        self._in_doubt_until = 0.0
        self._wanted = asyncio.Event()
        self._reopened = asyncio.Event()
        self._room_was_short = False
        self._stopped = False
        self._turned_away = 0
        self._pause_seconds = 0.0
        self._put_off_at_once = _PUT_OFF_AT_ONCE
        self._nothing_until: dict[tuple[int, MessageClass], float] = {}

    async def claim_for_ever(self) -> None:
        """Take due recipients from the queue while there is room, until stopped."""
        while not self._stopped:
            # before the round: what is said while it goes on is for the next one
            self._wanted.clear()
            self._reopened.clear()
            try:
                more = await self.claim_round()
            except DatabaseUnavailable:
                more = False
            if self._pause_seconds:
                await _wait(self._reopened, self._pause_seconds)
            elif not more:
                await _wait(self._wanted, self._poll_seconds)

    def room_freed(self) -> None:
        """Claim again at once where room was what was missing."""
        if self._room_was_short:
            self._room_was_short = False
            self._wanted.set()

    def site_reopened(self) -> None:
        """Claim again at once: a site that was full takes mail again."""
        self._reopened.set()
        self._wanted.set()

    def stop(self) -> None:
        """Claim no more."""
        self._stopped = True
        self.site_reopened()

    async def claim_round(self) -> bool:
        """Claim from every lane in which something is due, transactional first; whether there may be more.

        What was of no use ends the round, and the next one begins after a pause, at the next lane.
        """
        more = False
        self._pause_seconds = 0.0
        await self._settle_doubt()
        await self._read_again()
        due = await self._queue.due_lanes(self._now())
        # on from where the last round ended, so that none is favoured when room is short
        due.sort(key=lambda found: (-found[1], (found[0] - self._first_lane) % LANES))
        for lane, message_class in due:
            limit = min(self._batch, self._room.free(message_class))
            if limit <= 0:
                self._room_was_short = True
                continue
            if self._stopped:
                return False
            self._first_lane = lane + 1
            await self._put_off(lane, message_class)
            if self._pause_seconds:
                return False
            claimed = await self._claim(lane, message_class, limit)
            if self._pause_seconds:
                return False
            more = more or claimed == limit
        return more

    async def _claim(self, lane: int, message_class: MessageClass, limit: int) -> int:
        """Claim from one lane and hand on what came; returns how many."""
        started = time.perf_counter()
        try:
            rows = await self._queue.claim(lane, message_class, limit, self._now())
        except DatabaseUnavailable:
            # it may have been committed all the same: once commits under way are over, that can be found out
            self._in_doubt_until = self._now() + _DOUBT_SECONDS
            raise
        registry.claim_seconds.observe(time.perf_counter() - started)
        before = self._turned_away
        for row in rows:
            await self._take(row)
        seconds = time.perf_counter() - started
        self._pause_seconds = pause_seconds(len(rows), self._turned_away - before, seconds)
        return len(rows)

    async def _put_off(self, lane: int, message_class: MessageClass) -> None:
        """What is due first in a lane and would be turned away at its site."""
        most, now = self._put_off_at_once, self._now()
        if now < self._nothing_until.get((lane, message_class), 0.0):
            return
        if not (spans := self._deliverer.put_off(message_class, most)):
            return
        started = time.perf_counter()
        try:
            counts = await self._queue.put_off(lane, message_class, most, now, spans)
        except DatabaseUnavailable:
            # it may have taken too long, and a claim takes less
            self._put_off_at_once = max(_LEAST_PUT_OFF, most // 2)
            return
        self._put_off_at_once = min(_PUT_OFF_AT_ONCE, most * 2)
        if not counts:
            self._nothing_until[lane, message_class] = now + _NOTHING_SECONDS
        elif message_class is MessageClass.CAMPAIGN:
            self._deliverer.were_put_off(spans, counts)
        self._pause_seconds = pause_seconds(most, sum(counts.values()), time.perf_counter() - started)

    async def _settle_doubt(self) -> None:
        """After a claim whose answer was lost: what is leased to this worker without its knowing goes back."""
        if not self._in_doubt_until or self._now() < self._in_doubt_until:
            return
        # younger messages may be on their way in, born leased and not known here yet
        before = first_id_at(self._now() - _DOUBT_SECONDS)
        known = [*self._deliverer.in_hand(), *((row.message_id, row.ordinal) for row in self._unread)]
        given_back = await self._queue.disown(known, before, self._now())
        self._in_doubt_until = 0.0
        if given_back:
            LOG.warning("recipients of a lost claim are queued again", recipients=given_back)

    async def _read_again(self) -> None:
        """What could not be read while the database was away."""
        unread, self._unread = self._unread, []
        for row in unread:
            await self._take(row)

    async def _take(self, row: ClaimedRow) -> None:
        """Hand a recipient on, or give it back where its campaign has its share of memory already."""
        readable = True
        try:
            campaign = await self._accounts.campaign_by_id(row.campaign_id)
            address = campaign.key.open_address(row.message_id, row.ordinal, row.sealed_address)
        except DatabaseUnavailable:
            # it is leased: whatever happens, it must not be forgotten
            self._unread.append(row)
            return
        except (VaultError, KeyringError):
            LOG.error("a queued recipient can't be read", message=row.message_id, ordinal=row.ordinal)
            readable, address = False, Address("")
        lease = self._lease(row, address)
        if not readable:
            self._room.take(row.campaign_id, 1)
            self._deliverer.decline(lease, self._now() + _UNREADABLE_SECONDS, row.site)
        elif self._room.reserve(row.campaign_id, row.message_class, 1):
            self._turned_away += not self._deliverer.accept(lease)
        else:
            self._turned_away += 1
            due_at = self._room.turn_at(row.campaign_id, self._chance())
            self._room.take(row.campaign_id, 1)
            self._deliverer.decline(lease, due_at, row.site)

    def _lease(self, row: ClaimedRow, address: Address) -> Lease:
        return Lease(
            row.message_id,
            row.ordinal,
            row.tenant_id,
            row.list_id,
            row.campaign_id,
            row.message_class,
            row.person,
            self._scopes.keys(row.person, row.tenant_id, row.list_id),
            address,
            row.received_at,
            row.expires_at,
            row.attempts,
            row.delay_reported,
            row.last_outcome,
            self._scopes.position,
            row.due_at,
        )


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until something happens, or so long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
