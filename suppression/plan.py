"""Deciding what the log gets: which entries are new, which were found, and what each leaves in force.

Pure: rows of what is in force come in, entries without hashes come out; log.py reads and writes.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from suppression.digest import Effect, Kind, Scope, effect_of
from suppression.entry import MAX_ACTOR_CHARACTERS, Action, Channel, Entry, NewEntry, clean


@dataclass(frozen=True, slots=True)
class Lift:
    """What is asked to be in force no longer: these kinds, for one scope of one person, if older than a time."""

    person: int
    scope: Scope
    kinds: frozenset[Kind]
    tenant_id: int
    list_id: int
    channel: Channel
    actor: str
    reason: str
    older_than: float = math.inf


@dataclass(frozen=True, slots=True)
class Plan:
    """What a call writes (`new`, without hashes), which older entries answer it (`found`), and for each entry asked
    its position and whether it was in force already."""

    new: list[Entry]
    found: list[int]
    answers: list[tuple[int, bool]]


def plan_suppressions(
    asked: Sequence[NewEntry], keys: Sequence[int], rows: Iterable[Any], position: int, now: float
) -> Plan:
    """Decide what to write, given what is in force: rows of (key, kind, effect, position)."""
    in_force = {(row["key"], row["kind"]): row["position"] for row in rows}
    effects: dict[int, int] = {}
    for row in rows:
        effects[row["key"]] = max(effects.get(row["key"], 0), row["effect"])
    plan = Plan([], sorted(set(in_force.values())), [])
    for entry, key in zip(asked, keys, strict=True):
        known = in_force.get((key, entry.kind))
        if known is None:
            position += 1
            effects[key] = max(effects.get(key, 0), effect_of(entry.scope, entry.kind))
            in_force[key, entry.kind] = position
            plan.new.append(_unchained(entry, key, Effect(effects[key]), position, now))
        plan.answers.append((known or position, known is not None))
    return plan


def plan_lifts(
    lifts: Sequence[Lift], keys: Sequence[int], rows: Iterable[Any], action: Action, position: int, now: float
) -> list[Entry]:
    """The entries, without hashes, that lift what is in force; each says what its key still stops after it.

    Rows are (key, kind, effect, at).
    """
    in_force: dict[int, dict[Kind, Any]] = {}
    for row in rows:
        in_force.setdefault(row["key"], {})[Kind(row["kind"])] = row
    entries = []
    for lift, key in zip(lifts, keys, strict=True):
        kinds = in_force.get(key, {})
        for kind in sorted(lift.kinds & kinds.keys()):
            if kinds[kind]["at"].timestamp() >= lift.older_than:
                continue
            del kinds[kind]
            position += 1
            asked = NewEntry(
                lift.person,
                lift.scope,
                kind,
                lift.tenant_id,
                lift.list_id,
                lift.channel,
                lift.actor,
                reason=lift.reason,
            )
            left = Effect(max((row["effect"] for row in kinds.values()), default=0))
            entries.append(_unchained(asked, key, left, position, now)._replace(action=action))
    return entries


def signed_head(position: int, now: float, reason: str) -> Entry:
    """The entry, without hashes, that carries a signature over the one before it."""
    return Entry(
        position, now, Action.SIGNED_HEAD, None, None, Effect.NOTHING, 0, 0, 0, 0, 0, 0, 0, "", "", reason, b"", b""
    )


def joining(tenant_id: int, group_id: int, key: int, actor: str, reason: str, position: int, now: float) -> Entry:
    """The entry, without hashes, by which a tenant joins a group."""
    return Entry(
        position, now, Action.JOIN, Scope.GROUP, None, Effect.NOTHING, tenant_id, group_id, 0, 0, 0, 0, key,
        Channel.CLI, clean(actor, MAX_ACTOR_CHARACTERS), clean(reason), b"", b"",
    )  # fmt: skip


def _unchained(asked: NewEntry, key: int, effect: Effect, position: int, now: float) -> Entry:
    return Entry(
        position, now, Action.SUPPRESS, asked.scope, asked.kind, effect, asked.tenant_id, asked.list_id,
        asked.campaign_id, 0, asked.message_id, asked.person, key, asked.channel, asked.actor, asked.reason, b"", b"",
    )  # fmt: skip
