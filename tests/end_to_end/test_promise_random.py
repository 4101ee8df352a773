"""The promise under random interleavings: the real daemon, a peer that defers, and every kind of trouble, by dice.

Afterwards each mail that the peer got is compared with the log, by the time at which its final dot arrived: none may be
later than a suppression's effective time. Nothing that was accepted may be lost either. HEED_TEST_PROMISE_SECONDS sets
how long it goes on, HEED_TEST_PROMISE_SEED the dice; both are short and fixed by default.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import smtplib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from config.database import Database, DatabaseUnavailable
from config.keyring import Keyring
from config.settings import Settings
from mta.accounts import Tenant
from mta.order_store import Target
from mta.orders import Reach, State
from mta.parts import Parts
from mta.sink import Sink
from suppression.consent import Consent, Consents
from suppression.digest import Kind, MessageClass, Scope
from suppression.entry import Channel, NewEntry
from suppression.groups import Group
from suppression.prove import Attempt, late_attempts
from suppression.tokens import Purpose, Token
from suppression.verify import verify_log
from tests.support.daemon import Daemon, running

SECONDS: Final = float(os.environ.get("HEED_TEST_PROMISE_SECONDS", "8"))
SEED: Final = int(os.environ.get("HEED_TEST_PROMISE_SEED", "1"))
STALENESS_SECONDS: Final = 1.0
"""The bound that the daemon is given; a final dot counts as late beyond it, with what loopback and this test
may take on a busy machine."""
TRANSPORT_SECONDS: Final = 0.5
CROWD: Final = 80
"""So many people are written to and say something at a time; others take their place, ten a second."""
LISTS: Final = ("", "news.example.com", "offers.example.com")
CLIENTS: Final = {
    "127.0.0.2": ("acme", MessageClass.CAMPAIGN), "127.0.0.3": ("acme", MessageClass.TRANSACTIONAL),
    "127.0.0.4": ("brand", MessageClass.CAMPAIGN), "127.0.0.5": ("late", MessageClass.CAMPAIGN),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mail:
    """What the peer got, and when its final dot was there."""

    at: float
    recipient: str
    tenant: str
    list_name: str
    message_class: MessageClass


class Noting(Sink):
    """A sink that notes when each mail's final dot came, and defers some only then."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self.mails: list[Mail] = []
        self._dice = dice

    def verdict(self, recipient: bytes) -> bytes | None:
        return b"450 4.2.1 mailbox busy, try again\r\n" if self._dice.random() < 0.3 else None

    def take(self, sender: bytes, recipients: tuple[bytes, ...], content: bytearray) -> bytes:
        at = time.time()
        [subject] = [line for line in bytes(content).split(b"\r\n") if line.lower().startswith(b"subject: ")]
        tenant, list_name, number = json.loads(subject[9:])
        for recipient in recipients:
            address = recipient.strip(b"<> ").decode()
            self.mails.append(Mail(at, address, tenant, list_name, MessageClass(number)))
        if self._dice.random() < 0.1:
            return b"450 4.2.1 mailbox busy, try again\r\n"  # it counts all the same: the dot was there
        return b"250 2.0.0 ok\r\n"


