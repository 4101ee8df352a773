"""The queue's summary: its rows counted by tenant, list, campaign, state and site, every few seconds, by one node.

Counting a million recipients takes a second or so; questions are answered from the last count instead, and say how old
it is. Counts that take longer come less often, so that they never take more than a fortieth of one connection's time.
Raises DatabaseUnavailable.
"""

import time
from typing import Any, Final

from config.database import Database, load_queries

_QUERIES: Final = load_queries("mta", "summary.sql")
SOONEST_SECONDS: Final = 5.0
_TIMES: Final = 40.0
_AT_ONCE_SECONDS: Final = 0.15
_LONGEST_SECONDS: Final = 120.0
STATES: Final = ("queued", "leased", "held")


class Summary:
    """What is queued, as last counted."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def refresh(self, soonest_seconds: float = SOONEST_SECONDS) -> bool:
        """Count, if it is time and no other node does; whether it was done."""
        return await self._count(_QUERIES.turn, soonest_seconds, _TIMES)

    async def refresh_now(self) -> bool:
        """Count now for a command, if that takes no time that anybody would notice; whether it was done."""
        return await self._count(_QUERIES.turn_now, _AT_ONCE_SECONDS)

    async def _count(self, turn: str, *arguments: float) -> bool:
        async with self._db.transaction() as connection:
            if await connection.fetchval(turn, *arguments) is None:
                return False
            started = time.perf_counter()
            await connection.execute(_QUERIES.forget)
            await connection.execute(_QUERIES.count, timeout=_LONGEST_SECONDS)
            await connection.execute(_QUERIES.counted, time.perf_counter() - started)
            return True

    async def age_seconds(self) -> float:
        """How old the counts are."""
        async with self._db.connection() as connection:
            return float(await connection.fetchval(_QUERIES.age))

    async def totals(self) -> dict[str, dict[str, Any]]:
        """Recipients by the name of their state, with the next attempt and the oldest message."""
        return {STATES[row["state"]]: row for row in await self._rows(_QUERIES.totals)}

    async def overview(
        self, most: int, *, tenant: str = "", campaign: str = "", list_name: str = "", site: str = "", state: str = ""
    ) -> list[dict[str, Any]]:
        """What is queued, in groups, the largest first; a campaign by name or id."""
        number = STATES.index(state) if state else -1
        rows = await self._rows(_QUERIES.overview, tenant, campaign, list_name, site, number, most)
        return [{**row, "state": STATES[row["state"]]} for row in rows]

    async def unknown(self, *, tenant: str, campaign: str, list_name: str) -> str:
        """Which of these names nothing has, "tenant", "campaign" or "list"; empty where each is empty or known."""
        [known] = await self._rows(_QUERIES.known, tenant, campaign, list_name)
        return next((kind for kind, there in known.items() if not there), "")

    async def campaigns(self, most: int, *, tenant: str = "", campaign_id: int = 0) -> list[dict[str, Any]]:
        """Campaigns with what is queued of them."""
        return await self._rows(_QUERIES.campaigns, tenant, campaign_id, most)

    async def sites(self, most: int) -> list[dict[str, Any]]:
        """Sites with what is queued for them."""
        return await self._rows(_QUERIES.sites, most)

    async def _rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        async with self._db.connection() as connection:
            return [dict(row) for row in await connection.fetch(query, *arguments)]
