"""Scopes: which scope keys can stop a recipient's mail, by digest and by the groups that tenants have joined.

A tenant is in one group at most, and for ever, so that memberships only grow. Keys are computed once a recipient; who
keeps them longer keeps `position` beside them, and computes them anew when a tenant has joined a group since.
Filled by the watch before a watermark is confirmed: whatever joined before the watermark is known here.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from suppression.digest import Digest


class Member(NamedTuple):
    """A tenant of a group, since an entry of the log."""

    position: int
    at: datetime
    tenant_id: int
    group_id: int


class Scopes:
    """Scope keys, as far as the memberships are known."""

    def __init__(self, digest: Digest) -> None:
        self.position = 0
        self._keys = digest.keys
        self._groups: Mapping[int, int] = {}
        self._members: Mapping[int, Member] = {}

    def learn(self, members: Iterable[Member]) -> None:
        """These are all members of all groups."""
        self._members = {member.tenant_id: member for member in members}
        self._groups = {tenant_id: member.group_id for tenant_id, member in self._members.items()}
        self.position = max((member.position for member in self._members.values()), default=0)

    def group_of(self, tenant_id: int, at: float | None = None) -> int:
        """The id of a tenant's group, now or at a time in epoch seconds; 0 for none."""
        member = self._members.get(tenant_id)
        return member.group_id if member and (at is None or member.at.timestamp() < at) else 0

    def partners(self, tenant_id: int) -> list[int]:
        """The tenants of its group, itself too; nobody without a group."""
        group_id = self.group_of(tenant_id)
        return sorted(each for each, group in self._groups.items() if group == group_id) if group_id else []

    def keys(self, person: int, tenant_id: int, list_id: int) -> tuple[int, ...]:
        """Every scope key that can stop mail of this tenant and list to this person."""
        return self._keys(person, tenant_id, list_id, self._groups.get(tenant_id, 0))

    def keys_at(self, at: float, person: int, tenant_id: int, list_id: int) -> tuple[int, ...]:
        """Those that could at a time."""
        return self._keys(person, tenant_id, list_id, self.group_of(tenant_id, at))
