"""Answers to operators' questions about one thing: what happened to it, and why it is not being sent.

Gathers what the database and this machine's daemon know; explain.py makes sentences of it. Addresses stay masked unless
they are asked for. Raises Unknown, Unclear, DatabaseUnavailable.
"""

import time
import urllib.request
from collections.abc import Sequence
from typing import Any, Final

import orjson

from config.settings import Settings, endpoint
from mta import explain as sentences
from mta.identifiers import message_id_of, queue_id
from mta.order_store import Target
from mta.orders import Order, OrderError, Reach
from mta.parts import Parts
from mta.summary import STATES
from mta.tracing import Happened, Waits, masked
from mta.vault import VaultError
from suppression.digest import AddressError
from suppression.entry import clean
from suppression.prove import digest_text, person_of

_FEW: Final = 5
_NOTHING: Final = "nothing is known of it: mistyped, or older than the events that are kept"
_ENDS: Final = frozenset({"Delivery", "Bounce", "Expiration", "Suppressed", "Cancelled"})


class Unknown(Exception):
    """Nothing is known of what was asked for; the text says what to try."""


class Unclear(Exception):
    """What was asked for is no name of anything; the text says what is."""


def node_state(settings: Settings) -> dict[str, Any] | None:
    """What the daemon on this machine says of itself; None when none answers."""
    try:
        state: dict[str, Any] = orjson.loads(_page(settings, "/state"))
    except (OSError, ValueError):
        return None
    return state


def node_metrics(settings: Settings) -> dict[str, float]:
    """The metrics of this machine's daemon, summed as metrics.history.read() does; empty when none answers."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        text = _page(settings, "/metrics").decode()
    except (OSError, ValueError):
        return {}
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
            if len(sample.labels) == 1:
                found[f"{sample.name}{{{next(iter(sample.labels.values()))}}}"] = sample.value
    return found


def _page(settings: Settings, path: str) -> bytes:
    host, port = endpoint(settings.metrics.listen)
    with urllib.request.urlopen(f"http://{host or '127.0.0.1'}:{port}{path}", timeout=1) as answer:  # ours
        content: bytes = answer.read()
        return content


async def trace(
    parts: Parts, what: str, *, reveal: str, actor: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every event of a message or a person, and what waits. reveal: why addresses are shown in clear; empty: masked."""
    happened, waiting = await _found(parts, what)
    if not happened and not waiting:
        raise Unknown(_NOTHING)
    if reveal:
        target = Target(Reach.TENANT, 0, "", "")
        await parts.orders.note(target, "reveal", clean(reveal), actor, _looked_at(parts, what))
    return (
        [{**event.as_dict(), **await _address(parts, event, bool(reveal))} for event in happened],
        [{**row.as_dict(), **await _address(parts, row, bool(reveal))} for row in waiting],
    )


async def explain(parts: Parts, what: str, *, kind: str, tenant: str, state: dict[str, Any] | None) -> list[str]:
    """Why it is not being sent, in sentences. kind: campaign, site, recipient, or empty; state: as of node_state()."""
    now = time.time()
    tenant_id = await _tenant_id(parts, tenant)
    if kind == "recipient" or (not kind and ("@" in what or _is_queue_id(what))):
        return await _explain_recipient(parts, what, tenant_id, state, now)
    if kind != "site":
        try:
            target = await parts.orders.find(what, "", tenant, "")
        except OrderError as error:
            if kind == "campaign" or "several" in str(error):
                raise Unknown(str(error)) from None
        else:
            return await _explain_campaign(parts, target.id, state, now)
    return await _explain_site(parts, what, state, now)


def explain_without_database(what: str, *, state: dict[str, Any] | None) -> list[str]:
    """What this machine's daemon knows of it while the database can't be asked. state: as of node_state()."""
    told = sentences.of_node(state) if state is not None else ["No daemon answers on this machine."]
    told += sentences.of_site(what, _live(state, what), None, time.time())
    return [*told, "The database can't be asked, so that nothing more is known."]


