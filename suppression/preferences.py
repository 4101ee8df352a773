"""The preference page: every list of a sender that ever sent to this person, to keep or to leave one by one.

Saving records an unsubscribe for each list that was shown and not kept, and a consent for each that is kept after it
had been left; nothing that was not shown changes. Like everything a subscriber does it is told after the commit.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from aiohttp import web

from suppression.consent import Consent, Consents
from suppression.digest import Digest, Kind, Scope
from suppression.entry import Channel, Entry, NewEntry
from suppression.log import SuppressionLog
from suppression.page import Subscription
from suppression.requests import BodyTooLarge, read_at_most
from suppression.scopes import Scopes
from suppression.tokens import TOKEN_PATTERN, Token, token_id
from suppression.web import MAX_BODY_BYTES, SubscriberPages, button_choices, html, pages_of

MAX_FIELDS: Final = 1_000

ListsOf = Callable[[int, int], Awaitable[Sequence[tuple[int, str]]]]
"""(person, tenant id) → (list id, name) of every list of the tenant that ever sent to the person."""


@dataclass(frozen=True, slots=True)
class Election:
    """What a saved page means: lists to leave, and lists to return to."""

    leave: tuple[int, ...]
    rejoin: tuple[int, ...]


def elect(shown: set[int], keep: set[int], known: set[int], left: set[int]) -> Election:
    """Compare what was chosen with what is so; ids that are not this person's are ignored."""
    shown &= known
    return Election(tuple(sorted(shown - keep - left)), tuple(sorted(shown & keep & left)))


def read_form(body: bytes) -> tuple[str, set[int], set[int]]:
    """The button, the lists that were shown and those to keep; ValueError for what is no form of ours."""
    fields = parse_qs(body.decode("ascii"), max_num_fields=MAX_FIELDS)
    shown = {int(number) for number in fields.get("shown", [""])[0].split(",") if number}
    return fields.get("choice", [""])[0], shown, {int(number) for number in fields.get("keep", [])}


class PreferencePages:
    """Handlers of `/p/{token}`."""

    def __init__(
        self,
        pages: SubscriberPages,
        log: SuppressionLog,
        consents: Consents,
        digest: Digest,
        scopes: Scopes,
        lists_of: ListsOf,
    ) -> None:
        self._subscriber_pages = pages
        self._suppression_log = log
        self._consents = consents
        self._digest = digest
        self._scopes = scopes
        self._lists_of = lists_of

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        path = f"/p/{{token:{TOKEN_PATTERN}}}"
        return [web.get(path, self.show), web.post(path, self.act)]

    async def show(self, request: web.Request) -> web.Response:
        """GET and HEAD: the lists as they are. Changes nothing."""
        pages, token = pages_of(request), self._subscriber_pages.token(request)
        if token is None:
            return html(pages, pages.unknown(), 404)
        try:
            subscriptions = await self._subscriptions(token)
        except Exception as error:
            return self._subscriber_pages.failed(pages, error, "")
        wider = [choice for choice in self._subscriber_pages.choices(token) if choice != "list"]
        return html(pages, pages.preferences(await self._subscriber_pages.description(token), subscriptions, wider))

    async def act(self, request: web.Request) -> web.Response:
        """POST: save the elections, or one of the wider choices."""
        pages, token = pages_of(request), self._subscriber_pages.token(request)
        if token is None:
            return html(pages, pages.unknown(), 404)
        try:
            body = await read_at_most(request, MAX_BODY_BYTES)
            choice, shown, keep = read_form(body)
            if choice != "save" and choice not in button_choices(token):
                raise ValueError("no such button")
        except (BodyTooLarge, ValueError):
            return html(pages, pages.failed(), 400)
        actor = f"token:{token_id(request.match_info['token'])}"
        try:
            if choice != "save":
                return await self._subscriber_pages.choose(pages, token, choice, actor)
            if not await self._subscriber_pages.may_return(token):
                return html(pages, pages.failed(), 429)
            at = await self._save(token, shown, keep, actor)
        except Exception as error:
            return self._subscriber_pages.failed(pages, error, "")
        return html(pages, pages.saved(at) if at else pages.kept())

    async def _subscriptions(self, token: Token) -> list[Subscription]:
        lists = await self._lists_of(token.person, token.tenant_id)
        stopped, left = await self._left(token, [list_id for list_id, _ in lists])
        return [Subscription(list_id, name, not stopped and list_id not in left) for list_id, name in lists]

    async def _left(self, token: Token, list_ids: Sequence[int]) -> tuple[bool, set[int]]:
        """Whether all mail of the sender is stopped, and which lists are."""
        keys = {self._digest.key(Scope.LIST, token.person, token.tenant_id, each): each for each in list_ids}
        wide = self._scopes.keys(token.person, token.tenant_id, 0)
        entries = await self._suppression_log.in_force([*wide, *keys])
        return any(entry.key in wide for entry in entries), {keys[entry.key] for entry in entries if entry.key in keys}

    async def _save(self, token: Token, shown: set[int], keep: set[int], actor: str) -> float:
        """When it was committed; 0.0 when nothing had to be changed."""
        known = {list_id for list_id, _ in await self._lists_of(token.person, token.tenant_id)}
        stopped, left = await self._left(token, sorted(known))
        election = elect(shown, keep, known, left)
        at = 0.0
        if election.leave:
            written = await self._suppression_log.append([_leave(token, each, actor) for each in election.leave])
            at = _latest(written)
        rejoins = [_rejoin(token, Scope.LIST, each, actor) for each in election.rejoin]
        if stopped and shown & keep & known:
            # What is left one by one is recorded above, so that lifting the wider unsubscribe brings back no more.
            rejoins.append(_rejoin(token, Scope.TENANT, 0, actor))
        if rejoins:
            recorded = await self._consents.record(rejoins)
            at = max([at, *(each.at for each in recorded if each.lifted)])
        return at


def _latest(entries: Sequence[Entry]) -> float:
    return max(entry.at for entry in entries)


def _leave(token: Token, list_id: int, actor: str) -> NewEntry:
    return NewEntry(
        token.person, Scope.LIST, Kind.UNSUBSCRIBE, token.tenant_id, list_id, Channel.WEB, actor, token.campaign_id,
        token.message_id,
    )  # fmt: skip


def _rejoin(token: Token, scope: Scope, list_id: int, actor: str) -> Consent:
    return Consent(
        token.person, scope, token.tenant_id, list_id, "the person elected to receive this list", "web page", actor
    )
