"""The delivery engine between a real database and peers that misbehave to order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from config.database import DatabaseUnavailable
from metrics import registry
from mta import delivery
from mta.orders import Standing
from mta.session import Session
from mta.vault import Address
from suppression.digest import MessageClass, Scope
from tests.support.client import trusting
from tests.support.engine import MESSAGE, Engine, engine
from tests.support.node import Clock, Node, eventually, node, server_tls, until
from tests.support.peer import Connection, Peer
from tests.support.script import Script, close, hold, proceed, raw, reply, reset

DELIVERED, BOUNCED, EXPIRED, SUPPRESSED, CANCELLED = 1, 2, 3, 4, 5


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def n(database_url: str, tmp_path: Path, clock: Clock) -> AsyncIterator[Node]:
    async with node(database_url, tmp_path, now=clock) as made:
        yield made


def readers(count: int, domain: str = "example.net") -> list[str]:
    return [f"reader-{number}@{domain}" for number in range(count)]


async def test_one_message_for_many_on_few_connections(n: Node, clock: Clock) -> None:
    async with Peer() as peer, engine(n, clock, {"example.net": peer.port}) as e:
        await e.submit(*readers(20))
        await e.settled()
        assert peer.deliveries() == dict.fromkeys(readers(20), 1)
        assert len(peer.connections) <= 2
        assert all(b"DKIM-Signature:" in message.content for message in peer.messages)
        assert len({message.sender for message in peer.messages}) == 20
        assert all(not connection.violations for connection in peer.connections)
        assert await e.finals() == {DELIVERED: 20}
        assert await n.rows("SELECT count(*) FROM message") == [(0,)]


async def test_the_limit_of_connections_holds_all_the_time(n: Node, clock: Clock) -> None:
    """Also while a connection says goodbye: its place is free when it is closed, not before."""
    most = 0

    async def count(connection: Connection) -> None:
        nonlocal most
        most = max(most, sum(other.open for other in connection.peer.connections))
        await connection.proceed()

    script = Script().on("GREETING", count)
    async with (
        Peer(script) as peer,
        engine(n, clock, {"example.net": peer.port}, connections_per_site=3, messages_per_connection=2) as e,
    ):
        await e.submit(*readers(40))
        await e.settled()
        assert len(peer.messages) == 40
        assert all(len(connection.messages) <= 2 for connection in peer.connections)
    assert most == 3


async def test_an_idle_connection_takes_the_next_message(n: Node, clock: Clock) -> None:
    async with Peer() as peer, engine(n, clock, {"example.net": peer.port}) as e:
        for number in range(3):
            await e.submit(f"reader-{number}@example.net")
            await e.settled()
        assert len(peer.connections) == 1


@pytest.mark.parametrize("how", [close, reset])
async def test_an_idle_connection_that_the_peer_closed_is_no_attempt(n: Node, clock: Clock, how: object) -> None:
    async with Peer() as peer, engine(n, clock, {"example.net": peer.port}) as e:
        await e.submit("anna@example.net")
        await e.settled()
        await how()(peer.connections[0])  # type: ignore[operator]
        await e.submit("bob@example.net")
        await e.settled()
        assert await e.finals() == {DELIVERED: 2}
        assert await n.rows("SELECT attempts FROM outcome") == [(1,), (1,)]


async def test_a_deferred_recipient_is_tried_again_when_its_time_has_come(n: Node, clock: Clock) -> None:
    script = Script().on("RCPT", reply("450 4.2.2 full"), times=2)
    async with Peer(script) as peer, engine(n, clock, {"example.net": peer.port}) as e:
        await e.submit("anna@example.net")
        await e.settled()
        assert await e.states() == [(0, 1)]
        assert await e.due() == [60.0]
        clock.seconds += 59
        await e.claim()
        assert await e.states() == [(0, 1)]
        clock.seconds += 1
        await e.claim()
        await e.settled()
        assert await e.states() == [(0, 2)]
        assert await e.due() == [300.0]
        clock.seconds += 300
        await e.claim()
        await e.settled()
        assert await e.finals() == {DELIVERED: 1}
        assert await n.rows("SELECT attempts FROM outcome") == [(3,)]


async def test_a_permanent_refusal_of_one_is_not_the_others(n: Node, clock: Clock) -> None:
    script = Script().on("RCPT", reply("550 5.1.1 unknown user"), when="reader-3@")
    async with Peer(script) as peer, engine(n, clock, {"example.net": peer.port}) as e:
        await e.submit(*readers(6))
        await e.settled()
        assert await e.finals() == {DELIVERED: 5, BOUNCED: 1}
        scopes = await n.rows("SELECT person FROM suppression_log")
        assert scopes == [(n.person("reader-3@example.net"),)]


async def test_a_refusal_of_us_bounces_nobody_who_was_not_offered(n: Node, clock: Clock) -> None:
    gate = asyncio.Event()
    script = Script().on("MAIL", hold(gate), reply("550 5.7.1 Your IP 192.0.2.1 is on a blocklist (blacklisted)"))
    async with Peer(script) as peer, engine(n, clock, {"example.net": peer.port}, connections_per_site=1) as e:
        await e.submit(*readers(10))
        await peer.reached("MAIL")
        gate.set()
        await e.settled()
        assert (await e.finals()).get(BOUNCED, 0) <= 1
        assert len(await e.states()) >= 9
        assert peer.connections[0].counts["MAIL"] == 1


@pytest.mark.parametrize("count", [1, 30])
async def test_a_dead_site_rests_however_much_waits_for_it(n: Node, clock: Clock, count: int) -> None:
    peer = Peer()
    await peer.start()
    await peer.stop()
    async with engine(n, clock, {"example.net": peer.port}, connections_per_site=5) as e:
        await e.submit(*readers(count))
        await e.settled()
        assert await e.states() == [(0, 1)] * count
        # one failure, not one for each connection that failed with it
        assert all(site.failures == 1 for site in e.delivery._sites.values())
        clock.seconds += 1
        await e.submit("late@example.net")
        await e.settled()
        assert (0, 0) in await e.states()


async def test_a_site_that_was_never_reached_is_forgotten(n: Node, clock: Clock) -> None:
    """A misspelt domain is a site of its own: remembered for good, each would cost memory for good."""
    peer = Peer()
    await peer.start()
    await peer.stop()
    async with engine(n, clock, {"example.net": peer.port}, poll_seconds=0.001) as e:
        tending = asyncio.create_task(e.delivery.expire_for_ever())
        await e.submit("anna@example.net")
        await e.settled()
        assert e.delivery.sites(9)
        clock.seconds += 5 + 1_800
        await until(lambda: not e.delivery.sites(9))
        tending.cancel()


async def test_a_peer_that_refuses_rset_gets_each_message_on_a_new_connection(n: Node, clock: Clock) -> None:
    script = Script().on("RCPT", reply("550 5.1.1 unknown user"), times=1).on("RSET", reply("500 5.5.2 what?"))
    async with Peer(script) as peer, engine(n, clock, {"example.net": peer.port}, connections_per_site=1) as e:
        await e.submit(*readers(5))
        await e.settled()
        assert await e.finals() == {DELIVERED: 4, BOUNCED: 1}
        assert len(peer.connections) == 2


async def test_a_dead_site_does_not_delay_others(n: Node, clock: Clock) -> None:
    forever = asyncio.Event()
    async with (
        Peer(Script().on("GREETING", hold(forever))) as silent,
        Peer() as healthy,
        engine(n, clock, {"example.net": silent.port, "example.org": healthy.port}) as e,
    ):
        await e.submit(*readers(50), *readers(10, "example.org"))
        await until(lambda: len(healthy.messages) == 10)
        assert silent.messages == []
        assert healthy.deliveries() == dict.fromkeys(readers(10, "example.org"), 1)


async def test_a_greeting_of_the_wrong_success_delivers_nothing(n: Node, clock: Clock) -> None:
    script = Script().on("GREETING", raw(b"250 hello\r\n"))
    async with Peer(script) as peer, engine(n, clock, {"example.net": peer.port}) as e:
        await e.submit(*readers(5))
        await e.settled()
        assert await e.finals() == {}
        assert len(await e.states()) == 5


async def test_a_site_that_takes_few_connections_is_not_stormed(n: Node, clock: Clock) -> None:
    gate = asyncio.Event()
    script = Script().on("GREETING", proceed(), connection=1).on("GREETING", reply("421 4.7.0 too many"), close())
    script.on("RCPT", hold(gate), proceed(), times=1)
    async with Peer(script) as peer, engine(n, clock, {"example.net": peer.port}, connections_per_site=5) as e:
        await e.submit("first@example.net")
        await peer.reached("RCPT")
        await e.submit(*readers(20))
        await peer.reached("GREETING", 2)
        gate.set()
        await e.settled()
        assert await e.finals() == {DELIVERED: 21}
        assert len(peer.connections) <= 6


async def test_421_about_a_rate_lets_the_site_rest(n: Node, clock: Clock) -> None:
    script = Script().on("MAIL", reply("421 4.7.0 too many messages, rate limited, slow down"), close(), nth=2)
    async with Peer(script) as peer, engine(n, clock, {"example.net": peer.port}, connections_per_site=1) as e:
        await e.submit(*readers(10))
        await e.settled()
        assert len(peer.connections) == 1
        assert await e.finals() == {DELIVERED: 1}


async def test_starttls_that_fails_is_done_without(n: Node, clock: Clock) -> None:
    for broken in ((reply("454 4.7.0 not now"),), (reply("220 go"), raw(b"nothing of the kind\r\n")), (close(),)):
        script = Script().on("STARTTLS", *broken)
        async with (
            Peer(script, tls=server_tls()) as peer,
            engine(n, clock, {"example.net": peer.port}, tls=trusting()) as e,
        ):
            await e.submit("anna@example.net")
            await e.settled()
            assert peer.deliveries() == {"anna@example.net": 1}


async def test_tls_that_is_required_is_never_done_without(n: Node, clock: Clock) -> None:
    script = Script().on("STARTTLS", reply("454 4.7.0 not now"))
    async with (
        Peer(script, tls=server_tls()) as peer,
        engine(n, clock, {"example.net": peer.port}, tls=trusting(), tls_required=True) as e,
    ):
        await e.submit("anna@example.net")
        await e.settled()
        assert peer.messages == []
        assert await e.states() == [(0, 1)]


# --- suppression


async def test_a_suppression_at_the_claim_withholds(n: Node, clock: Clock) -> None:
    async with Peer() as peer, engine(n, clock, {"example.net": peer.port}) as e:
        tenant = await n.parts.accounts.add_tenant("acme", exist_ok=True)
        n.stop("anna@example.net", tenant.id)
        await e.submit("anna@example.net", "bob@example.net")
        await e.settled()
        assert peer.deliveries() == {"bob@example.net": 1}
        assert peer.connections[0].counts["MAIL"] == 1
        assert await e.finals() == {DELIVERED: 1, SUPPRESSED: 1}


async def test_a_suppression_between_claim_and_dot_withholds(n: Node, clock: Clock) -> None:
    tenant = await n.parts.accounts.add_tenant("acme", exist_ok=True)

    async def suppress(connection: Connection) -> None:
        n.stop("anna@example.net", tenant.id)
        await connection.proceed()

    withheld = registry.suppressed.labels("dot")._value
    before = withheld.get()
    async with Peer(Script().on("DATA", suppress, times=1)) as peer, engine(n, clock, {"example.net": peer.port}) as e:
        await e.submit("anna@example.net")
        await e.settled()
        await peer.connections[0].closed()
        assert peer.messages == []
        assert await e.finals() == {SUPPRESSED: 1}
        assert withheld.get() == before + 1


async def test_nothing_is_sent_on_a_stale_watermark_and_all_goes_on_afterwards(n: Node, clock: Clock) -> None:
    async with Peer() as peer, engine(n, clock, {"example.net": peer.port}) as e:
        n.gate.stale = True
        await e.submit(*readers(3))
        asked = n.gate.asked
        await until(lambda: n.gate.asked > asked + 2)
        assert sum(connection.counts["MAIL"] for connection in peer.connections) == 0
        n.gate.stale = False
        await e.settled()
        assert await e.finals() == {DELIVERED: 3}
        assert await n.rows("SELECT max(attempts) FROM outcome") == [(1,)]


async def test_a_watermark_that_grows_stale_before_the_dot_costs_no_attempt(n: Node, clock: Clock) -> None:
    async def age(connection: Connection) -> None:
        n.gate.stale = True
        await connection.proceed()

    async with Peer(Script().on("DATA", age, times=1)) as peer, engine(n, clock, {"example.net": peer.port}) as e:
        await e.submit("anna@example.net")
        await peer.connections[0].closed() if peer.connections else await (await peer.connected()).closed()
        assert peer.messages == []
        n.gate.stale = False
        await e.settled()
        assert await n.rows("SELECT state, attempts FROM outcome") == [(DELIVERED, 1)]


async def test_mail_in_memory_is_bound_by_the_group_that_its_tenant_joins_meanwhile(n: Node, clock: Clock) -> None:
    async with Peer() as peer, engine(n, clock, {"example.net": peer.port}) as e:
        n.gate.stale = True
        await e.submit("anna@example.net", "bob@example.net")
        tenant = await n.parts.accounts.tenant("acme")
        group = await n.parts.groups.add("partners")
        await n.parts.groups.join(group, tenant.id, "operator", "")
        n.parts.scopes.learn(await n.parts.groups.members())
        n.gate.stopped.add(n.parts.digest.key(Scope.GROUP, n.person("anna@example.net"), 0, group.id))
        n.gate.stale = False
        await e.settled()
        assert await e.finals() == {DELIVERED: 1, SUPPRESSED: 1}


# --- keys and content


async def test_without_a_key_mail_waits_and_never_goes_unsigned(n: Node, clock: Clock) -> None:
    async with Peer() as peer, engine(n, clock, {"example.net": peer.port}, create_keys=False) as e:
        await e.submit("anna@example.net")
        await e.settled()
        assert peer.messages == []
        assert await e.states() == [(0, 1)]


async def test_content_that_can_not_be_made_waits(n: Node, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong: a task that dies of it would leave the recipient leased for good."""

    def fail(*_: object) -> None:
        raise KeyError("anything")

    async with Peer() as peer, engine(n, clock, {"example.net": peer.port}) as e:
        monkeypatch.setattr(e.contents, "render", fail)
        await e.submit("anna@example.net")
        await e.settled()
        monkeypatch.setattr(e.contents, "get", fail)
        await e.submit("bob@example.net")
        await e.settled()
        assert peer.messages == []
        assert await e.states() == [(0, 1), (0, 1)]


