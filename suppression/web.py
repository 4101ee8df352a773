"""The subscriber's HTTP: one-click unsubscribe (RFC 8058), and the page behind the same URL.

`POST /u/{token}` unsubscribes, whatever its body's type: the token decides, and a page's button may ask for more. GET,
HEAD and OPTIONS change nothing, ever. 200 means that it is committed (S4); without a database the answer is 503 and an
honest page. No cookie, no redirect, no script, nothing from anybody else. A token that is not ours gets 404, with the
same work whatever is wrong with it. Tokens and addresses reach no log: the access log is off (serving.py).
"""

import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import parse_qs

from aiohttp import web

from config.database import DatabaseUnavailable
from config.log import LOG
from suppression.canary import CANARY_TENANT_ID
from suppression.consent import Consent, Consents
from suppression.digest import Kind, Scope
from suppression.entry import Channel, Entry, NewEntry
from suppression.log import SuppressionLog
from suppression.page import CONTENT_SECURITY_POLICY, Description, Pages, choose_language
from suppression.requests import BodyTooLarge, read_at_most
from suppression.serving import Served, serve
from suppression.tokens import TOKEN_PATTERN, Purpose, Token, TokenError, Tokens, token_id

__all__ = ["Served", "SubscriberPages", "application", "serve"]

MAX_BODY_BYTES: Final = 16 * 1024
RETRY_AFTER_SECONDS: Final = 30
MAX_RETURNS_A_DAY: Final = 20
DAY_SECONDS: Final = 86_400.0

_SCOPES: Final = {
    "list": Scope.LIST, "tenant": Scope.TENANT, "group": Scope.GROUP, "everything": Scope.EVERYTHING,
}  # fmt: skip
_UNDO: Final = "undo-"
_PURPOSES: Final = frozenset({Purpose.ONE_CLICK, Purpose.PREFERENCES})
_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Server": "heed",
}


def choices_of(token: Token, *, grouped: bool = False) -> list[str]:
    """What can be stopped with this token, the narrowest first: that one a plain POST means.

    `grouped`: the tenant shares a policy with others; to stop everything that the group sends is a choice then.
    """
    given = {"list": bool(token.list_id), "tenant": True, "group": grouped, "everything": True}
    return [choice for choice, possible in given.items() if possible]


def button_choices(token: Token) -> list[str]:
    """What the buttons of a page can say."""
    return [prefix + choice for prefix in ("", _UNDO) for choice in choices_of(token, grouped=True)]


def read_choice(content_type: str, body: bytes, token: Token) -> tuple[str, bool]:
    """What a POST asks for, and whether a page's button asked.

    Only our own forms, which are urlencoded, can ask for something else than the token's own scope. One-click clients
    send urlencoded, multipart, text/plain or nothing at all, and now and then rubbish: each means to unsubscribe.
    """
    if content_type == "application/x-www-form-urlencoded":
        try:
            given = parse_qs(body.decode("ascii"), max_num_fields=20).get("choice", [""])[0]
        except ValueError:
            given = ""
        if given in button_choices(token):
            return given, True
    return choices_of(token)[0], False


