"""Standing orders in the database: reading and giving them, and moving the queue's rows after them.

A change takes the row lock of the head, so that positions grow in the order of commits; NOTIFY hastens readers.
The rows are moved in batches of bounded size, a lane at a time, and any number of nodes may do so at once.
Raises DatabaseUnavailable.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from config.database import FEED_LOST, Database, DatabaseUnavailable, load_queries
from mta.orders import Order, OrderError, Reach, Schedule, State, Stopped, Window, utc

if TYPE_CHECKING:
    from asyncpg import Connection

CHANNEL: Final = "heed_orders"
_QUERIES: Final = load_queries("mta", "order_store.sql")
# longer than any message is held and then tried: what an older order cancelled is gone
_FORGET_SECONDS: Final = 400 * 86_400.0


@dataclass(frozen=True, slots=True)
class Target:
    """What an order is about, with its name for people."""

    reach: Reach
    id: int
    site: str
    name: str


class OrderStore:
    """The orders of an installation."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._db = database
        self._now = now

    async def orders(self) -> list[Order]:
        """Everything that is ordered."""
        async with self._db.connection() as connection:
            return _orders(await connection.fetch(_QUERIES.orders, self._now() - _FORGET_SECONDS))

    async def set_state(
        self, target: Target, state: State, reason: str, actor: str, until: float | None = None
    ) -> None:
        """Pause, resume or cancel from now on. A list, tenant or site that is paused stays so when what waits of it is
        cancelled; a campaign takes no mail then. Raises OrderError for the pause of a cancelled campaign.
        """
        names = {State.PAUSED: "pause", State.RUNNING: "resume", State.CANCELLED: "cancel"}
        about, now = (target.reach, target.id, target.site), self._now()
        async with self._change(
            target, names[state], reason, actor, "" if until is None else f"until {utc(until)}"
        ) as do:
            if state is State.CANCELLED and await do(_QUERIES.cancel_paused, *about, now):
                return
            if not await do(_QUERIES.set_state, *about, state, reason, actor, now, until):
                raise OrderError(f"{target.name} is cancelled; `heed campaign resume` lets new mail of it in again")

    async def set_schedule(
        self, target: Target, not_before: float | None, window: Window | None, reason: str, actor: str
    ) -> None:
        """Let mail leave only from a moment on, and only in a window; None for always."""
        text = str(window) if window else ""
        start = "" if not_before is None else f"not before {utc(not_before)}"
        details = " ".join(part for part in (start, text) if part) or "always"
        async with self._change(target, "reschedule", reason, actor, details) as do:
            about = (target.reach, target.id, target.site)
            await do(_QUERIES.set_schedule, *about, reason, actor, self._now(), not_before, text)

    async def require_consent(self, target: Target, required: bool, reason: str, actor: str) -> None:
        """Whether campaign mail of a tenant needs a recorded consent from now on."""
        action = "require consent" if required else "require no consent"
        async with self._change(target, action, reason, actor) as do:
            await do(_QUERIES.require_consent, target.id, required)

    async def consent_required(self) -> frozenset[int]:
        """The tenants whose campaign mail needs a recorded consent."""
        return frozenset(row[0] for row in await self._rows(_QUERIES.consent_required))

    async def note(self, target: Target, action: str, reason: str, actor: str, details: str = "") -> None:
        """Write down what an operator did that is no order."""
        async with self._db.connection() as connection:
            await connection.execute(
                _QUERIES.note, self._now(), actor, action, target.reach, target.id, target.site, reason, details
            )

    async def history(self, target: Target) -> list[dict[str, Any]]:
        """What operators did about a target, newest first."""
        async with self._db.connection() as connection:
            rows = await connection.fetch(_QUERIES.history, target.reach, target.id, target.site)
        return [dict(row) for row in rows]

    async def find(self, campaign: str, list_name: str, tenant: str, site: str) -> Target:
        """What an operator means: a campaign by id or name, a list, a site or a tenant; raises OrderError."""
        if site and (campaign or list_name or tenant):
            raise OrderError("a site is named alone, without campaign, list or tenant")
        if campaign and list_name:
            raise OrderError("name a campaign or a list, not both")
        if site:
            return Target(Reach.SITE, 0, site, f"site {site}")
        if campaign or list_name:
            query = _QUERIES.find_campaigns if campaign else _QUERIES.find_lists
            rows = await self._rows(query, campaign or list_name, tenant)
            kind, reach = ("campaign", Reach.CAMPAIGN) if campaign else ("list", Reach.LIST)
            return _only(rows, reach, kind, campaign or list_name, tenant)
        if not tenant:
            raise OrderError("name a campaign, or --list, --tenant or --site")
        rows = await self._rows(_QUERIES.find_tenant, tenant)
        if not rows:
            raise OrderError(f"there is no tenant {tenant!r}; `heed tenant list` shows them")
        return Target(Reach.TENANT, rows[0]["id"], "", f"tenant {tenant}")

    async def target_names(self, orders: Sequence[Order]) -> dict[tuple[Reach, int], str]:
        """What the targets of orders are called; sites have their own names."""
        ids = [[order.target for order in orders if order.reach is reach] for reach in list(Reach)[:3]]
        rows = await self._rows(_QUERIES.target_names, *ids)
        return {(Reach(row["reach"]), row["id"]): row["name"] for row in rows}

    async def about_campaign(self, campaign_id: int) -> list[Order]:
        """The orders that a campaign's mail may be stopped by: its own, its tenant's, its lists' and its sites'."""
        rows = await self._rows(_QUERIES.campaign_ids, campaign_id)
        if not rows:
            return []
        mine = {(Reach.CAMPAIGN, campaign_id), (Reach.TENANT, rows[0]["tenant_id"])}
        mine |= {(Reach.LIST, list_id) for list_id in rows[0]["lists"]}
        return [
            order
            for order in await self.orders()
            if (order.reach, order.target) in mine or (order.site and order.site in rows[0]["sites"])
        ]

    async def move(self, stopped: Stopped, lane: int, most: int) -> int:
        """One batch of each kind in a lane, as what is stopped now demands; returns how many rows were moved."""
        held = {reach: list(targets) for reach, targets in stopped.held.items()}
        campaigns, lists, tenants = held[Reach.CAMPAIGN], held[Reach.LIST], held[Reach.TENANT]
        cancelled = [(reach, id_, at) for reach, ids in stopped.cancelled.items() for id_, at in ids.items()]
        columns: list[list[float]] = [list(column) for column in zip(*cancelled, strict=True)] or [[], [], []]
        async with self._db.connection() as connection:
            released = await connection.execute(
                _QUERIES.release, lane, campaigns, lists, tenants, list(stopped.held_sites), most
            )
            moved = _count(released)
            if campaigns or lists or tenants:
                rows = await connection.fetch(_QUERIES.campaigns_of, campaigns, lists, tenants)
                among = [row[0] for row in rows]
                held_now = await connection.execute(
                    _QUERIES.hold, lane, campaigns, lists, tenants, most, among, *columns
                )
                moved += _count(held_now)
            if cancelled:
                moved += _count(await connection.execute(_QUERIES.recall, lane, *columns, most))
            if stopped.cancelled_sites:
                names, times = list(stopped.cancelled_sites), list(stopped.cancelled_sites.values())
                moved += _count(await connection.execute(_QUERIES.recall_sites, lane, names, times, most))
        return moved

    async def _rows(self, query: str, *arguments: Any) -> list[Any]:
        async with self._db.connection() as connection:
            return list(await connection.fetch(query, *arguments))

    @asynccontextmanager
    async def _change(
        self, target: Target, action: str, reason: str, actor: str, details: str = ""
    ) -> AsyncIterator[Callable[..., Awaitable[int]]]:
        """A change that is written down; yields what does a statement of it, and tells how many rows that changed."""
        noted = (self._now(), actor, action, target.reach, target.id, target.site, reason, details)
        async with self._db.transaction() as connection:
            await connection.execute(_QUERIES.begin_change, *noted)

            async def do(query: str, *arguments: Any) -> int:
                return _count(await connection.execute(query, *arguments))

            yield do


