"""`heed campaign`: stop and start what is being sent, by campaign, list, tenant or site, and see what was ordered.

An order is in force on every node within a second, for what is queued, leased and still to come. Exit code 1 when the
target is unknown, 2 for wrong use.
"""

import sys
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NamedTuple, NoReturn

import typer

from config.failure import Failed
from mta.order_store import Target
from mta.orders import Order, OrderError, Reach, Schedule, Standing, State, Window, moment, utc
from mta.terminal import (
    Config,
    Json,
    Set,
    complain,
    operator,
    print_json,
    run_with_installation,
    say,
    settings_of,
    table,
)

campaigns = typer.Typer(no_args_is_help=True, help="Pause, resume, cancel and schedule what is sent.")

Campaign = Annotated[
    str | None, typer.Argument(metavar="[CAMPAIGN]", help="Its id or name; or give one of the options.")
]
Tenant = Annotated[
    str | None, typer.Option("--tenant", help="Everything of this tenant; or whose campaign or list it is.")
]
ListName = Annotated[str | None, typer.Option("--list", help="Everything for this list.")]
Site = Annotated[str | None, typer.Option("--site", help="Everything for this site, as `heed queue` names it.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; others will read it.")]
Actor = Annotated[str, typer.Option("--by", help="Who orders it.", show_default="you")]

_WORDS = {State.RUNNING: "running", State.PAUSED: "paused", State.CANCELLED: "cancelled"}


