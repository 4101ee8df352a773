"""How the parts fit together: what every process of the daemon, and every command of the CLI, is built from.

The composition root. It alone knows both the settings and the classes; everything else gets plain values. A part is
made, and its module imported, when it is first asked for: a command does not wait for what only a worker needs.
"""

import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from config.database import Database
from config.keyring import Keyring
from config.settings import Settings, endpoint
from mta.accounts import Accounts
from mta.installation import Installation, connected
from suppression.digest import Digest, Effect, effect_of
from suppression.scopes import Scopes

if TYPE_CHECKING:
    from mta.dkim_keys import DkimKeys
    from mta.hygiene import Hygiene
    from mta.identifiers import MessageIds
    from mta.notices import Notices
    from mta.outcomes import Recorder
    from mta.queue import Queue
    from mta.render import Renderer
    from mta.routing import Router
    from mta.tracing import Tracing
    from suppression.entry import Entry
    from suppression.groups import Groups
    from suppression.log import SuppressionLog
    from suppression.tokens import Tokens


class Parts(Installation):
    """One process's view of an installation: database, keys, and what is built on them."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        keyring: Keyring,
        *,
        worker_id: int = 0,
        on_appended: "Callable[[Sequence[Entry]], None] | None" = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(settings, database, now=now)
        self.keyring = keyring
        self.accounts = Accounts(database, keyring)
        self.digest = Digest(keyring.digest_key)
        self.scopes = Scopes(self.digest)
        self._worker_id = worker_id
        self._on_appended = on_appended

    @cached_property
    def groups(self) -> "Groups":
        """Tenants that share one policy."""
        from suppression.groups import Groups

        return Groups(self.database, self.log)

    @cached_property
    def tokens(self) -> "Tokens":
        """What is in unsubscribe links and return paths."""
        from suppression.tokens import Tokens

        return Tokens(self.keyring)

    @cached_property
    def tracing(self) -> "Tracing":
        """What happened to a message or a recipient."""
        from mta.tracing import Tracing

        return Tracing(self.database)

    @cached_property
    def queue(self) -> "Queue":
        """The queue, for this worker."""
        from mta.queue import Queue

        return Queue(self.database, self._worker_id, socket.gethostname())

    @cached_property
    def dkim_keys(self) -> "DkimKeys":
        """The keys that mail is signed with."""
        from mta.dkim_keys import DkimKeys

        return DkimKeys(self.database, self.keyring, time.monotonic)

    @cached_property
    def log(self) -> "SuppressionLog":
        """The suppression log; its commits cancel what is queued."""
        from mta.queue import cancel_suppressed
        from suppression.log import SuppressionLog

        async def cancel(connection: Any, entries: "Sequence[Entry]") -> list[int]:
            return await cancel_suppressed(connection, _stops(entries), self.now())

        return SuppressionLog(self.database, self.digest, cancel, self._on_appended)

    @cached_property
    def hygiene(self) -> "Hygiene":
        """What refusals and reports say about people."""
        from bounce.policy import Policy
        from mta.hygiene import Hygiene

        bounces = self.settings.bounces
        policy = Policy(threshold=bounces.suppress_after, window_days=bounces.window_days)
        return Hygiene(self.database, self.log, self.digest, policy, now=self.now)

    @cached_property
    def ids(self) -> "MessageIds":
        """Ids for new messages."""
        from mta.identifiers import MessageIds

        return MessageIds(self._worker_id, self.now)

    @cached_property
    def notices(self) -> "Notices":
        """What senders are told."""
        from mta.notices import Notices

        return Notices(
            self.queue,
            self.accounts,
            self.digest,
            self.ids,
            hostname=self.settings.identity.hostname,
            lifetime_seconds=self.settings.delivery.lifetime_seconds,
            now=self.now,
        )

    async def keys(self, person: int, tenant_id: int, list_id: int) -> tuple[int, ...]:
        """Scope keys by the groups as the database has them now: for commands, which follow no log."""
        self.scopes.learn(await self.groups.members())
        return self.scopes.keys(person, tenant_id, list_id)

    def recorder(self, queue: "Queue") -> "Recorder":
        """What writes outcomes, for this worker's queue or a dead one's."""
        from mta.outcomes import Recorder

        return Recorder(queue, compose=self.notices.compose, suppress=self.hygiene.note_refusals)

    def renderer(self) -> "Renderer":
        """What makes mail of templates."""
        from mta.render import Identity, Renderer

        settings = self.settings
        identity = Identity(settings.identity.hostname, settings.identity.mail_domain, settings.web_url, "heed")
        strip = frozenset({settings.submission.campaign_header.lower().encode()})
        return Renderer(identity, self.tokens, self.now, strip=strip)

    def router(self) -> "Router":
        """Where mail goes, by the configuration."""
        from mta.resolver import Resolver
        from mta.routing import Router, parse_next_hop

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

    async def close(self) -> None:
        """Finish what parts still have to do; the database stays open."""
        if "log" in vars(self):  # it was made
            await self.log.close()


def _stops(entries: "Sequence[Entry]") -> list[tuple[int, int, int, int, bool]]:
    """What the entries stop: person, scope, tenant, list, and whether transactional mail is stopped too."""
    return [
        (entry.person, int(entry.scope), entry.tenant_id, entry.list_id, all_mail)
        for entry in entries
        if entry.scope is not None
        for all_mail in [entry.kind is not None and effect_of(entry.scope, entry.kind) is Effect.ALL]
    ]


@asynccontextmanager
async def opened(settings: Settings, *, name: str, founds: bool = False) -> AsyncIterator[Parts]:
    """The parts for a command, on its database; founds: of an installation that is made where there is none."""
    async with connected(settings, name=name, founds=founds) as (database, keyring):
        parts = Parts(settings, database, keyring)
        yield parts
        await parts.close()
