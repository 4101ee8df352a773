"""The door to PostgreSQL: a pool whose failures have one name, queries kept in .sql files, and migrations.

Everything that says "no database now" leaves here as DatabaseUnavailable: refused, closed, shutting down, starting up,
read-only, out of connections or disk, a role without rights, commits that a crash may undo, and no answer in time. That
is always temporary: its catcher defers, answers 4xx or waits. Errors of a statement itself (a constraint, a deadlock, a
mistake) leave as asyncpg raises them. Raises MigrationError for a schema that is not this version's.
"""

import asyncio
import hashlib
import re
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import resources
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from config.failure import DatabaseFailed, refused

ACQUIRE_TIMEOUT_SECONDS: Final = 2.0
CONNECT_TIMEOUT_SECONDS: Final = 2.0  # not longer than what an acquire may take, which waits for it
KEEPALIVE_SECONDS: Final = 5  # silence on a dedicated connection before it is probed; then three probes, one a second
LOCK_ATTEMPTS: Final = 100
LOCK_PAUSE_SECONDS: Final = 0.3
_MIGRATION_LOCK: Final = 0x48656564  # "Heed": the advisory lock under which one node at a time migrates

_NO_PREPARED_STATEMENTS: Final = MappingProxyType({"statement_cache_size": 0})

_MIGRATION_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_QUERY_START: Final = re.compile(r"^-- name:\s*(\S+)\s*$", re.MULTILINE)


class DatabaseUnavailable(DatabaseFailed):
    """There is no database that takes writes, for now. The text names the kind of failure, never data."""


class NoConnection(DatabaseUnavailable):
    """There is not even a connection: nothing was sent, so that nothing is in doubt."""


class MigrationError(DatabaseFailed):
    """The database's schema is not one that this version can bring up to date."""


# What the server says of itself, not of the statement: it goes away, comes up, stands by, or has no room left.
FEED_LOST: Final = (
    asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError,
)  # fmt: skip
"""Whatever a connection outside of the pool may raise when it ends, also between two statements."""

_SERVER_GONE: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.QueryCanceledError,
    asyncpg.InternalClientError,  # what asyncpg makes of a server's last words between two statements
    ConnectionError,
    TimeoutError,
)


UNSTORABLE: Final = (asyncpg.DataError,)
"""What a statement raises for a value that can't be stored: text that is no UTF-8 or has NUL, a number out of range."""


class Database:
    """A pool of connections for one process. Statements must not change a session's state (SET LOCAL only)."""

    def __init__(self, pool: asyncpg.Pool, url: str, connect_options: dict[str, Any]) -> None:
        self.pool = pool
        self._url = url
        self._connect_options = connect_options

    def __repr__(self) -> str:
        return f"Database(size={self.pool.get_max_size()}, idle={self.pool.get_idle_size()})"

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        size: int,
        application_name: str,
        command_timeout_seconds: float = 5.0,
        prepares: bool | None = None,
    ) -> "Database":
        """Connect, with up to `size` connections; raises DatabaseUnavailable when the first can't be had, or may lose
        what it commits (D1).

        prepares: whether statements are prepared; None: where there is no pooler. Who says each statement once wants
        False: then nothing is asked here, the first connection is made when it is needed, and that raises.
        """
        options: dict[str, Any] = {
            "timeout": CONNECT_TIMEOUT_SECONDS,
            "command_timeout": command_timeout_seconds,
            "server_settings": {"application_name": application_name},
            "target_session_attrs": SessionAttribute.read_write,
        }
        with _connecting():
            if prepares is None:
                prepares = await _server_itself(url, options)
            if not prepares:
                options |= _NO_PREPARED_STATEMENTS
            # No floor: the pool would try to hold it while the database is away, and log each failure.
            pool = await asyncpg.create_pool(url, min_size=0, max_size=size, reset=_keep_session, **options)
        return cls(pool, url, options)

    async def close(self) -> None:
        """Close every connection; those that don't let go within the command timeout are cut."""
        try:
            async with asyncio.timeout(self._connect_options["command_timeout"]):
                await self.pool.close()
        except Exception:
            self.pool.terminate()

    @asynccontextmanager
    async def connection(self) -> "AsyncIterator[asyncpg.pool.PoolConnectionProxy]":
        """A connection without a transaction: each statement is its own. Raises DatabaseUnavailable."""
        with _connecting():
            connection = await self.pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS)
        try:
            with _translated(connection):
                yield connection
        finally:
            # A connection that fails here is closed by the pool, and what was done with it has been done.
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await self.pool.release(connection)

    @asynccontextmanager
    async def transaction(self) -> "AsyncIterator[asyncpg.pool.PoolConnectionProxy]":
        """A connection inside a transaction, committed when the block ends and rolled back when it raises.

        DatabaseUnavailable from the commit itself leaves open whether it took place.
        """
        async with self.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                yield connection
            except (Exception, asyncio.CancelledError, GeneratorExit) as error:
                if _unanswered(error):
                    _cut(connection)
                elif not _closed(connection):
                    await transaction.rollback()
                raise
            await transaction.commit()

    async def dedicated(self) -> asyncpg.Connection:
        """A connection outside of the pool, for LISTEN; the caller closes it. Over TCP, a silent peer is noticed.

        Raises DatabaseUnavailable.
        """
        with _connecting():
            connection: asyncpg.Connection = await asyncpg.connect(self._url, **self._connect_options)
        _keep_alive(connection)
        return connection


