"""Domains and addresses as mail names them: A-labels, address literals, and what is not of the Internet."""

import ipaddress
import re

import idna

_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_domain(name: str) -> bool:
    """Whether a name, in lower case and without a last dot, can be looked up and written to a log as it is."""
    return _DOMAIN.fullmatch(name) is not None


def normalised_domain(domain: str) -> str | None:
    """The A-labels of a domain in lower case without a last dot, a literal as it is; None when it can't be one."""
    if domain.startswith("["):
        return domain.lower()
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except idna.IDNAError:
            return None
    domain = domain.lower().removesuffix(".")
    return domain if is_domain(domain) else None


def literal_address(domain: str) -> str | None:
    """The address in an address literal (RFC 5321 §4.1.3), or None when there is none."""
    text = domain[1:-1] if domain.endswith("]") else ""
    is_v6 = text.lower().startswith("ipv6:")
    try:
        address = ipaddress.ip_address(text[5:] if is_v6 else text)
    except ValueError:
        return None
    return str(address) if (address.version == 6) == is_v6 and "%" not in text else None


def is_public(address: str) -> bool:
    """Whether an address is one of the Internet's, also where it carries an IPv4 address inside."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if parsed in _NAT64:
            inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if parsed.is_site_local:
            return False
    return parsed.is_global and not parsed.is_multicast
