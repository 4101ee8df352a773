"""What the subscriber's page may say about a token: who sent, which list, and the address masked, while it is known.

The address is known only as long as its recipient is queued; afterwards the page does without. Raises
DatabaseUnavailable.
"""

from mta.parts import Parts
from mta.vault import VaultError
from suppression.page import Description, mask
from suppression.tokens import Token


class Descriptions:
    """Resolves tokens for the page."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def describe(self, token: Token) -> Description | None:
        """Sender, list, masked address and partners of a token."""
        accounts = self._parts.accounts
        return Description(
            await accounts.tenant_name(token.tenant_id),
            await accounts.list_name(token.list_id),
            await self._masked(token),
            await self._partners(token.tenant_id),
        )

    async def _partners(self, tenant_id: int) -> str:
        others = [each for each in self._parts.scopes.partners(tenant_id) if each != tenant_id]
        return ", ".join([await self._parts.accounts.tenant_name(each) for each in others])

    async def _masked(self, token: Token) -> str:
        found = await self._parts.queue.person_of(token.message_id, token.person)
        if found is None:
            return ""
        ordinal, sealed = found
        campaign = await self._parts.accounts.campaign_by_id(token.campaign_id)
        try:
            return mask(campaign.key.open_address(token.message_id, ordinal, sealed).address)
        except VaultError:
            return ""
