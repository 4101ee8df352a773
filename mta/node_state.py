"""What a node says of itself: its state for commands, and the values of its status page.

Sites come from what each worker last said about those that it has dealings with; queue, campaigns and orders from the
database, as last counted. No address.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from config.database import DatabaseUnavailable
from metrics.history import History
from metrics.status_page import Chart, Status, Table, number
from mta.order_store import OrderStore
from mta.orders import Order, Reach, Standing, State, utc
from mta.summary import STATES, Summary

_ROWS: Final = 12


def merged_sites(workers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The sites of all workers of a node, the busiest first; what rests is behind those where somebody waits."""
    found: dict[str, dict[str, Any]] = {}
    for worker in workers:
        for site in worker.get("sites", []):
            none = {"waiting": 0, "connections": 0, "busy": 0, "limit": 0, "campaigns": []}
            known = found.setdefault(site["site"], {**site, **none})
            for name in ("waiting", "connections", "busy", "limit"):
                known[name] += site[name]
            known["campaigns"] = list(dict.fromkeys([*known["campaigns"], *site["campaigns"]]))
            if site["suspended_until"] >= known["suspended_until"]:
                known.update({name: site[name] for name in ("suspended_until", "last_reply", "failures")})
    return sorted(
        found.values(),
        key=lambda site: (-site["waiting"], -site["suspended_until"], -site["connections"], site["site"]),
    )


def campaign_state(row: Mapping[str, Any], orders: Sequence[Order], now: float, words: Callable[[Order], str]) -> str:
    """What a campaign of the summary is in for, by its own order, its tenant's, or what is held of it.

    words: of an order. Which of its recipients a list's or a site's order holds, the summary doesn't say.
    """
    own = next((each for each in orders if each.reach is Reach.CAMPAIGN and each.target == row["id"]), None)
    if own is not None and own.standing(now) is not Standing.GO:
        return words(own)
    for order in orders:
        if order.reach is Reach.TENANT and order.target == row["tenant_id"] and _concerns(order, row, now):
            return f"tenant {words(order)}"
    if own is not None and own.schedule is not None and own.schedule.window is not None:
        return words(own)
    return "held: see heed explain" if row["held"] else "running"


def _concerns(order: Order, row: Mapping[str, Any], now: float) -> bool:
    """Whether a tenant's order stops a campaign: it cancels only what was accepted before."""
    cancels = order.state is State.CANCELLED and row["created_at"].timestamp() <= order.at
    return cancels or order.holds(now)


class NodeState:
    """Puts a node's state together. now: epoch seconds."""

    def __init__(
        self, node: str, history: History, summary: Summary, orders: OrderStore, now: Callable[[], float]
    ) -> None:
        self._node = node
        self._history = history
        self._summary = summary
        self._orders = orders
        self._now = now

    def state(self, ready: Mapping[str, Any], workers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """For `heed explain` and `heed top`, as JSON."""
        return {"node": self._node, "at": self._now(), **ready, "sites": merged_sites(workers)}

    async def status(self, ready: Mapping[str, Any], workers: Sequence[Mapping[str, Any]]) -> Status:
        """For the status page; without the database, what is known without it."""
        reasons = list(ready["reasons"])
        try:
            totals, tables = await self._counted()
        except DatabaseUnavailable:
            totals, tables = {}, []
            reasons.append("the database does not answer: queue and campaigns are not shown")
        return Status(
            self._node, self._now(), bool(ready["ready"]), reasons, self._tiles(totals, ready),
            self._charts(), [*tables, _sites(merged_sites(workers), self._now())],
        )  # fmt: skip

    def _tiles(self, totals: Mapping[str, int], ready: Mapping[str, Any]) -> dict[str, str]:
        def latest(name: str) -> float:
            rates = self._history.rates(name)
            return rates[-1][1] if rates else 0.0

        def gauge(name: str) -> float:
            values = self._history.values(name)
            return values[-1][1] if values else 0.0

        return {
            "accepted / s": number(latest("heed_accepted_recipients_total")),
            "delivered / s": number(latest("heed_delivered_total")),
            **{state: number(totals[state]) for state in STATES if state in totals},
            "watermark age": f"{gauge('heed_watermark_age_seconds'):.1f} s",
            "sent after suppression": number(gauge("heed_sends_after_suppression_total")),
            "workers ready": f"{ready['workers']['ready']} of {ready['workers']['expected']}",
        }

    def _charts(self) -> list[Chart]:
        rates, values = self._history.rates, self._history.values

        def mean(name: str) -> list[tuple[float, float]]:
            """Seconds for one, while there were any."""
            pairs = zip(rates(f"{name}_sum"), rates(f"{name}_count"), strict=True)
            return [(at, spent / count if count else 0.0) for (at, spent), (_, count) in pairs]

        return [
            Chart("Recipients in and out", (
                ("accepted", rates("heed_accepted_recipients_total")), ("delivered", rates("heed_delivered_total")),
            ), " / s"),
            Chart("Deferred, bounced, suppressed", (
                ("deferred", rates("heed_deferred_total")), ("bounced", rates("heed_bounced_total")),
                ("suppressed", rates("heed_suppressed_total")),
            ), " / s"),
            Chart("Queue", tuple((state, values(f"heed_queued_recipients{{{state}}}")) for state in STATES)),
            Chart("The promise", (
                ("watermark age", values("heed_watermark_age_seconds")),
                ("unsubscribe in force after", mean("heed_unsubscribe_effective_seconds")),
            ), " s"),
            Chart("Database", (
                ("commit", mean("heed_commit_seconds")), ("claim", mean("heed_claim_seconds")),
                ("outcomes", mean("heed_outcome_seconds")),
            ), " s"),
            Chart("CPU of workers", (("cores", rates("heed_cpu_seconds_total")),)),
        ]  # fmt: skip

    async def _counted(self) -> tuple[dict[str, int], list[Table]]:
        now = self._now()
        totals = {name: row["recipients"] for name, row in (await self._summary.totals()).items()}
        orders = await self._orders.orders()
        names = await self._orders.target_names(orders)
        campaigns = [
            (
                f"{row['tenant']}/{row['campaign'] or '-'}",
                row["queued"],
                row["leased"],
                row["held"],
                campaign_state(row, orders, now, lambda order: order.says(now)),
            )
            for row in await self._summary.campaigns(_ROWS)
        ]
        others = [
            (order.reach.name.lower(), order.site or names.get((order.reach, order.target), "-"), order.says(now))
            for order in orders
            if order.reach is not Reach.CAMPAIGN
        ]
        tables = [Table("Campaigns", ("campaign", "queued", "leased", "held", "state"), campaigns, "No campaign yet.")]
        if others:
            tables.append(Table("Orders", ("about", "name", "state"), others[:_ROWS], ""))
        return {state: totals.get(state, 0) for state in STATES}, tables


def _sites(sites: Sequence[Mapping[str, Any]], now: float) -> Table:
    rows = [
        (site["site"], site["waiting"], f"{site['connections']} of {site['limit']}", site_says(site, now))
        for site in sites[:_ROWS]
    ]
    return Table("Sites of this node", ("site", "waiting", "connections", "state"), rows, "No mail is on its way.")


def site_says(site: Mapping[str, Any], now: float) -> str:
    """A site's state at this node, in words."""
    if site["suspended_until"] > now:
        after = f" after {site['last_reply']}" if site["last_reply"] else ""
        return f"rests until {utc(site['suspended_until'])}{after}"
    if site["waiting"] and site["connections"] >= site["limit"]:
        return "at its limit of connections"
    return "busy" if site["busy"] else "idle"
