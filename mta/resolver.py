"""The door to the DNS: what a name has, with its time to live, or why that can't be known now. Only here: dnspython.

A lookup never raises for what a name server does. `Found` tells apart what decides between a bounce and a retry: the
name does not exist, it exists without such records, or nobody could say.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.rdtypes.ANY.MX
import dns.resolver
import dns.reversename

T = TypeVar("T")

_EDNS_PAYLOAD_OCTETS = 1232  # what fits every path without fragments (DNS flag day 2020)
_BROKEN_FAMILY_TTL_SECONDS = 60.0


class Mx(NamedTuple):
    """One MX record; the exchange in lower case without its last dot, "" for the root."""

    preference: int
    exchange: str


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """The answer to one question. `failure` is a short reason when there is no answer, and "" when there is one."""

    values: tuple[T, ...] = ()
    ttl_seconds: float = 0.0
    exists: bool = True
    failure: str = ""


class Resolver:
    """Stub resolver for the nameservers given, or for those of /etc/resolv.conf.

    One server is asked for `timeout_seconds` at a time, a question is given up after `lifetime_seconds`.
    """

    def __init__(
        self,
        *,
        nameservers: Sequence[str] = (),
        port: int = 53,
        timeout_seconds: float = 3.0,
        lifetime_seconds: float = 10.0,
        ipv4: bool = True,
        ipv6: bool = True,
    ) -> None:
        self._resolver = _configured(nameservers)
        self._resolver.port = port
        self._resolver.timeout, self._resolver.lifetime = timeout_seconds, lifetime_seconds
        self._resolver.search = []
        self._resolver.use_edns(0, 0, _EDNS_PAYLOAD_OCTETS)
        self._types = [kind for kind, wanted in (("AAAA", ipv6), ("A", ipv4)) if wanted]

    async def mx(self, name: str) -> Found[Mx]:
        """The MX records of an A-label domain without its last dot, in no order."""
        answer = await self._ask(name, "MX")
        if isinstance(answer, Found):
            return answer
        records = [rdata for rdata in answer if isinstance(rdata, dns.rdtypes.ANY.MX.MX)]
        found = tuple(Mx(record.preference, _text(record.exchange)) for record in records)
        return Found(found, _ttl_seconds(answer))

    async def addresses(self, name: str) -> Found[str]:
        """The IPv6 and IPv4 addresses of a host. One family's failure counts only where the other has nothing."""
        return _both(await asyncio.gather(*(self._addresses(name, kind) for kind in self._types)))

    async def texts(self, name: str) -> Found[str]:
        """The TXT records of a name, the strings of each put together."""
        answer = await self._ask(name, "TXT")
        if isinstance(answer, Found):
            return answer
        texts = tuple(b"".join(rdata.strings).decode("ascii", "replace") for rdata in answer)
        return Found(texts, _ttl_seconds(answer))

    async def pointers(self, address: str) -> Found[str]:
        """The names that an address has (PTR)."""
        answer = await self._ask(dns.reversename.from_address(address).to_text(omit_final_dot=True), "PTR")
        if isinstance(answer, Found):
            return answer
        return Found(tuple(_text(rdata.target) for rdata in answer), _ttl_seconds(answer))

    async def _addresses(self, name: str, kind: str) -> Found[str]:
        answer = await self._ask(name, kind)
        if isinstance(answer, Found):
            return answer
        return Found(tuple(rdata.to_text() for rdata in answer), _ttl_seconds(answer))

    async def _ask(self, name: str, kind: str) -> dns.resolver.Answer | Found[Any]:
        """The answer when it has records, or what else there is to say."""
        try:
            absolute = dns.name.from_text(name + ".")
            answer = await self._resolver.resolve(absolute, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN as error:
            return Found(exists=False, ttl_seconds=_negative_ttl_seconds(error))
        except dns.exception.Timeout:
            return Found(failure="timeout")
        except dns.resolver.NoNameservers:
            return Found(failure="server failure")
        except (dns.exception.DNSException, OSError) as error:
            return Found(failure=type(error).__name__)
        return answer if answer.rrset is not None else Found(ttl_seconds=_ttl_seconds(answer))


def _configured(nameservers: Sequence[str]) -> dns.asyncresolver.Resolver:
    if not nameservers:
        try:
            return dns.asyncresolver.Resolver()
        except dns.resolver.NoResolverConfiguration:
            nameservers = ["127.0.0.1"]  # as the C library does without a resolv.conf
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = list(nameservers)
    return resolver


def _both(families: Sequence[Found[str]]) -> Found[str]:
    values = tuple(address for found in families for address in found.values)
    failure = next((found.failure for found in families if found.failure), "")
    ttl_seconds = min((found.ttl_seconds for found in families if not found.failure), default=0.0)
    if values and failure:
        return Found(values, min(ttl_seconds, _BROKEN_FAMILY_TTL_SECONDS))
    if values:
        return Found(values, min(found.ttl_seconds for found in families if found.values))
    return Found((), ttl_seconds, exists=any(found.exists for found in families), failure=failure)


def _text(name: dns.name.Name) -> str:
    return "" if name == dns.name.root else name.to_text(omit_final_dot=True).lower()


def _ttl_seconds(answer: dns.resolver.Answer) -> float:
    """The shortest on the way to the answer, aliases included; for a negative one, by its SOA (RFC 2308 §5)."""
    return float(answer.chaining_result.minimum_ttl)


def _negative_ttl_seconds(error: dns.resolver.NXDOMAIN) -> float:
    responses = list(error.responses().values())
    return float(min((response.resolve_chaining().minimum_ttl for response in responses), default=0))
