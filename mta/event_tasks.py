"""What a node does with events while it runs: webhooks, tallies, retention, and the file of events where one is wanted.

Runs in the supervisor, on database connections of its own, so that nothing here can be waited for by mail. Of all nodes
one at a time sends for a webhook, counts, or writes the file. None of it ends the node: what fails is tried again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from config.database import Database, DatabaseUnavailable
from config.keyring import Keyring
from config.log import LOG
from mta.accounts import Accounts
from mta.courier import Courier
from mta.event_file import EventFile
from mta.event_records import Records
from mta.events import Events
from mta.tally import Tallies
from mta.webhooks import Webhooks
from suppression.digest import Digest

_KEEP_SECONDS: Final = 3_600.0
_RETRY_SECONDS: Final = 5.0
_TALLY_SECONDS: Final = 15.0


class EventTasks:
    """The tasks of one node."""

    def __init__(
        self, database: Database, keyring: Keyring, *, holder: str, retention_days: int, file: EventFile | None
    ) -> None:
        """holder: the name under which this process holds leases; unlike that of any other process."""
        self._db = database
        self._retention_days = retention_days
        self._file = file
        self._events = Events(database)
        self._records = Records(self._events, Accounts(database, keyring), Digest(keyring.digest_key))
        self._tallies = Tallies(database, self._events)
        self._courier = Courier(Webhooks(database, keyring, holder), self._events, self._records)

    async def prepare(self) -> None:
        """Before the first worker writes: positions that go on, and partitions. Raises DatabaseUnavailable."""
        if await self._events.check_era():
            LOG.warning("this database was restored from a dump: positions of events go on above the old ones")
        await self._attempt(self._keep)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(_RETRY_SECONDS, self._courier.run))
            group.create_task(self._every(_KEEP_SECONDS, self._keep))
            group.create_task(self._every(_TALLY_SECONDS, self._tallies.catch_up))
            if self._file is not None:
                follow = partial(self._file.follow, self._events, self._records)
                group.create_task(self._every(_RETRY_SECONDS, follow))

    async def close(self) -> None:
        """Let go of the database."""
        await self._db.close()

    async def _keep(self) -> None:
        dropped = await self._events.keep(self._retention_days)
        if dropped:
            LOG.info("old events are dropped", days=len(dropped))

    async def _every(self, seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        """Again and again; what goes on for ever begins again where it failed."""
        while True:
            wait = seconds
            try:
                await self._attempt(work)
            except DatabaseUnavailable:
                wait = min(seconds, _RETRY_SECONDS)
            await asyncio.sleep(wait)

    async def _attempt(self, work: Callable[[], Awaitable[object]]) -> None:
        """Whatever fails here must not end a node that delivers mail. Raises DatabaseUnavailable."""
        try:
            await work()
        except DatabaseUnavailable:
            raise
        except Exception as error:
            LOG.error("a task about events failed", error=type(error).__name__)