class OrderFeed:
    """A connection of its own, on which changes are looked for and hinted at. Good for nothing after it raised."""

    def __init__(self, connection: "Connection", answer_within_seconds: float) -> None:
        self._connection = connection
        self._within = answer_within_seconds

    @classmethod
    async def open(cls, database: Database, *, answer_within_seconds: float) -> "OrderFeed":
        """Connect; a look at the head that is not answered within this time fails."""
        try:
            async with asyncio.timeout(answer_within_seconds):
                return cls(await database.dedicated(), answer_within_seconds)
        except TimeoutError:
            raise DatabaseUnavailable("no connection in time") from None

    async def listen(self, hint: Callable[[], None]) -> None:
        """Call hint when orders may have changed, or the connection is lost; without a word where LISTEN is refused."""
        self._connection.add_termination_listener(lambda *_: hint())
        try:
            await self._connection.add_listener(CHANNEL, lambda *_: hint())
        except FEED_LOST:
            return  # a transaction pooler; the poll alone keeps the bound

    async def head(self) -> int:
        """The number of the newest change."""
        try:
            async with asyncio.timeout(self._within):
                ((position, standby),) = await self._answer(_QUERIES.head)
        except TimeoutError:
            raise DatabaseUnavailable("orders can't be followed: no answer in time") from None
        return self._sure(position, standby)

    async def orders(self, now: float) -> tuple[int, list[Order]]:
        """The same with everything that is ordered then; now in epoch seconds."""
        rows = await self._answer(_QUERIES.orders, now - _FORGET_SECONDS)
        return self._sure(rows[0]["position"], rows[0]["standby"]), _orders(rows)

    async def consent_required(self) -> frozenset[int]:
        """As the store's."""
        return frozenset(row[0] for row in await self._answer(_QUERIES.consent_required))

    async def _answer(self, query: str, *arguments: Any) -> list[Any]:
        try:
            return list(await self._connection.fetch(query, *arguments))
        except FEED_LOST as error:
            raise DatabaseUnavailable(f"orders can't be followed: {type(error).__name__}") from error

    @staticmethod
    def _sure(position: int, standby: bool) -> int:
        if standby:
            raise DatabaseUnavailable("the database is a standby")
        return position

    def close(self) -> None:
        """Let go of the connection at once."""
        self._connection.terminate()


