"""AUTH: compares passwords off the event loop, remembers successes shortly, and slows down guessing.

Unknown users cost the same as known ones. Failures are counted per client address; past the limit every attempt from
there is refused unseen until a minute has passed. Raises CommandError with 421, DatabaseUnavailable.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Final

from mta.accounts import Accounts, Cache, Credential, PasswordCheck
from mta.commands import CommandError

# argon2 takes 64 MiB and some 50 ms: more at once would only swap and starve
_AT_ONCE: Final = 2
_REMEMBER_SECONDS: Final = 60.0
_WINDOW_SECONDS: Final = 60.0
_ADDRESSES: Final = 10_000
# times the failures of a peer, for all of a network together
_PEERS: Final = 10


class Passwords:
    """Checks credentials for the submission listener."""

    def __init__(
        self, accounts: Accounts, failures_per_minute: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._accounts = accounts
        self._limit = failures_per_minute
        self._clock = clock
        self._check = PasswordCheck()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._salt = secrets.token_bytes(16)
        self._known: Cache[bytes, tuple[float, Credential]] = Cache(1_000)
        self._failures: Cache[str, tuple[float, int]] = Cache(_ADDRESSES)

    async def check(self, peer: str, username: str, password: str, *, network: str = "") -> Credential | None:
        """The credential, if the password is right. `network`: what the peer is one of, where peers cost nothing."""
        now = self._clock()
        self._refuse_guessers(peer, network)
        # a digest with a salt of this process: the password itself is not kept
        mark = hashlib.blake2b(f"{username}\0{password}".encode(), key=self._salt).digest()
        known = self._known.get(mark)
        if known is not None and now - known[0] < _REMEMBER_SECONDS:
            return known[1]
        credential = await self._accounts.credential(username) if username else None
        async with self._slots:
            self._refuse_guessers(peer, network)  # others of this address may have failed while this one waited
            right = await asyncio.to_thread(self._check.matches, credential, password)
            if not right:
                for guesser in filter(None, (peer, network)):
                    since, failures = self._recent(guesser)
                    self._failures.put(guesser, (since, failures + 1))
        if right and credential is not None:
            self._known.put(mark, (now, credential))
            return credential
        return None

    def _recent(self, peer: str) -> tuple[float, int]:
        """When the present minute of an address began, and its failures since."""
        now = self._clock()
        since, failures = self._failures.get(peer) or (now, 0)
        return (now, 0) if now - since > _WINDOW_SECONDS else (since, failures)

    def _refuse_guessers(self, peer: str, network: str) -> None:
        many = bool(network) and self._recent(network)[1] >= self._limit * _PEERS
        if many or self._recent(peer)[1] >= self._limit:
            raise CommandError("421 4.7.0 Too many failures, try again later", "authentication")
