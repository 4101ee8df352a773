"""Verifying the whole log: that it is gapless, that every hash is right, and that what is in force follows from it.

Streams; memory is bounded by one batch. Names the first entry that is broken and what is wrong with it. Raises
DatabaseUnavailable.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from suppression.digest import Digest
from suppression.entry import GENESIS, Action, Entry
from suppression.heads import signature_fault
from suppression.log import SuppressionLog

BATCH_ENTRIES: Final = 5_000


@dataclass(frozen=True, slots=True)
class Verification:
    """The result. `broken_position` is 0 when all is well; `hash`: of the last entry that was good."""

    entries: int
    hash: bytes
    broken_position: int = 0
    reason: str = ""

    @property
    def intact(self) -> bool:
        """Whether nothing was found."""
        return not self.broken_position


def check(
    entries: Iterable[Entry], position: int, digest: bytes, keys: Digest, public_key: bytes | None = None
) -> Verification:
    """Check entries that must follow the entry at `position` with hash `digest`; stops at the first that does not."""
    for entry in entries:
        reason = _fault(entry, position + 1, digest, keys, public_key)
        if reason:
            return Verification(position, digest, position + 1, reason)
        position, digest = entry.position, entry.hash
    return Verification(position, digest)


def _fault(entry: Entry, position: int, previous: bytes, keys: Digest, public_key: bytes | None) -> str:
    if entry.position != position:
        return f"missing: the log goes on at {entry.position}"
    if entry.previous != previous:
        return "does not follow the entry before it"
    if entry.computed_hash() != entry.hash:
        return "changed: its hash is not that of its content"
    if entry.action is Action.SIGNED_HEAD or entry.scope is None:
        return signature_fault(entry, public_key)
    if entry.key != keys.key(entry.scope, entry.person, entry.tenant_id, entry.list_id):
        return "its key is not that of its person and scope"
    return ""


async def verify_log(
    log: SuppressionLog,
    digest: Digest,
    progress: Callable[[int, int], None] | None = None,
    *,
    public_key: bytes | None = None,
) -> Verification:
    """Check every entry up to the head as it is now; `progress` gets (checked, all).

    `public_key`: the one that signed heads must be signed with; without it, with the one that they name.
    """
    head, head_hash = await log.head()
    so_far = Verification(0, GENESIS)
    while so_far.entries < head:
        batch = await log.read_after(so_far.entries, min(BATCH_ENTRIES, head - so_far.entries))
        if not batch:
            return Verification(so_far.entries, so_far.hash, so_far.entries + 1, f"missing: the head is at {head}")
        so_far = check(batch, so_far.entries, so_far.hash, digest, public_key)
        if progress is not None:
            progress(so_far.entries, head)
        if not so_far.intact:
            return so_far
    if so_far.hash != head_hash:
        return Verification(head - 1, so_far.hash, head, "is not the one that the head names")
    return await _check_state(log, so_far)


async def _check_state(log: SuppressionLog, so_far: Verification) -> Verification:
    """What is in force must be what the log put in force and did not lift; else the index would be built from lies."""
    checks = (log.first_out_of_force, "what is in force"), (log.first_join_out_of_force, "the groups' members")
    for first_wrong, what in checks:
        wrong = await first_wrong(so_far.entries)
        if wrong is not None:
            return Verification(so_far.entries, so_far.hash, wrong, f"the table of {what} does not follow from it")
    return so_far