def _only(rows: Sequence[Any], reach: Reach, kind: str, name: str, tenant: str) -> Target:
    """The one that is meant. A campaign may be called what is the id of another one: then nobody knows which."""
    by_id = [row for row in rows if str(row["id"]) == name and reach is Reach.CAMPAIGN]
    if by_id and len(rows) > 1:
        others = ", ".join(str(row["id"]) for row in rows if row not in by_id)
        raise OrderError(
            f"{name!r} is the id of campaign {by_id[0]['name'] or '-'!r} ({by_id[0]['tenant']}), and the name of "
            f"another; say the first by its name, or the other by its id: {others}"
        )
    if not rows:
        of = f" of tenant {tenant}" if tenant else ""
        raise OrderError(
            f"there is no {kind} {name!r}{of}; `heed {'campaign' if reach is Reach.CAMPAIGN else 'queue'}"
            f"{' list' if reach is Reach.CAMPAIGN else ''}` shows what there is"
        )
    if len(rows) > 1:
        tenants = ", ".join(sorted(row["tenant"] for row in rows))
        raise OrderError(f"several tenants have a {kind} {name!r}: {tenants}; say which with --tenant")
    row = rows[0]
    return Target(reach, row["id"], "", f"{kind} {row['name'] or '-'} ({row['tenant']})")


def _orders(rows: Sequence[Any]) -> list[Order]:
    return [_order(row) for row in rows if row["reach"] is not None]


def _order(row: Any) -> Order:
    def seconds(name: str) -> float | None:
        return None if row[name] is None else row[name].timestamp()

    window = Window.from_text(row["send_window"]) if row["send_window"] else None
    at = seconds("at") or -math.inf
    schedule = Schedule(
        row["schedule_reason"], row["scheduler"], seconds("scheduled_at") or at, seconds("not_before"), window
    )
    return Order(
        Reach(row["reach"]), row["target"], row["site"], State(row["state"]), row["reason"], row["actor"], at,
        seconds("until"), seconds("cancelled_at"), schedule if schedule else None,
    )  # fmt: skip


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
