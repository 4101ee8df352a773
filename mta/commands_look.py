"""`heed trace` and `heed explain`: what happened to a message, and why something is not being sent.

Addresses are shown masked; --reveal shows them, with a reason that is written to the operators' log. Exit code 1 when
nothing is known of what was asked for, 2 for wrong use.
"""

import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
import typer

from config.settings import Settings, endpoint
from mta import explain as sentences
from mta.commands_campaign import operator
from mta.identifiers import message_id_of, queue_id
from mta.orders import Order, OrderError, Reach
from mta.terminal import ERR, OUT, Config, Failed, Json, Set, print_json, run_with_parts, settings_of
from mta.tracing import Happened, Waits, masked

_FEW = 5


def trace(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="A queue id (0H2…, or 0H2….3 for one recipient), address or digest.")
    ],
    reveal: Annotated[
        str, typer.Option("--reveal", metavar="REASON", help="Show addresses; the reason is logged.")
    ] = "",
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Show every event of a message or a person: when, where, what the peer said, how long it took; and what waits."""

    async def look(parts: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        happened, waiting = await _found(parts, what)
        if not happened and not waiting:
            raise Failed("nothing is known of it: mistyped, or older than the events that are kept")
        if reveal:
            await _note(parts, "reveal", reveal)
        return (
            [{**event.as_dict(), **await _address(parts, event, bool(reveal))} for event in happened],
            [{**row.as_dict(), **await _address(parts, row, bool(reveal))} for row in waiting],
        )

    events, waiting = run_with_parts(settings_of(config, overrides), look)
    if as_json:
        print_json({"events": events, "waiting": waiting})
        return
    for event in events:
        OUT.print(_event_line(event), markup=False)
    for row in waiting:
        place = f"{row['queue_id']}.{row['ordinal']}"
        OUT.print(f"{place} {row['recipient']} is {row['state']}, due {row['due_at']:%Y-%m-%d %H:%M:%S}", markup=False)


def explain(
    what: Annotated[str, typer.Argument(help="A campaign, site, queue id, address or digest.")],
    kind: Annotated[
        Literal["", "campaign", "site", "recipient"], typer.Option("--kind", help="Which it is, where that is unclear.")
    ] = "",
    tenant: Annotated[str, typer.Option("--tenant", help="Whose campaign it is.")] = "",
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Say in a sentence or two why it is not being sent right now, and what would change that."""
    settings = settings_of(config, overrides)
    state = node_state(settings)

    async def look(parts: Any) -> list[str]:
        now = time.time()
        if kind == "recipient" or (not kind and ("@" in what or _is_queue_id(what))):
            return await _explain_recipient(parts, what, state, now)
        if kind != "site":
            try:
                target = await parts.orders.find(what, "", tenant, "")
                return await _explain_campaign(parts, target.id, state, now)
            except OrderError as error:
                if kind == "campaign" or "several" in str(error):
                    raise Failed(str(error)) from None
        return await _explain_site(parts, what, state, now)

    told = run_with_parts(settings, look)
    if as_json:
        print_json({"what": what, "sentences": told})
        return
    for sentence in told:
        OUT.print(sentence, markup=False)


def node_state(settings: Settings) -> dict[str, Any] | None:
    """What the daemon on this machine says of itself; None when none answers."""
    host, port = endpoint(settings.metrics.listen)
    try:
        with urllib.request.urlopen(f"http://{host or '127.0.0.1'}:{port}/state", timeout=1) as answer:  # ours
            state: dict[str, Any] = orjson.loads(answer.read())
            return state
    except (OSError, urllib.error.URLError, ValueError):
        return None


async def _explain_recipient(parts: Any, what: str, state: Any, now: float) -> list[str]:
    happened, waiting = await _found(parts, what)
    told = sentences.of_node(state) if waiting else []
    for waits in waiting[:_FEW]:
        told.append(f"{queue_id(waits.message_id)}.{waits.ordinal} is {waits.state}.")
        told += await _suppression(parts, waits.person, waits.tenant_id, waits.list_id, waits.transactional)
        told += sentences.of_orders(_about(await parts.orders.orders(), waits), now)
        if waits.site:
            told += sentences.of_site(waits.site, _live(state, waits.site), None, now)
        told.append(sentences.of_waiting(waits, now))
    if len(waiting) > _FEW:
        told.append(f"{len(waiting) - _FEW} more wait; `heed trace` shows them.")
    ends = [
        event for event in happened if event.type in ("Delivery", "Bounce", "Expiration", "Suppressed", "Cancelled")
    ]
    if not waiting and ends:
        told.append(sentences.of_end(ends[-1]))
    if "@" in what and not waiting:
        told += await _everywhere(parts, parts.digest.person(what))
    if not told:
        raise Failed("nothing is known of it: mistyped, or older than the events that are kept")
    return told


async def _explain_campaign(parts: Any, campaign_id: int, state: Any, now: float) -> list[str]:
    await parts.summary.refresh_now()
    (row,) = await parts.summary.campaigns(1, campaign_id=campaign_id)
    name = f"{row['tenant']}/{row['campaign'] or '-'}"
    told = [f"Campaign {name} has {row['queued']} queued, {row['leased']} leased and {row['held']} held recipients."]
    stops = sentences.of_orders(await parts.orders.about_campaign(campaign_id), now)
    if not stops and not row["queued"] + row["leased"] + row["held"]:
        return [*told, "Everything of it is final, and nothing stops what comes."]
    told += sentences.of_node(state) + stops
    groups = await parts.summary.overview(_FEW, campaign=str(campaign_id))
    for group in groups:
        if group["site"]:
            last = await parts.tracing.site_outcome(group["site"])
            told += sentences.of_site(group["site"], _live(state, group["site"]), last, now)
    if not stops and row["next_attempt"] is not None and row["next_attempt"].timestamp() > now:
        told.append(f"The next attempt is due at {row['next_attempt']:%Y-%m-%d %H:%M:%S} UTC.")
    elif not stops and len(told) == 1:
        told.append("Nothing stands in its way: it is being sent.")
    return told


