"""Routes by the DNS, against a name server that fails to order."""

import asyncio
from typing import Any

import pytest

from bounce.outcome import BounceClass, Outcome
from mta.resolver import Found, Mx, Resolver
from mta.routing import MAX_HOSTS, Host, NextHop, Route, Router
from tests.support.dns import FAIL, SILENT, NameServer

ZONE: dict[str, list[str] | str] = {
    "example.net": ["300 MX 20 mx2.example.net.", "300 MX 10 mx1.example.net.", "300 MX 10 mx3.example.net."],
    "shared.example.org": ["300 MX 5 MX3.example.net.", "300 MX 7 mx2.example.net.", "300 MX 9 mx1.example.net."],
    "mx1.example.net": ["300 A 192.0.2.1", "300 AAAA 2001:db8::1"],
    "mx2.example.net": ["300 A 192.0.2.2"],
    "mx3.example.net": ["300 A 192.0.2.3"],
    "implicit.example.net": ["300 A 192.0.2.9"],
    "null.example.net": ["300 MX 0 ."],
    "nothing.example.net": ["300 TXT x"],
    "broken.example.net": FAIL,
    "silent.example.net": SILENT,
    "v6.example.net": ["300 MX 10 mx6.example.net."],
    "mx6.example.net": ["300 AAAA 2001:db8::6"],
    "alias.example.net": ["300 CNAME example.net."],
    "dangling.example.net": ["300 CNAME gone.example.net."],
    "loop1.example.net": ["300 CNAME loop2.example.net."],
    "loop2.example.net": ["300 CNAME loop1.example.net."],
    "mx-alias.example.net": ["300 MX 10 www.example.net."],
    "www.example.net": ["60 CNAME mx2.example.net."],
    "no-hosts.example.net": ["300 MX 10 gone1.example.net.", "300 MX 20 gone2.example.net."],
    "half-broken.example.net": ["300 MX 10 broken.example.net.", "300 MX 20 mx2.example.net."],
    "all-broken.example.net": ["300 MX 10 broken.example.net.", "300 MX 20 gone.example.net."],
    "private.example.net": ["300 MX 10 inside.example.net."],
    "inside.example.net": ["300 A 10.0.0.5", "300 AAAA ::ffff:7f00:1"],
    "mixed.example.net": ["300 MX 10 inside.example.net.", "300 MX 20 public.example.net."],
    "public.example.net": ["300 A 8.8.8.8", "300 A 127.0.0.1"],
    "xn--bcher-kva.example.org": ["300 MX 1 mx2.example.net."],
    "many.example.net": [f"300 MX {n} a-rather-long-host-name-{n}.example.net." for n in range(40)],
    **{f"a-rather-long-host-name-{n}.example.net": ["300 A 192.0.2.77"] for n in range(40)},
}


def leave(values: list[Any]) -> None:
    """The shuffle of a test that wants an order."""


class Fixture:
    """A name server, a clock, and routers that use them."""

    def __init__(self, server: NameServer) -> None:
        self.server, self.time = server, 1000.0

    def router(self, patience_seconds: float = 10, **options: Any) -> Router:
        resolver = Resolver(
            nameservers=["127.0.0.1"],
            port=self.server.port,
            timeout_seconds=patience_seconds / 2,
            lifetime_seconds=patience_seconds,
        )
        options = {"allow_private": True, "shuffle": leave, **options}
        return Router(resolver, now=lambda: self.time, **options)


@pytest.fixture
async def dns() -> Any:
    async with NameServer(ZONE) as server:
        yield Fixture(server)


async def routed(router: Router, domain: str) -> Route:
    result = await router.route(domain)
    assert isinstance(result, Route), result
    return result


async def refused(router: Router, domain: str) -> tuple[str, BounceClass]:
    result = await router.route(domain)
    assert isinstance(result, Outcome), result
    assert result.permanent == result.status.startswith("5")
    return result.status, result.bounce_class


def names(route: Route) -> list[str]:
    return [host.name for host in route.hosts]


async def test_hosts_come_in_the_order_of_preference(dns: Fixture) -> None:
    route = await routed(dns.router(port=2500), "Example.NET")
    assert route.hosts == (
        Host("mx1.example.net", ("2001:db8::1", "192.0.2.1"), 2500),
        Host("mx3.example.net", ("192.0.2.3",), 2500),
        Host("mx2.example.net", ("192.0.2.2",), 2500),
    )
    assert route.expires_at == 1300.0


async def test_equals_are_shuffled_on_each_call(dns: Fixture) -> None:
    router = dns.router(shuffle=list.reverse)
    assert names(await routed(router, "example.net")) == ["mx3.example.net", "mx1.example.net", "mx2.example.net"]


