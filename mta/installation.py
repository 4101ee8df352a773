"""An installation: where it is, whose database it has, and what needs no more than these: orders, the queue counted.

Commands that read and order no more than that don't wait for what handles accounts and mail to be imported. Those that
ask make no installation: in a wrong directory they would answer from an empty one. Raises what config.database raises,
KeyringError, WrongInstallation, Failed where there is no installation, and PostgresError for Heed's own database.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg

from config.database import Database, MigrationError, load_queries, migrate, migrations, pending, up_to_date
from config.failure import DatabaseFailed, Failed
from config.keyring import Keyring
from config.settings import Settings

if TYPE_CHECKING:
    from mta.order_store import OrderStore
    from mta.summary import Summary

_QUERIES: Final = load_queries("mta", "installation.sql")


class WrongInstallation(DatabaseFailed):
    """The database was written under another master key than this node's."""


class Paths:
    """Where things are, below data_dir."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.keys = self.data_dir / "keys" / "master.key"
        self.postgres = self.data_dir / "postgres"
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


class Installation:
    """One process's view of it. A part is made, and its module imported, when it is first asked for."""

    def __init__(self, settings: Settings, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.paths = Paths(settings.data_dir)
        self.database = database
        self.now = now

    @cached_property
    def orders(self) -> "OrderStore":
        """What operators have ordered."""
        from mta.order_store import OrderStore

        return OrderStore(self.database, self.now)

    @cached_property
    def summary(self) -> "Summary":
        """The queue, counted."""
        from mta.summary import Summary

        return Summary(self.database)


@asynccontextmanager
async def opened(settings: Settings, *, name: str) -> AsyncIterator[Installation]:
    """The installation for a command, on its database. Asks no more than it must: a busy server answers slowly."""
    async with connected(settings, name=name, prepares=False) as (database, _):
        yield Installation(settings, database)


def missing(settings: Settings) -> str:
    """Why no command could be about the installation that is configured; empty when there is one."""
    paths = Paths(settings.data_dir)
    if _is_missing(paths.keys):
        where = "data_dir"
        what = "installation"
    elif settings.database.url is None and _is_missing(paths.postgres):
        where = "database.url"
        what = "database"
    else:
        return ""
    return f"there is no {what} in {paths.data_dir}: `heed run` makes one; -c or --set {where}=… says where yours is"


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # one that may not be looked at is none that is missing
        pass
    return False


@asynccontextmanager
async def connected(
    settings: Settings, *, name: str, prepares: bool | None = None, founds: bool = False
) -> AsyncIterator[tuple[Database, Keyring]]:
    """Database and keys for a command: starts Heed's own database where that is needed. An empty one gets a schema.

    founds: make an installation where there is none, instead of raising Failed.
    """
    paths = Paths(settings.data_dir)
    if founds:
        paths.make()
    elif text := missing(settings):
        raise Failed(text)
    timeout = settings.database.command_timeout_seconds
    async with _database_url(settings, paths) as url:
        database = await Database.open(
            url, size=2, application_name=name, command_timeout_seconds=timeout, prepares=prepares
        )
        try:
            if not await up_to_date(database):
                await _make_schema(database, url)
            keyring = Keyring.load_or_create(paths.keys)
            await claim(database, keyring)
            yield database, keyring
        finally:
            await database.close()


async def _make_schema(database: Database, url: str) -> None:
    """The schema for an empty database. An older one is left to a start: whoever upgrades may still want to go back."""
    async with database.connection() as connection:
        try:
            rows = await connection.fetch(load_queries("config", "database.sql").applied_migrations)
        except asyncpg.UndefinedTableError:
            rows = []
    if rows and pending(migrations(), {row["number"]: (row["name"], row["sha256"]) for row in rows}):
        raise MigrationError("the database has the schema of an older version: `heed run` brings it up to date")
    await migrate(url)


async def claim(database: Database, keyring: Keyring) -> None:
    """Claim a new database for this master key, or raise WrongInstallation when it belongs to another."""
    async with database.connection() as connection:
        stored = await connection.fetchval(_QUERIES.installation)
    if stored is None:
        async with database.transaction() as connection:
            await connection.execute(_QUERIES.install, keyring.check_value)
            stored = await connection.fetchval(_QUERIES.installation)
    if stored != keyring.check_value:
        raise WrongInstallation(
            "this database was written under another master key: nothing in it could be read, and no suppression "
            "would be found. Copy the key file of the node that made it to this one."
        )


@asynccontextmanager
async def _database_url(settings: Settings, paths: Paths) -> AsyncIterator[str]:
    """The configured database's; or that of Heed's own, which runs meanwhile."""
    if settings.database.url is not None:
        yield settings.database.url.get_secret_value()
        return
    from config.postgres import EmbeddedPostgres

    server = EmbeddedPostgres(paths.data_dir)
    await server.start()
    try:
        yield server.url
    finally:
        await server.stop()
