"""`POST /v1/suppressions`: apps report unsubscribes, complaints and bounces that reached them instead of us.

JSON: `{"entries": [{"address": … | "digest": …, "kind": "unsubscribe", "list": "news", "reason": "…"}, …]}`. Without a
list the whole tenant is meant; no further than that can a tenant reach (P3). All entries are in one commit, or none.
With an `Idempotency-Key` the same request gets the same answer again, and another request under that key gets 409.
An answer never repeats an address. Errors are `{"error": …, "entry": index}` with 400, 401, 403, 409, 413 or 503.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web

from config.database import DatabaseUnavailable, load_queries
from suppression.digest import AddressError, Digest, Kind, Scope
from suppression.entry import Channel, Entry, NewEntry
from suppression.log import SuppressionLog
from suppression.prove import digest_text, person_of_digest
from suppression.requests import BodyTooLarge, read_at_most

MAX_ENTRIES: Final = 1_000
MAX_BODY_BYTES: Final = 1024 * 1024
MAX_KEY_CHARACTERS: Final = 200
RETRY_AFTER_SECONDS: Final = 5

_FIELDS: Final = frozenset({"address", "digest", "kind", "list", "reason"})
_KINDS: Final = {
    "unsubscribe": Kind.UNSUBSCRIBE, "complaint": Kind.COMPLAINT, "hard-bounce": Kind.HARD_BOUNCE,
    "manual": Kind.MANUAL, "legal": Kind.LEGAL,
}  # fmt: skip

_QUERIES = load_queries("suppression", "api.sql")


class Refused(Exception):
    """The request can't be met; the text says why and holds nothing of what was sent."""

    def __init__(self, status: int, text: str, entry: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.entry = entry


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a tenant, and the name that the log keeps."""

    tenant_id: int
    name: str


class SuppressionApi:
    """Handler of the authenticated call."""

    def __init__(
        self,
        log: SuppressionLog,
        digest: Digest,
        *,
        authenticate: Callable[[str], Awaitable[Caller | None]],
        list_id: Callable[[int, str], Awaitable[int]],
        require_tls: bool = True,
        on_suppressed: Callable[[int], None] | None = None,
    ) -> None:
        """`authenticate` gets the Authorization field; `list_id` a tenant and a name, ValueError when it can't be one;
        `on_suppressed` the number of new entries after each commit."""
        self._suppression_log = log
        self._digest = digest
        self._authenticate = authenticate
        self._list_id = list_id
        self._require_tls = require_tls
        self._on_suppressed = on_suppressed

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [web.post("/v1/suppressions", self.post)]

    async def post(self, request: web.Request) -> web.Response:
        """Suppress; 200 after the commit."""
        try:
            return _json(200, await self._answer(request))
        except Refused as refusal:
            answer: dict[str, Any] = {"error": str(refusal)}
            if refusal.entry is not None:
                answer["entry"] = refusal.entry
            headers = {"WWW-Authenticate": 'Basic realm="heed"'} if refusal.status == 401 else {}
            return _json(refusal.status, orjson.dumps(answer), headers)
        except DatabaseUnavailable:
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            return _json(503, orjson.dumps({"error": "not recorded: no database now, try again"}), headers)

    async def _answer(self, request: web.Request) -> bytes:
        if self._require_tls and not request.secure:
            raise Refused(403, "use https")
        caller = await self._authenticate(request.headers.get("Authorization", ""))
        if caller is None:
            raise Refused(401, "not authorised")
        key = request.headers.get("Idempotency-Key", "")
        if len(key) > MAX_KEY_CHARACTERS or not key.isprintable():
            raise Refused(400, f"an Idempotency-Key has at most {MAX_KEY_CHARACTERS} printable characters")
        try:
            body = await read_at_most(request, MAX_BODY_BYTES)
        except BodyTooLarge:
            raise Refused(413, f"a request has at most {MAX_BODY_BYTES} bytes") from None
        asked = [await self._entry(caller, number, item) for number, item in enumerate(_items(body))]
        return await self._suppress(caller, key, hashlib.sha256(body).digest(), asked)

    async def _suppress(self, caller: Caller, key: str, fingerprint: bytes, asked: Sequence[NewEntry]) -> bytes:
        if not key:
            answer, new = _told(await self._suppression_log.append(asked))
            self._count(new)
            return answer
        async with self._suppression_log.appending() as appending:
            earlier = await appending.connection.fetch(_QUERIES.earlier_answer, caller.tenant_id, key)
            if earlier:
                if earlier[0]["request_sha256"] != fingerprint:
                    raise Refused(409, "this Idempotency-Key was used for another request")
                return str(earlier[0]["answer"]).encode()
            answer, new = _told(await appending.suppress(asked))
            await appending.connection.execute(
                _QUERIES.keep_answer, caller.tenant_id, key, fingerprint, answer.decode()
            )
        self._count(new)
        return answer

    async def _entry(self, caller: Caller, number: int, item: Any) -> NewEntry:
        try:
            return await self._checked(caller, item)
        except (ValueError, TypeError) as error:
            text = str(error) if isinstance(error, _Wrong | AddressError) else "not an entry"
            raise Refused(400, text, number) from None

    async def _checked(self, caller: Caller, item: Any) -> NewEntry:
        if not isinstance(item, dict) or not all(isinstance(value, str) for value in item.values()):
            raise _Wrong("an entry is an object of strings")
        if unknown := item.keys() - _FIELDS:
            raise _Wrong(f"{len(unknown)} unknown fields; known are {', '.join(sorted(_FIELDS))}")
        if ("address" in item) == ("digest" in item):
            raise _Wrong("an entry has an address or a digest")
        kind = _KINDS.get(item.get("kind", "unsubscribe"))
        if kind is None:
            raise _Wrong(f"kind is one of {', '.join(_KINDS)}")
        person = self._digest.person(item["address"]) if "address" in item else person_of_digest(item["digest"])
        list_id = await self._list_id(caller.tenant_id, item["list"]) if item.get("list") else 0
        scope = Scope.LIST if list_id else Scope.TENANT
        return NewEntry(
            person, scope, kind, caller.tenant_id, list_id, Channel.API, caller.name, reason=item.get("reason", "")
        )

    def _count(self, new: int) -> None:
        if self._on_suppressed is not None and new:
            self._on_suppressed(new)


class _Wrong(ValueError):
    """Something about an entry that its sender may be told."""


def _items(body: bytes) -> list[Any]:
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refused(400, "the body is not JSON") from None
    items = given.get("entries") if isinstance(given, dict) else None
    if not isinstance(items, list) or not 0 < len(items) <= MAX_ENTRIES:
        raise Refused(400, f"entries is a list of 1 to {MAX_ENTRIES}")
    return items


def _told(entries: Sequence[Entry]) -> tuple[bytes, int]:
    told = [
        {
            "digest": digest_text(entry.person), "position": entry.position, "at": entry.at,
            "already_in_force": entry.already_in_force, "cancelled": entry.cancelled, "hash": entry.hash.hex(),
        }
        for entry in entries
    ]  # fmt: skip
    return orjson.dumps({"entries": told}), sum(not entry.already_in_force for entry in entries)


def _json(status: int, body: bytes, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)
