"""Tenants, credentials, lists and campaigns: names to ids and back, and the key of each campaign.

Lists and campaigns come into being when mail first names them. Names are not secret but may be misused, so that a name
that looks like an address is replaced by a digest of it before it is stored. Raises DatabaseUnavailable, AccountError.
"""

import hashlib
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from config.database import Database, load_queries
from config.failure import Failed, WrongUse
from config.keyring import Keyring
from mta.vault import CampaignKey, VaultError
from suppression.digest import MessageClass

_QUERIES: Final = load_queries("mta", "accounts.sql")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_USER: Final = re.compile(r"[\x21-\x7e]{1,128}")
_CACHED: Final = 10_000
_MAX_NAME: Final = 200
_REMEMBER_SECONDS: Final = 30.0

K = TypeVar("K")
V = TypeVar("V")


class AccountError(Failed):
    """A request that can't be met: unknown or taken name, or one that is not well-formed."""


class MalformedAccount(AccountError, WrongUse):
    """A name or a password that nothing could have."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who submits mail."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Credential:
    """What a user name stands for; secret is an argon2id hash."""

    tenant: Tenant
    message_class: MessageClass
    secret: str


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign with the key of its content."""

    id: int
    tenant_id: int
    name: str
    key: CampaignKey


class Cache(Generic[K, V]):
    """The last values used, a bounded number of them."""

    def __init__(self, most: int = _CACHED) -> None:
        self._most = most
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value, which becomes the last used one."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> V:
        """Keep a value."""
        self._values[key] = value
        if len(self._values) > self._most:
            self._values.popitem(last=False)
        return value


