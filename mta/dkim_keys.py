"""The tenants' DKIM keys: sealed in the database, opened in memory.

Mail of a domain is signed with the newest RSA and the newest Ed25519 key of the closest domain that has any: its own,
or a parent down to the organisational domain, which DMARC counts as aligned (RFC 7489 §3.1.1). A key is used within
`ttl_seconds` of its creation by every node, and as long after its retirement: its DNS record must outlive that.
Raises DatabaseUnavailable; DkimKeyError for what can't be stored; SigningError for a stored key that can't be used, so
that mail waits instead of going unsigned (K1).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache

import asyncpg
from publicsuffixlist import PublicSuffixList

from config.database import Database, load_queries
from config.keyring import Keyring, KeyringError
from mta.message import domain_name
from mta.shared_cache import Entry, SharedCache
from mta.signing import ALGORITHMS, RSA_SHA256, SigningError, SigningKey, generate, load

TTL_SECONDS = 60.0
UNKNOWN_TTL_SECONDS = 5.0
"""How long a domain without keys is taken to have none: shorter, since somebody may be waiting for their first one."""

FIRST_SELECTOR = "heed"
"""Of keys that the daemon makes itself; a second tenant's for the same domain has the tenant's number behind it."""

_CAPACITY = 10_000
_PURPOSE = "dkim"
_QUERIES = load_queries("mta", "dkim_keys.sql")


class DkimKeyError(SigningError):
    """A key that can't be stored: its selector is taken, or there is no such tenant."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is known of a key without opening it. `dns_record` makes its DNS record."""

    tenant_id: int
    domain: str
    selector: str
    algorithm: str
    public_key: bytes = field(repr=False)
    created_at: datetime
    retired_at: datetime | None

    @property
    def name(self) -> str:
        """Where the public key is published."""
        return f"{self.selector}._domainkey.{self.domain}"


class DkimKeys:
    """Keys by tenant and domain. `now` is a clock in seconds that only goes forward."""

    def __init__(
        self, database: Database, keyring: Keyring, now: Callable[[], float], *, ttl_seconds: float = TTL_SECONDS
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._now = now
        self._ttl_seconds = ttl_seconds
        self._cache: SharedCache[tuple[SigningKey, ...]] = SharedCache(_CAPACITY, now)
        self._generation = 0

    async def add(self, tenant_id: int, key: SigningKey) -> None:
        """Store a key and sign with it from now on."""
        sealed = self._keyring.seal(_PURPOSE, key.pkcs8())
        try:
            async with self._database.connection() as connection:
                added = await connection.fetchval(
                    _QUERIES.add, tenant_id, key.domain, key.selector, key.algorithm, sealed, key.public_key
                )
        except asyncpg.ForeignKeyViolationError:
            raise DkimKeyError("there is no such tenant") from None
        self._generation += 1
        if added is None:
            raise DkimKeyError(f"{key.name}: the selector was used before; choose another one")

    async def create(self, tenant_id: int, domain: str) -> tuple[SigningKey, ...]:
        """A first RSA key for a domain; where another process made one meanwhile, that one.

        DkimKeyError when the domain had one that was retired: to begin again is a person's decision.
        """
        if any(record.domain == domain and record.retired_at for record in await self.listed(tenant_id)):
            raise DkimKeyError(f"the key of {domain} was retired: make another one")
        for selector in (FIRST_SELECTOR, f"{FIRST_SELECTOR}-{tenant_id}"):
            with suppress(DkimKeyError):  # whoever was first may have made it for this tenant
                await self.add(tenant_id, await asyncio.to_thread(generate, domain, selector, RSA_SHA256))
            if keys := await self.for_domain(tenant_id, domain):
                return keys
        raise DkimKeyError(f"no selector is left for a key of {domain}")

    async def listed(self, tenant_id: int | None = None) -> list[KeyRecord]:
        """A tenant's keys, or all; retired ones too."""
        async with self._database.connection() as connection:
            return [KeyRecord(**row) for row in await connection.fetch(_QUERIES.listed, tenant_id)]

    async def retire(self, tenant_id: int, domain: str, selector: str) -> bool:
        """Sign no more with a key; False when there is none, or it is retired already."""
        async with self._database.connection() as connection:
            retired = await connection.fetchval(_QUERIES.retire, tenant_id, domain, selector)
        self._generation += 1
        return retired is not None

    async def for_domain(self, tenant_id: int, domain: str) -> tuple[SigningKey, ...]:
        """The keys that sign this tenant's mail of a domain, RSA first; none where it has none."""
        name = domain_name(domain)
        if name is None:
            return ()

        async def fetch(_: str) -> Entry[tuple[SigningKey, ...]]:
            keys = await self._fetch(tenant_id, name)
            return Entry(keys, self._now() + (self._ttl_seconds if keys else UNKNOWN_TTL_SECONDS))

        # What this process changed itself it sees at once; the entries of former generations age out.
        entry = await self._cache.get(f"{self._generation} {tenant_id} {name}", fetch)
        return entry.value

    async def close(self) -> None:
        """End what is under way."""
        await self._cache.close()

    async def _fetch(self, tenant_id: int, domain: str) -> tuple[SigningKey, ...]:
        candidates = signing_domains(domain)
        async with self._database.connection() as connection:
            rows = await connection.fetch(_QUERIES.in_use, tenant_id, candidates)
        chosen = chosen_keys(candidates, [(row["domain"], row["selector"], row["algorithm"]) for row in rows])
        return tuple([self._opened(rows[position]) for position in chosen])

    def _opened(self, row: asyncpg.Record) -> SigningKey:
        try:
            private = self._keyring.open(_PURPOSE, row["private_key"])
        except KeyringError as error:
            raise SigningError(f"{row['selector']}._domainkey.{row['domain']}: {error}") from None
        return load(row["domain"], row["selector"], row["algorithm"], private)


def signing_domains(domain: str) -> list[str]:
    """The domain and its parents down to the organisational one, closest first."""
    shortest = _suffixes().privatesuffix(domain) or domain
    labels = domain.split(".")
    parents = [".".join(labels[start:]) for start in range(len(labels))]
    return [parent for parent in parents if len(parent) >= len(shortest)]


def chosen_keys(candidates: list[str], found: list[tuple[str, str, str]]) -> list[int]:
    """Positions of the keys to sign with, among (domain, selector, algorithm) rows, newest first."""
    closest = next((domain for domain in candidates if any(row[0] == domain for row in found)), None)
    algorithms = [algorithm if domain == closest else None for domain, _, algorithm in found]
    return [algorithms.index(algorithm) for algorithm in ALGORITHMS if algorithm in algorithms]


@cache
def _suffixes() -> PublicSuffixList:
    """The list that comes with the package; it takes a tenth of a second to read."""
    return PublicSuffixList()
