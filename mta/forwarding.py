"""Mail that the daemon passes on or writes itself to somebody's mailbox, queued like any other.

What is passed on keeps its content as it came, and with it its signatures; it is transactional.
"""

from typing import Any

from mta.accounts import Campaign
from mta.identifiers import LANES
from mta.intake import Recipient
from mta.message import parse
from mta.parts import Parts
from mta.queue import NewMessage, NewRecipient
from mta.vault import Address, Envelope
from suppression.digest import MessageClass

OPERATOR = "heed"
"""The tenant to whom the installation's own mail belongs."""


class Forwarding:
    """Queues mail of the daemon's own. Raises DatabaseUnavailable."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lane = 0

    async def to_operator(self, content: bytes) -> None:
        """Pass on what came for postmaster or abuse, to the mailbox that the operator named."""
        mailbox = self._parts.settings.inbound.forward_to
        if mailbox is not None:
            tenant = await self._parts.accounts.add_tenant(OPERATOR, exist_ok=True)
            await self.send(tenant.id, mailbox, content)

    async def send(
        self, tenant_id: int, mailbox: str, content: bytes, *, sender: str = "", connection: Any = None
    ) -> None:
        """Queue a message of a tenant's. `sender`: who is told when it can't be delivered; nobody without one."""
        campaign = await self._parts.accounts.campaign(tenant_id, "")
        await self._parts.queue.insert([self._message(campaign, mailbox, content, sender)], connection)

    def _message(self, campaign: Campaign, mailbox: str, content: bytes, sender: str) -> NewMessage:
        parts = self._parts
        self._lane = (self._lane + 1) % LANES
        message_id = parts.ids.next(self._lane)
        recipient = Recipient(Address(mailbox, "" if sender else "NEVER"), parts.digest.person(mailbox))
        now = parts.now()
        envelope = Envelope(
            sender, smtputf8=parse(content).internationalised, eight_bit=not content.isascii(), notice=True
        )
        return NewMessage(
            message_id,
            campaign.tenant_id,
            0,
            campaign.id,
            MessageClass.TRANSACTIONAL,
            now,
            now + parts.settings.delivery.lifetime_seconds,
            campaign.key.seal_envelope(message_id, envelope),
            campaign.key.seal_content(message_id, content),
            [NewRecipient(0, recipient.person, campaign.key.seal_address(message_id, 0, recipient.address), 0)],
        )