class World:
    """The daemon from outside, a way into its database, and dice."""

    def __init__(self, daemon: Daemon, parts: Parts, dice: random.Random) -> None:
        self.daemon, self.parts, self.dice = daemon, parts, dice
        self.done: Counter[str] = Counter()
        self.tenants: dict[str, Tenant] = {}
        self.lists: dict[tuple[str, str], int] = {}
        self.group: Group
        self.accepted = 0
        self._began = time.monotonic()

    def person(self) -> str:
        return f"reader-{int(10 * (time.monotonic() - self._began)) + self.dice.randrange(CROWD)}@example.net"

    def digest(self) -> int:
        return self.parts.digest.person(self.person())

    async def prepare(self) -> None:
        accounts = self.parts.accounts
        self.tenants = {name: await accounts.tenant(name) for name, _ in CLIENTS.values()}
        for name, tenant in self.tenants.items():
            self.lists |= {(name, each): await accounts.list_id(tenant.id, each) for each in LISTS}
        self.group = await self.parts.groups.add("partners")
        for name in ("acme", "brand"):
            await self.parts.groups.join(self.group, self.tenants[name].id, "dice", "")

    async def submit(self) -> None:
        """A message for some people; none of them, one or all may be refused."""
        source = self.dice.choice(list(CLIENTS))
        tenant, message_class = CLIENTS[source]
        list_name = self.dice.choice(LISTS) if message_class is MessageClass.CAMPAIGN else ""
        people = sorted({self.person() for _ in range(self.dice.randint(1, 6))})
        campaign = self.dice.choice(["spring", "autumn"])
        refused = await asyncio.to_thread(
            _submit, self.daemon.ports.submission, source, people, _message(tenant, list_name, message_class, campaign)
        )
        self.accepted += len(people) - len(refused)

    async def submit_many(self) -> None:
        await asyncio.gather(*(self.submit() for _ in range(4)))

    async def suppress(self) -> None:
        """By the log, as bounces and apps do."""
        name = self.dice.choice(list(self.tenants))
        scope = self.dice.choice([Scope.LIST, Scope.LIST, Scope.TENANT, Scope.GROUP, Scope.EVERYTHING])
        list_id = self.lists[name, self.dice.choice(LISTS[1:])]
        if scope is Scope.GROUP:
            list_id = self.group.id
        kind = self.dice.choice([Kind.UNSUBSCRIBE, Kind.UNSUBSCRIBE, Kind.COMPLAINT, Kind.HARD_BOUNCE, Kind.LEGAL])
        asked = NewEntry(self.digest(), scope, kind, self.tenants[name].id, list_id, Channel.API, "dice")
        await self.parts.log.append([asked])

    async def unsubscribe(self) -> None:
        """By the public URL: one-click, or a button of the page."""
        name = self.dice.choice(list(self.tenants))
        list_id = self.lists[name, self.dice.choice(LISTS)]
        token = self.parts.tokens.issue(Token(Purpose.ONE_CLICK, self.tenants[name].id, list_id, 0, self.digest(), 0))
        choice = self.dice.choice(["", "tenant", "group", "everything"])
        with contextlib.suppress(aiohttp.ClientError):
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as http,
                http.post(f"http://127.0.0.1:{self.daemon.ports.web}/u/{token}", data={"choice": choice}) as answer,
            ):
                assert answer.status in (200, 503)

    async def consent(self) -> None:
        name = self.dice.choice(list(self.tenants))
        list_id = self.lists[name, self.dice.choice(LISTS)]
        scope = Scope.LIST if list_id else Scope.TENANT
        wish = Consent(self.digest(), scope, self.tenants[name].id, list_id, "dice", "dice", "dice")
        await Consents(self.parts.database, self.parts.log).record([wish])

    async def pause_or_resume(self) -> None:
        state = self.dice.choice([State.PAUSED, State.RUNNING])
        name = self.dice.choice(list(self.tenants))
        campaign = await self.parts.accounts.campaign(self.tenants[name].id, self.dice.choice(["spring", "autumn"]))
        await self.parts.orders.set_state(Target(Reach.CAMPAIGN, campaign.id, "", "dice"), state, "dice", "dice")

    async def kill_a_worker(self) -> None:
        workers = self.daemon.worker_pids()
        if workers:
            os.kill(self.dice.choice(workers), signal.SIGKILL)

    async def end_connections(self) -> None:
        """Those of the daemon to its database: some, or the one on which a worker follows the log."""
        await self.parts.database.pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name LIKE 'heed %' ORDER BY random() LIMIT $1",
            self.dice.choice([1, 3, 100]),
        )

    async def lock_the_log(self) -> None:
        """Nobody can read how far the log is: to a worker the database has fallen silent."""
        async with self.parts.database.transaction() as connection:
            await connection.execute("LOCK TABLE suppression_head IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(self.dice.uniform(0.1, 1.5 * STALENESS_SECONDS))

    async def join(self) -> None:
        await self.parts.groups.join(self.group, self.tenants["late"].id, "dice", "")

    async def step(self) -> None:
        chances: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (24, self.submit_many), (14, self.suppress), (10, self.unsubscribe), (4, self.consent),
            (6, self.pause_or_resume), (0.8, self.kill_a_worker), (2, self.end_connections), (1, self.lock_the_log),
            (0.5, self.join),
        ]  # fmt: skip
        weights, actions = zip(*chances, strict=True)
        action = self.dice.choices(actions, weights)[0]
        # what was asked may or may not have been done when a connection ends in between
        with contextlib.suppress(DatabaseUnavailable):
            await action()
        self.done[action.__name__] += 1

    async def settle(self) -> None:
        """Resume everything, and wait until every recipient is final.

        A claim whose answer was lost is looked into a minute later; the end of its worker settles it at once.
        """
        await self.join()
        for worker in self.daemon.worker_pids():
            os.kill(worker, signal.SIGKILL)
        for tenant in self.tenants.values():
            for name in ("spring", "autumn"):
                campaign = await self.parts.accounts.campaign(tenant.id, name)
                target = Target(Reach.CAMPAIGN, campaign.id, "", "dice")
                await self.parts.orders.set_state(target, State.RUNNING, "dice", "dice")

        async def over() -> bool:
            return not await self.parts.database.pool.fetchval("SELECT count(*) FROM recipient")

        await self.daemon.eventually(over, 30, "left recipients that are not final")

    async def late(self, mails: list[Mail]) -> list[Mail]:
        """Those whose final dot came when the log had forbidden it for longer than the bound."""
        parts, found = self.parts, []
        parts.scopes.learn(await parts.groups.members())
        for mail in mails:
            tenant_id, list_id = self.tenants[mail.tenant].id, self.lists[mail.tenant, mail.list_name]
            attempt = Attempt(mail.at, "delivered", tenant_id, list_id, 0, 0, mail.message_class, "")
            history = await parts.log.read_person(parts.digest.person(mail.recipient))
            if late_attempts(history, [attempt], parts.scopes, STALENESS_SECONDS + TRANSPORT_SECONDS):
                found.append(mail)
        return found


