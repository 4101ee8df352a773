"""What the messages of this worker's leases say: made ready once each, kept while there is room, read again if not.

A message comes in with its submission, or from the queue when the turn of a claimed recipient has come. Memory is
bounded in bytes. Raises Unsignable (K1), RenderError, VaultError, Gone; DatabaseUnavailable.
"""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

from metrics import registry
from mta.accounts import Accounts
from mta.dkim_keys import DkimKeys
from mta.identifiers import queue_id
from mta.intake import Stored
from mta.message import Message
from mta.queue import Queue
from mta.render import Rendered, Renderer, Template, readable
from mta.signing import SigningKey
from mta.vault import Envelope
from suppression.digest import MessageClass


class Unsignable(Exception):
    """The message should be signed and can't be."""


class Gone(Exception):
    """The message is not in the queue any more."""


@dataclass(frozen=True, slots=True)
class Content:
    """A message ready for rendering, with its envelope."""

    template: Template
    envelope: Envelope

    @property
    def size(self) -> int:
        """Octets in memory, about."""
        return self.template.size


@dataclass(frozen=True, slots=True)
class Attribution:
    """Whose message it is."""

    tenant_id: int
    list_id: int
    campaign_id: int
    message_class: MessageClass
    received_at: float


class Contents:
    """Prepared messages by id, the last used ones, up to max_bytes; those not yet prepared count too."""

    def __init__(
        self,
        queue: Queue,
        accounts: Accounts,
        keys: DkimKeys,
        renderer: Renderer,
        *,
        max_bytes: int,
        signing_required: bool,
        create_keys: bool,
    ) -> None:
        self._queue = queue
        self._accounts = accounts
        self._keys = keys
        self._renderer = renderer
        self._max_bytes = max_bytes
        self._signing_required = signing_required
        self._create_keys = create_keys
        self._entries: OrderedDict[int, Content | Stored] = OrderedDict()
        self._loading: dict[int, asyncio.Task[Content]] = {}
        self._bytes = 0

    def put(self, stored: Stored) -> None:
        """Keep a message that was committed just now."""
        self._keep(stored.message_id, stored)

    def discard(self, message_id: int) -> None:
        """The message is not needed here any more."""
        entry = self._entries.pop(message_id, None)
        if entry is not None:
            self._bytes -= _size(entry)

    @property
    def held_bytes(self) -> int:
        """Octets of content in memory."""
        return self._bytes

    async def get(self, message_id: int) -> Content:
        """The message, from memory or from the queue; concurrent calls share the work."""
        entry = self._entries.get(message_id)
        if isinstance(entry, Content):
            return entry
        if entry is not None and len(entry.leased) == 1:  # nobody to share with, now or later
            self.discard(message_id)
            return await self._made_ready(message_id, entry)
        task = self._loading.get(message_id)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._load(message_id, entry))
            self._loading[message_id] = task
            task.add_done_callback(lambda _: self._loading.pop(message_id, None))
        return await asyncio.shield(task)

    def render(self, content: Content, person: int) -> Rendered:
        """One recipient's mail."""
        started = time.perf_counter()
        rendered = self._renderer.render(content.template, person)
        registry.signing_seconds.observe(time.perf_counter() - started)
        return rendered

    async def _load(self, message_id: int, entry: Stored | None) -> Content:
        content = await self._made_ready(message_id, entry)
        self.discard(message_id)
        self._keep(message_id, content)
        return content

    async def _made_ready(self, message_id: int, entry: Stored | None) -> Content:
        if entry is not None:
            submission = entry.submission
            message, envelope = submission.message or readable(submission.raw), submission.envelope
            whose = _attribution(entry)
        else:
            raw, envelope, whose = await self._read(message_id)
            message = readable(raw)
        return Content(await self._prepared(message_id, message, envelope, whose), envelope)

    async def _read(self, message_id: int) -> tuple[bytes, Envelope, Attribution]:
        stored = await self._queue.content(message_id)
        if stored is None:
            raise Gone
        key = (await self._accounts.campaign_by_id(stored.campaign_id)).key
        raw = key.open_content(message_id, stored.sealed_content)
        whose = Attribution(
            stored.tenant_id, stored.list_id, stored.campaign_id, stored.message_class, stored.received_at
        )
        return raw, key.open_envelope(message_id, stored.sealed_envelope), whose

    async def _prepared(self, message_id: int, message: Message, envelope: Envelope, whose: Attribution) -> Template:
        keys = await self._signing_keys(message, whose.tenant_id, envelope)
        campaign = await self._accounts.campaign_by_id(whose.campaign_id)
        campaign_mail = whose.message_class is MessageClass.CAMPAIGN
        return self._renderer.prepare(
            message,
            tenant_id=whose.tenant_id,
            tenant_name=await self._accounts.tenant_name(whose.tenant_id),
            list_id=whose.list_id,
            list_name=await self._accounts.list_name(whose.list_id),
            campaign_id=whose.campaign_id,
            campaign_name=campaign.name,
            message_class=whose.message_class,
            message_id=message_id,
            queue_id=queue_id(message_id),
            received_at=whose.received_at,
            keys=keys,
            answers_wanted=campaign_mail and bool(await self._accounts.reply_address(whose.tenant_id)),
        )

    async def _signing_keys(self, message: Message, tenant_id: int, envelope: Envelope) -> tuple[SigningKey, ...]:
        domain = message.from_domain()
        keys = await self._keys.for_domain(tenant_id, domain) if domain else ()
        if keys or envelope.notice:
            return keys
        if domain and self._create_keys:
            return await self._keys.create(tenant_id, domain)
        if self._signing_required:
            raise Unsignable
        return ()

    def _keep(self, message_id: int, entry: Content | Stored) -> None:
        self._entries[message_id] = entry
        self._bytes += _size(entry)
        while self._bytes > self._max_bytes and len(self._entries) > 1:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= _size(oldest)


def _attribution(stored: Stored) -> Attribution:
    submission = stored.submission
    campaign = submission.campaign
    return Attribution(
        campaign.tenant_id, submission.list_id, campaign.id, submission.message_class, stored.received_at
    )


def _size(entry: Content | Stored) -> int:
    if isinstance(entry, Content):
        return entry.size
    submission = entry.submission
    return len(submission.raw) + (len(submission.message.body) + 1024 if submission.message is not None else 0)
