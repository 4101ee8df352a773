"""The parts of one worker inside the test's own process: real database, real sockets, a gate and clocks to set.

Unlike support/daemon.py nothing is started that a test does not ask for, and everything can be looked at.
"""

import asyncio
import ipaddress
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from config.database import Database
from config.keyring import Keyring
from config.settings import Settings
from mta.certificate import ensure_certificate
from mta.door import Door, Policy, Trusted
from mta.events import Events
from mta.intake import Intake, Stored
from mta.orders import Book
from mta.parts import Parts
from mta.passwords import Passwords
from mta.rejections import Rejections
from suppression.consent import Consents
from suppression.consenting import Consenting
from suppression.digest import MessageClass
from suppression.gate import Gate, Verdict

HOSTNAME = "mx.example.org"
MAIL_DOMAIN = "mail.example.org"


class FakeGate(Gate):
    """A gate that says what a test has set: stale or not, and which scope keys are stopped."""

    def __init__(self) -> None:
        self.stale = False
        self.stopped: set[int] = set()
        self.asked = 0

    def fresh(self) -> bool:
        return not self.stale

    def allows(self, keys: tuple[int, ...], message_class: MessageClass) -> Verdict:
        self.asked += 1
        if self.stale:
            return Verdict.STALE
        return Verdict.SUPPRESSED if self.stopped.intersection(keys) else Verdict.OPEN


class Clock:
    """Epoch seconds that pass only when a test says so."""

    def __init__(self, seconds: float = 1_800_000_000.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


class Node:
    """One worker's parts. `rows` and `execute` look past them into its database."""

    def __init__(self, parts: Parts, database: Database, url: str) -> None:
        self.parts, self.database, self.url = parts, database, url
        self.gate = FakeGate()
        self.orders = Book()
        self.events = Events(database, "test")
        self.rejections = Rejections(self.events.note, parts.now)
        self.stored: list[Stored] = []

    async def rows(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        async with self.database.connection() as connection:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]

    async def execute(self, statement: str, *arguments: object) -> None:
        async with self.database.connection() as connection:
            await connection.execute(statement, *arguments)

    async def messages(self) -> int:
        """How many messages are committed."""
        return int((await self.rows("SELECT count(*) FROM message"))[0][0])

    def person(self, address: str) -> int:
        return self.parts.digest.person(address)

    def stop(self, address: str, tenant_id: int, list_id: int = 0) -> None:
        """Suppress an address for a tenant, or for a list of it."""
        self.gate.stopped.add(self.parts.digest.keys(self.person(address), tenant_id, list_id)[-1])

    def allow(self) -> None:
        """Nobody is suppressed any more."""
        self.gate.stopped.clear()

    def intake(self, **changes: Any) -> Intake:
        """An intake that leases nothing, and keeps what was stored in `stored`."""
        options: dict[str, Any] = {
            "lifetime_seconds": 3_600.0, "batch": 100, "reserve": lambda *_: 0, "on_stored": self.stored.append,
            "on_failed": lambda *_: None, "now": self.parts.now,
        }  # fmt: skip
        return Intake(self.parts.queue, self.parts.ids, **{**options, **changes})

    async def door(
        self,
        *,
        trusted: MessageClass | None = MessageClass.CAMPAIGN,
        intake: Intake | None = None,
        failures_per_minute: int = 10,
        clock: Callable[[], float] = lambda: 0.0,
        **changes: Any,
    ) -> Door:
        """A submission listener's shared part; `trusted`: what the loopback network may submit, None: nothing."""
        tenant = await self.parts.accounts.add_tenant("acme", exist_ok=True)
        networks = [Trusted(ipaddress.ip_network("127.0.0.0/8"), tenant, trusted)] if trusted is not None else []
        options: dict[str, Any] = {
            "hostname": HOSTNAME, "max_message_bytes": 100_000, "max_recipients": 5, "max_connections": 50,
            "max_bytes_in_memory": 1_000_000, "idle_timeout_seconds": 300.0, "campaign_header": b"x-campaign",
            "trusted": tuple(networks), "tls": server_tls(),
        }  # fmt: skip
        passwords = Passwords(self.parts.accounts, failures_per_minute, clock)
        policy = Policy(**{**options, **changes})
        return Door(
            policy,
            intake or self.intake(),
            self.parts.accounts,
            self.parts.digest,
            self.parts.scopes,
            self.gate,
            passwords,
            Consenting(Consents(self.database, self.parts.log)),
            self.orders,
            self.rejections,
        )


@asynccontextmanager
async def node(
    url: str, directory: Path, *, now: Callable[[], float] = time.time, **sections: dict[str, Any]
) -> AsyncIterator[Node]:
    """A worker's parts on a test's database; `sections` of the settings are as in a configuration file."""
    identity = {"hostname": HOSTNAME, "mail_domain": MAIL_DOMAIN, "web_url": "https://u.example.org"}
    settings = Settings.model_validate({"data_dir": directory, "identity": identity, **sections})
    database = await Database.open(url, size=4, application_name="test", command_timeout_seconds=5)
    try:
        worker_id = await database.pool.fetchval("INSERT INTO worker (node) VALUES ('test') RETURNING id")
        parts = Parts(settings, database, Keyring({1: bytes(32)}), worker_id=worker_id, now=now)
        parts.paths.make()
        yield Node(parts, database, url)
        await parts.log.close()
        await parts.dkim_keys.close()
    finally:
        await database.close()


@asynccontextmanager
async def listening(
    protocol: Callable[[], asyncio.BaseProtocol], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server on a port of its own."""
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@cache
def server_tls() -> ssl.SSLContext:
    """TLS for listeners, with a certificate made for this run of the tests."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory() as directory:
        ensure_certificate(Path(directory), HOSTNAME)
        context.load_cert_chain(Path(directory, "certificate.pem"), Path(directory, "key.pem"))
    return context


async def until(holds: Callable[[], object], patience_seconds: float = 10.0) -> None:
    """Let the event loop go on until something holds; TimeoutError when it does not in time."""
    async with asyncio.timeout(patience_seconds):
        while not holds():  # noqa: ASYNC110 - it changes by I/O of others
            await asyncio.sleep(0.005)


async def eventually(holds: Callable[[], Awaitable[object]], patience_seconds: float = 10.0) -> None:
    """Likewise, for what has to be awaited."""
    async with asyncio.timeout(patience_seconds):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
