"""Fixtures of every rung: one PostgreSQL for a run of the tests, and a fresh, migrated database for each test.

HEED_TEST_DATABASE_URL names a PostgreSQL to use (its user must be allowed to create databases); without it, an embedded
one is started in a temporary directory: in memory where there is enough, because most of a test's time would be spent
on flushing the files of its new database to the disk.
"""

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from config.database import migrate
from config.postgres import EmbeddedPostgres

_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 2 << 30

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-m database` selects the tests that use a database, for a run against another PostgreSQL."""
    for item in items:
        if "server_url" in getattr(item, "fixturenames", ()):
            item.add_marker("database")


def _named(server_url: str, database: str) -> str:
    parts = urlsplit(server_url)
    url = urlunsplit(parts._replace(path=f"/{database}"))
    # urlunsplit drops the empty host of a URL whose host is a socket's directory.
    return url if parts.netloc else url.replace(":/", ":///", 1)


async def _execute(server_url: str, statement: str) -> None:
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _quick_place() -> Path | None:
    """Where files cost no disk, if there is room; None: wherever temporary files go."""
    roomy = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ENOUGH_BYTES
    return _MEMORY if roomy else None


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A PostgreSQL server, as the URL of a database of it from which others can be made."""
    if given := os.environ.get("HEED_TEST_DATABASE_URL"):
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="heed-test-", dir=_quick_place()) as directory:
        server = EmbeddedPostgres(Path(directory))
        asyncio.run(server.start())
        try:
            yield server.url
        finally:
            asyncio.run(server.stop())


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """The name of a migrated database that the tests' databases are copied from."""
    name = f"heed_test_{os.getpid()}_template"
    asyncio.run(_execute(server_url, f"CREATE DATABASE {name}"))
    asyncio.run(migrate(_named(server_url, name)))
    try:
        yield name
    finally:
        asyncio.run(_execute(server_url, f"DROP DATABASE {name}"))


async def _fresh(server_url: str, source: str) -> AsyncIterator[str]:
    name = f"heed_test_{os.getpid()}_{next(_numbers)}"
    await _execute(server_url, f"CREATE DATABASE {name} TEMPLATE {source}")
    try:
        yield _named(server_url, name)
    finally:
        await _execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(server_url: str, template: str) -> AsyncIterator[str]:
    """A database of this test alone, with the schema of this version."""
    async for url in _fresh(server_url, template):
        yield url


@pytest.fixture
async def empty_database_url(server_url: str) -> AsyncIterator[str]:
    """A database of this test alone, without any table."""
    async for url in _fresh(server_url, "template0"):
        yield url
