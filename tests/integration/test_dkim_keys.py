"""DKIM keys in a real database: sealed, found by domain, retired, and never silently left out."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from config.database import Database
from config.keyring import Keyring
from mta.dkim_keys import FIRST_SELECTOR, TTL_SECONDS, UNKNOWN_TTL_SECONDS, DkimKeyError, DkimKeys
from mta.signing import ED25519_SHA256, RSA_SHA256, SigningError, SigningKey, dns_record, generate
from tests.support.verifiers import signing_key

TENANTS = "INSERT INTO tenant (id, name) OVERRIDING SYSTEM VALUE VALUES (101, 'acme'), (102, 'other')"


class Clock:
    """Stands still until it is told."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, size=2, application_name="test")
    async with opened.connection() as connection:
        await connection.execute(TENANTS)
    try:
        yield opened
    finally:
        await opened.close()


def keys_of(database: Database, clock: Clock | None = None, keyring: Keyring | None = None) -> DkimKeys:
    return DkimKeys(database, keyring or Keyring({1: bytes(32)}), clock or Clock())


def names(keys: tuple[SigningKey, ...]) -> list[str]:
    return [key.name for key in keys]


def ed25519(domain: str, selector: str) -> SigningKey:
    return generate(domain, selector, ED25519_SHA256)


async def test_a_key_that_was_added_signs(database: Database) -> None:
    keys, key = keys_of(database), signing_key(RSA_SHA256)
    assert await keys.for_domain(101, "example.com") == ()
    await keys.add(101, key)
    (found,) = await keys.for_domain(101, "EXAMPLE.com")
    assert (found.name, found.algorithm, found.public_key) == (key.name, key.algorithm, key.public_key)
    assert names(await keys.for_domain(101, "news.example.com")) == [key.name]
    assert await keys.for_domain(102, "example.com") == ()
    assert await keys.for_domain(101, "example.org") == ()
    assert await keys.for_domain(101, "no domain") == ()


async def test_both_algorithms_and_the_newest_of_each(database: Database) -> None:
    keys = keys_of(database)
    for key in (ed25519("example.com", "e0"), ed25519("example.com", "e2"), signing_key(RSA_SHA256)):
        await keys.add(101, key)
    assert names(await keys.for_domain(101, "example.com")) == [
        "r1._domainkey.example.com",
        "e2._domainkey.example.com",
    ]
    await keys.add(101, ed25519("news.example.com", "own"))
    assert names(await keys.for_domain(101, "news.example.com")) == ["own._domainkey.news.example.com"]


async def test_other_nodes_see_changes_when_their_time_has_come(database: Database) -> None:
    clock = Clock()
    here, there = keys_of(database), keys_of(database, clock)
    assert await there.for_domain(101, "example.com") == ()
    await here.add(101, ed25519("example.com", "e1"))
    assert await there.for_domain(101, "example.com") == ()
    clock.seconds += UNKNOWN_TTL_SECONDS + 1
    assert len(await there.for_domain(101, "example.com")) == 1
    assert await here.retire(101, "example.com", "e1")
    assert await here.for_domain(101, "example.com") == ()
    assert len(await there.for_domain(101, "example.com")) == 1
    clock.seconds += TTL_SECONDS + 1
    assert await there.for_domain(101, "example.com") == ()


async def test_a_selector_is_used_once(database: Database) -> None:
    keys = keys_of(database)
    await keys.add(101, ed25519("example.com", "e1"))
    assert await keys.retire(101, "example.com", "e1")
    assert not await keys.retire(101, "example.com", "e1")
    assert not await keys.retire(101, "example.com", "e2")
    with pytest.raises(DkimKeyError, match="used before"):
        await keys.add(101, ed25519("example.com", "e1"))
    with pytest.raises(DkimKeyError, match="used before"):  # nor by another tenant: there is one record of a name
        await keys.add(102, ed25519("example.com", "e1"))
    await keys.add(102, ed25519("example.org", "e1"))
    with pytest.raises(DkimKeyError, match="no such tenant"):
        await keys.add(999, ed25519("example.net", "e1"))


async def test_the_list_has_what_is_published(database: Database) -> None:
    keys, key = keys_of(database), ed25519("example.com", "e1")
    await keys.add(101, key)
    await keys.add(102, ed25519("example.org", "e2"))
    (record,) = await keys.listed(101)
    assert dns_record(record) == dns_record(key)
    assert record.retired_at is None
    assert record.created_at.tzinfo is not None
    await keys.retire(101, "example.com", "e1")
    assert [(one.tenant_id, one.selector, one.retired_at is None) for one in await keys.listed()] == [
        (101, "e1", False),
        (102, "e2", True),
    ]


async def test_processes_that_make_the_first_key_at_once_agree(database: Database) -> None:
    several = [keys_of(database) for _ in range(3)]
    made = await asyncio.gather(*(keys.create(101, "example.com") for keys in several))
    assert {names(found)[0] for found in made} == {f"{FIRST_SELECTOR}._domainkey.example.com"}
    assert len({found[0].public_key for found in made}) == 1
    await several[0].retire(101, "example.com", FIRST_SELECTOR)
    with pytest.raises(SigningError, match="was retired"):
        await several[0].create(101, "example.com")


async def test_first_keys_of_two_tenants_for_one_domain_have_two_names(database: Database) -> None:
    keys = keys_of(database)
    one, other = await keys.create(101, "example.com"), await keys.create(102, "example.com")
    assert names(one) == [f"{FIRST_SELECTOR}._domainkey.example.com"]
    assert names(other) == [f"{FIRST_SELECTOR}-102._domainkey.example.com"]


async def test_private_keys_are_sealed(database: Database, database_url: str) -> None:
    key = signing_key(RSA_SHA256)
    await keys_of(database).add(101, key)
    connection = await asyncpg.connect(database_url)
    stored = await connection.fetchval("SELECT private_key FROM dkim_key")
    await connection.close()
    assert key.pkcs8()[40:80] not in stored


async def test_a_key_that_can_not_be_opened_is_an_error_every_time(database: Database) -> None:
    await keys_of(database).add(101, ed25519("example.com", "e1"))
    foreign = keys_of(database, keyring=Keyring({1: bytes(31) + b"x"}))
    for _ in range(2):
        with pytest.raises(SigningError, match=r"e1\._domainkey\.example\.com"):
            await foreign.for_domain(101, "example.com")
    await foreign.close()
