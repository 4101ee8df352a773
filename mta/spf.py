"""Whether an SPF record lets an address send (RFC 7208), as far as a check of one's own domain needs it.

A record is read to its end before any of it counts: one syntax error anywhere is a permanent error. `all`, `ip4`,
`ip6`, `a`, `mx`, `include` and `redirect` are evaluated; `exists`, `ptr` and macros match nothing here, and `left_out`
names the first of them. Look-ups are counted as receivers do: more than ten, or more than two that find nothing, are a
permanent error, with which the record protects nobody.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from mta.resolver import Found, Resolver

T = TypeVar("T")

MAX_LOOKUPS: Final = 10
MAX_VOID_LOOKUPS: Final = 2
# what no record names (RFC 7600): whatever lets this one send lets anybody
NOBODY: Final = "192.0.0.8"
_QUALIFIERS: Final = {"": "pass", "+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
_MODIFIER: Final = re.compile(r"([a-z][a-z0-9_.-]*)=(.*)", re.IGNORECASE)
_MECHANISM: Final = re.compile(
    r"([+?~-]?)([a-z0-9_.-]+)(?::(.*?))?(?:/(0|[1-9]\d*))?(?://(0|[1-9]\d*))?", re.IGNORECASE
)
_EXPANSION: Final = r"%(?:\{[slodiphv](?:[1-9]\d*)?r?[.+,/_=-]*\}|[%_-])"
_MACRO_STRING: Final = re.compile(rf"(?:{_EXPANSION}|[!-$&-~])*", re.IGNORECASE)
_DOMAIN_END: Final = re.compile(rf".*(?:\.(?!\d+\.?$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.?|{_EXPANSION})", re.IGNORECASE)
_TAKES_DOMAIN: Final = ("include", "exists", "a", "mx", "ptr")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a receiver would make of it: pass, fail, softfail, neutral, none, permerror or temperror; and why."""

    result: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Term:
    """One mechanism, or the redirect. domain: "" for that of the record; prefixes: of an IPv4 and an IPv6 address."""

    text: str
    name: str
    result: str = "pass"
    domain: str = ""
    prefixes: tuple[int, int] = (32, 128)
    network: Network | None = None


class _Ended(Exception):
    """The evaluation ends here, with an error as its verdict."""

    def __init__(self, result: str, reason: str) -> None:
        super().__init__(reason)
        self.verdict = Verdict(result, reason)


class Spf:
    """Evaluates one domain's record."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self.lookups = 0
        self.voids = 0
        self.left_out = ""

    async def check(self, domain: str, address: str) -> Verdict:
        """The verdict for mail from an address with a reverse-path in a domain."""
        self.lookups, self.voids, self.left_out = 0, 0, ""
        try:
            return await self._evaluate(domain, ipaddress.ip_address(address)) or Verdict("none")
        except _Ended as ended:
            return ended.verdict

    async def _terms(self, domain: str) -> list[Term] | None:
        found = _known(domain, await self._resolver.texts(domain))
        records = [text for text in found.values if text.lower().split(" ")[0] == "v=spf1"]
        if len(records) > 1:
            raise _Ended("permerror", f"{domain} has {len(records)} SPF records")
        try:
            return _parsed(records[0]) if records else None
        except ValueError as error:
            raise _Ended("permerror", f"{domain}: {error}") from None

    async def _evaluate(self, domain: str, address: Address) -> Verdict | None:
        """None: there is no record."""
        terms = await self._terms(domain)
        if terms is None:
            return None
        for term in terms:
            if term.network is None and term.name != "all":
                self._count()
            if "%" in term.domain or term.name in ("exists", "ptr"):
                self.left_out = self.left_out or term.text
            elif term.name == "redirect":
                return await self._required(term, address)
            elif await self._matches(term, domain, address):
                return Verdict(term.result, term.text)
        return Verdict("neutral", "no mechanism matches")

    async def _matches(self, term: Term, domain: str, address: Address) -> bool:
        match term.name:
            case "a":
                own = await self._own(term.domain or domain, address)
                self._count_void(own)
                return any(address in network for network in _networks(own, term))
            case "mx":
                return await self._exchanges(term.domain or domain, term, address)
            case "include":
                return (await self._required(term, address)).result == "pass"
            case _:
                return term.network is None or address in term.network

    async def _required(self, term: Term, address: Address) -> Verdict:
        verdict = await self._evaluate(term.domain, address)
        if verdict is None:
            raise _Ended("permerror", f"{term.text}: there is no SPF record")
        return verdict

    async def _own(self, host: str, address: Address) -> list[Address]:
        """A host's addresses of the same family."""
        found = _known(host, await self._resolver.addresses(host))
        return [each for each in map(ipaddress.ip_address, found.values) if each.version == address.version]

    async def _exchanges(self, domain: str, term: Term, address: Address) -> bool:
        found = _known(domain, await self._resolver.mx(domain))
        self._count_void(found.values)
        if len(found.values) > MAX_LOOKUPS:
            raise _Ended("permerror", f"{domain} has more than {MAX_LOOKUPS} MX records")
        for exchange in filter(None, (mx.exchange for mx in found.values)):
            if any(address in network for network in _networks(await self._own(exchange, address), term)):
                return True
        return False

    def _count(self) -> None:
        self.lookups += 1
        if self.lookups > MAX_LOOKUPS:
            raise _Ended("permerror", f"more than {MAX_LOOKUPS} look-ups")

    def _count_void(self, values: object) -> None:
        self.voids += not values
        if self.voids > MAX_VOID_LOOKUPS:
            raise _Ended("permerror", f"more than {MAX_VOID_LOOKUPS} look-ups that find nothing")


