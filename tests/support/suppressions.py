"""Makers of suppressions for the tests, and a database to put them in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from config.database import Database
from suppression.digest import Digest, Kind, Scope
from suppression.entry import Channel, NewEntry

DIGEST = Digest(bytes(range(32)))


def asked(person: int, **changes: Any) -> NewEntry:
    """An unsubscribe of a person from list 9 of tenant 7, with what the test changes."""
    given: dict[str, Any] = {
        "scope": Scope.LIST, "kind": Kind.UNSUBSCRIBE, "tenant_id": 7, "list_id": 9, "channel": Channel.ONE_CLICK,
        "actor": "token:test",
    }  # fmt: skip
    return NewEntry(person, **{**given, **changes})


def keys_of(person: int, tenant_id: int = 7, list_id: int = 9) -> tuple[int, ...]:
    """The scope keys of a recipient."""
    return DIGEST.keys(person, tenant_id, list_id)


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Database]:
    """A pool on a test's database."""
    database = await Database.open(url, **{"size": 4, "application_name": "heed-test", **options})
    try:
        yield database
    finally:
        await database.close()
