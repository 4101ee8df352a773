"""A worker: listeners, suppression index and delivery in one process (the only importer of uvloop).

Started by the supervisor, which writes one JSON object on standard input and keeps it open: its end means that the
supervisor is gone, and the worker stops as for SIGTERM. Writes a line of JSON about its state on standard output each
second. Ends with 0 after draining, with 1 when it may not go on (its lease is lost, its journal can't be written).
"""

import asyncio
import ipaddress
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson
import uvloop

from config.database import Database, DatabaseUnavailable
from config.keyring import Keyring
from config.log import LOG, configure, say_in_each_event
from config.settings import Settings, endpoint
from metrics import registry
from mta.connector import Connector
from mta.contents import Contents
from mta.delivery import Delivery, Limits
from mta.dispatch import Room
from mta.door import Door, Policy, Trusted
from mta.events import Events
from mta.heap import give_back_for_ever
from mta.inbound import Inbound
from mta.installation import Paths
from mta.intake import Intake
from mta.journal import Journal
from mta.lease import RetryPolicy
from mta.order_watch import OrderWatch
from mta.orders import Book
from mta.outcomes import Outcomes
from mta.parts import Parts
from mta.passwords import Passwords
from mta.rejections import Rejections
from mta.submission import protocols
from suppression.canary import Probe
from suppression.consent import Consents
from suppression.consenting import Consenting
from suppression.digest import MessageClass
from suppression.feed import DatabaseFeed
from suppression.gate import Gate
from suppression.index import Index
from suppression.keeper import BaseKeeper
from suppression.receipts import ReceiptFile, ReceiptKeeper
from suppression.watch import Watch

_HEARTBEAT_SECONDS: Final = 2.0
_SITES_REPORTED: Final = 50
_STATUS_SECONDS: Final = 0.5
_DRAIN_SECONDS: Final = 6.0


