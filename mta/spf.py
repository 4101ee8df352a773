"""Whether an SPF record lets an address send (RFC 7208), as far as a check of one's own domain needs it.

Mechanisms all, ip4, ip6, a, mx, include, and redirect; `exists`, `ptr` and macros are left out, and said to be. Counts
look-ups as receivers do: more than ten are a permanent error, with which the record protects nobody.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from mta.resolver import Resolver

MAX_LOOKUPS: Final = 10
_QUALIFIERS: Final = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
_TERM: Final = re.compile(r"([+?~-]?)([a-z0-9]+)(?:[:=]([^/\s]+))?((?:/\d+)?(?://\d+)?)", re.IGNORECASE)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(slots=True)
class Verdict:
    """What a receiver would make of it: pass, fail, softfail, neutral, none, permerror or temperror; and why."""

    result: str
    reason: str = ""


class Spf:
    """Evaluates one domain's record."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self.lookups = 0

    async def check(self, domain: str, address: str) -> Verdict:
        """The verdict for mail from an address with a reverse-path in a domain."""
        self.lookups = 0
        return await self._evaluate(domain, ipaddress.ip_address(address))

    async def _evaluate(self, domain: str, address: Address) -> Verdict:
        found = await self._resolver.texts(domain)
        if found.failure:
            return Verdict("temperror", f"{domain}: {found.failure}")
        records = [text for text in found.values if text.lower().split(" ")[0] == "v=spf1"]
        if len(records) != 1:
            return Verdict("permerror", f"{domain} has {len(records)} SPF records") if records else Verdict("none")
        redirect = ""
        for term in records[0].split()[1:]:
            match = _TERM.fullmatch(term)
            if match is None or "%" in term:
                return Verdict("permerror", f"{domain}: {term} is not understood")
            qualifier, name, value, length = match[1], match[2].lower(), match[3] or "", match[4]
            if name in ("ip4", "ip6") and value:
                value += length
            if name == "redirect":
                redirect = value
                continue
            verdict = await self._matches(name, value, domain, address, length)
            if isinstance(verdict, Verdict):
                return verdict
            if verdict:
                return Verdict(_QUALIFIERS[qualifier or "+"], term)
        if redirect:
            return self._too_many() or await self._evaluate(redirect, address)
        return Verdict("neutral", "no mechanism matches")

    async def _matches(self, name: str, value: str, domain: str, address: Address, length: str) -> bool | Verdict:
        match name:
            case "all":
                return True
            case "ip4" | "ip6":
                return _within(address, value)
            case "a":
                return self._too_many() or await self._has(value or domain, address, length)
            case "mx":
                return self._too_many() or await self._exchanges(value or domain, address, length)
            case "include":
                too_many = self._too_many()
                if too_many is not None:
                    return too_many
                verdict = await self._evaluate(value, address)
                if verdict.result in ("permerror", "temperror", "none"):
                    return Verdict("permerror" if verdict.result != "temperror" else "temperror", f"include:{value}")
                return verdict.result == "pass"
            case "exists" | "ptr":
                too_many = self._too_many()
                return False if too_many is None else too_many
            case "exp":
                return False
            case _:
                return Verdict("permerror", f"{domain}: {name} is no mechanism")

    def _too_many(self) -> Verdict | None:
        self.lookups += 1
        return Verdict("permerror", f"more than {MAX_LOOKUPS} look-ups") if self.lookups > MAX_LOOKUPS else None

    async def _has(self, host: str, address: Address, length: str) -> bool:
        prefixes = re.fullmatch(r"(?:/(\d+))?(?://(\d+))?", length)
        prefix = prefixes and prefixes[1 if address.version == 4 else 2]
        found = await self._resolver.addresses(host)
        return any(_within(address, f"{each}/{prefix}" if prefix else each) for each in found.values)

    async def _exchanges(self, domain: str, address: Address, length: str) -> bool:
        found = await self._resolver.mx(domain)
        for mx in found.values[:MAX_LOOKUPS]:
            if await self._has(mx.exchange, address, length):
                return True
        return False


def _within(address: Address, network: str) -> bool:
    try:
        parsed = ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
    return address.version == parsed.version and address in parsed
