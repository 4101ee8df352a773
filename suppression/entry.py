"""Entries of the suppression log: what is asked for (`NewEntry`), what was written (`Entry`), and how entries chain.

An entry's hash is SHA-256 over the previous entry's hash and the entry's own encoding, so that changing, dropping or
inserting one breaks every hash behind it. The encoding is part of the format of the log and never changes:

    i64 position, i64 time in µs since 1970, u8 action, u8 scope, u8 kind, u8 effect, i32 tenant, i32 list,
    i32 campaign, i32 cancelled, i64 message, i64 person, i64 key (big endian), then channel, actor and reason, each as
    u16 length and UTF-8
"""

import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

from suppression.digest import Effect, Kind, Scope

GENESIS = bytes(32)
"""What stands for the hash before the first entry."""

MAX_ACTOR_CHARACTERS = 100
MAX_REASON_CHARACTERS = 500

_FIXED = struct.Struct(">qqBBBBiiiiqqq")
_LENGTH = struct.Struct(">H")
# begins where a word does: else a long word without "@", which anybody may send, would cost the square of its length
_ADDRESS_LIKE = re.compile(r"(?<![^\s<>\"'(),:;])(?:[^\s@<>\"'(),:;]*+@)+[^\s@<>\"'(),:;]*")
_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1


class Channel(StrEnum):
    """The way by which an entry came."""

    ONE_CLICK = "one-click"
    WEB = "web"
    MAILTO = "mailto"
    REPLY = "reply"
    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    CLI = "cli"
    IMPORT = "import"
    API = "api"
    RECEIPTS = "receipts"
    CANARY = "canary"
    CONSENT = "consent"


class Action(IntEnum):
    """What an entry does."""

    SUPPRESS = 1
    LIFT_BY_CONSENT = 2
    LIFT_BY_OPERATOR = 3
    SIGNED_HEAD = 4
    JOIN = 5
    """The tenant joins the group that `list_id` names; about no person."""


@lru_cache(maxsize=256)
def clean(text: str, limit: int = MAX_REASON_CHARACTERS) -> str:
    """Printable, bounded, and nothing that looks like an address (P1)."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return _ADDRESS_LIKE.sub("<address>", printable.strip())[:limit]


@dataclass(frozen=True, slots=True)
class NewEntry:
    """A suppression that is asked for. `actor`: the token's id, or who did it; an address in `reason` is cut out.
    `list_id`: for GROUP the id of the group, and `tenant_id` is the tenant through which it came, if any.

    ValueError when an id is out of range, or a scope lacks the ids it needs: one bad entry must not spoil the
    transaction that it would share with others.
    """

    person: int
    scope: Scope
    kind: Kind
    tenant_id: int
    list_id: int
    channel: Channel
    actor: str
    campaign_id: int = 0
    message_id: int = 0
    reason: str = ""

    def __post_init__(self) -> None:
        for value in (self.tenant_id, self.list_id, self.campaign_id):
            if not 0 <= value <= _INT32_MAX:
                raise ValueError("an id is out of range")
        if not (-_INT64_MAX - 1 <= self.person <= _INT64_MAX and 0 <= self.message_id <= _INT64_MAX):
            raise ValueError("a digest or message id is out of range")
        if (self.scope in (Scope.TENANT, Scope.LIST) and not self.tenant_id) or (
            self.scope in (Scope.LIST, Scope.GROUP) and not self.list_id
        ):
            raise ValueError("the scope needs the id of its tenant, group or list")
        object.__setattr__(self, "scope", Scope(self.scope))
        object.__setattr__(self, "kind", Kind(self.kind))
        object.__setattr__(self, "channel", Channel(self.channel))
        object.__setattr__(self, "actor", clean(self.actor, MAX_ACTOR_CHARACTERS))
        object.__setattr__(self, "reason", clean(self.reason, MAX_REASON_CHARACTERS))


class Entry(NamedTuple):
    """An entry of the log. `at`: epoch seconds, exact to the µs, by the database's clock.

    `effect` is what the scope key stops after this entry, over all kinds. `already_in_force`: this is an earlier entry,
    which was found instead of writing the same again; it is no part of the log.
    """

    position: int
    at: float
    action: Action
    scope: Scope | None
    kind: Kind | None
    effect: Effect
    tenant_id: int
    list_id: int
    campaign_id: int
    cancelled: int
    message_id: int
    person: int
    key: int
    channel: str
    actor: str
    reason: str
    previous: bytes
    hash: bytes
    already_in_force: bool = False

    @property
    def step(self) -> "Step":
        """What the index needs of it."""
        at = datetime.fromtimestamp(self.at, UTC)
        return Step(self.position, at, self.action, self.key, self.effect, self.previous, self.hash)

    @property
    def group_id(self) -> int:
        """The group that it is about; 0 for none."""
        return self.list_id if self.scope is Scope.GROUP else 0

    @property
    def at_microseconds(self) -> int:
        """The time as the log binds it."""
        return round(self.at * 1_000_000)

    def encoded(self) -> bytes:
        """The encoding that the hash covers."""
        fixed = _FIXED.pack(
            self.position, self.at_microseconds, self.action, self.scope or 0, self.kind or 0, self.effect,
            self.tenant_id, self.list_id, self.campaign_id, self.cancelled, self.message_id, self.person, self.key,
        )  # fmt: skip
        texts = [text.encode() for text in (self.channel, self.actor, self.reason)]
        return fixed + b"".join(_LENGTH.pack(len(text)) + text for text in texts)

    def computed_hash(self, previous: bytes | None = None) -> bytes:
        """What the hash must be; behind another entry than the one it names, if that is given."""
        return hashlib.sha256((self.previous if previous is None else previous) + self.encoded()).digest()


def decoded(data: bytes, previous: bytes, digest: bytes) -> Entry:
    """The entry of an encoding; ValueError unless it has that hash behind that entry."""
    if hashlib.sha256(previous + data).digest() != digest:
        raise ValueError("not the encoding of an entry with this hash")
    position, microseconds, action, scope, kind, effect, *numbers = _FIXED.unpack_from(data)
    texts, begin = [], _FIXED.size
    for _ in range(3):
        end = begin + _LENGTH.size + _LENGTH.unpack_from(data, begin)[0]
        texts.append(data[begin + _LENGTH.size : end].decode())
        begin = end
    at = datetime.fromtimestamp(microseconds // 1_000_000, UTC).replace(microsecond=microseconds % 1_000_000)
    return entry_of((position, at, action, scope, kind, effect, *numbers, *texts, previous, digest))


class Step(NamedTuple):
    """The part of an entry that the index needs."""

    position: int
    at: datetime
    action: int
    key: int
    effect: int
    previous: bytes
    hash: bytes


def entry_of(row: Any, *, already_in_force: bool = False) -> Entry:
    """The entry in a row of the log, whose columns are in the order of the fields."""
    position, at, action, scope, kind, effect, *rest = row
    return Entry(
        position,
        at.timestamp(),
        Action(action),
        Scope(scope) if scope else None,
        Kind(kind) if kind else None,
        Effect(effect),
        *(*rest, already_in_force),
    )


def chain(entries: Sequence[Entry], previous: bytes) -> list[Entry]:
    """The entries with their hashes, the first one behind `previous`."""
    chained = []
    for entry in entries:
        digest = entry.computed_hash(previous)
        chained.append(entry._replace(previous=previous, hash=digest))
        previous = digest
    return chained
