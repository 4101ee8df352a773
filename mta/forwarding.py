"""Mail to postmaster and abuse, passed on to the mailbox that the operator named: content as it came, queued like any.

The forwarded message belongs to the installation's own tenant, is transactional, and keeps its signatures.
"""

from mta.identifiers import LANES
from mta.intake import Recipient
from mta.parts import Parts
from mta.queue import NewMessage, NewRecipient
from mta.vault import Address, Envelope
from suppression.digest import MessageClass

OPERATOR = "heed"
"""The tenant to whom the installation's own mail belongs."""


class Forwarding:
    """Queues forwarded mail."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lane = 0

    async def forward(self, content: bytes) -> None:
        """Commit a message for the operator's mailbox. Raises DatabaseUnavailable."""
        mailbox = self._parts.settings.inbound.forward_to
        if mailbox is None:
            return
        parts = self._parts
        tenant = await parts.accounts.add_tenant(OPERATOR, exist_ok=True)
        campaign = await parts.accounts.campaign(tenant.id, "")
        self._lane = (self._lane + 1) % LANES
        message_id = parts.ids.next(self._lane)
        recipient = Recipient(Address(mailbox, "NEVER"), parts.digest.person(mailbox))
        now = parts.now()
        envelope = Envelope("", eight_bit=not content.isascii(), notice=True)
        message = NewMessage(
            message_id,
            tenant.id,
            0,
            campaign.id,
            MessageClass.TRANSACTIONAL,
            now,
            now + parts.settings.delivery.lifetime_seconds,
            campaign.key.seal_envelope(message_id, envelope),
            campaign.key.seal_content(message_id, content),
            [NewRecipient(0, recipient.person, campaign.key.seal_address(message_id, 0, recipient.address), 0)],
        )
        await parts.queue.insert([message])