async def _server_itself(url: str, options: Mapping[str, Any]) -> bool:
    """Whether nobody stands between us and the server: a pooler gives each client a number that is no server process's.

    A statement that was prepared in one transaction is then unknown in the next, or is somebody else's. So is what is
    set for a session: whether commits wait for the disk is looked at. Raises DatabaseUnavailable where they don't.
    """
    connection = await asyncpg.connect(url, **{**options, **_NO_PREPARED_STATEMENTS})
    try:
        server = await connection.fetchrow(load_queries("config", "database.sql").server)
        itself: bool = server["pid"] == connection.get_server_pid()
    finally:
        connection.terminate()
    if server["synchronous_commit"] == "off":
        raise DatabaseUnavailable(
            "synchronous_commit is off: a crash of the server loses mail that got 250, and unsubscribes; turn it on: "
            "ALTER DATABASE … SET synchronous_commit = on, or the same with ALTER ROLE"
        )
    return itself


async def _keep_session(connection: asyncpg.Connection) -> None:
    """Instead of RESET ALL, a round trip for each use of a connection: no statement of ours changes the session."""


def _unanswered(error: BaseException) -> bool:
    """Whether a statement may still be under way, so that the server wouldn't listen to a ROLLBACK."""
    return isinstance(error, TimeoutError | ConnectionError | asyncio.CancelledError | GeneratorExit)


def _closed(connection: "asyncpg.pool.PoolConnectionProxy") -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool has taken it back, as it does with a closed one
        return True


def _cut(connection: "asyncpg.pool.PoolConnectionProxy") -> None:
    if not _closed(connection):
        cast("asyncpg.Connection", connection).terminate()


@contextmanager
def _connecting() -> Iterator[None]:
    """Whatever keeps us from a connection, a wrong password too, is a database that is not available."""
    try:
        yield
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise NoConnection(f"no connection to the database: {_reason(error)}") from error


@contextmanager
def _translated(connection: "asyncpg.pool.PoolConnectionProxy") -> Iterator[None]:
    try:
        yield
    except _SERVER_GONE as error:
        _cut(connection)
        raise DatabaseUnavailable(f"the database went away: {type(error).__name__}") from error
    except asyncpg.TransactionRollbackError as error:
        # two transactions met, and this one gave way: nothing of it is left, and the next attempt finds the way clear
        raise DatabaseUnavailable(f"the transaction was rolled back: {type(error).__name__}") from error
    except asyncpg.InsufficientPrivilegeError as error:
        # names a table or schema, no data
        advice = "let the role of database.url own the database: ALTER DATABASE … OWNER TO …, and what is in it"
        raise DatabaseUnavailable(f"{error}; {advice}") from error
    except (asyncpg.InterfaceError, OSError) as error:
        if not _closed(connection):
            raise
        raise DatabaseUnavailable(f"the connection was closed: {type(error).__name__}") from error


def _reason(error: BaseException) -> str:
    """A failed connect in a line: it may name the server, the user and the database, never what is stored or secret."""
    if refused(error):
        return "nothing listens there; is PostgreSQL running where database.url says?"
    if isinstance(error, TimeoutError):
        return "nothing answered in time; is PostgreSQL running where database.url says?"
    if isinstance(error, socket.gaierror):
        return "its host has no address; does database.url name it right?"
    if isinstance(error, ValueError) and not isinstance(error, asyncpg.InterfaceError):
        return "database.url is not written as it should be"  # the error's text may hold a piece of it
    return " ".join(f"{type(error).__name__} {error}".split())


def _keep_alive(connection: asyncpg.Connection) -> None:
    """Let the kernel notice a peer that vanished: a LISTEN connection is silent by nature."""
    sock = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # asyncpg has no accessor
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", KEEPALIVE_SECONDS), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Queries(Mapping[str, str]):
    """The named queries of one .sql file, as attributes too: `queries.claim`."""

    def __init__(self, source: str, queries: Mapping[str, str]) -> None:
        self._source = source
        self._queries = dict(queries)

    def __getitem__(self, name: str) -> str:
        return self._queries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)

    def __getattr__(self, name: str) -> str:
        try:
            return self._queries[name]
        except KeyError:
            raise AttributeError(f"{self._source} has no query named {name!r}") from None


def load_queries(package: str, file: str) -> Queries:
    """Read the queries of a .sql file that lies in a package; KeyError for a name given twice or without a purpose.

    A query is `-- name: claim`, at least one comment line with its purpose, and SQL up to the next name.
    """
    return Queries(
        f"{package}/{file}", _parse_queries(resources.files(package).joinpath(file).read_text("utf-8"), file)
    )


