"""Where mail for a domain goes: its hosts in the order to try them, or the outcome that says why there are none.

By a fixed next hop, a domain's own next hop, an address literal, or the DNS (RFC 5321 §5.1, RFC 7505). The domain's
non-existence and its null MX are final; whatever could not be found out is temporary. Addresses that are ours, private
or reserved are never routed to unless that is asked for, so no domain can aim the daemon at a network behind it.
Decisions are plain functions of what was found; only `Router` waits for anything.
"""

import asyncio
import hashlib
import ipaddress
import itertools
import random
import re
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bounce import trouble
from bounce.outcome import BounceClass, Outcome
from mta.domain import is_domain, is_public, literal_address, normalised_domain
from mta.resolver import Found, Mx, Resolver
from mta.shared_cache import Entry, SharedCache

MAX_HOSTS = 10
"""Of a domain's MX hosts, how many are looked up: a domain must not be able to order any number of lookups."""

SITE_CHARACTERS = 120
"""Longest site key."""

_SHORTEST_TTL_SECONDS, _LONGEST_TTL_SECONDS = 30.0, 4 * 3600.0
_FINAL_TTL_SECONDS = (60.0, 900.0)
_RETRY_TTL_SECONDS = 30.0
_NEXT_HOP_TTL_SECONDS = 60.0


Shuffle = Callable[[list[Any]], None]
"""Brings a list into random order, in place."""


class NextHop(NamedTuple):
    """A host, by name or address, and its port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Host:
    """One mail exchanger with its addresses in the order to try them."""

    name: str
    addresses: tuple[str, ...]
    port: int


@dataclass(frozen=True, slots=True)
class Route:
    """Hosts in the order to try them. `site` is the same for all domains with the same exchangers; `expires_at` is by
    the router's clock."""

    site: str
    hosts: tuple[Host, ...]
    expires_at: float


@dataclass(frozen=True, slots=True)
class _Plan:
    """A route before its equals are shuffled: hosts of one preference in one group."""

    site: str
    groups: tuple[tuple[Host, ...], ...]


class _Exchanger(NamedTuple):
    """An MX host with what its name has, and which of that may be used."""

    preference: int
    name: str
    found: Found[str]
    usable: tuple[str, ...]
    ours: bool


