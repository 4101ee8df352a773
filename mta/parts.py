"""How the parts fit together: what every process of the daemon, and every command of the CLI, is built from.

The composition root. It alone knows both the settings and the classes; everything else gets plain values.
"""

import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bounce.policy import Policy as BouncePolicy
from config.database import Database, migrate
from config.keyring import Keyring
from config.postgres import EmbeddedPostgres
from config.settings import Settings, endpoint
from mta.accounts import Accounts
from mta.dkim_keys import DkimKeys
from mta.hygiene import Hygiene
from mta.identifiers import MessageIds
from mta.notices import Notices
from mta.order_store import OrderStore
from mta.outcomes import Recorder
from mta.queue import Queue, cancel_suppressed
from mta.render import Identity, Renderer
from mta.resolver import Resolver
from mta.routing import Router, parse_next_hop
from mta.summary import Summary
from mta.tracing import Tracing
from suppression.digest import Digest, Effect, effect_of
from suppression.entry import Entry
from suppression.log import SuppressionLog
from suppression.tokens import Tokens


class Paths:
    """Where things are, below data_dir."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.keys = self.data_dir / "keys" / "master.key"
        self.tls = self.data_dir / "tls"
        self.journals = self.data_dir / "journals"
        self.index = self.data_dir / "suppression" / "index"
        self.canary = self.data_dir / "suppression" / "canary"
        self.heads = self.data_dir / "suppression" / "heads.jsonl"
        self.receipts = self.data_dir / "suppression" / "receipts"
        self.sink = self.data_dir / "sink"
        self.lock = self.data_dir / "heed.lock"

    def make(self) -> None:
        """Make the directories, for this user only."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (self.keys.parent, self.tls, self.journals, self.index.parent):
            directory.mkdir(mode=0o700, exist_ok=True)


class Parts:
    """One process's view of an installation: database, keys, and what is built on them."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        keyring: Keyring,
        *,
        worker_id: int = 0,
        on_appended: Callable[[Sequence[Entry]], None] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.paths = Paths(settings.data_dir)
        self.database = database
        self.keyring = keyring
        self.now = now
        self.digest = Digest(keyring.digest_key)
        self.tokens = Tokens(keyring)
        self.accounts = Accounts(database, keyring)
        self.orders = OrderStore(database, now)
        self.summary = Summary(database)
        self.tracing = Tracing(database)
        self.queue = Queue(database, worker_id, socket.gethostname())
        self.dkim_keys = DkimKeys(database, keyring, time.monotonic)
        self.log = SuppressionLog(database, self.digest, self._cancel, on_appended)
        bounces = settings.bounces
        policy = BouncePolicy(threshold=bounces.suppress_after, window_days=bounces.window_days)
        self.hygiene = Hygiene(database, self.log, self.digest, policy, now=now)
        self.ids = MessageIds(worker_id, now)
        self.notices = Notices(
            self.queue,
            self.accounts,
            self.digest,
            self.ids,
            hostname=settings.identity.hostname,
            lifetime_seconds=settings.delivery.lifetime_seconds,
            now=now,
        )

    def recorder(self, queue: Queue) -> Recorder:
        """What writes outcomes, for this worker's queue or a dead one's."""
        return Recorder(queue, compose=self.notices.compose, suppress=self.hygiene.note_refusals)

    def renderer(self) -> Renderer:
        """What makes mail of templates."""
        settings = self.settings
        identity = Identity(settings.identity.hostname, settings.identity.mail_domain, settings.web_url, "heed")
        strip = frozenset({settings.submission.campaign_header.lower().encode()})
        return Renderer(identity, self.tokens, self.now, strip=strip)

    def router(self) -> Router:
        """Where mail goes, by the configuration."""
        delivery = self.settings.delivery
        next_hop = parse_next_hop(delivery.next_hop) if delivery.next_hop else None
        if next_hop is None and self.settings.sandbox:
            next_hop = parse_next_hop(self.settings.sink.listen)
        servers = [endpoint(server, 53) for server in delivery.nameservers]
        resolver = Resolver(nameservers=[server.host for server in servers], port=servers[0].port if servers else 53)
        return Router(
            resolver,
            next_hop=next_hop,
            routes={domain: parse_next_hop(hop) for domain, hop in delivery.routes.items()},
            port=delivery.port,
            allow_private=delivery.allow_private,
            listeners=[endpoint(listen) for listen in self.settings.inbound.listen],
            names=[self.settings.identity.hostname, self.settings.identity.mail_domain],
            now=self.now,
        )

    async def _cancel(self, connection: Any, entries: Sequence[Entry]) -> list[int]:
        """The hook by which a suppression's commit cancels what is queued for that person in that scope."""
        stops = [
            (entry.person, int(entry.scope), entry.tenant_id, entry.list_id, _stops_all(entry))
            for entry in entries
            if entry.scope is not None
        ]
        return await cancel_suppressed(connection, stops, self.now())


def _stops_all(entry: Entry) -> bool:
    return entry.scope is not None and entry.kind is not None and effect_of(entry.scope, entry.kind) is Effect.ALL


@asynccontextmanager
async def opened(settings: Settings, *, name: str) -> AsyncIterator[Parts]:
    """The parts for a command: connects, starts Heed's own database where that is needed, and brings it up to date."""
    paths = Paths(settings.data_dir)
    paths.make()
    server: EmbeddedPostgres | None = None
    if settings.database.url is None:
        server = EmbeddedPostgres(paths.data_dir)
        await server.start()
        url = server.url
    else:
        url = settings.database.url.get_secret_value()
    try:
        await migrate(url)
        timeout = settings.database.command_timeout_seconds
        database = await Database.open(url, size=2, application_name=name, command_timeout_seconds=timeout)
        try:
            parts = Parts(settings, database, Keyring.load_or_create(paths.keys))
            await parts.accounts.check_installation()
            yield parts
            await parts.log.close()
        finally:
            await database.close()
    finally:
        if server is not None:
            await server.stop()


__all__ = ["Parts", "Paths", "opened"]