def _parse_queries(text: str, file: str) -> dict[str, str]:
    preamble, *parts = _QUERY_START.split(text)
    if any(line.strip() and not line.startswith("--") for line in preamble.splitlines()):
        raise KeyError(f"{file}: SQL before the first '-- name:'")
    queries: dict[str, str] = {}
    for name, block in zip(parts[::2], parts[1::2], strict=True):
        if name in queries or not name.isidentifier():
            raise KeyError(f"{file}: query {name!r} is there twice, or is no identifier")
        purpose, _, _ = block.lstrip("\n").partition("\n")
        if not purpose.startswith("-- "):
            raise KeyError(f"{file}: query {name!r} doesn't say its purpose on its next line")
        sql = "\n".join(line for line in block.splitlines() if not line.lstrip().startswith("--")).strip()
        if not sql:
            raise KeyError(f"{file}: query {name!r} is empty")
        queries[name] = sql.rstrip(";")
    return queries


class Migration(NamedTuple):
    """A step of the schema. Once released, its text never changes."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Hex digest of the text, by which a change after the fact is noticed."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Every migration of this version in its order; MigrationError unless they are numbered 1, 2, 3 …"""
    found = []
    for file in resources.files("config").joinpath("migrations").iterdir():
        if match := _MIGRATION_NAME.fullmatch(file.name):
            found.append(Migration(int(match[1]), match[2], file.read_text("utf-8")))
        elif file.name.endswith(".sql"):
            raise MigrationError(f"{file.name}: a migration is named NNNN_name.sql")
    found.sort()
    if [step.number for step in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"migrations are numbered without gaps or twins, not {[step.number for step in found]}")
    return found


async def up_to_date(database: Database) -> bool:
    """Whether a database has exactly this version's schema: `migrate` has nothing to do, or to complain about."""
    async with database.connection() as connection:
        try:
            rows = await connection.fetch(load_queries("config", "database.sql").applied_migrations)
        except asyncpg.UndefinedTableError:
            return False
    return [tuple(row) for row in rows] == [(step.number, step.name, step.sha256) for step in migrations()]


async def migrate(url: str) -> list[str]:
    """Bring a database up to this version's schema; returns the names of what was applied, in order.

    Each step is one transaction; nodes that start together wait for each other. Raises MigrationError for a schema that
    is newer or was changed, DatabaseUnavailable when there is no database.
    """
    steps, queries = migrations(), load_queries("config", "database.sql")
    with _connecting():
        connection = await asyncpg.connect(
            url,
            timeout=CONNECT_TIMEOUT_SECONDS,
            target_session_attrs=SessionAttribute.read_write,
            statement_cache_size=0,  # there may be a pooler
        )
    try:
        with _translated(cast("asyncpg.pool.PoolConnectionProxy", connection)):
            return await _apply_pending(connection, steps, queries)
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_SECONDS)


async def _apply_pending(connection: asyncpg.Connection, steps: list[Migration], queries: Queries) -> list[str]:
    async with connection.transaction():
        await connection.execute(queries.lock_migrations, _MIGRATION_LOCK)
        await connection.execute(queries.create_migration_table)
        applied = {row["number"]: row for row in await connection.fetch(queries.applied_migrations)}
    missing = pending(steps, {number: (row["name"], row["sha256"]) for number, row in applied.items()})
    return [f"{step.number:04}_{step.name}" for step in missing if await _apply(connection, step, queries)]


async def _apply(connection: asyncpg.Connection, step: Migration, queries: Queries) -> bool:
    """Apply one step beside workers of the version before; False where another node was faster.

    It never waits for a lock as long as PostgreSQL waits before it looks for a deadlock (1 s): the step gives way and
    is tried again, so that no worker's statement is ever the one that is ended.
    """
    for attempt in range(LOCK_ATTEMPTS):
        try:
            async with connection.transaction():
                await connection.execute(queries.lock_migrations, _MIGRATION_LOCK)
                if step.number in {row["number"] for row in await connection.fetch(queries.applied_migrations)}:
                    return False
                await connection.execute(queries.wait_shortly)
                await connection.execute(step.sql)
                await connection.execute(queries.record_migration, step.number, step.name, step.sha256)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if attempt + 1 == LOCK_ATTEMPTS:
                raise MigrationError(
                    f"migration {step.number:04}_{step.name}: its tables were busy too long; end long transactions"
                ) from None
            await asyncio.sleep(LOCK_PAUSE_SECONDS)
        else:
            return True
    raise AssertionError("the last attempt raises")


def pending(steps: list[Migration], applied: Mapping[int, tuple[str, str]]) -> list[Migration]:
    """What is still to apply, given number → (name, sha256) of what a database has; raises MigrationError."""
    known = {step.number: step for step in steps}
    for number, (name, sha256) in sorted(applied.items()):
        if number not in known:
            raise MigrationError(
                f"the database has migration {number:04}_{name}, which is newer than this version;"
                " upgrade Heed here, or give the command on a node that is upgraded"
            )
        if known[number].sha256 != sha256:
            raise MigrationError(f"migration {number:04}_{name} is not the one that this database was made with")
    return [step for step in steps if step.number not in applied]