async def _explain_site(parts: Any, site: str, state: Any, now: float) -> list[str]:
    await parts.summary.refresh_now()
    groups = await parts.summary.overview(10_000, site=site)
    live = _live(state, site)
    orders = [order for order in await parts.orders.orders() if order.site == site]
    if not groups and live is None and not orders:
        raise Failed(f"nothing is known of {site!r}: no campaign, and no site with mail; `heed queue` names those")
    counts = {name: sum(row["recipients"] for row in groups if row["state"] == name) for name in ("queued", "held")}
    told = [f"{site} has {counts['queued']} deferred and {counts['held']} held recipients."]
    told += sentences.of_node(state) + sentences.of_orders(orders, now)
    told += sentences.of_site(site, live, await parts.tracing.site_outcome(site), now)
    next_attempts = [row["next_attempt"] for row in groups if row["next_attempt"] is not None]
    if next_attempts and min(next_attempts).timestamp() > now:
        told.append(f"The next attempt is due at {min(next_attempts):%Y-%m-%d %H:%M:%S} UTC.")
    return told


async def _suppression(parts: Any, person: int, tenant_id: int, list_id: int, transactional: bool) -> list[str]:
    entries = await parts.log.in_force(parts.digest.keys(person, tenant_id, list_id))
    stopping = [entry for entry in entries if entry.effect == 2 or not transactional]
    return sentences.of_suppression(stopping, bool(stopping))


async def _everywhere(parts: Any, person: int) -> list[str]:
    """Every suppression of a person that is in force, of whatever tenant and list."""
    places = {(entry.tenant_id, entry.list_id) for entry in await parts.log.read_person(person)}
    keys = {key for place in places for key in parts.digest.keys(person, *place)}
    entries = await parts.log.in_force(keys) if keys else []
    return sentences.of_suppression(entries, bool(entries))


async def _found(parts: Any, what: str) -> tuple[list[Happened], list[Waits]]:
    from suppression.digest import AddressError
    from suppression.prove import person_of

    if _is_queue_id(what):
        text, _, ordinal = what.partition(".")
        found: tuple[list[Happened], list[Waits]] = await parts.tracing.of_message(
            message_id_of(text), int(ordinal) if ordinal else -1
        )
        return found
    try:
        person = person_of(what, parts.digest, parts.tokens)
    except AddressError:
        ERR.print("that is no queue id (13 characters), address or digest (16 hex digits)", markup=False)
        raise typer.Exit(2) from None
    of_person: tuple[list[Happened], list[Waits]] = await parts.tracing.of_person(person)
    return of_person


def _is_queue_id(text: str) -> bool:
    name, dot, ordinal = text.partition(".")
    try:
        message_id_of(name)
    except ValueError:
        return False
    return not dot or (ordinal.isascii() and ordinal.isdigit())


async def _address(parts: Any, row: Happened | Waits, reveal: bool) -> dict[str, str]:
    """The address as it may be shown; empty where there is none, or its campaign's key is gone."""
    from mta.vault import VaultError

    if row.sealed_address is None or row.ordinal is None:
        return {"recipient": ""}
    try:
        campaign = await parts.accounts.campaign_by_id(row.campaign_id)
        address = campaign.key.open_address(row.message_id, row.ordinal, row.sealed_address).address
    except (VaultError, TypeError):
        return {"recipient": "(erased)"}
    return {"recipient": address if reveal else masked(address)}


async def _note(parts: Any, action: str, reason: str) -> None:
    from mta.order_store import Target

    await parts.orders.note(Target(Reach.TENANT, 0, "", ""), action, reason, operator())


def _about(orders: Sequence[Order], waits: Waits) -> list[Order]:
    mine = {(Reach.CAMPAIGN, waits.campaign_id), (Reach.LIST, waits.list_id), (Reach.TENANT, waits.tenant_id)}
    return [
        order for order in orders if (order.reach, order.target) in mine or (order.site and order.site == waits.site)
    ]


def _live(state: Any, site: str) -> dict[str, Any] | None:
    return next((each for each in (state or {}).get("sites", []) if each["site"] == site), None)


def _event_line(event: dict[str, Any]) -> str:
    parts = [f"{event['at']:%Y-%m-%d %H:%M:%S.%f}"[:-3], event["queue_id"], event["type"], event["recipient"]]
    if "recipients" in event:
        parts.append(f"{event['recipients']} recipients")
    if "reply_code" in event:
        parts.append(str(event["reply_code"]))
    if "status" in event:
        parts.append(sentences.said_by_peer(event["status"], event.get("diagnostic", "")))
    if "remote_mta" in event:
        parts.append(f"by {event['remote_mta']}")
    if "attempt_ms" in event:
        parts.append(f"in {event['attempt_ms']} ms")
    if "due_at" in event:
        parts.append(f"next {event['due_at']:%Y-%m-%d %H:%M:%S}")
    if "node" in event:
        parts.append(f"at {event['node']}")
    return "  ".join(part for part in parts if part)