def _parsed(record: str) -> list[Term]:
    """The mechanisms up to the first `all`, or all and the redirect. ValueError: what is wrong with the syntax."""
    terms: list[Term] = []
    modifiers: dict[str, str] = {}
    for text in filter(None, record.split(" ")[1:]):
        match = _MODIFIER.fullmatch(text)
        if match is None:
            terms.append(_mechanism(text))
            continue
        name, value = match[1].lower(), match[2]
        if name in ("redirect", "exp"):
            if name in modifiers:
                raise ValueError(f"{name}= is there twice")
            _check_domain(text, value)
        elif not _MACRO_STRING.fullmatch(value):
            raise ValueError(f"{text} is no modifier")
        modifiers[name] = value
    last = next((at for at, term in enumerate(terms, 1) if term.name == "all"), None)
    if last is None and "redirect" in modifiers:
        target = modifiers["redirect"]
        return [*terms, Term(f"redirect={target}", "redirect", domain=target.removesuffix("."))]
    return terms[:last]


def _mechanism(text: str) -> Term:
    match = _MECHANISM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text} is no mechanism")
    qualifier, name, value, prefix4, prefix6 = match[1], match[2].lower(), match[3], match[4], match[5]
    result = _QUALIFIERS[qualifier]
    if name in ("ip4", "ip6"):
        return Term(text, name, result, network=_network(text, name, value or "", prefix4, prefix6))
    if name != "all" and name not in _TAKES_DOMAIN:
        raise ValueError(f"{text}: there is no mechanism {name}")
    if (value is not None and name == "all") or (value is None and name in ("include", "exists")):
        raise ValueError(f"{text}: {name} takes {'no domain' if name == 'all' else 'a domain'}")
    if (prefix4 or prefix6) and name not in ("a", "mx"):
        raise ValueError(f"{text}: {name} takes no prefix length")
    if value is not None:
        _check_domain(text, value)
    prefixes = int(prefix4 or 32), int(prefix6 or 128)
    if prefixes[0] > 32 or prefixes[1] > 128:
        raise ValueError(f"{text}: the prefix length is at most 32 for IPv4, and 128 for IPv6")
    return Term(text, name, result, (value or "").removesuffix("."), prefixes)


def _network(text: str, name: str, value: str, prefix: str | None, other: str | None) -> Network:
    """The network of an ip4 or ip6."""
    try:
        if other or "%" in value:
            raise ValueError
        if name == "ip4":
            return ipaddress.IPv4Network((value, int(prefix or 32)), strict=False)
        return ipaddress.IPv6Network((value, int(prefix or 128)), strict=False)
    except ValueError:
        raise ValueError(f"{text} is no IPv{name[2]} address or network") from None


def _check_domain(text: str, value: str) -> None:
    labels = value.removesuffix(".").split(".")
    possible = "%" in value or (len(value) <= 254 and all(0 < len(label) < 64 for label in labels))
    if not (possible and _MACRO_STRING.fullmatch(value) and _DOMAIN_END.fullmatch(value)):
        raise ValueError(f"{text}: {value or 'nothing'} is no domain name")


def _networks(addresses: Sequence[Address], term: Term) -> list[Network]:
    return [ipaddress.ip_network((each, term.prefixes[each.version == 6]), strict=False) for each in addresses]


def _known(name: str, found: Found[T]) -> Found[T]:
    if found.failure:
        raise _Ended("temperror", f"{name}: {found.failure}")
    return found
