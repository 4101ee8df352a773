"""Why something is not being sent right now, and what would change it: facts in, sentences out. Pure.

Each sentence names one cause, the gravest first: what a person or an operator wants, then what this installation can't
do, then what the site at the other end says, then the clock.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bounce.outcome import Outcome, printable
from mta.orders import Order, Standing, utc
from mta.tracing import Happened, Waits
from suppression.digest import Kind

_ABOUT = {1: "its campaign", 2: "its list", 3: "its tenant", 4: "its site"}


def of_node(state: Mapping[str, Any] | None) -> list[str]:
    """What keeps this node from sending anything."""
    if state is None:
        return ["No daemon answers on this machine: what follows is what the database says."]
    if not state["ready"]:
        reasons = "; ".join(state["reasons"]) or "it is starting"
        return [f"This node sends nothing: {reasons}."]
    return []


def of_orders(orders: Sequence[Order], now: float) -> list[str]:
    """What operators have ordered, and what lifts it."""
    told = []
    for order in orders:
        standing = order.standing(now)
        if standing is Standing.GO:
            continue
        lifts = "" if standing is Standing.CANCEL else "; `heed campaign resume` lifts a pause, `reschedule` a schedule"
        told.append(f"{_ABOUT[order.reach].capitalize()} is {order.says(now)}{lifts}.")
    return told


def of_suppression(entries: Sequence[Any], stopped: bool) -> list[str]:
    """What the suppression log says; stopped: whether it stops this mail."""
    if not stopped:
        return []
    return [
        f"The recipient is suppressed since {utc(entry.at)}: {entry.kind.name.lower().replace('_', ' ')} by "
        f"{entry.channel}, scope {entry.scope.name.lower()} (position {entry.position}); nothing is sent until "
        f"{_lifts(entry.kind)} lifts that."
        for entry in entries
    ]


def _lifts(kind: Kind) -> str:
    """What may lift a suppression: an unsubscribe is the person's own."""
    if kind is Kind.UNSUBSCRIBE:
        return "the person's own, newer consent"
    return f"`heed suppress remove --kind {kind.name.lower().replace('_', '-')}`"


def of_site(site: str, live: Mapping[str, Any] | None, last: Outcome | None, now: float) -> list[str]:
    """What stands in the way at a site: as this node's workers see it, and what it said last."""
    told = []
    if live is not None and live["suspended_until"] > now:
        after = f" after {live['last_reply']}" if live["last_reply"] else ""
        told.append(f"{site} rests until {utc(live['suspended_until'])}{after}; it is tried again by itself then.")
    elif live is not None and live["waiting"] and live["connections"] >= live["limit"]:
        told.append(
            f"{site} has all {live['limit']} connections of this node in use and {live['waiting']} recipients waiting "
            "for one; delivery.connections_per_site allows more."
        )
    elif live is not None and live["busy"]:
        told.append(f"{site} is being delivered to over {_connections(live['busy'])} of this node.")
    elif live is not None and live["connections"]:
        doing = "being opened" if live["waiting"] else "open and idle"
        told.append(f"{site} has {_connections(live['connections'])} of this node {doing}.")
    if last is not None:
        told.append(f"{site} said last: {reply(last)}.")
    return told


def _connections(count: int) -> str:
    return f"{count} connection{'' if count == 1 else 's'}"


def of_lost(last: Outcome) -> str:
    """Recipients whose site could not be found out."""
    return f"Where some of it goes could not be found out: {reply(last)}; it is tried again by itself."


def of_waiting(waits: Waits, orders: Sequence[Order], now: float) -> str:
    """The state of one recipient, in a sentence. orders: those about it."""
    due, expires = waits.due_at.timestamp(), utc(waits.expires_at.timestamp())
    if waits.expires_at.timestamp() <= now:
        return f"Its lifetime was over at {expires}; it is about to be reported as expired."
    if waits.state == "held":
        return f"It is held{_until(waits, orders, now)}; it expires at {expires}."
    if waits.state == "leased":
        where = f" of {waits.node}" if waits.node else ", which is gone; it is taken back within a minute"
        return f"It is in the memory of worker {waits.worker_id}{where}, waiting for its turn or under way."
    if due > now:
        why = f" after attempt {waits.attempts}: {reply(waits.last_outcome)}" if waits.last_outcome else ""
        if not waits.attempts and not waits.last_outcome:
            # what its submitter holds back has no site yet (Intake)
            if waits.site:
                return f"It waits until {waits.site} has room for it, and is looked at again at {utc(due)}."
            return f"It is scheduled by its submitter for {utc(due)}."
        return f"It is deferred until {utc(due)}{why}; it expires at {expires}."
    return f"It is due since {utc(due)} and is leased as soon as a worker has room for it."


def _until(waits: Waits, orders: Sequence[Order], now: float) -> str:
    """What ends the holding of a recipient."""
    accepted_at = waits.received_at.timestamp()
    if any(order.cancels_until is not None and accepted_at <= order.cancels_until for order in orders):
        return ", and about to be reported as cancelled"
    ends = [order.ends(now) for order in orders if order.holds(now)]
    if not ends:
        return ", but no order holds it any more: a node that runs queues it again within a minute"
    known = [end for end in ends if end is not None]
    return f" until {utc(max(known))}" if len(known) == len(ends) else " until the order is lifted"


def of_end(last: Happened) -> str:
    """What became of a recipient that is final."""
    where = f" by {last.remote_mta}" if last.remote_mta else ""
    said = f": {said_by_peer(last.status, last.diagnostic)}"
    if last.type == "Delivery":
        return f"It was delivered at {utc(last.at.timestamp())}{where}{said}."
    return f"{last.type} at {utc(last.at.timestamp())}{where}{said}; nothing more is tried."


def reply(outcome: Outcome) -> str:
    """An outcome as a peer gave it."""
    code = f"{outcome.reply_code} " if outcome.reply_code else ""
    at = f" ({outcome.remote_mta})" if outcome.remote_mta else ""
    return f"{code}{said_by_peer(outcome.status, outcome.diagnostic)}{at}, {outcome.bounce_class}"


def said_by_peer(status: str, diagnostic: str) -> str:
    """Status and text, which may begin with the status already."""
    return diagnostic if diagnostic.startswith(status) else f"{status} {diagnostic}".rstrip()


def event_line(event: Mapping[str, Any]) -> str:
    """One event of a trace, as JSON has it, in a line."""
    parts = [f"{event['at']:%Y-%m-%d %H:%M:%S.%f}"[:-3], event["queue_id"], event["type"], event["recipient"]]
    if "recipients" in event:
        parts.append(f"{event['recipients']} recipients")
    if "reply_code" in event:
        parts.append(str(event["reply_code"]))
    if "status" in event:
        parts.append(said_by_peer(event["status"], event.get("diagnostic", "")))
    if "remote_mta" in event:
        parts.append(f"by {event['remote_mta']}")
    if "attempt_ms" in event:
        parts.append(f"in {event['attempt_ms']} ms")
    if "due_at" in event:
        parts.append(f"next {event['due_at']:%Y-%m-%d %H:%M:%S}")
    if "node" in event:
        parts.append(f"at {event['node']}")
    return "  ".join(printable(part) for part in parts if part)
