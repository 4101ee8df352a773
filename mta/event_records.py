"""Events as other programs see them: one JSON object each, with names instead of ids, the same in webhooks and files.

A recipient's address is in it only where the caller asks for it, which is for the tenant whose recipient it is. It can
be read as long as the campaign's key exists; afterwards a record has the digest alone.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from config.keyring import KeyringError
from mta.accounts import Accounts
from mta.events import Event, Events
from mta.identifiers import queue_id
from mta.vault import VaultError
from suppression.digest import Digest, MessageClass

# what campaign_by_id() and a campaign's key raise where the key is gone
_NO_KEY: Final = (VaultError, KeyringError, KeyError, TypeError, ValueError)


class Records:
    """Makes records of events."""

    def __init__(self, events: Events, accounts: Accounts, digest: Digest) -> None:
        self._events = events
        self._accounts = accounts
        self._digest = digest

    async def records(self, events: Sequence[Event], *, addresses: bool) -> list[dict[str, Any]]:
        """A record for each event. addresses: all events are one tenant's, and its recipients are named."""
        named = await self._addresses(events if addresses else [event for event in events if event.person is None])
        return [await self._record(event, named.get(event.uid), addresses=addresses) for event in events]

    async def _record(self, event: Event, address: str | None, *, addresses: bool) -> dict[str, Any]:
        record: dict[str, Any] = {
            "id": event.uid,
            "type": event.type,
            "time": _time(event.at),
            "tenant": await self._accounts.tenant_name(event.tenant_id),
            "campaign": await self._campaign_name(event.campaign_id),
            "list": await self._accounts.list_name(event.list_id),
            "class": MessageClass(event.message_class).name.lower(),
            "message": queue_id(event.message_id) if event.message_id else "",
        }
        person = self._digest.person(address) if event.person is None and address is not None else event.person
        if person is not None:
            record["recipient_id"] = f"{person & 0xFFFFFFFFFFFFFFFF:016x}"
        if addresses and address is not None:
            record["recipient"] = address
        record |= _DETAILS.get(event.type, _outcome)(event)
        if event.node:
            record["node"] = event.node
        return record

    async def _campaign_name(self, campaign_id: int) -> str:
        try:
            return (await self._accounts.campaign_by_id(campaign_id)).name if campaign_id else ""
        except _NO_KEY:
            return ""

    async def _addresses(self, events: Sequence[Event]) -> dict[str, str]:
        """Addresses by the id of the event."""
        lacking = [e for e in events if e.sealed_address is None and e.person is not None and e.message_id]
        found = await self._events.addresses(lacking[0].tenant_id, lacking) if lacking else {}
        named = {}
        for event in events:
            address = None
            if event.sealed_address is not None and event.ordinal is not None:
                address = await self._opened(event.message_id, event.campaign_id, event.ordinal, event.sealed_address)
            elif event.person is not None and (event.message_id, event.person) in found:
                address = await self._opened(event.message_id, *found[event.message_id, event.person])
            if address is not None:
                named[event.uid] = address
        return named

    async def _opened(self, message_id: int, campaign_id: int, ordinal: int, sealed: bytes) -> str | None:
        try:
            campaign = await self._accounts.campaign_by_id(campaign_id)
            return campaign.key.open_address(message_id, ordinal, sealed).address
        except _NO_KEY:
            return None


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _reception(event: Event) -> dict[str, Any]:
    return {"recipients": event.recipients, "bytes": event.bytes}


def _rejection(event: Event) -> dict[str, Any]:
    return {
        "reason": event.bounce_class,
        "reply_code": event.reply_code,
        "status": event.status,
        "diagnostic": event.diagnostic,
        "count": event.recipients,
    }


def _withdrawal(event: Event) -> dict[str, Any]:
    return {"channel": event.channel, "reason": event.reason}


def _outcome(event: Event) -> dict[str, Any]:
    details: dict[str, Any] = {
        "site": event.site,
        "attempts": event.attempts,
        "status": event.status,
        "reply_code": event.reply_code,
        "bounce_class": event.bounce_class,
        "remote_mta": event.remote_mta,
        "diagnostic": event.diagnostic,
    }
    if event.received_at is not None:
        details["queued_seconds"] = round((event.at - event.received_at).total_seconds(), 3)
    if event.attempt_ms is not None:
        details["attempt_seconds"] = event.attempt_ms / 1000
    if event.due_at is not None:
        details["next_attempt"] = _time(event.due_at)
    return details


_DETAILS: Final = {
    "Reception": _reception,
    "Rejection": _rejection,
    "Unsubscribe": _withdrawal,
    "Feedback": _withdrawal,
}
