"""Delivery status notifications to envelope senders: which are owed was decided with the outcome (lease.py).

A notice is a message of our own, queued in the same transaction as the state that it reports. It has the null
reverse-path, so that nothing is ever reported about it. Raises DatabaseUnavailable.
"""

import time
from collections.abc import Callable, Sequence

from bounce.outcome import Action
from config.log import LOG
from mta.accounts import Accounts
from mta.dsn import DsnError, Report, compose
from mta.identifiers import LANES, MessageIds, queue_id
from mta.message import parse
from mta.queue import Completion, NewMessage, NewRecipient, Queue, StoredMessage
from mta.vault import Address, Envelope, VaultError
from suppression.digest import AddressError, Digest, MessageClass

# recipients of one message that are reported in one notice
_PER_NOTICE = 100


class Notices:
    """Composes notices, and makes messages for the queue of them."""

    def __init__(
        self,
        queue: Queue,
        accounts: Accounts,
        digest: Digest,
        ids: MessageIds,
        *,
        hostname: str,
        lifetime_seconds: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._accounts = accounts
        self._digest = digest
        self._ids = ids
        self._hostname = hostname
        self._lifetime = lifetime_seconds
        self._now = now
        self._lane = 0

    async def compose(self, owed: Sequence[Completion]) -> list[tuple[Sequence[Completion], NewMessage]]:
        """One notice for each message and action, with the completions that it reports."""
        groups: dict[tuple[int, str], list[Completion]] = {}
        for completion in owed:
            groups.setdefault((completion.message_id, completion.notice), []).append(completion)
        notices: list[tuple[Sequence[Completion], NewMessage]] = []
        for (message_id, _), completions in groups.items():
            stored = await self._queue.content(message_id)
            if stored is None:
                continue
            for start in range(0, len(completions), _PER_NOTICE):
                about = completions[start : start + _PER_NOTICE]
                notice = await self._notice(message_id, stored, about)
                if notice is not None:
                    notices.append((about, notice))
        return notices

    async def _notice(self, message_id: int, stored: StoredMessage, about: Sequence[Completion]) -> NewMessage | None:
        campaign = await self._accounts.campaign_by_id(stored.campaign_id)
        try:
            envelope = campaign.key.open_envelope(message_id, stored.sealed_envelope)
            if not envelope.sender:
                return None
            sealed = await self._queue.addresses(message_id, [completion.ordinal for completion in about])
            reports = [
                _report(completion, campaign.key.open_address(message_id, completion.ordinal, address), stored)
                for completion in about
                if (address := sealed.get(completion.ordinal)) is not None
            ]
            if not reports:  # said before: what stands in a dead worker's journal may be in the database already
                return None
            text = compose(
                hostname=self._hostname,
                sender=envelope.sender,
                reports=reports,
                original=campaign.key.open_content(message_id, stored.sealed_content),
                ret=envelope.ret,
                envid=envelope.envid,
                queue_id=queue_id(message_id),
                received_at=stored.received_at,
                now=self._now(),
                smtputf8=envelope.smtputf8,
            )
            return await self._message(stored.tenant_id, envelope, text)
        except (DsnError, VaultError, AddressError) as error:
            LOG.warning("a notice can't be written", message=queue_id(message_id), error=type(error).__name__)
            return None

    async def _message(self, tenant_id: int, original: Envelope, text: bytes) -> NewMessage:
        campaign = await self._accounts.campaign(tenant_id, "")
        self._lane = (self._lane + 1) % LANES
        message_id = self._ids.next(self._lane)
        now = self._now()
        envelope = Envelope("", smtputf8=parse(text).internationalised, eight_bit=not text.isascii(), notice=True)
        address = campaign.key.seal_address(message_id, 0, Address(original.sender, "NEVER"))
        return NewMessage(
            message_id,
            tenant_id,
            0,
            campaign.id,
            MessageClass.TRANSACTIONAL,
            now,
            now + self._lifetime,
            campaign.key.seal_envelope(message_id, envelope),
            campaign.key.seal_content(message_id, text),
            [NewRecipient(0, self._digest.person(original.sender), address, 0)],
        )


def _report(completion: Completion, address: Address, stored: StoredMessage) -> Report:
    assert completion.outcome is not None
    return Report(
        address.address,
        Action(completion.notice),
        completion.outcome,
        address.orcpt,
        attempted_at=completion.at,
        retry_until=stored.expires_at,
    )
