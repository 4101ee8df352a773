"""What an inbound message asks for, and its commit: the one place between reading mail and the suppression log.

A token says who is meant and by which way the mail came; the content says what it is. Unsubscribe addresses take
anything that a person may have sent, and nothing that a machine did (RFC 3834). Return paths take reports; what they
say about a person goes by the policy for bounces. The reply is given after the commit, or is temporary.
"""

import asyncio
import re
import socket
from collections.abc import Sequence
from typing import Final

import structlog

from bounce.outcome import redact
from bounce.reader import read
from bounce.reading import Kind as Reads
from bounce.reading import Reading
from config.database import DatabaseUnavailable
from metrics import registry
from mta.events import OOB, Events, Note
from mta.forwarding import Forwarding
from mta.identifiers import received_at
from mta.parts import Parts
from suppression.digest import Kind, Scope
from suppression.entry import Channel, NewEntry
from suppression.tokens import TOKEN_PATTERN, Purpose, Token, TokenError

_LOG = structlog.get_logger(__name__)
# larger content is read in a thread, so that the event loop is not held up
_INLINE_BYTES: Final = 65_536
_UNAVAILABLE: Final = "451 4.3.0 Temporarily unable to take mail, try again later"
_TAKEN: Final = "250 2.0.0 OK"
_TOKEN: Final = re.compile(rf"(?<![A-Za-z0-9]){TOKEN_PATTERN}(?![A-Za-z0-9])")

_BY_A_PERSON: Final = frozenset({Reads.OTHER, Reads.UNSUBSCRIBE})
_REPORTS: Final = frozenset({Reads.BOUNCE, Reads.COMPLAINT})


class Answers:
    """Acts on inbound messages."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._forwarding = Forwarding(parts)
        self._events = Events(parts.database, socket.gethostname())

    async def take(self, tokens: Sequence[Token], content: bytes, *, null_sender: bool, forward: bool) -> str:
        """Do what a message asks for; the reply to its content."""
        if len(content) > _INLINE_BYTES:
            reading = await asyncio.to_thread(read, content, self._own)
        else:
            reading = read(content, self._own)
        registry.answers.labels(str(reading.kind)).inc()
        if forward and isinstance(reading.token, Token):  # a report that came to abuse, about mail of ours
            tokens = [*tokens, reading.token]
        try:
            wanted = [entry for token in tokens for entry in await self._entries_for(token, reading, null_sender)]
            await self._parts.hygiene.append(wanted)
            await self._events.note([note for token in tokens for note in notes_of(token, reading, self._parts.now())])
            if forward:
                await self._forwarding.forward(content)
        except DatabaseUnavailable:
            return _UNAVAILABLE
        if not wanted and not forward and _is_for_nobody(tokens, reading, null_sender):
            registry.refused.labels("inbound", "unread").inc()
            return "550 5.7.1 Nobody reads this mailbox; write to the sender named in the message"
        return _TAKEN

    async def _entries_for(self, token: Token, reading: Reading, null_sender: bool) -> list[NewEntry]:
        """What a message to this token's address asks to be suppressed."""
        if reading.kind is Reads.OPT_OUT:
            return [unsubscribe(token, Channel.COMPLAINT)]
        if token.purpose is Purpose.UNSUBSCRIBE_MAIL:
            by_a_person = reading.kind in _BY_A_PERSON and not null_sender
            return [unsubscribe(token, Channel.MAILTO)] if by_a_person else []
        if reading.kind in _REPORTS:
            return await self._parts.hygiene.entries_of_report(token, reading)
        return []

    def _own(self, text: str) -> Token | None:
        """The token in an address or a link, if it is one of ours: it is authenticated, so the rest need not fit."""
        for match in _TOKEN.finditer(text):
            try:
                return self._parts.tokens.read(match[0])
            except TokenError:
                continue
        return None


def notes_of(token: Token, reading: Reading, now: float) -> list[Note]:
    """The event of a bounce that came by mail. Suppressions and complaints are events by being in the log."""
    if reading.kind is not Reads.BOUNCE or token.purpose is not Purpose.RETURN_PATH or not reading.recipients:
        return []
    recipient = reading.recipients[0]
    return [
        Note(
            OOB,
            now,
            received_at(token.message_id),
            token.message_id,
            token.person,
            token.tenant_id,
            token.list_id,
            token.campaign_id,
            reply_code=recipient.reply_code,
            status=recipient.status,
            bounce_class=str(recipient.bounce_class),
            remote_mta=redact(recipient.remote_mta or reading.reporting_mta, recipient.address),
            diagnostic=redact(recipient.diagnostic, recipient.original or recipient.address),
        )
    ]


def unsubscribe(token: Token, channel: Channel) -> NewEntry:
    """From the list that the mail came by, or from all mail of the tenant where it came by none."""
    scope = Scope.LIST if token.list_id else Scope.TENANT
    return NewEntry(
        token.person,
        scope,
        Kind.UNSUBSCRIBE,
        token.tenant_id,
        token.list_id,
        channel,
        "subscriber",
        token.campaign_id,
        token.message_id,
    )


def _is_for_nobody(tokens: Sequence[Token], reading: Reading, null_sender: bool) -> bool:
    """A person's mail to an address that only machines read."""
    return (
        not null_sender
        and reading.kind is Reads.OTHER
        and all(t.purpose is not Purpose.UNSUBSCRIBE_MAIL for t in tokens)
    )