class SubscriberPages:
    """Handlers of the subscriber's URLs."""

    def __init__(
        self,
        tokens: Tokens,
        log: SuppressionLog,
        consents: Consents,
        *,
        describe: Callable[[Token], Awaitable[Description | None]] | None = None,
        on_unsubscribed: Callable[[Channel], None] | None = None,
        on_failed: Callable[[], None] | None = None,
        preferences: bool = False,
        group_of: Callable[[int], int] = lambda _tenant_id: 0,
    ) -> None:
        """`group_of` says which group a tenant is in, 0 for none.
        `preferences`: whether `/p/{token}` is there to be linked to (preferences.py).
        `on_unsubscribed` is called after each commit of a new entry, `on_failed` when a wish wasn't recorded."""
        self._tokens = tokens
        self._suppression_log = log
        self._consents = consents
        self._describe = describe
        self._on_unsubscribed = on_unsubscribed
        self._on_failed = on_failed
        self._preferences = preferences
        self._group_of = group_of

    async def show(self, request: web.Request) -> web.Response:
        """GET and HEAD: the page that asks. Changes nothing."""
        pages = pages_of(request)
        token = self.token(request)
        if token is None:
            return html(pages, pages.unknown(), 404)
        link = f"/p/{request.match_info['token']}" if self._preferences else ""
        return html(pages, pages.ask(await self.description(token), self.choices(token), link))

    def choices(self, token: Token) -> list[str]:
        """What this token's pages offer."""
        return choices_of(token, grouped=bool(self._group_of(token.tenant_id)))

    async def options(self, _request: web.Request) -> web.Response:
        """OPTIONS: what is possible. Changes nothing."""
        return web.Response(status=204, headers={"Allow": "GET, HEAD, POST, OPTIONS"})

    async def act(self, request: web.Request) -> web.Response:
        """POST: unsubscribe, or what a button of the page asks for."""
        pages = pages_of(request)
        token = self.token(request)
        if token is None:
            return html(pages, pages.unknown(), 404)
        try:
            body = await read_at_most(request, MAX_BODY_BYTES)
        except BodyTooLarge:
            return html(pages, pages.failed(), 413)
        choice, from_page = read_choice(request.content_type, body, token)
        actor = f"token:{token_id(request.match_info['token'])}"
        try:
            if from_page:
                return await self.choose(pages, token, choice, actor)
            return await self._unsubscribe(pages, token, choice, actor, Channel.ONE_CLICK)
        except Exception as error:
            return self.failed(pages, error, choice)

    async def choose(self, pages: Pages, token: Token, choice: str, actor: str) -> web.Response:
        """Do what a button of a page says (one of `button_choices`); raises DatabaseUnavailable."""
        if choice.startswith(_UNDO):
            return await self._undo(pages, token, choice.removeprefix(_UNDO), actor)
        return await self._unsubscribe(pages, token, choice, actor, Channel.WEB)

    def failed(self, pages: Pages, error: Exception, choice: str) -> web.Response:
        """Whatever happened, nothing was recorded as far as we know, and that is what the person is told."""
        if not isinstance(error, DatabaseUnavailable):
            LOG.error("a subscriber's wish was not recorded", reason=type(error).__name__, place=_place(error))
        if self._on_failed is not None:
            self._on_failed()
        response = html(pages, pages.failed(choice), 503)
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return response

    async def description(self, token: Token) -> Description | None:
        """Who and what the token is about, if that can be known now.

        A page without it is as good, and tokens outlive what they name: nothing that fails here may make an unsubscribe
        that is committed look as if it had failed.
        """
        if self._describe is None:
            return None
        try:
            return await self._describe(token)
        except Exception as error:
            if not isinstance(error, DatabaseUnavailable):
                LOG.warning("a token can't be described", reason=type(error).__name__, place=_place(error))
            return None

    async def may_return(self, token: Token) -> bool:
        """Whether the person may take back one more unsubscribe today: each pair of both is two entries for ever."""
        return await self._consents.count_since(token.person, DAY_SECONDS) < MAX_RETURNS_A_DAY

    async def _unsubscribe(self, pages: Pages, token: Token, choice: str, actor: str, channel: Channel) -> web.Response:
        if token.tenant_id == CANARY_TENANT_ID:
            channel = Channel.CANARY  # a probe of our own is nobody's wish
        scope, list_id = self._target(token, choice)
        [entry] = await self._suppression_log.append([_entry(token, scope, list_id, actor, channel)])
        if self._on_unsubscribed is not None and not entry.already_in_force:
            self._on_unsubscribed(channel)
        allowed = self.choices(token)
        return html(pages, pages.done(
            choice, entry.at, already=entry.already_in_force, more=allowed[allowed.index(choice) + 1 :],
            undo=_can_undo(entry), description=await self.description(token),
        ))  # fmt: skip

    async def _undo(self, pages: Pages, token: Token, choice: str, actor: str) -> web.Response:
        if not await self.may_return(token):
            return html(pages, pages.failed(), 429)
        scope, list_id = self._target(token, choice)
        consent = Consent(
            token.person,
            scope,
            token.tenant_id,
            list_id,
            "the person took an unsubscribe back",
            "web page",
            actor,
        )
        [recorded] = await self._consents.record([consent])
        return html(pages, pages.undone(recorded.at) if recorded.lifted else pages.kept())

    def _target(self, token: Token, choice: str) -> tuple[Scope, int]:
        """The scope of a choice, and the id of its list or group.

        DatabaseUnavailable for a group that is not known here, or not yet: less than what was asked for must not be
        told as done.
        """
        if choice != "group":
            return _SCOPES[choice], token.list_id
        group_id = self._group_of(token.tenant_id)
        if not group_id:
            raise DatabaseUnavailable("the tenant's group is not known")
        return Scope.GROUP, group_id

    def token(self, request: web.Request) -> Token | None:
        """The token in the path; None when it is not ours, or not for this."""
        try:
            token = self._tokens.read(request.match_info["token"])
        except TokenError:
            return None
        return token if token.purpose in _PURPOSES else None


def _place(error: Exception) -> str:
    """Where it was raised: the text or the locals of an unforeseen exception might hold an address or a token."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _can_undo(entry: Entry) -> bool:
    return entry.kind is Kind.UNSUBSCRIBE


def _entry(token: Token, scope: Scope, list_id: int, actor: str, channel: Channel) -> NewEntry:
    return NewEntry(
        token.person, scope, Kind.UNSUBSCRIBE, token.tenant_id, list_id, channel, actor, token.campaign_id,
        token.message_id,
    )  # fmt: skip


def pages_of(request: web.Request) -> Pages:
    """Pages in the language of the request."""
    return Pages(choose_language(request.headers.get("Accept-Language", "")))


def html(pages: Pages, text: str, status: int = 200) -> web.Response:
    """An answer with a page."""
    headers = {"Content-Language": pages.language, "Vary": "Accept-Language"}
    return web.Response(text=text, status=status, content_type="text/html", headers=headers)


async def _no_icon(_request: web.Request) -> web.Response:
    """Browsers ask for one by themselves; nothing to see is not an error."""
    return web.Response(status=204)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers[name] = value


def application(pages: SubscriberPages, more_routes: Sequence[web.RouteDef] = ()) -> web.Application:
    """The application of the subscriber's port; `more_routes`: of other modules that share it."""
    made = web.Application()
    path = f"/u/{{token:{TOKEN_PATTERN}}}"
    # A token of the wrong form takes the same way as a forged one: one page, one status.
    for each in (path, "/u/{token:[^/]*}"):
        made.add_routes([
            web.get(each, pages.show), web.post(each, pages.act), web.options(each, pages.options),
        ])  # fmt: skip
    made.add_routes([web.get("/favicon.ico", _no_icon), *more_routes])
    made.on_response_prepare.append(_add_headers)
    return made
