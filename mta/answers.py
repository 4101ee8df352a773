"""What an inbound message asks for, and its commit: the one place between reading mail and the suppression log.

A token says who is meant and by which way the mail came; the content says what it is. Unsubscribe addresses take
anything that a person may have sent, and nothing that a machine did (RFC 3834). Return paths take reports; what they
say about a person goes by the policy for bounces. Answers to campaigns are replies.py's. The reply is given after the
commit, or is temporary.
"""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bounce.answer import Answer, answer_of
from bounce.outcome import redact
from bounce.reader import read
from bounce.reading import Kind as Reads
from bounce.reading import Reading
from config.database import DatabaseUnavailable
from metrics import registry
from mta.events import OOB, Events, Note
from mta.forwarding import Forwarding
from mta.identifiers import received_at
from mta.meeting import Meeting
from mta.message import MAX_RECEIVED
from mta.parts import Parts
from mta.replies import Decision, Own, Replies, decide, unsubscribe
from suppression.entry import Channel, NewEntry
from suppression.tokens import Purpose, Token

# larger content is read in a thread, so that the event loop is not held up
_INLINE_BYTES: Final = 65_536
_UNAVAILABLE: Final = "451 4.3.0 Temporarily unable to take mail, try again later"
_TAKEN: Final = "250 2.0.0 OK"
_NOBODY: Final = "550 5.7.1 Nobody reads this mailbox; write to the sender named in the message"
_READ_BY_US: Final = frozenset({Purpose.REPLY, Purpose.UNSUBSCRIBE_MAIL})

_BY_A_PERSON: Final = frozenset({Reads.OTHER, Reads.UNSUBSCRIBE})
_REPORTS: Final = frozenset({Reads.BOUNCE, Reads.COMPLAINT})


@dataclass(frozen=True, slots=True)
class Mail:
    """One inbound message, read. `sender`: the reverse-path, "" for the null one."""

    tokens: Sequence[Token]
    content: bytes = field(repr=False)
    sender: str = field(repr=False)
    forward: bool
    reading: Reading
    answer: Answer

    @property
    def by_a_person(self) -> bool:
        """Whether somebody wrote it by hand (RFC 3834)."""
        return bool(self.sender) and self.reading.kind in _BY_A_PERSON and not self.answer.machine


class Answers:
    """Acts on inbound messages."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._forwarding = Forwarding(parts)
        self._replies = Replies(parts, self._forwarding)
        self._own = Own(parts.tokens.read)
        self._notes = Meeting(Events(parts.database, socket.gethostname()).note)

    async def take(self, tokens: Sequence[Token], content: bytes, *, sender: str, forward: bool) -> str:
        """Do what a message asks for; the reply to its content. `sender`: the reverse-path, "" for the null one."""
        if len(content) > _INLINE_BYTES:
            reading, answer = await asyncio.to_thread(self._read, content)
        else:
            reading, answer = self._read(content)
        registry.answers.labels(str(reading.kind)).inc()
        passed_on = any(token.purpose in _READ_BY_US for token in tokens)
        if (passed_on and self._own.went_through(answer)) or (forward and answer.hops > MAX_RECEIVED):
            return _refused("loop", "554 5.4.6 This mail has been here before")
        if forward and isinstance(reading.token, Token):  # a report that came to abuse, about mail of ours
            tokens = [*tokens, reading.token]
        try:
            return await self._act(Mail(tokens, content, sender, forward, reading, answer))
        except DatabaseUnavailable:
            return _UNAVAILABLE

    async def _act(self, mail: Mail) -> str:
        wanted = [entry for token in mail.tokens for entry in await self._entries_for(token, mail)]
        decisions = self._decisions(mail)
        left = [decision.entry for _, decision in decisions if decision.entry is not None]
        now = self._parts.now()
        await self._parts.hygiene.append([*wanted, *left])
        await self._notes.add([note for token in mail.tokens for note in notes_of(token, mail.reading, now)])
        if left:
            registry.replies.labels("unsubscribed").inc()
        elif decisions and not await self._pass_on(decisions, mail) and not wanted:
            registry.replies.labels("refused").inc()
            return _refused("unread", _NOBODY)
        if mail.forward:
            await self._forwarding.to_operator(mail.content)
        elif not wanted and not decisions and _is_for_nobody(mail):
            return _refused("unread", _NOBODY)
        return _TAKEN

    def _decisions(self, mail: Mail) -> list[tuple[Token, Decision]]:
        """What it comes to at each reply address that it was sent to."""
        answer = mail.answer
        return [
            (token, decide(token, self._own.of_message(token, answer), answer, by_a_person=mail.by_a_person))
            for token in mail.tokens
            if token.purpose is Purpose.REPLY
        ]

    async def _pass_on(self, decisions: Sequence[tuple[Token, Decision]], mail: Mail) -> bool:
        """Once, however many addresses of the tenant's it was sent to."""
        ask = next((decision.ask for _, decision in decisions if decision.ask), None)
        return await self._replies.pass_on(decisions[0][0], mail.content, mail.sender, ask, mail.answer)

    async def _entries_for(self, token: Token, mail: Mail) -> list[NewEntry]:
        """What a message to this token's address asks to be suppressed, but for what an answer says."""
        if not token.person:  # a tenant's address: nobody is named by it
            return []
        if mail.reading.kind is Reads.OPT_OUT:
            return [unsubscribe(token, Channel.COMPLAINT)]
        if token.purpose is Purpose.UNSUBSCRIBE_MAIL:
            return [unsubscribe(token, Channel.MAILTO)] if mail.by_a_person else []
        if mail.reading.kind in _REPORTS:
            return await self._parts.hygiene.entries_of_report(token, mail.reading)
        return []

    def _read(self, content: bytes) -> tuple[Reading, Answer]:
        return read(content, self._own.in_text), answer_of(content)


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


def _is_for_nobody(mail: Mail) -> bool:
    """A person's mail to an address that only machines read."""
    unsubscribes = any(token.purpose is Purpose.UNSUBSCRIBE_MAIL for token in mail.tokens)
    return bool(mail.sender) and mail.reading.kind is Reads.OTHER and not unsubscribes


def _refused(reason: str, reply: str) -> str:
    registry.refused.labels("inbound", reason).inc()
    return reply