class Accounts:
    """Accounts of one database, with what was looked up last in memory."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._db = database
        self._keyring = keyring
        self._lists: Cache[tuple[int, str], int] = Cache()
        self._list_names: Cache[int, str] = Cache()
        self._tenant_names: Cache[int, str] = Cache()
        self._reply_addresses: Cache[int, tuple[float, str]] = Cache()
        self._campaigns: Cache[tuple[int, str], Campaign] = Cache()
        self._campaigns_by_id: Cache[int, Campaign] = Cache()

    async def tenant(self, name: str) -> Tenant:
        """A tenant by name; raises AccountError."""
        row = await self._row(_QUERIES.tenant_by_name, name) if _NAME.fullmatch(name) else None
        if row is None:
            raise AccountError(f"there is no tenant {name!r}; `heed tenant add {name}` makes one")
        return Tenant(row["id"], row["name"])

    async def add_tenant(self, name: str, *, exist_ok: bool = False) -> Tenant:
        """Make a tenant; raises AccountError when the name is taken or not well-formed."""
        if not _NAME.fullmatch(name):
            raise MalformedAccount(
                f"{name!r}: a tenant's name is 1 to 63 letters, digits, dots, dashes and underscores"
            )
        row = await self._row(_QUERIES.add_tenant, name)
        if row is not None:
            return Tenant(row["id"], name)
        if exist_ok:
            return await self.tenant(name)
        raise AccountError(f"tenant {name!r} exists already")

    async def tenants(self) -> list[dict[str, Any]]:
        """All tenants."""
        return await self._rows(_QUERIES.tenants)

    async def tenant_name(self, tenant_id: int) -> str:
        """The name of a tenant; empty when it is unknown."""
        return self._tenant_names.get(tenant_id) or self._tenant_names.put(
            tenant_id, await self._name(_QUERIES.tenant_name, tenant_id)
        )

    async def reply_address(self, tenant_id: int) -> str:
        """Where a tenant wants answers to its campaigns, "" for nowhere; a change is known half a minute later."""
        known = self._reply_addresses.get(tenant_id)
        if known is None or time.monotonic() - known[0] > _REMEMBER_SECONDS:
            row = await self._row(_QUERIES.reply_address, tenant_id)
            sealed = row["reply_address"] if row else None
            address = self._keyring.open(f"reply address of {tenant_id}", sealed).decode() if sealed else ""
            known = self._reply_addresses.put(tenant_id, (time.monotonic(), address))
        return known[1]

    async def set_reply_address(self, tenant: str, address: str) -> None:
        """Remember where answers go; "" switches that off. Raises AccountError for an unknown tenant."""
        owner = await self.tenant(tenant)
        sealed = self._keyring.seal(f"reply address of {owner.id}", address.encode()) if address else None
        async with self._db.connection() as connection:
            await connection.execute(_QUERIES.set_reply_address, owner.id, sealed)

    async def add_credential(
        self, tenant: str, username: str, message_class: MessageClass, password: str | None
    ) -> str:
        """Make a credential and return its password, a new one unless it is given."""
        if not _USER.fullmatch(username):
            raise MalformedAccount("a user name is 1 to 128 printable ASCII characters without blanks")
        if password is not None and len(password) < 12:
            raise MalformedAccount("a password has at least 12 characters; leave it out to have one made")
        owner = await self.tenant(tenant)
        password = password or secrets.token_urlsafe(24)
        secret = PasswordHasher().hash(password)
        if await self._row(_QUERIES.add_credential, owner.id, username, secret, int(message_class)) is None:
            raise AccountError(f"user name {username!r} is taken")
        return password

    async def credentials(self, tenant: str) -> list[dict[str, Any]]:
        """The credentials of a tenant, without their secrets."""
        owner = await self.tenant(tenant)
        return await self._rows(_QUERIES.credentials, owner.id)

    async def revoke_credential(self, username: str) -> None:
        """Switch a credential off; raises AccountError when there is none."""
        if not _USER.fullmatch(username) or await self._row(_QUERIES.revoke_credential, username) is None:
            raise AccountError(f"there is no credential {username!r} in use")

    async def credential(self, username: str) -> Credential | None:
        """What a user name stands for, if it is in use."""
        row = await self._row(_QUERIES.credential, username) if _USER.fullmatch(username) else None
        if row is None:
            return None
        tenant = Tenant(row["tenant_id"], row["tenant"])
        return Credential(tenant, MessageClass(row["class"]), row["secret"])

    async def list_id(self, tenant_id: int, name: str) -> int:
        """The id of a tenant's list, which is made where it is new; 0 for no name."""
        if not name:
            return 0
        name = self._storable(name)
        known = self._lists.get((tenant_id, name))
        if known:
            return known
        row = await self._row(_QUERIES.list_id, tenant_id, name) or await self._row(_QUERIES.add_list, tenant_id, name)
        row = row or await self._row(_QUERIES.list_id, tenant_id, name)
        return self._lists.put((tenant_id, name), int(row["id"]))

    async def existing_list_id(self, tenant: Tenant, name: str) -> int:
        """The id of a tenant's list; raises AccountError, which names those that there are, where it is none."""
        row = await self._row(_QUERIES.list_id, tenant.id, self._storable(name))
        if row is None:
            names = [row["name"] for row in await self._rows(_QUERIES.list_names, tenant.id)]
            others = f"; it has: {', '.join(names)}" if names else ", and no other"
            raise AccountError(f"tenant {tenant.name} has no list {name!r}{others}")
        return int(row["id"])

    def known_list_id(self, tenant_id: int, name: str) -> int | None:
        """The same without asking the database; None where that would be needed."""
        return self._lists.get((tenant_id, name)) if name else 0

    def known_campaign(self, tenant_id: int, name: str) -> Campaign | None:
        """A campaign without asking the database; None where that would be needed."""
        return self._campaigns.get((tenant_id, name))

    async def list_name(self, list_id: int) -> str:
        """The name of a list; empty for none."""
        if not list_id:
            return ""
        return self._list_names.get(list_id) or self._list_names.put(
            list_id, await self._name(_QUERIES.list_name, list_id)
        )

    async def campaign(self, tenant_id: int, name: str) -> Campaign:
        """A tenant's campaign, which is made where it is new. The empty name is that of mail without a campaign."""
        name = self._storable(name)
        known = self._campaigns.get((tenant_id, name))
        if known:
            return known
        sealed = self._keyring.seal("campaign", CampaignKey.generate())
        row = await self._row(_QUERIES.campaign_by_name, tenant_id, name)
        row = row or await self._row(_QUERIES.add_campaign, tenant_id, name, sealed)
        row = row or await self._row(_QUERIES.campaign_by_name, tenant_id, name)
        return self._keep(Campaign(row["id"], tenant_id, name, self._campaign_key(row["content_key"])))

    async def campaign_by_id(self, campaign_id: int) -> Campaign:
        """A campaign that queued mail belongs to; VaultError when there is none."""
        known = self._campaigns_by_id.get(campaign_id)
        if known:
            return known
        row = await self._row(_QUERIES.campaign, campaign_id)
        if row is None:
            raise VaultError("the campaign of queued mail is gone, and its key with it")
        key = self._campaign_key(row["content_key"])
        return self._keep(Campaign(campaign_id, row["tenant_id"], row["name"], key))

    def _keep(self, campaign: Campaign) -> Campaign:
        self._campaigns.put((campaign.tenant_id, campaign.name), campaign)
        return self._campaigns_by_id.put(campaign.id, campaign)

    def _campaign_key(self, sealed: bytes) -> CampaignKey:
        return CampaignKey(self._keyring.open("campaign", sealed))

    def _storable(self, name: str) -> str:
        """A name without control characters, bounded, and a keyed digest in place of anything with an address in it."""
        name = "".join(character for character in name.strip() if character.isprintable())
        if "@" in name or len(name) > _MAX_NAME:
            key = self._keyring.digest_key
            return "digest-" + hashlib.blake2b(name.encode(), digest_size=8, key=key, person=b"heed name").hexdigest()
        return name

    async def _row(self, query: str, *arguments: Any) -> Any:
        async with self._db.connection() as connection:
            return await connection.fetchrow(query, *arguments)

    async def _rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        async with self._db.connection() as connection:
            return [dict(row) for row in await connection.fetch(query, *arguments)]

    async def _name(self, query: str, number: int) -> str:
        row = await self._row(query, number)
        return row["name"] if row else ""


class PasswordCheck:
    """Compares passwords in the same time whether a user exists or not. Blocking: run it in a thread."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._nobody = self._hasher.hash(secrets.token_hex(16))

    def matches(self, credential: Credential | None, password: str) -> bool:
        """Whether this is the password; always False for no credential, after the same work."""
        try:
            self._hasher.verify(credential.secret if credential else self._nobody, password)
        except (VerificationError, InvalidHashError):
            return False
        return credential is not None