class Worker:
    """The parts of one worker, from start to end."""

    def __init__(self, settings: Settings, database: Database, keyring: Keyring, worker_id: int) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self._exit_code = 0
        self._cpu_seconds = 0.0
        self._listening = False
        self._servers: list[asyncio.Server] = []
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._delivering: list[asyncio.Task[None]] = []
        self.parts = parts = Parts(settings, database, keyring, worker_id=worker_id, on_appended=self._nudge)
        self._index = Index()
        keeper = BaseKeeper(parts.paths.index, parts.log, on_rebuilt=registry.rebuild_seconds.observe)
        receipts = ReceiptFile(parts.paths.receipts)
        self._receipts = ReceiptKeeper(receipts, parts.log)
        self._watch = Watch(
            self._index,
            self._feed,
            keeper,
            parts.scopes,
            poll_seconds=settings.suppression.poll_seconds,
            max_staleness_seconds=settings.suppression.max_staleness,
            last_receipt=receipts.last,
            on_applied=registry.effective.observe,
        )
        self._gate = Gate(self._index, self._watch)
        self._journal = Journal(parts.paths.journals, worker_id)
        self._orders = Book(settings.suppression.max_staleness)
        self._delivery = self._make_delivery()
        self._order_watch = OrderWatch(self._orders, database, on_change=self._delivery.orders_changed)
        self._outcomes = Outcomes(
            parts.recorder(parts.queue), self._journal, on_settled=self._delivery.settled, sleep=asyncio.sleep
        )
        self._delivery.attach(self._outcomes)
        self._intake = Intake(
            parts.queue,
            parts.ids,
            lifetime_seconds=settings.delivery.lifetime_seconds,
            batch=settings.queue.commit_batch,
            reserve=self._reserve,
            on_stored=self._delivery.stored,
            on_failed=self._room.give,
            standing=self._orders.standing,
            site_of=self._delivery.site_of,
        )
        self._doors: list[Door] = []
        self._rejections = Rejections(Events(database, socket.gethostname()).note, parts.now)

    async def run(self) -> int:
        """Until SIGTERM, the supervisor's end, or a reason not to go on; returns the exit code."""
        self._install_signals()
        tasks = [
            asyncio.create_task(self._report_for_ever()),
            asyncio.create_task(self._live()),
            asyncio.create_task(give_back_for_ever()),
        ]
        await self._watch.start()
        await self._receipts.start()
        tasks.append(asyncio.create_task(self._order_watch.follow_for_ever()))
        caught_up = asyncio.create_task(self._caught_up())
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait([caught_up, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not self._stop.is_set():
            await self._listen()
            tasks.append(asyncio.create_task(self._rejections.write_for_ever()))
            if "delivery" in self._settings.roles:
                self._delivering = [
                    asyncio.create_task(self._delivery.claims.claim_for_ever()),
                    asyncio.create_task(self._delivery.expire_for_ever()),
                ]
                tasks += self._delivering
            self._listening = True
        for task in tasks:
            task.add_done_callback(self._task_ended)
        await stopped
        await self._drain()
        for task in (*tasks, caught_up):
            task.cancel()
        return self._exit_code

    async def _caught_up(self) -> None:
        """Both what subscribers and what operators have said is known."""
        await self._watch.caught_up()
        await self._order_watch.known()

    # --- the end

    def fail(self, reason: str) -> None:
        """This worker must not go on."""
        if not self._stop.is_set():
            LOG.critical("worker stops", reason=reason)
        self._exit_code = 1
        self._stop.set()

    async def _drain(self) -> None:
        """Take nothing new, finish what was begun, give back the rest."""
        self._listening = False
        # before anything that may take its time, such as a client that never ends its request
        self._delivery.stop()
        for server in self._servers:
            server.close()
        for door in self._doors:
            door.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                await asyncio.gather(self._finish_requests(), self._delivery.drain(_DRAIN_SECONDS / 2))
        # the journal is closed below, and what is leased goes to others
        for task in self._delivering:
            task.cancel()
        await asyncio.gather(*self._delivering, self._delivery.abort(), return_exceptions=True)
        await self._receipts.stop()
        await self._watch.stop()
        with suppress(DatabaseUnavailable):
            await self._rejections.write()
        with suppress(DatabaseUnavailable):
            await self.parts.log.close()
        if not self._outcomes.waiting:
            self._journal.close()
            with suppress(DatabaseUnavailable):
                await self.parts.queue.bury([self.parts.queue.worker_id], self.parts.now())
        await self.parts.database.close()

    async def _finish_requests(self) -> None:
        await asyncio.gather(*(close() for close in self._closers))
        await self._intake.drain()

    # --- what goes on all the time

    async def _live(self) -> None:
        """Tell the others that this worker lives, and learn who shares the limits."""
        timeout = self._settings.queue.lease_timeout_seconds
        while True:
            try:
                living = await self.parts.queue.heartbeat(timeout)
            except DatabaseUnavailable:
                registry.database_up.set(0)
            else:
                registry.database_up.set(1)
                if living is None:
                    self.fail("its leases were taken over: it was silent for too long")
                    return
                self._delivery.share_with(living)
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    async def _report_for_ever(self) -> None:
        """State for the supervisor, metrics for everybody."""
        while True:
            age = self._watch.age_seconds
            if age != float("inf"):
                registry.watermark_age.set(age)
            self._delivery.report()
            registry.index_entries.set(len(self._index))
            self._count_resources()
            registry.index_position.set(self._index.position)
            registry.index_lag.set(self._watch.lag_entries)
            state = {
                "ready": self._listening and self._watch.fresh() and not self._gate.holds,
                "listening": self._listening,
                "watermark_age_seconds": round(age, 3) if age != float("inf") else None,
                "fresh": self._watch.fresh(),
                "trouble": self._watch.trouble,
                "holds": list(self._gate.holds),
                "sites": self._delivery.sites(_SITES_REPORTED),
            }
            sys.stdout.buffer.write(orjson.dumps(state) + b"\n")
            sys.stdout.buffer.flush()
            await asyncio.sleep(_STATUS_SECONDS)

    def _count_resources(self) -> None:
        used = time.process_time()
        registry.cpu.inc(used - self._cpu_seconds)
        self._cpu_seconds = used
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
        registry.resident.set(pages * os.sysconf("SC_PAGE_SIZE"))

    # --- wiring

    def _make_delivery(self) -> Delivery:
        settings, parts = self._settings, self.parts
        delivery, queue = settings.delivery, settings.queue
        self._room = Room(queue.memory_recipients, queue.memory_per_campaign)
        contents = Contents(
            parts.queue,
            parts.accounts,
            parts.dkim_keys,
            parts.renderer(),
            max_bytes=queue.max_bytes_in_memory,
            signing_required=settings.signing.required,
            create_keys=settings.creates_keys,
        )
        policy = RetryPolicy(
            delivery.retry_seconds, delivery.retry_jitter, delivery.delay_notice_seconds, settings.submission.dsn
        )
        limits = Limits(
            delivery.connections_per_site,
            delivery.messages_per_connection,
            delivery.idle_seconds,
            queue.memory_per_site,
            queue.claim_batch,
            queue.poll_seconds,
        )
        connector = Connector(
            settings.identity.hostname,
            delivery.connect_timeout_seconds,
            None if delivery.tls == "none" else _client_tls(),
            delivery.tls == "required",
        )
        return Delivery(
            parts.queue,
            parts.accounts,
            contents,
            parts.router(),
            connector,
            self._gate,
            parts.scopes,
            self._room,
            policy,
            limits,
            orders=self._orders,
        )

    def _reserve(self, campaign_id: int, message_class: MessageClass, count: int) -> int:
        if "delivery" not in self._settings.roles:
            return 0
        return self._room.reserve(campaign_id, message_class, count)

    async def _feed(self) -> DatabaseFeed:
        within = self._settings.suppression.max_staleness / 2
        return await DatabaseFeed.open(self.parts.database, answer_within_seconds=within)

    def _nudge(self, _entries: object) -> None:
        self._watch.nudge()

    async def _listen(self) -> None:
        settings, roles = self._settings, self._settings.roles
        tls = server_tls(settings, self.parts.paths)
        if "submission" in roles:
            await self._listen_for_submission(tls)
        if "inbound" in roles:
            inbound = Inbound(self.parts, tls)
            for address in settings.inbound.listen:
                self._servers.append(await inbound.listen(*endpoint(address)))
        if "web" in roles:
            await self._listen_for_web(tls)
            await self._start_canary()

    async def _listen_for_submission(self, tls: ssl.SSLContext) -> None:
        loop, settings = asyncio.get_running_loop(), self._settings
        consenting = Consenting(Consents(self.parts.database, self.parts.log))
        passwords = Passwords(self.parts.accounts, settings.submission.auth_failures_per_minute)
        trusted = await trusted_networks(self.parts)
        for addresses, from_the_start in ((settings.submission.listen, False), (settings.submission.listen_tls, True)):
            policy = Policy(
                settings.identity.hostname,
                settings.submission.max_message_bytes,
                settings.submission.max_recipients,
                settings.submission.max_connections,
                settings.queue.max_bytes_in_memory,
                settings.submission.idle_timeout_seconds,
                settings.submission.campaign_header.lower().encode(),
                trusted,
                None if from_the_start else tls,
                settings.submission.max_hold_seconds,
            )
            door = Door(
                policy,
                self._intake,
                self.parts.accounts,
                self.parts.digest,
                self.parts.scopes,
                self._gate,
                passwords,
                consenting,
                self._orders,
                self._rejections,
            )
            self._doors.append(door)
            for address in addresses:
                host, port = endpoint(address)
                server = await loop.create_server(
                    protocols(door), host, port, reuse_port=True, backlog=1024, ssl=tls if from_the_start else None
                )
                self._servers.append(server)

    async def _listen_for_web(self, tls: ssl.SSLContext) -> None:
        # aiohttp's server is loaded only where it is used
        from mta.subscriber_web import subscriber_web
        from suppression.web import serve

        for address in self._settings.web.listen:
            host, port = endpoint(address)
            served = await serve(subscriber_web(self.parts), host, port, tls, reuse_port=True)
            self._closers.append(served.close)

    async def _start_canary(self) -> None:
        """See that the way out works, again and again; campaign mail waits when it does not."""
        from mta.way_out import WayOut
        from suppression.canary import Canary

        parts, every = self.parts, self._settings.suppression.canary_seconds
        if every:
            canary = Canary(
                parts.paths.canary,
                parts.log,
                self._index,
                self._gate,
                parts.digest,
                parts.tokens,
                WayOut(self._settings).post,
                every_seconds=every,
                within_seconds=self._settings.suppression.max_staleness,
                on_probe=_count_probe,
            )
            await canary.start()
            self._closers.append(canary.stop)

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_reader(sys.stdin.fileno(), self._parent_said)
        loop.set_exception_handler(self._unhandled)

    def _parent_said(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._stop.set()

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        LOG.error("unexpected failure", error=type(error).__name__, what=str(context.get("message", ""))[:100])
        if context.get("message") == "delivery task failed" and isinstance(error, OSError):
            self.fail("its journal can't be written")

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(f"{type(error).__name__} in a task that must not end")


def _count_probe(probe: Probe) -> None:
    registry.canary_failures.inc(1 if probe.failure else 0)
    registry.canary_seconds.set(probe.seconds)


def _client_tls() -> ssl.SSLContext:
    """Opportunistic TLS (RFC 7435): encrypted is better than clear, whoever the peer is."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def server_tls(settings: Settings, paths: Paths) -> ssl.SSLContext:
    """What the listeners show: the configured certificate, or the one that the supervisor made."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate = settings.tls.certificate or paths.tls / "certificate.pem"
    context.load_cert_chain(certificate, settings.tls.key or paths.tls / "key.pem")
    return context


async def trusted_networks(parts: Parts) -> tuple[Trusted, ...]:
    """Networks that may submit without AUTH, with their tenants, which are made where they don't exist."""
    found = []
    for entry in parts.settings.trusted_networks:
        tenant = await parts.accounts.add_tenant(entry.tenant, exist_ok=True)
        found.append(Trusted(ipaddress.ip_network(entry.network), tenant, MessageClass[entry.message_class.upper()]))
    return tuple(found)


async def _main(order: dict[str, Any]) -> int:
    settings = Settings(**order["settings"])
    configure(settings.log.level, settings.log.format)
    say_in_each_event(worker=order["worker_id"])
    database = await Database.open(
        order["database_url"],
        size=settings.database.connections,
        application_name="heed worker",
        command_timeout_seconds=settings.database.command_timeout_seconds,
    )
    worker = Worker(settings, database, Keyring.load(Paths(Path(settings.data_dir)).keys), order["worker_id"])
    return await worker.run()


def main() -> int:
    """`python -m mta.worker`, for the supervisor only."""
    order = orjson.loads(sys.stdin.buffer.readline())
    try:
        return uvloop.run(_main(order))
    except DatabaseUnavailable as error:
        sys.stderr.write(f"worker: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