async def _tenant_id(parts: Parts, tenant: str) -> int:
    """Of a tenant by name, or 0 for all; raises Unknown."""
    if not tenant:
        return 0
    try:
        return (await parts.orders.find("", "", tenant, "")).id
    except OrderError as error:
        raise Unknown(str(error)) from None


async def _explain_recipient(parts: Parts, what: str, tenant_id: int, state: Any, now: float) -> list[str]:
    happened, waiting = await _found(parts, what)
    if tenant_id:
        happened = [event for event in happened if event.tenant_id == tenant_id]
        waiting = [waits for waits in waiting if waits.tenant_id == tenant_id]
    told = sentences.of_node(state) if waiting else []
    for waits in waiting[:_FEW]:
        told.append(f"{queue_id(waits.message_id)}.{waits.ordinal} is {waits.state}.")
        told += await _suppression(parts, waits.person, waits.tenant_id, waits.list_id, waits.transactional)
        orders = _about(await parts.orders.orders(), waits, now)
        told += sentences.of_orders(orders, now)
        if waits.site:
            told += sentences.of_site(waits.site, _live(state, waits.site), None, now)
        told.append(sentences.of_waiting(waits, orders, now))
    if len(waiting) > _FEW:
        told.append(f"{len(waiting) - _FEW} more wait; `heed trace` shows them.")
    ends = [event for event in happened if event.type in _ENDS]
    if not waiting and ends:
        told.append(sentences.of_end(ends[-1]))
    if "@" in what and not waiting:
        told += await _everywhere(parts, parts.digest.person(what), tenant_id)
    if not told:
        raise Unknown(_NOTHING)
    return told


async def _explain_campaign(parts: Parts, campaign_id: int, state: Any, now: float) -> list[str]:
    await parts.summary.refresh_now()
    (row,) = await parts.summary.campaigns(1, campaign_id=campaign_id)
    name = f"{row['tenant']}/{row['campaign'] or '-'}"
    told = [f"Campaign {name} has {row['queued']} queued, {row['leased']} leased and {row['held']} held recipients."]
    stops = sentences.of_orders(await parts.orders.about_campaign(campaign_id), now)
    if not stops and not row["queued"] + row["leased"] + row["held"]:
        return [*told, "Everything of it is final, and nothing stops what comes."]
    told += sentences.of_node(state) + stops
    groups = await parts.summary.overview(_FEW, campaign=str(campaign_id))
    # what is leased for the first time has a site in the memory of a worker alone
    waits_at = [site["site"] for site in (state or {}).get("sites", []) if campaign_id in site.get("campaigns", ())]
    sites = list(dict.fromkeys([*waits_at[:_FEW], *(group["site"] for group in groups if group["site"])]))
    last = await parts.tracing.site_outcomes(sites)
    for site in sites:
        told += sentences.of_site(site, _live(state, site), last.get(site), now)
    if row["queued"] and (lost := await parts.tracing.lost_outcome(campaign_id)) is not None:
        told.append(sentences.of_lost(lost))
    if not stops and row["next_attempt"] is not None and row["next_attempt"].timestamp() > now:
        told.append(f"The next attempt is due at {row['next_attempt']:%Y-%m-%d %H:%M:%S} UTC.")
    elif not stops and len(told) == 1:
        told.append("Nothing stands in its way: it is being sent.")
    return told


