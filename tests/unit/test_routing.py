"""What routing decides from what was found: no lookups, no event loop."""

import ipaddress
from typing import Any

import pytest

from bounce.outcome import BounceClass, Outcome
from mta.domain import is_public, literal_address, normalised_domain
from mta.resolver import Found, Mx
from mta.routing import (
    SITE_CHARACTERS,
    Host,
    NextHop,
    arranged,
    exchangers,
    parse_next_hop,
    site_of,
)


def leave(values: list[Any]) -> None:
    """The shuffle of a test that wants an order."""


@pytest.mark.parametrize(
    ("text", "hop"),
    [
        ("relay.example.net", NextHop("relay.example.net", 25)),
        ("Relay.example.net:2500", NextHop("relay.example.net", 2500)),
        ("192.0.2.1:26", NextHop("192.0.2.1", 26)),
        ("[192.0.2.1]", NextHop("192.0.2.1", 25)),
        ("[2001:db8::1]:2500", NextHop("2001:db8::1", 2500)),
    ],
)
def test_a_next_hop_is_read(text: str, hop: NextHop) -> None:
    assert parse_next_hop(text) == hop


@pytest.mark.parametrize(
    "text", ["", ":25", "host:", "host:0", "host:65536", "2001:db8::1", "[2001:db8::1", "a b", "a@b", "[1.2.3]", "h:2x"]
)
def test_what_is_no_next_hop_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 – the message is ours or ipaddress's
        parse_next_hop(text)


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        ("Example.NET", "example.net"),
        ("example.net.", "example.net"),
        ("bücher.example.org", "xn--bcher-kva.example.org"),
        ("BÜCHER.example.org", "xn--bcher-kva.example.org"),
        ("例え。example.org", "xn--r8jz45g.example.org"),
        ("_dmarc.example.net", "_dmarc.example.net"),
        ("[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"),
        ("", None),
        (".", None),
        ("a..b", None),
        ("a b.example.net", None),
        ("a\r\nb", None),
        ("example.net\n", None),
        ("a" * 64 + ".example.net", None),
        (".".join(["a" * 60] * 5), None),
        ("\ud800.example.net", None),
        ("xn--\u00fc.example.net", None),
    ],
)
def test_a_domain_is_brought_to_a_labels(domain: str, name: str | None) -> None:
    assert normalised_domain(domain) == name


@pytest.mark.parametrize(
    ("literal", "address"),
    [
        ("[192.0.2.1]", "192.0.2.1"),
        ("[ipv6:2001:db8:0::1]", "2001:db8::1"),
        ("[2001:db8::1]", None),
        ("[ipv6:192.0.2.1]", None),
        ("[192.0.2.1", None),
        ("[192.0.2.256]", None),
        ("[ipv6:fe80::1%eth0]", None),
        ("[]", None),
        ("[x400:192.0.2.1]", None),
    ],
)
def test_an_address_literal_is_read(literal: str, address: str | None) -> None:
    assert literal_address(literal) == address


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.1.1",
        "255.255.255.255", "192.0.2.1", "240.0.0.1", "::", "::1", "fe80::1", "fc00::1", "fec0::1", "ff0e::1",
        "::ffff:127.0.0.1", "2002:7f00:1::1", "64:ff9b::a00:1", "2001:db8::1",
    ],
)  # fmt: skip
def test_an_address_behind_us_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_an_address_of_the_internet_is(address: str) -> None:
    assert is_public(address)


def test_every_private_network_is_refused_at_both_ends() -> None:
    for network in ("10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"):
        ends = ipaddress.ip_network(network)
        assert not is_public(str(ends[0]))
        assert not is_public(str(ends[-1]))


def test_a_site_is_its_set_of_exchangers() -> None:
    assert site_of(["b.example.net", "a.example.net"]) == site_of(["a.example.net", "b.example.net", "a.example.net"])
    many = [f"mx{n}.a-long-name.example.net" for n in range(50)]
    assert len(site_of(many)) <= SITE_CHARACTERS
    assert site_of(many) != site_of(many[1:])
    assert site_of(many).startswith("mx0.a-long-name.example.net+49#")


def outcome(found: Found[Mx]) -> tuple[str, bool, BounceClass]:
    result = exchangers("example.net", found)
    assert isinstance(result, Outcome)
    return result.status, result.permanent, result.bounce_class


def test_an_answer_is_a_list_or_an_outcome() -> None:
    assert outcome(Found(failure="timeout")) == ("4.4.3", False, BounceClass.NETWORK)
    assert outcome(Found(exists=False)) == ("5.1.2", True, BounceClass.UNKNOWN_HOST)
    assert outcome(Found((Mx(0, ""),))) == ("5.1.10", True, BounceClass.NULL_MX)
    assert outcome(Found((Mx(0, "a b"), Mx(1, "")))) == ("4.4.4", False, BounceClass.NETWORK)
    assert exchangers("example.net", Found()) == [Mx(0, "example.net")]
    assert exchangers("x", Found((Mx(9, "b.x"), Mx(1, "c.x"), Mx(0, "")))) == [Mx(1, "c.x"), Mx(9, "b.x")]


def test_hosts_come_by_group_and_families_in_turn() -> None:
    addresses = ("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2")
    groups = [[Host("a", addresses, 25)], [Host("b", ("192.0.2.9",), 25), Host("c", ("192.0.2.8",), 25)]]
    first, *rest = arranged(groups, leave)
    assert first.addresses == ("2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3")
    assert [host.name for host in rest] == ["b", "c"]
    assert [host.name for host in arranged(groups, list.reverse)] == ["a", "c", "b"]