def parse_next_hop(text: str, default_port: int = 25) -> NextHop:
    """`host`, `host:port`, `[address]` or `[address]:port`. ValueError for anything else."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]@]+))(?::(\d{1,5}))?", text)
    port = int(match[3]) if match and match[3] else default_port
    if match is None or not 0 < port < 65536:
        raise ValueError(f"not a next hop (host:port): {text!r}")
    if match[1]:
        ipaddress.ip_address(match[1])
    return NextHop(match[1] or match[2].lower(), port)


def site_of(names: Collection[str]) -> str:
    """The key of a set of exchangers: their names, or a name and a digest where that would be long."""
    ordered = sorted(set(names))
    site = ",".join(ordered)
    if len(site) <= SITE_CHARACTERS:
        return site
    digest = hashlib.blake2b(site.encode(), digest_size=8).hexdigest()
    return f"{ordered[0][:80]}+{len(ordered) - 1}#{digest}"


def exchangers(domain: str, found: Found[Mx]) -> list[Mx] | Outcome:
    """The MX hosts to look up, best first, or what the answer means for the recipient."""
    if found.failure:
        return trouble.routing("4.4.3", f"MX lookup: {found.failure}")
    if not found.exists:
        return trouble.no_such_domain()
    if not found.values:
        return [Mx(0, domain)]  # the implicit MX, RFC 5321 §5.1
    named = sorted(mx for mx in found.values if is_domain(mx.exchange))
    if named:
        return named
    if all(mx.exchange == "" for mx in found.values):
        return trouble.null_mx()
    return trouble.routing("4.4.4", "no MX record names a host")


def _plan(hosts: Sequence[_Exchanger], site: str, port: int, *, implicit: bool) -> _Plan | Outcome:
    """The groups to try, or why there is nobody. A host that is ours rules out all that are no better (§5.1)."""
    limit = min((host.preference for host in hosts if host.ours), default=None)
    if limit is not None:
        hosts = [host for host in hosts if host.preference < limit]
        if not hosts:
            return trouble.routing("5.4.6", "mail for the domain would come back to us", BounceClass.ROUTING_LOOP)
    usable = [host for host in hosts if host.usable]
    if not usable:
        return _nobody(hosts, implicit=implicit)
    by_preference = itertools.groupby(usable, key=lambda host: host.preference)
    groups = tuple(tuple(Host(host.name, host.usable, port) for host in group) for _, group in by_preference)
    return _Plan(site, groups)


def _nobody(hosts: Sequence[_Exchanger], *, implicit: bool) -> Outcome:
    failure = next((host.found.failure for host in hosts if host.found.failure), "")
    if failure:
        return trouble.routing("4.4.3", f"address lookup of the mail exchangers: {failure}")
    if any(host.found.values for host in hosts):
        return trouble.routing("4.4.4", "the mail exchangers have private or reserved addresses only")
    if implicit:
        return trouble.no_such_domain()
    return trouble.routing("4.4.4", "no mail exchanger of the domain has an address")


def arranged(groups: Sequence[Sequence[Host]], shuffle: Shuffle) -> tuple[Host, ...]:
    """The hosts in the order to try them now: equals and addresses in random order, IPv6 and IPv4 in turn."""
    ordered: list[Host] = []
    for group in groups:
        hosts = [Host(host.name, _interleaved(host.addresses, shuffle), host.port) for host in group]
        shuffle(hosts)
        ordered += hosts
    return tuple(ordered)


def _interleaved(addresses: Sequence[str], shuffle: Shuffle) -> tuple[str, ...]:
    if len(addresses) == 1:
        return tuple(addresses)
    v6 = [address for address in addresses if ":" in address]
    v4 = [address for address in addresses if ":" not in address]
    for family in (v6, v4):
        shuffle(family)
    pairs = itertools.zip_longest(v6, v4)
    return tuple(address for pair in pairs for address in pair if address is not None)


class Router:
    """Routes by configuration or by DNS, with two bounded caches: one of domains, one of hosts that domains share.

    `next_hop` takes all mail, `routes` takes a domain's ("example.net") or its subdomains' (".example.net") and comes
    first. `listeners` are our own (address, port), `names` our own host names. At most `max_lookups` domains are looked
    up at a time.
    """

    def __init__(
        self,
        resolver: Resolver | None = None,
        *,
        next_hop: NextHop | None = None,
        routes: Mapping[str, NextHop] | None = None,
        port: int = 25,
        allow_private: bool = False,
        listeners: Collection[tuple[str, int]] = (),
        names: Collection[str] = (),
        capacity: int = 20_000,
        max_lookups: int = 64,
        now: Callable[[], float] = time.monotonic,
        shuffle: Shuffle = random.shuffle,
    ) -> None:
        self._resolver = resolver or Resolver()
        self._next_hop, self._routes = next_hop, {key.lower(): hop for key, hop in (routes or {}).items()}
        self._port, self._allow_private = port, allow_private
        self._our_addresses = {address for address, listener_port in listeners if listener_port == port}
        self._our_names = {name.lower() for name in names}
        self._now, self._shuffle = now, shuffle
        self._plans: SharedCache[_Plan | Outcome] = SharedCache(capacity, now)
        self._hosts: SharedCache[Found[str]] = SharedCache(capacity, now)
        self._lookups = asyncio.Semaphore(max_lookups)

    async def route(self, domain: str) -> Route | Outcome:
        """The route for a recipient's domain, as written in the address. Never raises."""
        name = normalised_domain(domain)
        if name is None:
            return trouble.no_such_domain()
        hop = self._configured_hop(name)
        if hop is not None:
            entry = await self._plans.get(f"{hop.host}:{hop.port}", self._look_up_next_hop)
        elif name.startswith("["):
            entry = self._literal(name)
        else:
            entry = await self._plans.get(name, self._look_up_domain)
        if isinstance(entry.value, Outcome):
            return entry.value
        return Route(entry.value.site, arranged(entry.value.groups, self._shuffle), entry.expires_at)

    @property
    def remembered(self) -> int:
        """How many domains and hosts are in the caches now: at most twice their capacity."""
        return len(self._plans) + len(self._hosts)

    async def close(self) -> None:
        """End the lookups under way."""
        await self._plans.close()
        await self._hosts.close()

    def _configured_hop(self, name: str) -> NextHop | None:
        if self._routes:
            suffixes = (name[at.start() :] for at in re.finditer(r"\.", name))
            for key in (name, *suffixes):
                if key in self._routes:
                    return self._routes[key]
        return self._next_hop

    async def _look_up_next_hop(self, key: str) -> Entry[_Plan | Outcome]:
        """By the system's own resolver, /etc/hosts included. The operator named it, so it may be private, and its
        absence is never the recipient's fault."""
        host, _, port = key.rpartition(":")
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError as error:
            reason = getattr(error, "strerror", None) or "failed"
            return Entry(trouble.routing("4.4.3", f"address lookup of the next hop: {reason}"), self._until_retry())
        addresses = tuple(dict.fromkeys(str(info[4][0]) for info in infos))
        return Entry(_Plan(key, ((Host(host, addresses, int(port)),),)), self._now() + _NEXT_HOP_TTL_SECONDS)

    def _literal(self, name: str) -> Entry[_Plan | Outcome]:
        address = literal_address(name)
        if address is None:
            outcome = trouble.routing("5.1.3", "not an address literal", BounceClass.UNKNOWN_HOST)
            return Entry(outcome, self._now() + _FINAL_TTL_SECONDS[1])
        host = self._exchanger(Mx(0, address), Found((address,)))
        plan = _plan([host], name, self._port, implicit=False)
        return Entry(plan, self._now() + _LONGEST_TTL_SECONDS)

    async def _look_up_domain(self, name: str) -> Entry[_Plan | Outcome]:
        async with self._lookups:
            found = await self._resolver.mx(name)
            records = exchangers(name, found)
            if isinstance(records, Outcome):
                return self._entry(records, found.ttl_seconds)
            chosen = records[:MAX_HOSTS]
            answers = await asyncio.gather(*(self._hosts.get(mx.exchange, self._look_up_host) for mx in chosen))
        hosts = [self._exchanger(mx, answer.value) for mx, answer in zip(chosen, answers, strict=True)]
        site = site_of([mx.exchange for mx in records])
        plan = _plan(hosts, site, self._port, implicit=not found.values)
        return self._entry(plan, min(found.ttl_seconds, *(answer.expires_at - self._now() for answer in answers)))

    async def _look_up_host(self, name: str) -> Entry[Found[str]]:
        found = await self._resolver.addresses(name)
        return Entry(found, self._until_retry() if found.failure else self._now() + _clamped(found.ttl_seconds))

    def _exchanger(self, mx: Mx, found: Found[str]) -> _Exchanger:
        usable = tuple(address for address in found.values if self._allow_private or is_public(address))
        ours = mx.exchange in self._our_names or any(self._is_ours(address) for address in usable)
        return _Exchanger(mx.preference, mx.exchange, found, usable, ours)

    def _is_ours(self, address: str) -> bool:
        if address in self._our_addresses:
            return True
        wildcard = "::" if ":" in address else "0.0.0.0"  # noqa: S104 – compared with, not listened on
        return wildcard in self._our_addresses and _is_local(address)

    def _entry(self, value: _Plan | Outcome, ttl_seconds: float) -> Entry[_Plan | Outcome]:
        if isinstance(value, _Plan):
            return Entry(value, self._now() + _clamped(ttl_seconds))
        if not value.permanent:
            return Entry(value, self._until_retry())
        shortest, longest = _FINAL_TTL_SECONDS
        return Entry(value, self._now() + min(max(ttl_seconds, shortest), longest))

    def _until_retry(self) -> float:
        return self._now() + _RETRY_TTL_SECONDS


def _clamped(ttl_seconds: float) -> float:
    return min(max(ttl_seconds, _SHORTEST_TTL_SECONDS), _LONGEST_TTL_SECONDS)


def _is_local(address: str) -> bool:
    """Whether this machine has the address: only then can a socket be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