def _message(tenant: str, list_name: str, message_class: MessageClass, campaign: str) -> bytes:
    fields = ["From: news@example.com", f"Subject: {json.dumps([tenant, list_name, int(message_class)])}"]
    if list_name:
        fields.append(f"List-Id: <{list_name}>")
    return "\r\n".join([*fields, f"X-Campaign: {campaign}", "", "Hello.", ""]).encode()


def _submit(port: int, source: str, people: list[str], content: bytes) -> set[str]:
    """Those who were refused, which is everybody when the daemon can't take mail now."""
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=10, source_address=(source, 0)) as client:
            return set(client.sendmail("news@example.com", people, content))
    except (smtplib.SMTPException, OSError):
        return set(people)


@contextlib.asynccontextmanager
async def parts_of(daemon: Daemon, url: str) -> AsyncIterator[Parts]:
    """The daemon's database and keys, for whoever speaks to both."""
    database = await Database.open(url, size=8, application_name="dice", command_timeout_seconds=10)
    try:
        keyring = Keyring.load(daemon.data_dir / "keys" / "master.key")
        parts = Parts(Settings(data_dir=daemon.data_dir), database, keyring)
        yield parts
        with contextlib.suppress(DatabaseUnavailable):
            await parts.log.close()
    finally:
        await database.close()


async def test_no_final_dot_comes_later_than_a_suppression(tmp_path: Path, database_url: str) -> None:
    dice = random.Random(SEED)
    async with Noting(random.Random(SEED)) as sink:
        networks = ", ".join(
            f'{{network = "{address}/32", tenant = "{tenant}", message_class = "{kind.name.lower()}"}}'
            for address, (tenant, kind) in CLIENTS.items()
        )
        settings = {
            "delivery.next_hop": f"127.0.0.1:{sink.port}", "delivery.retry_seconds": "0.5", "queue.poll_seconds": 0.2,
            "suppression.max_staleness": STALENESS_SECONDS, "suppression.poll_seconds": 0.25,
            "submission.trusted_networks": f"[{networks}]", "queue.lease_timeout_seconds": 15,
        }  # fmt: skip
        async with (
            running(Daemon(tmp_path / "node", database_url, settings=settings)) as daemon,
            parts_of(daemon, database_url) as parts,
        ):
            world = World(daemon, parts, dice)
            await world.prepare()
            deadline = time.monotonic() + SECONDS
            while time.monotonic() < deadline:
                await asyncio.gather(*(world.step() for _ in range(3)))
            await world.settle()
            late = await world.late(sink.mails)
            assert late == [], f"seed {SEED}: {len(late)} of {len(sink.mails)} after {dict(world.done)}"
            finals = await parts.database.pool.fetch(
                "SELECT state, count(*) FROM outcome GROUP BY state ORDER BY state"
            )
            counted = {row[0]: row[1] for row in finals}
            print(f"{world.accepted} accepted, {len(sink.mails)} dots, finals {counted}, {dict(world.done)}")
            # a message whose 250 was lost may be stored all the same; what was accepted is
            assert sum(counted.values()) >= world.accepted
            assert counted[1] <= len(sink.mails)
            assert counted.get(4, 0) + counted.get(5, 0) > 0
            assert (await verify_log(parts.log, parts.digest)).intact
            command = await asyncio.to_thread(daemon.command, "prove", sink.mails[0].recipient)
            assert command.returncode == 0, command.stdout
