"""Delivery in one worker: leases in, outcomes out. Does what dispatch.py decides.

A lease comes from a submission's commit or from a claim, is checked against the suppression index, waits at its site,
is rendered and signed when a session is free for it, checked again after 354, and settled by the peer's answer.
One task for each connection, none for a message. What can't have its turn here soon goes back to the queue.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Final

from bounce.outcome import Action, Outcome, Stage, Trouble
from bounce.trouble import from_exception, signing, suppressed
from config.database import DatabaseUnavailable
from config.log import LOG
from metrics import registry
from mta.accounts import Accounts
from mta.claims import Claims
from mta.connector import Connector
from mta.contents import Content, Contents, Unsignable
from mta.crossroads import Crossroads
from mta.dispatch import SPREAD_SECONDS, FullSites, Room, Site, Span, share
from mta.intake import Stored
from mta.lease import Lease, RetryPolicy, cancel, expire, give_back, hold, settle, withhold
from mta.orders import Book, Standing
from mta.outcomes import Outcomes
from mta.queue import Completion, FinalState, Queue
from mta.routing import Route, Router
from mta.session import Session, SessionLost, Withheld
from suppression.digest import MessageClass
from suppression.gate import Gate, Verdict
from suppression.scopes import Scopes

_DELIVERED: Final = {kind: registry.delivered.labels(kind.name.lower()) for kind in MessageClass}
# how soon a closed gate is looked at again
_GATE_SECONDS = 0.1
# bytes of a remote server's reply in what is said about its site
_REPLY_BYTES = 300
# leases settled by an order between two looks at the event loop
_OBEYED_AT_ONCE = 200
# campaigns that are named as waiting at a site, those with most: what a worker says is a line of bounded length
_CAMPAIGNS_REPORTED = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """What delivery keeps to, as configured."""

    connections_per_site: int
    messages_per_connection: int
    idle_seconds: float
    memory_per_site: int
    claim_batch: int
    poll_seconds: float


class Delivery:
    """Everything that this worker delivers."""

    def __init__(
        self,
        queue: Queue,
        accounts: Accounts,
        contents: Contents,
        router: Router,
        connector: Connector,
        gate: Gate,
        scopes: Scopes,
        room: Room,
        policy: RetryPolicy,
        limits: Limits,
        *,
        orders: Book | None = None,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._queue = queue
        self._contents = contents
        self._connector = connector
        self._gate = gate
        self._scopes = scopes
        self._room = room
        self._policy = policy
        self._limits = limits
        self._orders = orders or Book()
        self._now = now
        self._chance = chance
        self._outcomes: Outcomes
        self._crossroads = Crossroads(
            router,
            place=self._place,
            unroutable=lambda lease, outcome: self._settle(lease, outcome, ""),
            spawn=self._spawn,
            now=now,
        )
        self.claims = Claims(
            queue,
            accounts,
            scopes,
            room,
            self,
            batch=limits.claim_batch,
            poll_seconds=limits.poll_seconds,
            now=now,
            chance=chance,
        )
        self._sites: dict[str, Site] = {}
        self._full = FullSites(limits.memory_per_site)
        self._idle: dict[Site, deque[asyncio.Future[bool]]] = {}
        self._open_recipients: dict[int, int] = {}
        # out of every queue, by the task that has them: offered on its session, or looked at because of an order
        self._taken: dict[asyncio.Task[Any] | None, Sequence[Lease]] = {}
        self._workers: Sequence[int] = [queue.worker_id]
        self._tasks: set[asyncio.Task[None]] = set()
        self._labels = registry.SiteLabels()
        self._draining = False

    def attach(self, outcomes: Outcomes) -> None:
        """Where completions go; it in turn tells settled() what is committed."""
        self._outcomes = outcomes

    # --- what comes in

    def stored(self, stored: Stored) -> None:
        """A submission was committed: deliver those of its recipients that are born leased, unless it is too late."""
        submission = stored.submission
        if not stored.leased or self._draining:
            return
        self._contents.put(stored)
        self._open_recipients[stored.message_id] = len(stored.leased)
        campaign = submission.campaign
        for ordinal in stored.leased:
            recipient = submission.recipients[ordinal]
            self._accept(
                Lease(
                    stored.message_id,
                    ordinal,
                    campaign.tenant_id,
                    submission.list_id,
                    campaign.id,
                    submission.message_class,
                    recipient.person,
                    recipient.keys or self._scopes.keys(recipient.person, campaign.tenant_id, submission.list_id),
                    recipient.address,
                    stored.received_at,
                    stored.expires_at,
                    scoped_at=submission.scoped_at if recipient.keys else self._scopes.position,
                    due_at=submission.release_at or stored.received_at,
                )
            )

    def put_off(self, message_class: MessageClass, most: int) -> list[Span]:
        """Sites where what is due of a class is to be put off, and until when. None while this worker can't send
        anyway: others can.
        """
        if not self._limit() or not self._orders.fresh() or not self._gate.fresh():
            return []
        return self._full.spans(self._now(), message_class, most)

    def were_put_off(self, spans: Sequence[Span], counts: Mapping[str, int]) -> None:
        """So many of campaigns were put off, by site."""
        self._full.were_put_off(self._now(), spans, counts)

    def site_of(self, domain: str) -> str:
        """The site that mail for a domain goes to as far as is known, or ""."""
        return self._crossroads.site_of(domain)

    def in_hand(self) -> Iterator[tuple[int, int]]:
        """Message id and ordinal of every lease whose outcome is not committed; looks at all of them."""
        queues = (site.queue for site in self._sites.values())
        for lease in chain(self._crossroads, *queues, *self._taken.values()):
            yield lease.message_id, lease.ordinal
        yield from self._outcomes.keys()

    def accept(self, lease: Lease) -> bool:
        """A claimed recipient, for which there is room; False when there was none at its site."""
        self._open_recipients[lease.message_id] = self._open_recipients.get(lease.message_id, 0) + 1
        return self._accept(lease)

    def decline(self, lease: Lease, due_at: float, site: str) -> None:
        """A claimed recipient that goes back at once, unreadable or for lack of room for its campaign."""
        self._open_recipients[lease.message_id] = self._open_recipients.get(lease.message_id, 0) + 1
        # two slow sites may share all that a campaign may have, and neither be full by itself
        if (known := self._sites.get(site)) is not None and known.shut(self._now(), lease.message_class):
            self._full.add(known)
        self._give_back(lease, due_at, site)

    def _accept(self, lease: Lease) -> bool:
        """The check at the claim, then on to the site."""
        now = self._now()
        if now >= lease.expires_at:
            self._complete(expire(lease, self._policy, now=now))
        elif self._verdict(lease) is Verdict.SUPPRESSED:
            self._withhold(lease, "claim")
        elif not self._stopped(lease):
            return self._crossroads.send(lease)
        return True

    def _verdict(self, lease: Lease) -> Verdict:
        """What the gate says now, by keys that know every group that a tenant has joined meanwhile."""
        if lease.scoped_at != self._scopes.position:
            lease.keys = self._scopes.keys(lease.person, lease.tenant_id, lease.list_id)
            lease.scoped_at = self._scopes.position
        return self._gate.allows(lease.keys, lease.message_class)

    # --- sites and sessions

    def _place(self, lease: Lease, route: Route) -> bool:
        """Let a lease wait at its site; False, and given back, where that would take too long."""
        site = self._sites.get(route.site)
        if site is None:
            site = self._sites[route.site] = Site(route)
        site.route = route
        now = self._now()
        if self._stopped(lease, site.key):
            return True
        if site.suspended(now):
            due_at = site.suspended_until + self._chance() * SPREAD_SECONDS
            self._full.add(site)
            self._give_back(lease, due_at, site.key, site.last_outcome)
            return False
        if not self._limit():
            # fewer connections than workers: others have the site's share, one of them will claim it
            self._give_back(lease, now + self._chance() * self._limits.poll_seconds, site.key)
            return True
        if len(site.queue) >= self._limits.memory_per_site and lease.message_class is not MessageClass.TRANSACTIONAL:
            self._full.add(site)
            self._give_back(lease, site.turn_at(now, self._chance()), site.key)
            return False
        site.push(lease, now)
        self._pump(site)
        return True

    def share_with(self, workers: Sequence[int]) -> None:
        """Who shares the sites' limits from now on."""
        self._workers = workers
        for site in list(self._sites.values()):
            self._pump(site)

    def _limit(self) -> int:
        return share(self._limits.connections_per_site, self._workers, self._queue.worker_id)

    def _pump(self, site: Site) -> None:
        """Wake an idle session, or open another, as far as there is work and the limit allows."""
        if self._draining:
            return
        idle = self._idle.get(site)
        while idle and len(site.queue):
            if _wake(idle.popleft(), True):
                return
        if site.wants_session(self._now(), self._limit()):
            site.sessions += 1
            self._spawn(self._serve(site))

    async def _serve(self, site: Site) -> None:
        """The life of one connection."""
        label = self._labels.label(site.key)
        session: Session | None = None
        registry.connections.labels(label).inc()
        try:
            session = await self._connect(site)
            site.established += session is not None
            while session is not None and not self._draining:
                if not session.usable or session.transactions >= self._limits.messages_per_connection:
                    break
                lease = site.queue.pop()
                if lease is None:
                    if site.sessions > self._limit() or not await self._work(site):
                        break
                elif self._verdict(lease) is Verdict.STALE or not self._orders.fresh():
                    site.queue.push(lease, first=True)
                    await asyncio.sleep(_GATE_SECONDS)
                elif not self._stopped(lease, site.key):
                    await self._attempt(session, site, lease)
        finally:
            site.established -= session is not None
            try:
                if session is not None:
                    await session.quit()
            finally:
                self._release(site, label)

    def _release(self, site: Site, label: str) -> None:
        """A connection is closed, and not before: another one may take its place."""
        registry.connections.labels(label).dec()
        site.sessions -= 1
        self._forget(site)
        self._pump(site)

    def _forget(self, site: Site) -> None:
        if self._sites.get(site.key) is site and site.forgettable(self._now()):
            del self._sites[site.key]
            self._idle.pop(site, None)

    async def _work(self, site: Site) -> bool:
        """Wait for work at a site; False when none came while it was worth keeping the connection."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        idle = self._idle.setdefault(site, deque())
        idle.append(waiter)
        timer = loop.call_later(self._limits.idle_seconds, _wake, waiter, False)
        try:
            return await waiter
        finally:
            timer.cancel()
            if waiter in idle:
                idle.remove(waiter)

    async def _connect(self, site: Site) -> Session | None:
        """A session with the site; where none is to be had, the site rests."""
        try:
            session = await self._connector.connect(site.route)
        except SessionLost as lost:
            if site.established:  # only this one more was refused
                site.crowded(self._now())
            else:
                self._rest(site, lost.outcome)
            return None
        site.reached()
        return session

    def _rest(self, site: Site, outcome: Outcome) -> None:
        """A site can't be used for now: what waits for it is deferred by that, even if one recipient was refused."""
        now = self._now()
        if outcome.action is not Action.DELAYED:
            outcome = replace(outcome, action=Action.DELAYED, status=f"4{outcome.status[1:]}")
        for lease in site.unreachable(outcome, now, self._chance()):
            self._settle(lease, outcome, site.key, not_before=site.suspended_until)

    # --- one attempt

    async def _attempt(self, session: Session, site: Site, lease: Lease) -> None:
        """Offer one recipient's mail on a session, and settle what comes of it."""
        now = self._now()
        if now >= lease.expires_at:
            self._complete(expire(lease, self._policy, now=now, site=site.key))
            return
        site.in_transaction += 1
        me = asyncio.current_task()
        self._taken[me] = (lease,)
        try:
            content = await self._content(lease, site)
            if content is not None:
                await self._transact(session, site, lease, content)
        except asyncio.CancelledError:
            session.abort()
            raise
        finally:
            del self._taken[me]
            site.in_transaction -= 1

    async def _content(self, lease: Lease, site: Site) -> Content | None:
        """What to send; None when it can't be had and the lease is settled."""
        try:
            return await self._contents.get(lease.message_id)
        except Unsignable:
            self._settle(lease, signing("no DKIM key for the From domain"), site.key)
        except DatabaseUnavailable:
            site.queue.push(lease, first=True)
            await asyncio.sleep(_GATE_SECONDS)
        except Exception as error:  # whatever it is: temporary (M1)
            LOG.error("content can't be had", message=lease.message_id, error=type(error).__name__)
            self._settle(lease, signing("the content can't be made ready"), site.key)
        return None

    async def _transact(self, session: Session, site: Site, lease: Lease, content: Content) -> None:
        try:
            rendered = self._contents.render(content, lease.person)
        except Exception as error:
            LOG.error("mail can't be made", message=lease.message_id, error=type(error).__name__)
            self._settle(lease, signing("the signature can't be made"), site.key)
            return

        def check() -> Withheld | None:
            verdict = self._verdict(lease)
            lease.handed_at = self._now()
            if verdict is not Verdict.OPEN:
                return Withheld(stale=verdict is Verdict.STALE)
            # an order sends it back to the site's queue, which obeys when it is taken from there
            free = self._orders.fresh() and self._standing(lease, site.key) is Standing.GO
            return None if free else Withheld(stale=True)

        reused = session.transactions > 0
        began = self._now()
        try:
            outcome = await session.transact(
                "" if content.envelope.notice and not content.envelope.sender else rendered.return_path,
                lease.address.address,
                rendered.wire,
                eight_bit=content.envelope.eight_bit,
                smtputf8=content.envelope.smtputf8 or not lease.address.address.isascii(),
                check=check,
            )
        except Withheld as withheld:
            if withheld.stale:
                site.queue.push(lease, first=True)
            else:
                self._withhold(lease, "dot", site.key)
        except SessionLost as lost:
            # a peer may close a connection that it finds idle: no attempt was made for this recipient
            if reused and lost.outcome.trouble is Trouble.SESSION and not lost.touched:
                site.queue.push(lease, first=True)
            else:
                self._settle(lease, lost.outcome, site.key, began=began)
                if lost.outcome.trouble is Trouble.SITE:
                    self._rest(site, lost.outcome)
        except Exception as error:  # a mistake of ours: one recipient's mail waits, and nobody else's (M1)
            LOG.error("mail can't be offered", message=lease.message_id, error=type(error).__name__)
            session.abort()
            self._settle(lease, from_exception(Stage.MAIL, error, remote_mta=session.host), site.key, began=began)
        else:
            site.pace.add(self._now())
            self._settle(lease, outcome, site.key, began=began)
            if outcome.trouble is Trouble.SITE:
                self._rest(site, outcome)
                session.abort()

    # --- operators' orders

    def _standing(self, lease: Lease, site: str) -> Standing:
        return self._orders.standing(lease.tenant_id, lease.list_id, lease.campaign_id, lease.received_at, site)

    def _stopped(self, lease: Lease, site: str = "") -> bool:
        """Whether an order stands in the way of a recipient, which is then settled by it."""
        standing = self._standing(lease, site)
        if standing is Standing.GO:
            return False
        registry.ordered.labels(standing.name.lower()).inc()
        settled_by = hold if standing is Standing.HOLD else cancel
        self._complete(settled_by(lease, now=self._now(), site=site))
        return True

    def orders_changed(self) -> None:
        """Set aside or cancel what waits here and may not go any more."""
        if self._orders.stopped() and not self._draining:
            self._spawn(self._obey())

    async def _obey(self) -> None:
        me = asyncio.current_task()
        for site in list(self._sites.values()):
            stopped = self._taken[me] = site.queue.take(partial(self._may_not_go, site.key))
            for number, lease in enumerate(stopped, 1):
                # an order that was lifted meanwhile lets it go on, and its site may be a new one
                self._place(lease, site.route)
                if number % _OBEYED_AT_ONCE == 0:
                    await asyncio.sleep(0)
        self._taken.pop(me, None)

    def sites(self, most: int) -> list[dict[str, Any]]:
        """The sites with most that waits here, and those that rest, for whoever asks why."""
        now = self._now()
        busiest = sorted(self._sites.values(), key=lambda site: (not site.suspended(now), -len(site.queue)))
        return [
            {
                "site": site.key,
                "waiting": len(site.queue),
                "connections": site.sessions,
                "busy": site.in_transaction,
                "limit": self._limit(),
                "suspended_until": site.suspended_until,
                "failures": site.failures,
                "last_reply": _beginning(site.last_outcome.diagnostic) if site.last_outcome else "",
                "campaigns": site.queue.campaigns(_CAMPAIGNS_REPORTED),
            }
            for site in busiest[:most]
        ]

    def _may_not_go(self, site: str, lease: Lease) -> bool:
        return self._standing(lease, site) is not Standing.GO

    # --- what goes out

    def _settle(
        self, lease: Lease, outcome: Outcome, site: str, not_before: float = 0.0, began: float | None = None
    ) -> None:
        now = self._now()
        completion = settle(
            lease,
            outcome,
            self._policy,
            now=now,
            chance=self._chance(),
            site=site,
            not_before=not_before,
            attempt_seconds=0.0 if began is None else max(0.0, now - began),
        )
        if completion.state is FinalState.DELIVERED:
            _DELIVERED[lease.message_class].inc()
            registry.delivery_seconds.observe(now - lease.received_at)
        self._complete(completion)

    def _withhold(self, lease: Lease, check: str, site: str = "") -> None:
        registry.suppressed.labels(check).inc()
        self._complete(withhold(lease, suppressed(), now=self._now(), site=site))

    def _give_back(self, lease: Lease, due_at: float, site: str = "", outcome: Outcome | None = None) -> None:
        now = self._now()
        if now >= lease.expires_at:
            self._complete(expire(lease, self._policy, now=now, site=site, last=outcome))
        else:
            self._complete(give_back(lease, now=now, due_at=due_at, site=site, outcome=outcome))

    def _complete(self, completion: Completion) -> None:
        self._outcomes.complete(completion)

    async def settled(self, batch: Sequence[Completion]) -> None:
        """These are committed: free what they held, and drop messages that have no recipient left here."""
        emptied = []
        for completion in batch:
            self._room.give(completion.campaign_id, 1, tried=completion.tried)
            left = self._open_recipients.get(completion.message_id, 1) - 1
            if left:
                self._open_recipients[completion.message_id] = left
            else:
                self._open_recipients.pop(completion.message_id, None)
                self._contents.discard(completion.message_id)
                if completion.state is not None:
                    emptied.append(completion.message_id)
        self.claims.room_freed()
        if self._full.reopened(self._now()):
            self.claims.site_reopened()
        await self._queue.sweep(emptied)

    async def expire_for_ever(self) -> None:
        """What waits in memory may expire there (D4), and sites are forgotten that have nothing."""
        while True:
            await asyncio.sleep(self._limits.poll_seconds * 5)
            now = self._now()
            for site in list(self._sites.values()):
                for lease in site.queue.take_expired(now):
                    self._complete(expire(lease, self._policy, now=now, site=site.key, last=site.last_outcome))
                self._pump(site)  # what was put back while the site rested
                self._forget(site)

    def report(self) -> None:
        """How much is held in memory, for the metrics; called now and then."""
        registry.leased.set(self._room.held)
        registry.memory.set(self._contents.held_bytes)

    # --- the end

    def stop(self) -> None:
        """Begin nothing from now on: no transaction, no claim. What is accepted still stays leased."""
        self._draining = True
        self.claims.stop()
        for idle in self._idle.values():
            for waiter in idle:
                _wake(waiter, True)

    async def drain(self, seconds: float) -> None:
        """Finish what is in transaction, take nothing new; what is left stays leased, and is the caller's to return."""
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        await self.abort()
        await self._outcomes.drain()

    async def abort(self) -> None:
        """End what goes on still, so that it has no outcomes afterwards."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            # a journal that can't be written, or a mistake: this worker must not go on as if nothing had happened
            LOG.critical("a delivery task failed", error=type(error).__name__)
            asyncio.get_running_loop().call_exception_handler({"message": "delivery task failed", "exception": error})


def _beginning(reply: str) -> str:
    """As much of a reply as is shown; a remote server chose it, and its characters."""
    return reply.encode("utf-8", "replace")[:_REPLY_BYTES].decode("utf-8", "ignore")


def _wake(waiter: "asyncio.Future[bool]", work: bool) -> bool:
    """Tell a session that waits whether there is work; False when it knows already."""
    if waiter.done():
        return False
    waiter.set_result(work)
    return True
