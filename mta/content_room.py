"""Room for content on its way in: how much of it the connections of a listener may hold together.

Content counts from its first octet until it is committed or refused. What one message may add to a full room is bounded
by the largest message that is allowed, so that memory is bounded by both together.
"""

from typing import Final

NO_ROOM: Final = ("452 4.3.1 Too much mail on its way in, try again later", "memory")
"""The reply (RFC 5321 §4.2.2) and the reason that is counted."""


class ContentRoom:
    """What all connections hold together, in octets."""

    def __init__(self, max_octets: int) -> None:
        self.octets = 0
        self._max_octets = max_octets

    def full(self, coming: int = 0) -> bool:
        """Whether there is no room for content of which so many octets are announced."""
        return self.octets + coming > self._max_octets


class ContentShare:
    """What one connection holds of it."""

    def __init__(self, room: ContentRoom) -> None:
        self._room = room
        self._octets = 0

    def hold(self, octets: int) -> None:
        """So many octets are held from now on."""
        self._room.octets += octets - self._octets
        self._octets = octets

    def crowded_out(self) -> bool:
        """Whether the others alone hold as much as there is room for."""
        return self._room.full(-self._octets)
