"""The index: which scope keys are suppressed, answered in about a microsecond, from memory, in every worker.

A base file (base.py) that all workers of the node map, and over it a delta: a dict of what came since. A value of the
delta is the entry's position with the key's effect in its two lowest bits, so that what a newer base file already holds
can be dropped without looking at the log again.

All changes are made on the event loop and take O(1) per entry; only `rebuild` and `Base` files are touched in a thread.
`position` and `hash` name the last entry that is applied. Entries must come gapless and in order: ValueError if not.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import islice

from suppression.base import Base
from suppression.digest import Effect, MessageClass
from suppression.entry import Action, Step

MIN_DELTA_ENTRIES = 8_192
DELTA_SHARE = 1_024
"""A rebuild is due when the delta has more entries than both: the minimum, and the base's count over this share.
An entry of the delta costs some 110 bytes in every worker, so at 10 M entries it is 0.1 bytes an entry and worker."""

_PRUNE_AT_ONCE = 512


class Index:
    """The suppressed scope keys up to `position`."""

    def __init__(self, base: Base | None = None) -> None:
        """Empty, or on a base file."""
        self._delta: dict[int, int] = {}
        self._prunable = False
        self._use(base or Base.empty())
        self.position = self._base.position
        self.hash = self._base.hash

    def __len__(self) -> int:
        """How many keys there are, give or take those that base and delta share."""
        return len(self._base) + len(self._delta)

    @property
    def base_position(self) -> int:
        """The position of the base file in use."""
        return self._base.position

    @property
    def delta_entries(self) -> int:
        """How many entries are held outside of the base file."""
        return len(self._delta)

    def blocks(self, keys: tuple[int, ...], message_class: MessageClass) -> bool:
        """Whether any of these scope keys stops mail of this class."""
        wanted = 2 if message_class else 1
        delta_get, bitmap, byte_shift, bit_shift = self._delta.get, self._bitmap, self._byte_shift, self._bit_shift
        for key in keys:
            effect = delta_get(key)
            if effect is None:
                if bitmap[key >> byte_shift] >> (key >> bit_shift & 7) & 1 and self._in_base(key, wanted):
                    return True
            elif effect & 3 >= wanted:
                return True
        return False

    def _in_base(self, key: int, wanted: int) -> bool:
        base = self._base
        array, start = base.array, (key >> base.start_shift) + base.start_half
        end = base.starts[start + 1]
        at = bisect_left(array, key, base.starts[start], end)
        # Files hold a key once: as it is (effect 1), or with its lowest bit set (effect 2); what is above is another.
        return at < end and wanted <= array[at] - key + 1 <= 2

    def effect(self, key: int) -> Effect:
        """What this scope key stops."""
        if self.blocks((key,), MessageClass.TRANSACTIONAL):
            return Effect.ALL
        return Effect.CAMPAIGN if self.blocks((key,), MessageClass.CAMPAIGN) else Effect.NOTHING

    def apply(self, entries: Iterable[Step]) -> None:
        """Take the next entries of the log; ValueError at one that does not follow, which is not applied."""
        delta, before = self._delta, self.position
        for entry in entries:
            if entry.position != self.position + 1 or entry.previous != self.hash:
                raise ValueError(f"entry {entry.position} does not follow entry {self.position}")
            if entry.action <= Action.LIFT_BY_OPERATOR:
                # Popped first, so that the dict stays in the order of positions, which pruning relies on.
                delta.pop(entry.key, None)
                delta[entry.key] = entry.position << 2 | entry.effect
            self.position, self.hash = entry.position, entry.hash
        if self._prunable:
            self._prune(_PRUNE_AT_ONCE + 2 * (self.position - before))

    def rebuild_due(self) -> bool:
        """Whether the delta has grown so large that a new base file is worth writing."""
        return not self._prunable and len(self._delta) > max(MIN_DELTA_ENTRIES, len(self._base) // DELTA_SHARE)

    def changes(self) -> tuple[Base, int, bytes, Sequence[tuple[int, int]]]:
        """What a new base file is made of: the base, position, hash, and (key, effect) pairs over the base."""
        return self._base, self.position, self.hash, [(key, value & 3) for key, value in self._delta.items()]

    def swap(self, base: Base) -> bool:
        """Go over to a newer base file; False if it is not newer.

        A file that is ahead of what is applied here replaces everything, delta and position; the next entry that is
        applied, or the next comparison with the head, proves by its hash that the file is of the same log.
        """
        if base.position <= self._base.position:
            return False
        self._use(base)
        if base.position >= self.position:
            self._delta = {}
            self.position, self.hash, self._prunable = base.position, base.hash, False
        else:
            self._prunable = True
            self._prune(_PRUNE_AT_ONCE)
        return True

    def reset(self) -> None:
        """Forget everything: this was the index of another log."""
        self._delta = {}
        self._prunable = False
        self._use(Base.empty())
        self.position, self.hash = self._base.position, self._base.hash

    def _use(self, base: Base) -> None:
        self._base = base
        self._bitmap, self._byte_shift, self._bit_shift = base.bitmap, base.byte_shift, base.bit_shift

    def _prune(self, at_most: int) -> None:
        """Drop a bounded number of entries that the base file holds by now: 5 ms pauses would be seen in latencies."""
        upto, delta = self._base.position << 2 | 3, self._delta
        for key in list(islice(delta, at_most)):
            if delta[key] > upto:
                self._prunable = False
                return
            del delta[key]
        self._prunable = bool(delta)
