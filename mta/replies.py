"""Answers to campaign mail: a clear unsubscribe is one, all else goes on to the tenant, and who may mean one is asked.

An answer comes to a reply token's address: one recipient's (the daemon's Reply-To), or a tenant's (person 0), to which
its mail system redirects what it gets. Then In-Reply-To or References may tell by our Message-ID who answers what. What
machines send unsubscribes nobody and is not asked back (RFC 3834), but goes on. A question goes only to an address that
the tenant has written to, at most once a day. Raises DatabaseUnavailable.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bounce.answer import Answer
from bounce.wishes import Certainty
from config.database import load_queries
from config.log import LOG
from metrics import registry
from mta.forwarding import Forwarding
from mta.message import MAX_RECEIVED
from mta.parts import Parts
from mta.question import compose
from suppression.digest import AddressError, Effect, Kind, Scope, effect_of
from suppression.entry import Channel, NewEntry
from suppression.tokens import TOKEN_PATTERN, Purpose, Token, TokenError

_QUERIES: Final = load_queries("mta", "replies.sql")
_TOKEN: Final = re.compile(rf"(?<![A-Za-z0-9]){TOKEN_PATTERN}(?![A-Za-z0-9])")


@dataclass(frozen=True, slots=True)
class Decision:
    """What an answer comes to: an entry of the log, or the tenant's mailbox and perhaps a question."""

    entry: NewEntry | None = None
    ask: Token | None = None


def unsubscribe(token: Token, channel: Channel, *, everything: bool = False) -> NewEntry:
    """From the list that the mail came by; from all mail of the tenant if there is none, or `everything` is meant."""
    return NewEntry(
        token.person,
        Scope.LIST if token.list_id and not everything else Scope.TENANT,
        Kind.UNSUBSCRIBE,
        token.tenant_id,
        token.list_id,
        channel,
        "subscriber",
        token.campaign_id,
        token.message_id,
    )


def decide(address: Token, about: Token | None, answer: Answer, *, by_a_person: bool) -> Decision:
    """`address`: the token that was written to; `about`: whose mail is answered, None where that is not proved."""
    wish = answer.wish
    if not by_a_person or wish.certainty is Certainty.NO:
        return Decision()
    if about is not None and wish.certainty is Certainty.CERTAIN:
        return Decision(unsubscribe(about, Channel.REPLY, everything=wish.everything))
    return Decision(ask=about or address)


class Own:
    """Finds tokens of ours in texts of strangers."""

    def __init__(self, read: Callable[[str], Token]) -> None:
        self._read = read

    def in_text(self, text: str) -> Token | None:
        """The first one: it is authenticated, so that the rest of the text need not fit."""
        for match in _TOKEN.finditer(text):
            try:
                return self._read(match[0])
            except TokenError:
                continue
        return None

    def of_message(self, address: Token, answer: Answer) -> Token | None:
        """Whose mail is answered: as the address says, or else a Message-ID of ours, of the same tenant's mail."""
        if address.person:
            return address
        named = (self.in_text(text) for text in answer.references)
        return next((t for t in named if t and t.purpose is Purpose.REPLY and t.tenant_id == address.tenant_id), None)

    def went_through(self, answer: Answer) -> bool:
        """Whether the daemon made this mail, or has passed it on before; or somebody else goes round in circles."""
        return answer.hops > MAX_RECEIVED or any(self.in_text(mark) for mark in answer.marks)


class Replies:
    """Passes answers on, and asks."""

    def __init__(self, parts: Parts, forwarding: Forwarding) -> None:
        self._parts = parts
        self._forwarding = forwarding

    async def place(self, tenant_id: int) -> str:
        """Where the tenant's answers go; "" for nowhere, or where mail to that mailbox is stopped."""
        mailbox = await self._parts.accounts.reply_address(tenant_id)
        if not mailbox:
            return ""
        keys = self._parts.scopes.keys(self._parts.digest.person(mailbox), tenant_id, 0)
        in_force = await self._parts.log.in_force(keys)
        stopped = any(e.scope and e.kind and effect_of(e.scope, e.kind) is Effect.ALL for e in in_force)
        if stopped:
            LOG.warning("a tenant's reply address is suppressed: answers are refused", tenant=tenant_id)
        return "" if stopped else mailbox

    async def pass_on(self, address: Token, content: bytes, sender: str, ask: Token | None, answer: Answer) -> bool:
        """Queue an answer for the tenant, and the question with it; False when there is no place for it."""
        mailbox = await self.place(address.tenant_id)
        if not mailbox:
            return False
        marked = f"Delivered-To: {self._address(address)}\r\n".encode() + content
        await self._forwarding.send(address.tenant_id, mailbox, marked, sender=sender)
        registry.replies.labels("forwarded").inc()
        if ask is not None:
            await self._ask(ask, answer)
        return True

    async def _ask(self, token: Token, answer: Answer) -> None:
        about = await self._askable(token, answer)
        if about is None:
            return
        settings = self._parts.settings
        mail = compose(
            sender=await self._parts.accounts.tenant_name(about.tenant_id),
            reply_to=self._address(about._replace(purpose=Purpose.REPLY)),
            to=answer.author,
            link=f"{settings.web_url}/u/{self._parts.tokens.issue(about._replace(purpose=Purpose.ONE_CLICK))}",
            message_id=answer.message_id,
            language=answer.wish.language,
        )
        now = self._parts.now()
        async with self._parts.database.transaction() as connection:
            await connection.execute(_QUERIES.forget_questions, now)
            if await connection.fetchval(_QUERIES.may_ask, about.person, now) is None:
                return
            await self._forwarding.send(about.tenant_id, answer.author, mail, connection=connection)
        registry.replies.labels("asked").inc()

    async def _askable(self, token: Token, answer: Answer) -> Token | None:
        """For whom to ask: the author, if that is who was written to, so that nobody has us write to others."""
        if answer.no_question or not answer.author.isascii():
            return None
        try:
            person = self._parts.digest.person(answer.author)
        except AddressError:
            return None
        if token.person:
            return token if token.person == person else None
        known = await self._parts.queue.lists_of(person, token.tenant_id)
        return token._replace(person=person) if known else None

    def _address(self, token: Token) -> str:
        return f"{self._parts.tokens.issue(token)}@{self._parts.settings.identity.mail_domain}"


def tenant_address(parts: Parts, tenant_id: int) -> str:
    """Where a tenant's mail system may redirect the answers that it gets."""
    token = parts.tokens.issue(Token(Purpose.REPLY, tenant_id, 0, 0, 0, 0))
    return f"{token}@{parts.settings.identity.mail_domain}"