async def test_the_same_exchangers_are_one_site(dns: Fixture) -> None:
    router = dns.router()
    first, second = await routed(router, "example.net"), await routed(router, "shared.example.org")
    assert first.site == second.site == "mx1.example.net,mx2.example.net,mx3.example.net"
    assert names(second) == ["mx3.example.net", "mx2.example.net", "mx1.example.net"]
    assert dns.server.queries["mx1.example.net", "A"] == 1


@pytest.mark.parametrize(
    ("domain", "status", "bounce_class"),
    [
        ("null.example.net", "5.1.10", BounceClass.NULL_MX),
        ("gone.example.net", "5.1.2", BounceClass.UNKNOWN_HOST),
        ("nothing.example.net", "5.1.2", BounceClass.UNKNOWN_HOST),
        ("dangling.example.net", "5.1.2", BounceClass.UNKNOWN_HOST),
        ("not a domain", "5.1.2", BounceClass.UNKNOWN_HOST),
        ("[not an address]", "5.1.3", BounceClass.UNKNOWN_HOST),
        ("broken.example.net", "4.4.3", BounceClass.NETWORK),
        ("silent.example.net", "4.4.3", BounceClass.NETWORK),
        ("all-broken.example.net", "4.4.3", BounceClass.NETWORK),
        ("no-hosts.example.net", "4.4.4", BounceClass.NETWORK),
    ],
)
async def test_no_route_is_final_only_where_the_dns_says_so(
    dns: Fixture, domain: str, status: str, bounce_class: BounceClass
) -> None:
    patience_seconds = 0.2 if ZONE.get(domain) == SILENT else 10
    assert await refused(dns.router(patience_seconds), domain) == (status, bounce_class)


async def test_a_loop_of_aliases_is_never_final(dns: Fixture) -> None:
    outcome = await dns.router().route("loop1.example.net")
    assert isinstance(outcome, Outcome)
    assert not outcome.permanent


async def test_a_domain_without_mx_is_its_own_host(dns: Fixture) -> None:
    route = await routed(dns.router(), "implicit.example.net")
    assert (route.site, names(route)) == ("implicit.example.net", ["implicit.example.net"])


async def test_a_host_with_ipv6_only(dns: Fixture) -> None:
    route = await routed(dns.router(), "v6.example.net")
    assert route.hosts[0].addresses == ("2001:db8::6",)


async def test_a_node_without_ipv6_does_not_ask_for_it(dns: Fixture) -> None:
    resolver = Resolver(nameservers=["127.0.0.1"], port=dns.server.port, ipv6=False)
    router = Router(resolver, allow_private=True)
    assert (await routed(router, "example.net")).hosts[0].addresses[0].startswith("192.0.2.")
    assert await refused(router, "v6.example.net") == ("4.4.4", BounceClass.NETWORK)
    assert not any(kind == "AAAA" for _, kind in dns.server.queries)


async def test_aliases_of_domains_and_of_hosts_are_followed(dns: Fixture) -> None:
    router = dns.router()
    assert (await routed(router, "alias.example.net")).site == (await routed(router, "example.net")).site
    route = await routed(router, "mx-alias.example.net")
    assert route.hosts[0].addresses == ("192.0.2.2",)
    assert route.expires_at == dns.time + 60


async def test_a_broken_host_leaves_the_others_and_is_asked_again_soon(dns: Fixture) -> None:
    route = await routed(dns.router(), "half-broken.example.net")
    assert names(route) == ["mx2.example.net"]
    assert route.expires_at == dns.time + 30


async def test_a_broken_family_leaves_the_other(dns: Fixture) -> None:
    dns.server.per_type["mx2.example.net", "AAAA"] = FAIL
    route = await routed(dns.router(), "mx-alias.example.net")
    assert route.hosts[0].addresses == ("192.0.2.2",)
    dns.server.per_type["implicit.example.net", "A"] = FAIL
    assert (await refused(dns.router(), "implicit.example.net"))[0] == "4.4.3"


async def test_a_truncated_answer_is_asked_for_over_tcp(dns: Fixture) -> None:
    route = await routed(dns.router(), "many.example.net")
    assert names(route) == [f"a-rather-long-host-name-{n}.example.net" for n in range(MAX_HOSTS)]
    assert dns.server.over_tcp["many.example.net", "MX"] == 1
    assert len(route.site) <= 120


async def test_the_cache_keeps_to_the_time_to_live(dns: Fixture) -> None:
    router = dns.router()
    for now, asked in ((1000, 1), (1299, 1), (1300, 2)):
        dns.time = now
        await routed(router, "example.net")
        assert dns.server.queries["example.net", "MX"] == asked


async def test_a_non_existing_domain_is_remembered_by_its_soa(dns: Fixture) -> None:
    router = dns.router()
    for now, asked in ((1000, 1), (1089, 1), (1090, 2)):
        dns.time = now
        await refused(router, "gone.example.net")
        assert dns.server.queries["gone.example.net", "MX"] == asked


