"""Leases on their way to a site: what waits for the route of its domain, and the routes that are known.

One look-up for all that wait for a domain, a bounded number at once. A failure is one outcome for all of them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from bounce.outcome import BounceClass, Outcome
from bounce.trouble import routing
from config.log import LOG
from mta.lease import Lease
from mta.routing import Route, Router

# domains whose route is looked up at once
_LOOKUPS: Final = 100
_MOST_ROUTES: Final = 50_000


class Crossroads:
    """Finds the routes of one worker's leases."""

    def __init__(
        self,
        router: Router,
        *,
        place: Callable[[Lease, Route], bool],
        unroutable: Callable[[Lease, Outcome], None],
        spawn: Callable[[Awaitable[None]], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`place` and `unroutable` get each lease once its route, or that there is none, is known."""
        self._router = router
        self._place = place
        self._unroutable = unroutable
        self._spawn = spawn
        self._now = now
        self._routes: dict[str, Route] = {}
        self._waiting: dict[str, list[Lease]] = {}
        self._lookups = asyncio.Semaphore(_LOOKUPS)

    def send(self, lease: Lease) -> bool:
        """Place a lease, at once where the route is known; False when there was no room for it at its site."""
        domain = lease.domain
        route = self._routes.get(domain)
        if route is not None and route.expires_at > self._now():
            return self._place(lease, route)
        waiting = self._waiting.get(domain)
        if waiting is not None:
            waiting.append(lease)
        else:
            self._waiting[domain] = [lease]
            self._spawn(self._look_up(domain))
        return True

    def site_of(self, domain: str) -> str:
        """The site that mail for a domain goes to as far as is known, or ""."""
        route = self._routes.get(domain)
        return route.site if route and route.expires_at > self._now() else ""

    def __iter__(self) -> Iterator[Lease]:
        for leases in self._waiting.values():
            yield from leases

    async def _look_up(self, domain: str) -> None:
        """Find the route of a domain for all that wait for it."""
        try:
            async with self._lookups:
                found = await self._router.route(domain)
        except Exception as error:
            LOG.error("routing failed", error=type(error).__name__)
            found = routing("4.4.3", "internal error while routing", BounceClass.SYSTEM)
        leases = self._waiting.pop(domain)
        if isinstance(found, Outcome):
            for lease in leases:
                self._unroutable(lease, found)
            return
        if len(self._routes) > _MOST_ROUTES:
            self._routes.clear()
        self._routes[domain] = found
        for lease in leases:
            self._place(lease, found)
