"""Accounts on a real PostgreSQL: names to ids and back, made once by however many, and never an address among them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from config.database import Database
from config.keyring import Keyring, KeyringError
from mta.accounts import AccountError, Accounts, Cache, Credential, PasswordCheck, Tenant
from mta.installation import WrongInstallation, claim
from suppression.digest import MessageClass
from tests.support.suppressions import opened

RING = Keyring({1: bytes(32)})


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture
def accounts(database: Database) -> Accounts:
    return Accounts(database, RING)


async def names(database: Database, table: str) -> list[str]:
    async with database.connection() as connection:
        return [row["name"] for row in await connection.fetch(f"SELECT name FROM {table} ORDER BY id")]


async def test_tenants(accounts: Accounts) -> None:
    made = await accounts.add_tenant("acme")
    assert await accounts.tenant("acme") == made
    assert await accounts.add_tenant("acme", exist_ok=True) == made
    assert await accounts.tenant_name(made.id) == "acme"
    assert await accounts.tenant_name(99) == ""
    with pytest.raises(AccountError, match="exists already"):
        await accounts.add_tenant("acme")
    assert [row["name"] for row in await accounts.tenants()] == ["acme"]


@pytest.mark.parametrize("name", ["", "a b", "-a", "a@example.com", "x" * 64, "a\0", "ä", "a\n", "\udcff"])
async def test_wrong_names_of_tenants(accounts: Accounts, name: str) -> None:
    with pytest.raises(AccountError):
        await accounts.add_tenant(name)
    with pytest.raises(AccountError):
        await accounts.tenant(name)


async def test_a_disabled_tenant_is_none(accounts: Accounts, database: Database) -> None:
    await accounts.add_tenant("acme")
    await accounts.add_credential("acme", "app", MessageClass.CAMPAIGN, None)
    async with database.connection() as connection:
        await connection.execute("UPDATE tenant SET disabled_at = now()")
    assert await accounts.credential("app") is None
    with pytest.raises(AccountError):
        await accounts.tenant("acme")


async def test_a_credential_opens_with_its_password_until_it_is_revoked(accounts: Accounts) -> None:
    tenant = await accounts.add_tenant("acme")
    password = await accounts.add_credential("acme", "app", MessageClass.TRANSACTIONAL, None)
    found = await accounts.credential("app")
    assert found is not None
    assert (found.tenant, found.message_class) == (Tenant(tenant.id, "acme"), MessageClass.TRANSACTIONAL)
    assert password not in found.secret
    check = PasswordCheck()
    assert check.matches(found, password)
    assert not check.matches(found, password + "x")
    assert not check.matches(None, password)
    broken = Credential(found.tenant, found.message_class, "no hash")
    assert not check.matches(broken, password)
    await accounts.revoke_credential("app")
    assert await accounts.credential("app") is None
    with pytest.raises(AccountError):
        await accounts.revoke_credential("app")
    assert "secret" not in (await accounts.credentials("acme"))[0]


@pytest.mark.parametrize(("username", "password"), [("", None), ("a b", None), ("ä", None), ("x" * 129, None),
                                                    ("app", "short"), ("a\0", None)])  # fmt: skip
async def test_wrong_credentials(accounts: Accounts, username: str, password: str | None) -> None:
    await accounts.add_tenant("acme")
    with pytest.raises(AccountError):
        await accounts.add_credential("acme", username, MessageClass.CAMPAIGN, password)
    assert await accounts.credential(username) is None


@pytest.mark.parametrize("username", ["a\0b", "\ud800", "x" * 10_000])
async def test_a_user_name_that_no_column_takes_is_unknown(accounts: Accounts, username: str) -> None:
    assert await accounts.credential(username) is None
    with pytest.raises(AccountError):
        await accounts.revoke_credential(username)


async def test_lists_and_campaigns_are_made_once_by_however_many(database: Database) -> None:
    tenant = await Accounts(database, RING).add_tenant("acme")
    workers = [Accounts(database, RING) for _ in range(4)]
    lists = await asyncio.gather(*(each.list_id(tenant.id, "weekly.example.com") for each in workers))
    campaigns = await asyncio.gather(*(each.campaign(tenant.id, "spring") for each in workers))
    assert len(set(lists)) == 1
    assert len({campaign.id for campaign in campaigns}) == 1
    sealed = campaigns[0].key.seal_content(1, b"x")
    assert [campaign.key.open_content(1, sealed) for campaign in campaigns] == [b"x"] * 4
    found = await Accounts(database, RING).campaign_by_id(campaigns[0].id)
    assert (found.name, found.tenant_id, found.key.open_content(1, sealed)) == ("spring", tenant.id, b"x")


async def test_tenants_share_no_list_or_campaign(accounts: Accounts) -> None:
    one, other = await accounts.add_tenant("one"), await accounts.add_tenant("other")
    assert await accounts.list_id(one.id, "news") != await accounts.list_id(other.id, "news")
    assert (await accounts.campaign(one.id, "x")).id != (await accounts.campaign(other.id, "x")).id


async def test_no_list_is_list_0_and_no_campaign_is_one_of_its_own(accounts: Accounts) -> None:
    tenant = await accounts.add_tenant("acme")
    assert (await accounts.list_id(tenant.id, ""), await accounts.list_name(0)) == (0, "")
    assert (await accounts.campaign(tenant.id, "")).name == ""


@pytest.mark.parametrize("name", ["for anna@example.net", "x" * 201])
async def test_a_name_with_an_address_in_it_is_not_stored(accounts: Accounts, database: Database, name: str) -> None:
    tenant = await accounts.add_tenant("acme")
    await accounts.list_id(tenant.id, name)
    await accounts.campaign(tenant.id, name)
    for table in ("list", "campaign"):
        [stored] = await names(database, table)
        assert stored.startswith("digest-")
        assert "anna" not in stored
    assert await accounts.list_id(tenant.id, name) == await Accounts(database, RING).list_id(tenant.id, name)


async def test_controls_in_a_name_are_dropped(accounts: Accounts, database: Database) -> None:
    tenant = await accounts.add_tenant("acme")
    await accounts.campaign(tenant.id, " a\0b\x1b[31m\ud800c\r\n ")
    assert await names(database, "campaign") == ["ab[31mc"]


async def test_a_database_belongs_to_one_master_key(accounts: Accounts, database: Database) -> None:
    await claim(database, Keyring({1: bytes(32)}))
    await claim(database, Keyring({1: bytes(32)}))
    with pytest.raises(WrongInstallation):
        await claim(database, Keyring({1: bytes([1]) * 32}))
    await claim(database, Keyring({1: bytes(32), 2: bytes([1]) * 32}))


async def test_a_campaign_of_a_key_that_is_missing_here(accounts: Accounts, database: Database) -> None:
    tenant = await accounts.add_tenant("acme")
    rotated = Accounts(database, Keyring({1: bytes(32), 2: bytes([1]) * 32}))
    campaign = await rotated.campaign(tenant.id, "spring")
    with pytest.raises(KeyringError):
        await accounts.campaign_by_id(campaign.id)


def test_a_cache_forgets_what_was_not_used_for_longest() -> None:
    cache: Cache[int, str] = Cache(2)
    cache.put(1, "a")
    cache.put(2, "b")
    assert cache.get(1) == "a"
    cache.put(3, "c")
    assert (cache.get(1), cache.get(2), cache.get(3)) == ("a", None, "c")