async def test_a_mistake_in_the_dialogue_makes_the_one_mail_wait(
    n: Node, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("anything")

    async with Peer() as peer, engine(n, clock, {"example.net": peer.port}) as e:
        with monkeypatch.context() as broken:
            broken.setattr(Session, "_unfit", fail)
            await e.submit("anna@example.net")
            await e.settled()
        assert await e.states() == [(0, 1)]
        await e.submit("bob@example.net")
        await e.settled()
        assert peer.deliveries() == {"bob@example.net": 1}


# --- expiry


async def test_a_recipient_expires_in_memory_and_in_the_queue(n: Node, clock: Clock) -> None:
    script = Script().on("RCPT", reply("450 4.2.2 full"))
    async with Peer(script) as peer, engine(n, clock, {"example.net": peer.port}, poll_seconds=0.01) as e:
        await e.submit("anna@example.net")
        await e.settled()
        clock.seconds += 3_600
        await e.claim()
        await e.settled()
        assert await e.finals() == {EXPIRED: 1}
        assert peer.connections[0].counts["RCPT"] == 1

        n.gate.stale = True  # so that the next one stays in memory
        await e.submit("bob@example.net")
        clock.seconds += 3_600
        task = asyncio.create_task(e.delivery.expire_for_ever())
        await e.settled()
        task.cancel()
        assert await e.finals() == {EXPIRED: 2}


async def test_an_attempt_that_ends_after_the_lifetime_expires(n: Node, clock: Clock) -> None:
    async def late(connection: Connection) -> None:
        clock.seconds += 4_000
        await connection.reply("450 4.2.2 full")

    async with Peer(Script().on("RCPT", late)) as peer, engine(n, clock, {"example.net": peer.port}) as e:
        await e.submit("anna@example.net")
        await e.settled()
        assert await e.finals() == {EXPIRED: 1}


# --- memory and the database


async def test_a_slow_site_gives_back_what_is_over_its_bound(n: Node, clock: Clock) -> None:
    gate = asyncio.Event()
    script = Script().on("GREETING", hold(gate), proceed())
    async with Peer(script) as peer, engine(n, clock, {"example.net": peer.port}, memory_per_site=5) as e:
        await e.submit(*readers(20))
        await eventually(lambda: queued(n, 15))
        assert e.room.held == 5
        gate.set()
        await e.settled()
        clock.seconds += 60
        while await e.states():
            await e.claim()
            await e.settled()
            clock.seconds += 60
        assert peer.deliveries() == dict.fromkeys(readers(20), 1)


async def test_what_finds_no_room_is_looked_at_now_and_then(n: Node, clock: Clock) -> None:
    """Recipients of a full site are due again and again: a round ends with the first claim that was of no use."""
    script = Script().on("GREETING", hold(asyncio.Event()))
    async with (
        Peer(script) as silent,
        Peer() as healthy,
        engine(n, clock, {"example.net": silent.port, "example.org": healthy.port}, memory_per_site=5) as e,
    ):
        await e.submit(*readers(5))
        await until(lambda: e.room.held == 5)
        room, e.room._most = e.room._most, 0
        for _ in range(3):  # each in a lane of its own
            await e.submit(*readers(20))
        clock.seconds += 1
        await e.submit("anna@example.org")
        e.room._most = room
        await e.claim()
        await eventually(lambda: queued(n, 61))
        assert sum(due > 0 for due in await e.due()) == 20
        for _ in range(3):
            await e.claim()
        await until(lambda: len(healthy.messages) == 1)


@asynccontextmanager
async def backed_up(n: Node, clock: Clock, gate: asyncio.Event) -> AsyncIterator[tuple[Engine, Peer]]:
    """A site that says nothing before the gate opens, full with five, and twenty more that are due there."""
    async with Peer(Script().on("GREETING", hold(gate), proceed())) as silent, Peer() as healthy:
        hops = {"example.net": silent.port, "example.org": healthy.port}
        async with engine(n, clock, hops, memory_per_site=5) as e:
            await e.submit(*readers(5))
            await until(lambda: e.room.held == 5)
            clock.seconds += 2
            await later(e, *(f"more{number}@example.net" for number in range(20)))
            await e.claim()  # which finds that there is no room
            await eventually(lambda: queued(n, 20))
            clock.seconds += 15
            assert max(await e.due()) <= 0
            yield e, healthy


async def later(e: Engine, *recipients: str, message_class: MessageClass = MessageClass.CAMPAIGN) -> None:
    """Submit while there is no room, so that they are born queued."""
    room, e.room._most = e.room._most, 0
    await e.submit(*recipients, message_class=message_class)
    e.room._most = room


async def sites(n: Node) -> list[tuple[str | None, int]]:
    return [(row[0], row[1]) for row in await n.rows("SELECT site, count(*) FROM recipient GROUP BY 1 ORDER BY 2")]


async def test_what_is_due_at_a_site_that_is_backed_up_is_put_off_at_once(n: Node, clock: Clock) -> None:
    gate = asyncio.Event()
    async with backed_up(n, clock, gate) as (e, _):
        await e.submit("anna@example.org")
        await eventually(lambda: came_to(n, DELIVERED, 1))
        await later(e, "bob@example.org")
        here, there = e.delivery.site_of("example.org"), e.delivery.site_of("example.net")
        assert await sites(n) == [(here, 1), (None, 5), (there, 20)]
        await e.claim()
        await eventually(lambda: came_to(n, DELIVERED, 2))
        due = await e.due()
        assert len(due) == 20
        assert min(due) >= 1
        assert await e.states() == [(0, 0)] * 20 + [(1, 0)] * 5
        gate.set()
        for _ in range(8):
            await e.settled()
            clock.seconds += 10
            await e.claim()
        await e.settled()
        assert await e.finals() == {DELIVERED: 27}


async def test_what_is_put_off_expires_in_time(n: Node, clock: Clock) -> None:
    async with backed_up(n, clock, asyncio.Event()) as (e, _):
        clock.seconds += 3_600 - 20
        await e.claim()
        assert max(await e.due()) <= 20
        clock.seconds += 20
        await e.claim()
        await eventually(lambda: came_to(n, EXPIRED, 20))


async def test_transactional_mail_is_claimed_for_a_site_that_is_backed_up(n: Node, clock: Clock) -> None:
    """It has room there beyond what a campaign may fill."""
    async with backed_up(n, clock, asyncio.Event()) as (e, _):
        await later(e, "anna@example.net", message_class=MessageClass.TRANSACTIONAL)
        await e.claim()
        await until(lambda: e.room.held == 6)


async def test_slow_sites_that_share_all_the_room_of_a_campaign_are_put_off_too(n: Node, clock: Clock) -> None:
    """Neither is full by itself. What goes back for lack of room for its campaign keeps the name of its site."""
    async with (
        Peer(Script().on("GREETING", hold(asyncio.Event()))) as one,
        Peer(Script().on("GREETING", hold(asyncio.Event()))) as two,
        engine(n, clock, {"example.net": one.port, "example.org": two.port}, room=(1_000, 10)) as e,
    ):
        await e.submit(*readers(5), *readers(5, "example.org"))
        domains = ("example.net", "example.org")
        await until(lambda: all(e.delivery.site_of(domain) for domain in domains))
        clock.seconds += 2
        await later(e, *(f"more{number}@{domain}" for number in range(5) for domain in domains))
        await e.claim()
        await eventually(lambda: queued(n, 10))
        here, there = (e.delivery.site_of(domain) for domain in domains)
        assert set(await sites(n)) == {(here, 5), (there, 5), (None, 10)}
        clock.seconds += 15
        assert max(await e.due()) <= 0
        await e.claim()
        assert min(await e.due()) > 0
        assert await e.states() == [(0, 0)] * 10 + [(1, 0)] * 10


async def test_who_can_not_send_puts_nothing_off(n: Node, clock: Clock) -> None:
    """Others may deliver it."""
    async with backed_up(n, clock, asyncio.Event()) as (e, _):
        assert e.delivery.put_off(MessageClass.CAMPAIGN, 100)
        n.gate.stale = True
        assert not e.delivery.put_off(MessageClass.CAMPAIGN, 100)
        n.gate.stale = False
        assert e.delivery.put_off(MessageClass.CAMPAIGN, 100)
        e.delivery.share_with([n.parts.queue.worker_id + 1])
        assert not e.delivery.put_off(MessageClass.CAMPAIGN, 100)


async def test_what_can_not_be_put_off_in_time_is_claimed_all_the_same(
    n: Node, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    async def late(_lane: int, _class: MessageClass, most: int, *_: object) -> dict[str, int]:
        sizes.append(most)
        raise DatabaseUnavailable("it took too long")

    async with backed_up(n, clock, asyncio.Event()) as (e, healthy):
        await e.submit("anna@example.org")
        await eventually(lambda: came_to(n, DELIVERED, 1))
        await later(e, "bob@example.org")
        monkeypatch.setattr(n.parts.queue, "put_off", late)
        for _ in range(3):
            await e.claim()
        await until(lambda: len(healthy.messages) == 2)
        assert sizes[:2] == [5_000, 2_500]


async def test_a_site_that_takes_mail_again_is_claimed_for_at_once(n: Node, clock: Clock) -> None:
    gate = asyncio.Event()
    async with backed_up(n, clock, gate) as (e, _):
        e.delivery.claims._poll_seconds = 3_600.0
        claiming = asyncio.create_task(e.delivery.claims.claim_for_ever())
        await eventually(lambda: put_off(e))
        clock.seconds += 20
        gate.set()
        await eventually(lambda: came_to(n, DELIVERED, 8))
        e.delivery.claims.stop()
        await claiming


async def put_off(e: Engine) -> bool:
    return min(await e.due()) > 0


async def came_to(n: Node, state: int, at_least: int) -> bool:
    return bool(await n.rows("SELECT 1 FROM outcome WHERE state = $1 OFFSET $2", state, at_least - 1))


async def queued(n: Node, count: int) -> bool:
    return await n.rows("SELECT count(*) FROM recipient WHERE state = 0") == [(count,)]


async def test_a_database_that_goes_away_after_a_claim_forgets_nobody(
    n: Node, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Peer() as peer, engine(n, clock, {"example.net": peer.port}, room=(0, 0)) as e:
        await e.submit(*readers(5))
        e.room.__init__(100, 100)  # type: ignore[misc]
        found = n.parts.accounts.campaign_by_id
        failures = 3

        async def sometimes(campaign_id: int) -> object:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise DatabaseUnavailable("gone")
            return await found(campaign_id)

        monkeypatch.setattr(n.parts.accounts, "campaign_by_id", sometimes)
        await e.claim()
        assert await e.states() == [(1, 0)] * 5
        await e.claim()
        await until(lambda: len(peer.messages) == 5)
        await e.settled()
        assert await e.finals() == {DELIVERED: 5}


async def test_a_recipient_that_can_not_be_read_goes_back(n: Node, clock: Clock) -> None:
    async with Peer() as peer, engine(n, clock, {"example.net": peer.port}, room=(0, 0)) as e:
        await e.submit("anna@example.net")
        e.room.__init__(100, 100)  # type: ignore[misc]
        await n.execute("UPDATE recipient SET address = '\\x00112233445566778899aabbccddeeff'")
        await e.claim()
        await e.settled()
        assert await e.states() == [(0, 0)]
        assert (await e.due())[0] > 0


async def test_non_ascii_recipients_need_smtputf8_and_others_do_not(n: Node, clock: Clock) -> None:
    async with Peer(capabilities=("PIPELINING",)) as peer, engine(n, clock, {"example.net": peer.port}) as e:
        await e.submit("anna@example.net", "ännä@example.net", raw=MESSAGE)
        await e.settled()
        assert peer.deliveries() == {"anna@example.net": 1}
        assert await e.finals() == {DELIVERED: 1, BOUNCED: 1}


async def test_draining_finishes_what_is_under_way(n: Node, clock: Clock) -> None:
    gate = asyncio.Event()
    script = Script().on("DOT", hold(gate), proceed(), times=1)
    async with Peer(script) as peer, engine(n, clock, {"example.net": peer.port}, connections_per_site=1) as e:
        await e.submit(*readers(3))
        await peer.reached("DOT")
        ending = asyncio.create_task(e.delivery.drain(5))
        await asyncio.sleep(0)
        gate.set()
        await ending
        assert await e.finals() == {DELIVERED: 1}
        assert await e.states() == [(1, 0), (1, 0)]


async def test_what_is_accepted_too_late_stays_leased(n: Node, clock: Clock) -> None:
    async with Peer() as peer, engine(n, clock, {"example.net": peer.port}) as e:
        e.delivery.stop()
        await e.submit(*readers(3))
        await e.delivery.drain(5)
        assert peer.deliveries() == {}
        assert await e.states() == [(1, 0)] * 3


def test_no_address_in_what_a_lease_shows() -> None:
    assert "anna" not in repr(Address("anna@example.net"))


async def lose_a_claim(n: Node, e: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that is committed, and whose answer never comes."""
    claim = n.parts.queue.claim

    async def lost(*arguments: Any) -> Any:
        await claim(*arguments)
        raise DatabaseUnavailable("the answer did not come")

    with monkeypatch.context() as patched:
        patched.setattr(n.parts.queue, "claim", lost)
        with pytest.raises(DatabaseUnavailable):
            await e.claim()


async def test_a_claim_whose_answer_was_lost_is_given_back(
    n: Node, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was committed all the same: those rows are leased to a worker that does not know of them."""
    async with Peer() as peer, engine(n, clock, {"example.net": peer.port}, room=(0, 0)) as e:
        await e.submit("anna@example.net")  # no room: it is born queued
        assert await e.states() == [(0, 0)]
        e.room.__init__(100, 100)  # type: ignore[misc]
        await lose_a_claim(n, e, monkeypatch)
        await e.claim()
        assert await e.states() == [(1, 0)]  # it could be a commit of our own that is under way still
        clock.seconds += 121
        await e.claim()
        assert (await peer.message()).recipients == ("anna@example.net",)
        await e.settled()
        assert await e.finals() == {1: 1}


@pytest.mark.parametrize("born_leased", [True, False])
async def test_what_finds_no_room_after_the_clock_was_set_back_is_queued_again(
    n: Node, clock: Clock, born_leased: bool
) -> None:
    async with Peer() as peer, engine(n, clock, {"example.net": peer.port}, connections_per_site=0) as e:
        if not born_leased:
            e.room._most = 0
        clock.seconds += 0.123456789
        route = e.delivery._crossroads._router.route

        async def later(domain: str) -> object:
            clock.seconds -= 3_600
            return await route(domain)

        e.delivery._crossroads._router.route = later  # type: ignore[method-assign,assignment]
        await e.submit("anna@example.net")
        if not born_leased:
            e.room._most = 100
            await e.claim()
        await e.settled()
        assert await e.states() == [(0, 0)]
        assert await e.due() == [0.5]


async def test_what_an_order_lets_go_again_leaves_though_its_site_was_forgotten_meanwhile(
    n: Node, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is lifted while it is being obeyed, and the site's last connection ends."""
    gate, pause = asyncio.Event(), asyncio.sleep
    standing = Standing.GO
    script = Script().on("DOT", hold(gate), proceed(), times=1)
    async with (
        Peer(script) as peer,
        engine(n, clock, {"example.net": peer.port}, connections_per_site=1, messages_per_connection=1) as e,
    ):
        await e.submit(*readers(4))
        await peer.reached("DOT")

        async def between_two(seconds: float) -> None:
            nonlocal standing
            monkeypatch.setattr(asyncio, "sleep", pause)
            standing = Standing.GO
            gate.set()
            await until(lambda: not e.delivery._sites)

        monkeypatch.setattr(delivery, "_OBEYED_AT_ONCE", 1)
        monkeypatch.setattr(e.delivery, "_standing", lambda *_: standing)
        monkeypatch.setattr(asyncio, "sleep", between_two)
        standing = Standing.HOLD
        await e.delivery._obey()
        await e.settled()
        assert await e.finals() == {DELIVERED: 3}
        assert await e.states() == [(2, 0)]


async def test_a_lost_claim_is_given_back_though_others_of_its_message_are_in_hand(
    n: Node, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message for thousands: most of the time some recipient of it is in memory."""
    gate = asyncio.Event()
    script = Script().on("DOT", hold(gate), proceed(), times=1)
    async with (
        Peer(script) as peer,
        engine(n, clock, {"example.net": peer.port}, room=(3, 3), connections_per_site=1) as e,
    ):
        await e.submit(*readers(6))
        await peer.reached("DOT")
        e.room._most = e.room._per_campaign = 100
        await lose_a_claim(n, e, monkeypatch)
        assert (e.room.held, await e.states()) == (3, [(1, 0)] * 6)
        clock.seconds += 121
        await e.claim()
        assert (e.room.held, await e.states()) == (6, [(1, 0)] * 6)
        gate.set()
        await e.settled()
        assert peer.deliveries() == dict.fromkeys(readers(6), 1)
        assert await e.finals() == {DELIVERED: 6}


async def test_a_lease_is_in_hand_until_its_outcome_is_committed(
    n: Node, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is meanwhile: what is not in hand may be given back after a claim whose answer was lost."""
    routed, answered, recorded = asyncio.Event(), asyncio.Event(), asyncio.Event()
    script = Script().on("DOT", hold(answered), proceed())
    async with Peer(script) as peer, engine(n, clock, {"example.net": peer.port}, connections_per_site=1) as e:
        route, record = e.delivery._crossroads._router.route, e.outcomes._recorder.record

        async def later(domain: str) -> object:
            await routed.wait()
            return await route(domain)

        async def slowly(batch: Any) -> None:
            await recorded.wait()
            await record(batch)

        monkeypatch.setattr(e.delivery._crossroads._router, "route", later)
        monkeypatch.setattr(e.outcomes._recorder, "record", slowly)
        message_id = await e.submit(*readers(3))
        everyone = [(message_id, ordinal) for ordinal in range(3)]
        assert sorted(e.delivery.in_hand()) == everyone
        routed.set()
        await peer.reached("DOT")
        assert sorted(e.delivery.in_hand()) == everyone
        answered.set()
        await until(lambda: e.outcomes.waiting == 3)
        assert sorted(e.delivery.in_hand()) == everyone
        recorded.set()
        await e.settled()
        assert list(e.delivery.in_hand()) == []
