"""Groups: tenants that share one policy; an unsubscribe from everything that one of them offers binds them all.

Joining is an entry of the suppression log, so that it is in order with what was said, and provable. It is for ever:
what was said to the group before binds the new member, and what was said since must not end with its leaving. Raises
DatabaseUnavailable, `GroupError`.
"""

import re
from dataclasses import dataclass
from typing import Final

from config.database import Database, load_queries
from config.failure import Failed, WrongUse
from suppression.entry import Entry
from suppression.log import SuppressionLog
from suppression.scopes import Member

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

_QUERIES = load_queries("suppression", "groups.sql")


class GroupError(Failed):
    """A request that can't be met; the text says why."""


class MalformedGroup(GroupError, WrongUse):
    """A name that no group could have."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group and the names of its tenants."""

    id: int
    name: str
    tenants: tuple[str, ...] = ()


class Groups:
    """The groups of an installation."""

    def __init__(self, database: Database, log: SuppressionLog) -> None:
        self._database = database
        self._log = log

    async def add(self, name: str) -> Group:
        """Make a group."""
        if not NAME.fullmatch(name):
            raise MalformedGroup(f"{name!r}: a group's name is 1 to 63 letters, digits, dots, dashes and underscores")
        async with self._database.connection() as connection:
            made = await connection.fetchval(_QUERIES.add, name)
        if made is None:
            raise GroupError(f"group {name!r} exists already")
        return Group(made, name)

    async def all(self) -> list[Group]:
        """Every group, by name."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_QUERIES.all)
        return [Group(row["id"], row["name"], tuple(row["tenants"])) for row in rows]

    async def by_name(self, name: str) -> Group:
        """The group of a name."""
        found = [group for group in await self.all() if group.name == name]
        if not found:
            raise GroupError(f"there is no group {name!r}; `heed group add {name}` makes one")
        return found[0]

    async def name(self, group_id: int) -> str:
        """The name of a group; its number where it has none any more."""
        return next((group.name for group in await self.all() if group.id == group_id), str(group_id))

    async def join(self, group: Group, tenant_id: int, actor: str, reason: str) -> Entry | None:
        """Let a tenant join; None when it is in the group already. In force on every worker as a suppression is."""
        try:
            async with self._log.appending() as appending:
                return await appending.join(tenant_id, group.id, actor, reason)
        except ValueError as error:
            raise GroupError(str(error)) from None

    async def members(self) -> list[Member]:
        """Which tenants are in which groups."""
        async with self._database.connection() as connection:
            return [Member(*row) for row in await connection.fetch(_QUERIES.members)]