@campaigns.command("list")
def list_(
    tenant: Tenant = None,
    most: Annotated[int, typer.Option("--most", min=1, max=10_000, help="Campaigns to show.")] = 50,
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Show campaigns with their state and what is queued, and every order about lists, tenants and sites."""

    async def look(parts: Any) -> dict[str, Any]:
        if tenant is not None:
            await _find(parts, "", tenant)
        await parts.summary.refresh_now()
        found = await parts.summary.campaigns(most, tenant=tenant or "")
        orders = await parts.orders.orders()
        names = await parts.orders.target_names(orders)
        own = {order.target: order for order in orders if order.reach is Reach.CAMPAIGN}
        now = time.time()
        shown = [{**row, **_order_fields(own.get(row["id"]), now)} for row in found]
        others = [
            {
                "reach": order.reach.name.lower(),
                "name": order.site or names.get((order.reach, order.target), str(order.target)),
                **_order_fields(order, now),
            }
            for order in orders
            if order.reach is not Reach.CAMPAIGN
        ]
        return {"counted_seconds_ago": await parts.summary.age_seconds(), "campaigns": shown, "orders": others}

    found = run_with_installation(settings_of(config, overrides), look)
    if as_json:
        print_json(found)
        return
    columns = ("id", "tenant", "campaign", "queued", "leased", "held", "state")
    rows: list[tuple[object, ...]] = [
        (row["id"], row["tenant"], row["campaign"] or "-", row["queued"], row["leased"], row["held"], row["says"])
        for row in found["campaigns"]
    ]
    table(*columns, rows=rows, empty="There are no campaigns yet.")
    for order in found["orders"]:
        say(f"{order['reach']} {order['name']}: {order['says']}")
    say(f"Counted {found['counted_seconds_ago']:.0f} s ago.")


@campaigns.command()
def show(
    campaign: Annotated[str, typer.Argument(help="Its id or name.")],
    tenant: Tenant = None,
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Show a campaign: its state, what is queued of it and where, and who ordered what."""

    async def look(parts: Any) -> dict[str, Any]:
        target = await _find(parts, campaign, tenant or "")
        await parts.summary.refresh_now()
        (row,) = await parts.summary.campaigns(1, campaign_id=target.id)
        orders = await parts.orders.about_campaign(target.id)
        now = time.time()
        return {
            **row,
            "orders": [{"reach": order.reach.name.lower(), **_order_fields(order, now)} for order in orders],
            "groups": await parts.summary.overview(50, campaign=str(target.id)),
            "history": await parts.orders.history(target),
            "counted_seconds_ago": await parts.summary.age_seconds(),
        }

    found = run_with_installation(settings_of(config, overrides), look)
    if as_json:
        print_json(found)
        return
    say(f"campaign {found['campaign'] or '-'} ({found['tenant']}), id {found['id']}")
    for order in found["orders"]:
        say(f"{order['reach']}: {order['says']}")
    if not found["orders"]:
        say("running")
    counts = ", ".join(f"{found[state]} {state}" for state in ("queued", "leased", "held"))
    say(f"{counts}, counted {found['counted_seconds_ago']:.0f} s ago")
    sites: list[tuple[object, ...]] = [(row["state"], row["site"] or "-", row["recipients"]) for row in found["groups"]]
    if sites:
        table("state", "site", "recipients", rows=sites, empty="")
    entries: list[tuple[object, ...]] = [
        (f"{row['at']:%Y-%m-%d %H:%M:%S}", row["actor"], row["action"], row["details"], row["reason"])
        for row in found["history"]
    ]
    if entries:
        table("at (UTC)", "by", "order", "details", "reason", rows=entries, empty="")


@campaigns.command()
def pause(
    campaign: Campaign = None,
    reason: Reason = "",
    until: Annotated[str, typer.Option("--until", help="When it ends: 2h, 3d, or 2026-11-24T09:00+01:00.")] = "",
    list_name: ListName = None,
    tenant: Tenant = None,
    site: Site = None,
    by: Actor = "",
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Send nothing of it any more, until it is resumed or --until has come. It is kept, and expires as usual."""
    meant = _meant(campaign, list_name, tenant, site)
    _need(reason, "--reason says why it is paused, for those who ask later")
    end = _moment("--until", until)

    async def order(parts: Any, target: Target) -> str:
        await parts.orders.set_state(target, State.PAUSED, reason, by or operator(), end)
        return "is paused; in force on every node within a second"

    _give(meant, order, config, overrides, as_json)


@campaigns.command()
def resume(
    campaign: Campaign = None,
    reason: Reason = "",
    list_name: ListName = None,
    tenant: Tenant = None,
    site: Site = None,
    by: Actor = "",
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Let it be sent again: lifts a pause, and lets new mail of a cancelled campaign in. What is cancelled stays so."""
    meant = _meant(campaign, list_name, tenant, site)

    async def order(parts: Any, target: Target) -> str:
        given = await _standing_order(parts, target)
        if given is None or given.state is State.RUNNING:
            raise Failed(f"{target.name} is neither paused nor cancelled; `heed campaign list` shows what is")
        await parts.orders.set_state(target, State.RUNNING, reason, by or operator())
        held = given.schedule is not None and given.schedule.holds(time.time())
        return "is resumed, and waits for its schedule" if held else "is sent again"

    _give(meant, order, config, overrides, as_json)


@campaigns.command()
def cancel(
    campaign: Campaign = None,
    reason: Reason = "",
    list_name: ListName = None,
    tenant: Tenant = None,
    site: Site = None,
    by: Actor = "",
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Never send what is queued of it: final, and reported for each recipient. A campaign takes no new mail then."""
    meant = _meant(campaign, list_name, tenant, site)
    _need(reason, "--reason says why it is cancelled, for those who ask later")
    if not yes:
        if not sys.stdin.isatty():
            _wrong("cancelling can't be taken back; say --yes")
        typer.confirm("Cancelling can't be taken back. Go on?", abort=True)

    async def order(parts: Any, target: Target) -> str:
        await parts.orders.set_state(target, State.CANCELLED, reason, by or operator())
        return "is cancelled; nothing more of what is queued leaves after a second"

    _give(meant, order, config, overrides, as_json)


@campaigns.command()
def reschedule(
    campaign: Campaign = None,
    not_before: Annotated[str, typer.Option("--not-before", help="First moment: 2h, or 2026-11-24T09:00+01:00.")] = "",
    days: Annotated[str, typer.Option("--days", help="Such as mon-fri,sun.")] = "",
    hours: Annotated[str, typer.Option("--hours", help="Such as 09:00-17:30.")] = "",
    zone: Annotated[
        str, typer.Option("--time-zone", help="Of all these times, such as Europe/Berlin.", show_default="UTC")
    ] = "",
    always: Annotated[bool, typer.Option("--always", help="Without any bound of time again.")] = False,
    reason: Reason = "",
    list_name: ListName = None,
    tenant: Tenant = None,
    site: Site = None,
    by: Actor = "",
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Set when it may be sent: from a moment on, and in a weekly window. Replaces what was set so; a pause stays."""
    meant = _meant(campaign, list_name, tenant, site)
    if always == bool(not_before or days or hours) or (always and zone):
        _wrong("give --not-before, --days or --hours, with --time-zone where it isn't UTC; or --always")
    start = _moment("--not-before", not_before, zone)
    try:
        window = Window.parse(days, hours, zone) if days or hours else None
    except OrderError as error:
        _wrong(str(error))

    async def order(parts: Any, target: Target) -> str:
        await parts.orders.set_schedule(target, start, window, reason, by or operator())
        given = await _standing_order(parts, target)
        stopped = given is not None and given.standing(time.time()) is not Standing.GO
        return f"is rescheduled; it is {given.says(time.time())}" if given and stopped else "is rescheduled"

    _give(meant, order, config, overrides, as_json)


class _Meant(NamedTuple):
    """What an order is about, as it was said."""

    campaign: str
    list_name: str
    tenant: str
    site: str


def _meant(campaign: str | None, list_name: str | None, tenant: str | None, site: str | None) -> _Meant:
    """Exit code 2 for what can't be meant. An empty name is one that got lost: without it, more would be meant."""
    given = {"CAMPAIGN": campaign, "--list": list_name, "--tenant": tenant, "--site": site}
    for name, value in given.items():
        if value is not None and not value.strip():
            _wrong(f"{name} is empty; leave it out if it isn't meant")
    if all(value is None for value in given.values()):
        _wrong("name a campaign, or --list, --tenant or --site")
    if site is not None and sum(value is not None for value in given.values()) > 1:
        _wrong("a site is named alone, without campaign, list or tenant")
    if campaign is not None and list_name is not None:
        _wrong("name a campaign or a list, not both")
    return _Meant(*(value or "" for value in given.values()))


def _give(
    meant: _Meant, order: Callable[[Any, Target], Awaitable[str]], config: Any, overrides: Any, as_json: bool
) -> None:
    """Find out what is meant, give the order, and say what stands then."""

    async def carry_out(parts: Any) -> tuple[Target, str, Order | None]:
        try:
            target = await parts.orders.find(*meant)
            told = await order(parts, target)
        except OrderError as error:
            raise Failed(str(error)) from None
        if target.reach is Reach.SITE and not await parts.summary.overview(1, site=target.site):
            told += "; nothing waits in the queue for a site of that name now, `heed queue` names the others"
        return target, told, await _standing_order(parts, target) if as_json else None

    target, told, standing = run_with_installation(settings_of(config, overrides), carry_out)
    if as_json:
        fields = _order_fields(standing, time.time())
        print_json({"reach": target.reach.name.lower(), "id": target.id, "name": target.name, **fields})
    else:
        say(f"{target.name} {told}")


async def _find(parts: Any, campaign: str, tenant: str) -> Target:
    try:
        found: Target = await parts.orders.find(campaign, "", tenant, "")
    except OrderError as error:
        raise Failed(str(error)) from None
    return found


async def _standing_order(parts: Any, target: Target) -> Order | None:
    about = (target.reach, target.id, target.site)
    return next((o for o in await parts.orders.orders() if (o.reach, o.target, o.site) == about), None)


def _order_fields(order: Order | None, now: float) -> dict[str, Any]:
    """An order as JSON, and in words."""
    if order is None:
        return {"state": "running", "says": "running", "reason": "", "by": "", "until": None}
    schedule = order.schedule or Schedule("", "", 0.0)
    return {
        "state": _WORDS[order.state],
        "says": order.says(now),
        "reason": order.reason,
        "by": order.actor,
        "at": order.at,
        "until": order.ends(now),
        "not_before": schedule.not_before,
        "window": str(schedule.window) if schedule.window else "",
        "scheduled_by": schedule.actor,
        "scheduled_because": schedule.reason,
    }


def _moment(option: str, text: str, zone: str = "") -> float | None:
    """A time to come; exit code 2 for any other."""
    if not text:
        return None
    now = time.time()
    try:
        when = moment(text, now, zone)
    except OrderError as error:
        _wrong(f"{option}: {error}")
    if when <= now:
        _wrong(f"{option} {text} is in the past: {utc(when)}")
    return when


def _need(value: str, complaint: str) -> None:
    if not value.strip():
        _wrong(complaint)


def _wrong(complaint: str) -> NoReturn:
    complain(complaint)
    raise typer.Exit(2)
