"""Digests: what stands for an address wherever an address may not be written.

Owns the normal form of an address, the keyed 64-bit digest of it (`person`), and the scope keys under which the index
and the log know a suppression. The key never rotates: suppressions outlive every other key.
A scope key has its lowest bit clear; the index sets that bit where transactional mail is stopped too.
Raises `AddressError` for what can't be an address; its text never holds what was given.
"""

import hashlib
import re
import struct
import unicodedata
from enum import IntEnum
from functools import lru_cache

import idna

MAX_ADDRESS_CHARACTERS = 320
"""64 for the local part, 255 for the domain and the '@' (RFC 5321 §4.5.3.1); longer input is no address."""

_SCOPED = struct.Struct(">BIIq")
# what nearly all addresses are made of: there is nothing to do but to ignore case
_PLAIN = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9_.-]{0,254}[A-Za-z0-9_-]")
_SPECIALS = frozenset(' "(),:;<>@[\\]')


class AddressError(ValueError):
    """The text can't be a mail address. Never carries the text."""


class MessageClass(IntEnum):
    """Class of a message, fixed by the credential that submitted it."""

    CAMPAIGN = 0
    TRANSACTIONAL = 1


class Scope(IntEnum):
    """How far a suppression reaches."""

    EVERYTHING = 1
    TENANT = 2
    LIST = 3
    GROUP = 4


_NARROW = frozenset({Scope.TENANT, Scope.LIST})


class Kind(IntEnum):
    """Why an address is suppressed."""

    UNSUBSCRIBE = 1
    COMPLAINT = 2
    HARD_BOUNCE = 3
    MANUAL = 4
    LEGAL = 5


class Effect(IntEnum):
    """What one scope key stops, over all kinds that are in force for it."""

    NOTHING = 0
    CAMPAIGN = 1
    ALL = 2


def effect_of(scope: Scope, kind: Kind) -> Effect:
    """What an entry stops: only an unsubscribe from a list or a tenant leaves transactional mail alive.

    One from a group is one from everything that the group sends.
    """
    return Effect.CAMPAIGN if kind is Kind.UNSUBSCRIBE and scope in _NARROW else Effect.ALL


def normalise(address: str) -> str:
    """The one spelling under which an address is digested.

    Local parts are compared without regard to case (every large provider does, and to err is to send too little);
    domains as A-labels (RFC 5891), so that both spellings of an internationalised domain are one person.
    Sub-addresses (`+tag`) stay: they are addresses of their own.
    """
    return address.lower() if _PLAIN.fullmatch(address) else _normal_address(address)


def _normal_address(address: str) -> str:
    text = address.strip().removeprefix("<").removesuffix(">").strip()
    local, _, domain = text.rpartition("@")
    if len(text) > MAX_ADDRESS_CHARACTERS or not text.isprintable() or not _can_be(local, domain):
        raise AddressError("not a mail address")
    return f"{_normal_local_part(local)}@{_normal_domain(domain)}"


def _can_be(local: str, domain: str) -> bool:
    """Not the whole grammar of RFC 5321 §4.1.2: only what can't be an address, or would be two spellings of one."""
    quoted = len(local) > 2 and local[0] == local[-1] == '"'
    literal = domain[:1] == "[" and domain[-1:] == "]"
    return bool(
        local
        and domain.strip(".")
        and (quoted or not _SPECIALS.intersection(local))
        and (literal or not _SPECIALS.intersection(domain))
    )


def _normal_local_part(local: str) -> str:
    if len(local) > 2 and local[0] == local[-1] == '"':
        bare = local[1:-1]
        if all(part and _is_atom(part) for part in bare.split(".")):
            local = bare
    return local.lower() if local.isascii() else _fold(local)


def _is_atom(part: str) -> bool:
    return all(character.isalnum() or character in "!#$%&'*+-/=?^_`{|}~" for character in part)


def _fold(text: str) -> str:
    """Caseless and composed; repeated until stable, because folding can undo composition and the other way round."""
    for _ in range(4):
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
        if folded == text:
            break
        text = folded
    return text


@lru_cache(maxsize=4096)
def _normal_domain(domain: str) -> str:
    domain = domain.removesuffix(".")
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True, transitional=False).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        return _fold(domain)


class Digest:
    """Keyed digests of addresses and of (scope, person)."""

    def __init__(self, key: bytes) -> None:
        """`key`: 32 bytes, the same on every node of an installation, for ever."""
        if len(key) != 32:
            raise ValueError("the digest key has 32 bytes")
        self._person = hashlib.blake2b(digest_size=8, key=key, person=b"heed person")
        self._scope = hashlib.blake2b(digest_size=8, key=key, person=b"heed scope")
        self._other = hashlib.blake2b(digest_size=32, key=key, person=b"heed other")
        self._blind = hashlib.blake2b(digest_size=16, key=key, person=b"heed fingerprint").digest()

    @property
    def fingerprint(self) -> bytes:
        """16 bytes that tell whether two nodes have the same key, and nothing else about it."""
        return self._blind

    def person(self, address: str) -> int:
        """Signed 64-bit digest of the normalised address; `AddressError` when it is none."""
        state = self._person.copy()
        state.update(normalise(address).encode("utf-8", "surrogatepass"))
        return int.from_bytes(state.digest(), "big", signed=True)

    def of(self, octets: bytes) -> bytes:
        """32 bytes for anything else in which an address may stand."""
        state = self._other.copy()
        state.update(octets)
        return state.digest()

    def key(self, scope: Scope, person: int, tenant_id: int = 0, list_id: int = 0) -> int:
        """The scope key: signed 64 bits, the lowest clear. For GROUP, `list_id` is the id of the group.

        Ids that a scope doesn't have are ignored: the entry may still say through which tenant and list it came.
        """
        if scope is Scope.GROUP:
            tenant_id, list_id = list_id, 0
        elif scope is not Scope.LIST:
            list_id = 0
            if scope is Scope.EVERYTHING:
                tenant_id = 0
        state = self._scope.copy()
        state.update(_SCOPED.pack(scope, tenant_id, list_id, person))
        return int.from_bytes(state.digest(), "big", signed=True) & ~1

    def keys(self, person: int, tenant_id: int, list_id: int, group_id: int = 0) -> tuple[int, ...]:
        """Every scope key that can stop mail of this tenant and list to this person; computed once a recipient."""
        key = self.key
        found = [key(Scope.EVERYTHING, person), key(Scope.TENANT, person, tenant_id)]
        if list_id:
            found.append(key(Scope.LIST, person, tenant_id, list_id))
        if group_id:
            found.append(key(Scope.GROUP, person, 0, group_id))
        return tuple(found)