async def _explain_site(parts: Parts, site: str, state: Any, now: float) -> list[str]:
    await parts.summary.refresh_now()
    groups = await parts.summary.overview(10_000, site=site)
    live = _live(state, site)
    orders = [order for order in await parts.orders.orders() if order.reach is Reach.SITE and order.site == site]
    if not groups and live is None and not orders:
        raise Unknown(f"nothing is known of {site!r}: no campaign, and no site with mail; `heed queue` names those")
    counts = {name: sum(row["recipients"] for row in groups if row["state"] == name) for name in STATES}
    if live is not None:  # what is leased for the first time is counted without its site
        counts["leased"] = max(counts["leased"], live["waiting"] + live["busy"])
    told = [f"{site} has {counts['queued']} queued, {counts['leased']} leased and {counts['held']} held recipients."]
    told += sentences.of_node(state) + sentences.of_orders(orders, now)
    told += sentences.of_site(site, live, (await parts.tracing.site_outcomes([site])).get(site), now)
    next_attempts = [row["next_attempt"] for row in groups if row["next_attempt"] is not None]
    if next_attempts and min(next_attempts).timestamp() > now:
        told.append(f"The next attempt is due at {min(next_attempts):%Y-%m-%d %H:%M:%S} UTC.")
    return told


async def _suppression(parts: Parts, person: int, tenant_id: int, list_id: int, transactional: bool) -> list[str]:
    entries = await parts.log.in_force(await parts.keys(person, tenant_id, list_id))
    stopping = [entry for entry in entries if entry.effect == 2 or not transactional]
    return sentences.of_suppression(stopping, bool(stopping))


async def _everywhere(parts: Parts, person: int, tenant_id: int) -> list[str]:
    """Every suppression of a person that is in force, of whatever list, and of whatever tenant where that is 0."""
    entries = await parts.log.read_person(person)
    keys = {entry.key for entry in entries if not tenant_id or entry.tenant_id in (0, tenant_id)}
    entries = await parts.log.in_force(keys) if keys else []
    return sentences.of_suppression(entries, bool(entries))


async def _found(parts: Parts, what: str) -> tuple[list[Happened], list[Waits]]:
    if _is_queue_id(what):
        text, _, ordinal = what.partition(".")
        return await parts.tracing.of_message(message_id_of(text), int(ordinal) if ordinal else -1)
    try:
        person = person_of(what, parts.digest, parts.tokens)
    except AddressError:
        raise Unclear("that is no queue id (13 characters), address or digest (16 hex digits)") from None
    return await parts.tracing.of_person(person)


def _looked_at(parts: Parts, what: str) -> str:
    """What was found, for the operators' log: without an address."""
    if _is_queue_id(what):
        return f"queue id {what.upper()}"
    return f"person {digest_text(person_of(what, parts.digest, parts.tokens))}"


def _is_queue_id(text: str) -> bool:
    name, dot, ordinal = text.partition(".")
    try:
        if not message_id_of(name):  # events without a message have this one
            return False
    except ValueError:
        return False
    return not dot or (ordinal.isascii() and ordinal.isdigit())


async def _address(parts: Parts, row: Happened | Waits, reveal: bool) -> dict[str, str]:
    """The address as it may be shown; empty where there is none, or its campaign's key is gone."""
    if row.sealed_address is None or row.ordinal is None:
        return {"recipient": ""}
    try:
        campaign = await parts.accounts.campaign_by_id(row.campaign_id)
        address = campaign.key.open_address(row.message_id, row.ordinal, row.sealed_address).address
    except (VaultError, TypeError):
        return {"recipient": "(erased)"}
    return {"recipient": address if reveal else masked(address)}


def _about(orders: Sequence[Order], waits: Waits, now: float) -> list[Order]:
    """The orders about a recipient, without those that cancelled only what was accepted before it."""
    mine = {(Reach.CAMPAIGN, waits.campaign_id), (Reach.LIST, waits.list_id), (Reach.TENANT, waits.tenant_id)}
    accepted_at = waits.received_at.timestamp()
    return [
        order
        for order in orders
        if ((order.reach, order.target) in mine or (order.site and order.site == waits.site))
        and (order.holds(now) or (order.cancels_until is not None and accepted_at <= order.cancels_until))
    ]


def _live(state: Any, site: str) -> dict[str, Any] | None:
    return next((each for each in (state or {}).get("sites", []) if each["site"] == site), None)
