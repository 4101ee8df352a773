"""Domains, literals, addresses and sites, whatever is put in."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from bounce.outcome import Outcome
from mta.domain import is_domain, is_public, literal_address, normalised_domain
from mta.resolver import Found, Mx
from mta.routing import SITE_CHARACTERS, Host, arranged, exchangers, parse_next_hop, site_of

label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
domain = st.lists(label, min_size=1, max_size=5).map(".".join)
v4, v6 = st.ip_addresses(v=4), st.ip_addresses(v=6)


@given(st.text(max_size=80))
def test_any_text_is_a_domain_a_literal_or_nothing(text: str) -> None:
    name = normalised_domain(text)
    assert name is None or name.startswith("[") or (is_domain(name) and normalised_domain(name) == name)


@given(domain)
def test_case_and_a_last_dot_make_no_difference(name: str) -> None:
    assert normalised_domain(name.upper() + ".") == normalised_domain(name) == name


@given(st.text(max_size=60))
def test_any_text_is_a_literal_or_not(text: str) -> None:
    address = literal_address(f"[{text}]")
    assert address is None or str(ipaddress.ip_address(address)) == address


@given(v4, v6)
def test_every_address_has_its_literal(four: ipaddress.IPv4Address, six: ipaddress.IPv6Address) -> None:
    assert literal_address(f"[{four}]") == str(four)
    assert literal_address(f"[ipv6:{six}]") == str(six)


@given(v4)
def test_an_address_inside_another_is_as_public_as_itself(four: ipaddress.IPv4Address) -> None:
    number = int(four)
    for carrier in (0xFFFF << 32, int(ipaddress.IPv6Address("64:ff9b::"))):
        assert is_public(str(ipaddress.IPv6Address(carrier | number))) == is_public(str(four))
    six_to_four = ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1)
    assert is_public(str(six_to_four)) == is_public(str(four))


@given(domain | v4.map(str) | v6.map("[{}]".format), st.integers(1, 65535))
def test_a_next_hop_is_read_as_written(host: str, port: int) -> None:
    assert parse_next_hop(f"{host}:{port}") == (host.strip("[]"), port)


@given(st.sets(domain, min_size=1, max_size=30), st.randoms())
def test_a_site_does_not_depend_on_order_and_is_bounded(names: set[str], chance: object) -> None:
    shuffled = list(names)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert site_of(shuffled) == site_of(names)
    assert len(site_of(names)) <= SITE_CHARACTERS


records = st.lists(st.builds(Mx, st.integers(0, 65535), domain | st.just("") | st.text(max_size=5)), max_size=10)


@given(records)
def test_exchangers_are_in_order_and_can_be_looked_up(found: list[Mx]) -> None:
    chosen = exchangers("example.net", Found(tuple(found)))
    if isinstance(chosen, Outcome):
        assert chosen.permanent == all(mx.exchange == "" for mx in found)
        return
    assert [mx.preference for mx in chosen] == sorted(mx.preference for mx in chosen)
    assert all(is_domain(mx.exchange) for mx in chosen)


@given(st.lists(st.lists(st.lists(v4 | v6, min_size=1, max_size=6), min_size=1, max_size=4), max_size=4), st.randoms())
def test_arranging_loses_nothing_and_keeps_preference(groups: list[list[list[object]]], chance: object) -> None:
    hosts = [
        [Host(f"{g}-{h}", tuple(map(str, addresses)), 25) for h, addresses in enumerate(group)]
        for g, group in enumerate(groups)
    ]
    ordered = arranged(hosts, chance.shuffle)  # type: ignore[attr-defined]
    assert [host.name[0] for host in ordered] == [host.name[0] for group in hosts for host in group]
    before = {host.name: sorted(host.addresses) for group in hosts for host in group}
    assert {host.name: sorted(host.addresses) for host in ordered} == before
