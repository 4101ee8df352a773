"""From an accepted message to its commit: many connections' messages share one transaction (D1).

submit() returns after the commit, or raises DatabaseUnavailable and stores nothing. A commit whose end is not known
counts as failed: the submitter is told to come again, and the rows are taken back as soon as the database answers.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from config.database import DatabaseUnavailable, NoConnection
from config.log import LOG
from metrics import registry
from mta.accounts import Campaign
from mta.identifiers import LANES, MessageIds
from mta.message import Message
from mta.orders import Standing
from mta.queue import NewMessage, NewRecipient, Queue
from mta.vault import Address, Envelope
from suppression.digest import MessageClass

# recipients encrypted before other connections get a turn
_SEAL_AT_ONCE = 500
# of one transaction, which must end well within the database's command timeout; a single message may be larger
_MOST_RECIPIENTS = 10_000
_MOST_BYTES = 32 << 20
_ABANDON_AT_ONCE = 1_000
_RETRY_SECONDS = 0.5
# A commit costs as much for one message as for ten. The next one begins no sooner after the last than this for each
# message that the last one had, so that the more come, the more share one; who sends alone waits for nobody.
_GATHER_SECONDS = 0.0015
_GATHER_AT_MOST_SECONDS = 0.008


@dataclass(slots=True)
class Recipient:
    """A recipient as submitted, with the digest of the address and the scope keys that can stop it."""

    address: Address
    person: int
    keys: tuple[int, ...] = ()
    why: str = ""  # it is withheld, where that is not by a suppression


@dataclass(slots=True)
class Submission:
    """A message as submitted, checked and attributed. message: what was parsed of raw, which is let go once sealed.
    release_at: not to be delivered before (RFC 4865); 0: at once.
    """

    campaign: Campaign
    list_id: int
    message_class: MessageClass
    envelope: Envelope
    recipients: Sequence[Recipient]
    raw: bytes = field(repr=False)
    message: Message | None = field(default=None, repr=False)
    release_at: float = 0.0
    scoped_at: int = 0  # which groups the recipients' keys know of (Scopes.position)
    withheld: Sequence[Recipient] = ()  # suppressed before the message was taken; an event is what is kept of them


@dataclass(slots=True)
class Stored:
    """A committed message and those of its recipients that this worker leases since the commit."""

    submission: Submission
    message_id: int
    received_at: float
    expires_at: float
    leased: range


class Intake:
    """Collects submissions and commits them in batches.

    reserve(campaign id, class, count) says how many recipients this worker can take for delivery at once; on_stored
    gets them after the commit, on_failed gives the reservation back. standing(tenant, list and campaign id, time) says
    whether an operator's order holds them; site_of(domain) to which site its mail goes, as far as is known.
    """

    def __init__(
        self,
        queue: Queue,
        ids: MessageIds,
        *,
        lifetime_seconds: float,
        batch: int,
        reserve: Callable[[int, MessageClass, int], int],
        on_stored: Callable[[Stored], None],
        on_failed: Callable[[int, int], None],
        standing: Callable[[int, int, int, float], Standing] = lambda *_: Standing.GO,
        site_of: Callable[[str], str] = lambda _: "",
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._ids = ids
        self._lifetime = lifetime_seconds
        self._batch = batch
        self._reserve = reserve
        self._on_stored = on_stored
        self._on_failed = on_failed
        self._standing = standing
        self._site_of = site_of
        self._now = now
        self._sleep = sleep
        self._tick = tick
        self._next_commit_at = 0.0
        self._lane = 0
        self._pending: list[tuple[NewMessage, Stored, asyncio.Future[int]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._doubtful: set[int] = set()
        self._taking_back: asyncio.Task[None] | None = None

    def enqueue(self, submission: Submission) -> "asyncio.Future[int]":
        """Put a message into the next commit; its id, or DatabaseUnavailable, comes with the future."""
        taken = self._take_room(submission)
        try:
            message_id = self._ids.next(self._lane)
            recipients = [
                self._sealed(submission, message_id, number, taken) for number in range(len(submission.recipients))
            ]
            return self._append(submission, message_id, recipients, taken)
        except BaseException:
            self._on_failed(submission.campaign.id, taken)
            raise

    async def submit(self, submission: Submission) -> int:
        """Commit a message; returns its id. Raises DatabaseUnavailable. Many recipients are sealed a few at a time."""
        count = len(submission.recipients)
        if count <= _SEAL_AT_ONCE:
            return await asyncio.shield(self.enqueue(submission))
        taken = self._take_room(submission)
        try:
            message_id = self._ids.next(self._lane)
            recipients: list[NewRecipient] = []
            for start in range(0, count, _SEAL_AT_ONCE):
                upto = min(count, start + _SEAL_AT_ONCE)
                recipients += [self._sealed(submission, message_id, number, taken) for number in range(start, upto)]
                await asyncio.sleep(0)
            committed = self._append(submission, message_id, recipients, taken)
        except BaseException:
            self._on_failed(submission.campaign.id, taken)
            raise
        return await asyncio.shield(committed)

    def _take_room(self, submission: Submission) -> int:
        if submission.release_at > self._now() or self._held(submission):
            return 0
        return self._reserve(submission.campaign.id, submission.message_class, len(submission.recipients))

    def _held(self, submission: Submission) -> bool:
        """Whether an operator's order sets it aside."""
        campaign = submission.campaign
        standing = self._standing(campaign.tenant_id, submission.list_id, campaign.id, self._now())
        return standing is not Standing.GO

    def _append(
        self, submission: Submission, message_id: int, recipients: list[NewRecipient], taken: int
    ) -> "asyncio.Future[int]":
        """Seal the content, join the batch, and see to it that it is committed."""
        received_at = self._now()
        key = submission.campaign.key
        message = NewMessage(
            message_id,
            submission.campaign.tenant_id,
            submission.list_id,
            submission.campaign.id,
            submission.message_class,
            received_at,
            max(received_at, submission.release_at) + self._lifetime,
            key.seal_envelope(message_id, submission.envelope),
            key.seal_content(message_id, submission.raw),
            recipients,
            len(submission.raw),
            submission.release_at,
            self._held(submission),
            [
                NewRecipient(ordinal, each.person, key.seal_address(message_id, ordinal, each.address), 0, each.why)
                for ordinal, each in enumerate(submission.withheld, len(recipients))
            ],
        )
        if submission.message is not None:
            submission.raw = b""  # from here on only what was parsed of it is needed
        stored = Stored(submission, message_id, received_at, message.expires_at, range(taken))
        committed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pending.append((message, stored, committed))
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush())
            self._flushing.add_done_callback(_must_end_well)
        return committed

    async def drain(self) -> None:
        """Wait until everything that was submitted is committed or failed; take back what is in doubt, if it can be."""
        while self._flushing is not None:
            await asyncio.wait([self._flushing])
        if self._taking_back is not None:
            self._taking_back.cancel()
            try:
                await self._take_back_once()
            except DatabaseUnavailable:
                LOG.warning("submissions that were answered with 451 may be delivered", messages=len(self._doubtful))

    def _sealed(self, submission: Submission, message_id: int, ordinal: int, taken: int) -> NewRecipient:
        recipient = submission.recipients[ordinal]
        sealed = submission.campaign.key.seal_address(message_id, ordinal, recipient.address)
        if ordinal < taken:
            return NewRecipient(ordinal, recipient.person, sealed, self._queue.worker_id)
        # so that it can be put off with others where that is full; mail that leaves later may have another route then
        site = "" if submission.release_at else self._site_of(recipient.address.domain)
        return NewRecipient(ordinal, recipient.person, sealed, 0, site=site)

    async def _flush(self) -> None:
        """Commit what is pending, until nothing is: one transaction after the other, while which the next one fills."""
        try:
            while self._pending:
                wait = self._next_commit_at - self._tick()
                if wait > 0 and len(self._pending) < self._batch:
                    await self._sleep(wait)
                batch = self._next_batch()
                gather_seconds = min(_GATHER_SECONDS * len(batch), _GATHER_AT_MOST_SECONDS)
                self._next_commit_at = self._tick() + gather_seconds
                await self._commit(batch)
        finally:
            # here, and not when the loop gets round to it: what comes in between would wait for a flush that has ended
            self._flushing = None

    def _next_batch(self) -> list[tuple[NewMessage, Stored, asyncio.Future[int]]]:
        """Take the next messages of one lane out of those that are pending."""
        lane = self._pending[0][0].id % LANES
        recipients = octets = 0
        batch: list[tuple[NewMessage, Stored, asyncio.Future[int]]] = []
        left: list[tuple[NewMessage, Stored, asyncio.Future[int]]] = []
        for entry in self._pending:
            message = entry[0]
            fits = len(batch) < self._batch and recipients < _MOST_RECIPIENTS and octets < _MOST_BYTES
            if not fits or message.id % LANES != lane:
                left.append(entry)
                continue
            batch.append(entry)
            recipients += len(message.recipients)
            octets += len(message.sealed_content)
        self._pending = left
        self._lane = (self._lane + 1) % LANES
        return batch

    async def _commit(self, batch: list[tuple[NewMessage, Stored, asyncio.Future[int]]]) -> None:
        started = time.perf_counter()
        try:
            await self._queue.insert([message for message, _, _ in batch])
        except BaseException as error:
            self._failed(batch, error)
            return
        registry.commit_seconds.observe(time.perf_counter() - started)
        for _, stored, committed in batch:
            if not committed.done():
                committed.set_result(stored.message_id)
        for _, stored, _ in batch:
            self._on_stored(stored)

    def _failed(self, batch: list[tuple[NewMessage, Stored, asyncio.Future[int]]], error: BaseException) -> None:
        for _, stored, committed in batch:
            self._on_failed(stored.submission.campaign.id, len(stored.leased))
            if not committed.done():
                committed.set_exception(DatabaseUnavailable("the message could not be committed"))
                committed.exception()  # the connection that waits may be gone
        if isinstance(error, NoConnection):
            return
        if isinstance(error, Exception) and not isinstance(error, DatabaseUnavailable):
            # the server's own no: nothing was stored, and an id that was taken already is somebody else's
            LOG.error("commit of submitted messages failed", error=type(error).__name__)
            return
        self._doubtful.update(message.id for message, _, _ in batch)
        if self._taking_back is None:
            self._taking_back = asyncio.get_running_loop().create_task(self._take_back())

    async def _take_back(self) -> None:
        """Abandon what is in doubt as soon as the database answers."""
        while True:
            try:
                await self._take_back_once()
            except Exception as error:
                if not isinstance(error, DatabaseUnavailable):
                    LOG.error("doubtful messages can't be taken back", error=type(error).__name__)
                await self._sleep(_RETRY_SECONDS)
            else:
                self._taking_back = None
                return

    async def _take_back_once(self) -> None:
        while self._doubtful:
            some = list(itertools.islice(self._doubtful, _ABANDON_AT_ONCE))
            await self._queue.abandon(some)
            self._doubtful.difference_update(some)


def _must_end_well(flush: asyncio.Task[None]) -> None:
    if not flush.cancelled() and (error := flush.exception()) is not None:
        # what was committed is leased by this worker, which has not taken it over: it must not go on
        flush.get_loop().call_exception_handler({"message": "delivery task failed", "exception": error})