async def test_a_failure_is_remembered_for_a_moment_only(dns: Fixture) -> None:
    router = dns.router()
    await refused(router, "broken.example.net")
    asked = dns.server.queries["broken.example.net", "MX"]
    await refused(router, "broken.example.net")
    assert dns.server.queries["broken.example.net", "MX"] == asked
    dns.server.zone["broken.example.net"] = ["300 A 192.0.2.4"]
    dns.time += 30
    assert (await routed(router, "broken.example.net")).hosts[0].addresses == ("192.0.2.4",)


async def test_lookups_of_a_domain_at_once_are_one(dns: Fixture) -> None:
    hold = dns.server.holds["example.net"] = asyncio.Event()
    router = dns.router()
    waiting = [asyncio.create_task(routed(router, "example.net")) for _ in range(100)]
    await dns.server.asked("example.net", "MX")
    waiting[0].cancel()
    hold.set()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, Route) for result in done[1:])
    assert dns.server.queries["example.net", "MX"] == 1


async def test_closing_ends_lookups(dns: Fixture) -> None:
    dns.server.holds["example.net"] = asyncio.Event()
    router = dns.router()
    waiting = asyncio.create_task(router.route("example.net"))
    await dns.server.asked("example.net", "MX")
    await router.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_private_addresses_are_not_routed_to(dns: Fixture) -> None:
    router = dns.router(allow_private=False)
    assert await refused(router, "private.example.net") == ("4.4.4", BounceClass.NETWORK)
    assert await refused(router, "[127.0.0.1]") == ("4.4.4", BounceClass.NETWORK)
    assert (await routed(router, "mixed.example.net")).hosts == (Host("public.example.net", ("8.8.8.8",), 25),)


async def test_mail_never_comes_back_to_our_own_listeners(dns: Fixture) -> None:
    loop = ("5.4.6", BounceClass.ROUTING_LOOP)
    router = dns.router(port=2525, listeners=[("192.0.2.3", 2525), ("192.0.2.2", 25)])
    assert await refused(router, "example.net") == loop  # mx3 is ours and nobody is better
    assert await refused(router, "[192.0.2.3]") == loop
    backup = dns.router(port=2525, listeners=[("192.0.2.2", 2525)])
    assert names(await routed(backup, "example.net")) == ["mx1.example.net", "mx3.example.net"]
    assert names(await routed(dns.router(names=["MX2.example.net"]), "shared.example.org")) == ["mx3.example.net"]
    everywhere = dns.router(port=2525, listeners=[("0.0.0.0", 2525)])
    assert await refused(everywhere, "[127.0.0.1]") == loop
    assert names(await routed(everywhere, "implicit.example.net")) == ["implicit.example.net"]


async def test_address_literals(dns: Fixture) -> None:
    router = dns.router()
    route = await routed(router, "[IPv6:2001:DB8::7]")
    assert (route.site, route.hosts) == ("[ipv6:2001:db8::7]", (Host("2001:db8::7", ("2001:db8::7",), 25),))
    assert (await routed(router, "[192.0.2.7]")).hosts[0].addresses == ("192.0.2.7",)


async def test_a_domain_in_another_script(dns: Fixture) -> None:
    assert names(await routed(dns.router(), "Bücher.example.org")) == ["mx2.example.net"]


async def test_a_next_hop_takes_all_and_a_domains_own_comes_first(dns: Fixture) -> None:
    routes = {"Example.net": NextHop("127.0.0.1", 2501), ".example.org": NextHop("::1", 2502)}
    router = dns.router(next_hop=NextHop("localhost", 2500), routes=routes, allow_private=False)
    sites = [(await routed(router, domain)).site for domain in ("a.example.com", "example.net", "a.b.example.org")]
    assert sites == ["localhost:2500", "127.0.0.1:2501", "::1:2502"]
    assert (await routed(router, "example.org")).site == "localhost:2500"
    assert (await routed(router, "[192.0.2.1]")).hosts[0].port == 2500
    assert "127.0.0.1" in (await routed(router, "gone.example.net")).hosts[0].addresses
    assert not dns.server.queries


async def test_an_absent_next_hop_is_never_the_recipients_fault(dns: Fixture) -> None:
    router = dns.router(next_hop=NextHop("no-such-host.invalid", 25))
    assert await refused(router, "example.net") == ("4.4.3", BounceClass.NETWORK)


class FakeResolver(Resolver):
    """Every domain has an exchanger of its own."""

    async def mx(self, name: str) -> Found[Mx]:
        return Found((Mx(10, "mx." + name),), 300.0)

    async def addresses(self, name: str) -> Found[str]:
        return Found(("192.0.2.1",), 300.0)


async def test_many_domains_stay_within_bounds() -> None:
    router = Router(FakeResolver(nameservers=["127.0.0.1"]), allow_private=True, capacity=500)
    for first in range(0, 10_000, 1000):
        await asyncio.gather(*(router.route(f"d{n}.example.net") for n in range(first, first + 1000)))
        assert router.remembered <= 1000
