"""The web listener put together: one-click and page, preferences, and the call for apps.

Apps authenticate as for submission, by HTTP Basic with a credential of theirs (RFC 7617). Raises DatabaseUnavailable
where the database is asked; the handlers answer it with 503.
"""

import base64
import binascii

from aiohttp import web

from metrics import registry
from mta.commands import CommandError
from mta.descriptions import Descriptions
from mta.parts import Parts
from mta.passwords import Passwords
from suppression.api import Caller, SuppressionApi
from suppression.consent import Consents
from suppression.entry import Channel
from suppression.preferences import PreferencePages
from suppression.web import SubscriberPages, application

MAX_LIST_NAME = 200
MAX_USER_NAME = 128


def subscriber_web(parts: Parts) -> web.Application:
    """The application of one worker."""
    consents = Consents(parts.database, parts.log)
    pages = SubscriberPages(
        parts.tokens,
        parts.log,
        consents,
        describe=Descriptions(parts).describe,
        on_unsubscribed=lambda channel: registry.unsubscribes.labels(str(channel)).inc(),
        on_failed=registry.failed_unsubscribes.inc,
        preferences=True,
        group_of=parts.scopes.group_of,
    )
    preferences = PreferencePages(pages, parts.log, consents, parts.digest, parts.scopes, parts.queue.lists_of)
    callers = Callers(parts)
    api = SuppressionApi(
        parts.log,
        parts.digest,
        authenticate=callers.authenticate,
        list_id=callers.list_id,
        on_suppressed=registry.unsubscribes.labels(str(Channel.API)).inc,
    )
    return application(pages, [*preferences.routes(), *api.routes()])


class Callers:
    """Apps by their credentials."""

    def __init__(self, parts: Parts) -> None:
        self._accounts = parts.accounts
        self._passwords = Passwords(parts.accounts, parts.settings.submission.auth_failures_per_minute)

    async def authenticate(self, authorization: str, remote: str) -> Caller | None:
        """Who calls, by an Authorization field and the client's address; None for nobody that is known."""
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            username, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        try:
            # Failures are limited by address and user name: by the name alone a stranger could lock an app out, and
            # behind a proxy all callers have one address. By the address too, since any name costs a comparison.
            guesser = f"{remote} {username}"
            possible = colon and len(username) <= MAX_USER_NAME
            credential = await self._passwords.check(guesser, username, password, network=remote) if possible else None
        except CommandError:
            return None
        return Caller(credential.tenant.id, username) if credential else None

    async def list_id(self, tenant_id: int, name: str) -> int:
        """The id of a tenant's list; ValueError for what can't be a list's name."""
        if not name.strip() or len(name) > MAX_LIST_NAME or not name.isprintable():
            raise ValueError("not a list's name")
        return await self._accounts.list_id(tenant_id, name)
