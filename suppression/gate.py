"""The gate: the last question before content is handed to a socket (S1), answered without waiting.

Open only when the watermark is fresh, nobody holds the gate, and no scope key stops the recipient. There is no way
around it: whatever is unknown is closed.
"""

from enum import Enum

from suppression.digest import MessageClass
from suppression.index import Index
from suppression.watch import Watch


class Verdict(Enum):
    """What may be done with a recipient now. STALE is about us, not about the recipient: defer, and ask again."""

    OPEN = "open"
    SUPPRESSED = "suppressed"
    STALE = "stale"


class Gate:
    """Decides for one worker."""

    def __init__(self, index: Index, watch: Watch) -> None:
        self._blocks = index.blocks
        self._fresh = watch.fresh
        self._holds: dict[str, bool] = {}

    def fresh(self) -> bool:
        """Whether it is open for anybody at all."""
        return self._fresh()

    def allows(self, keys: tuple[int, ...], message_class: MessageClass) -> Verdict:
        """Whether a message of this class may go to the person of these scope keys, at this moment."""
        if not self._fresh() or (self._holds and self._held(message_class)):
            return Verdict.STALE
        return Verdict.SUPPRESSED if self._blocks(keys, message_class) else Verdict.OPEN

    def hold(self, reason: str, *, campaigns_only: bool = False) -> None:
        """Keep the gate closed until `release` is called with the same reason."""
        self._holds[reason] = campaigns_only

    def release(self, reason: str) -> None:
        """Take back one hold; nothing happens when there is none."""
        self._holds.pop(reason, None)

    @property
    def holds(self) -> tuple[str, ...]:
        """Why the gate is held, for /readyz."""
        return tuple(self._holds)

    def _held(self, message_class: MessageClass) -> bool:
        return any(
            not campaigns_only or message_class is MessageClass.CAMPAIGN for campaigns_only in self._holds.values()
        )
