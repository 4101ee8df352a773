"""What apps report: `POST /v1/suppressions`, what reached them instead of us; `POST /v1/consents`, who agreed to what.

JSON: `{"entries": [{"address": … | "digest": …, "list": "news", …}, …]}`, with `kind` ("unsubscribe") and `reason`, or
with `basis`, `source`, `at` (ISO 8601 with a zone, now) and `evidence`. Without a list the whole tenant is meant; no
further than that can a tenant reach (P3). All entries are in one commit, or none.
With an `Idempotency-Key` the same request gets the same answer again, and another request under that key gets 409.
An answer never repeats an address. Errors are `{"error": …, "entry": index}` with 400, 401, 403, 409, 413 or 503.
"""

from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson
from aiohttp import web

from config.database import DatabaseUnavailable, load_queries
from suppression.consent import Consent, Recorded, consent_time, record
from suppression.digest import AddressError, Digest, Kind, Scope
from suppression.entry import Channel, Entry, NewEntry
from suppression.log import Appending, SuppressionLog
from suppression.prove import digest_text, person_of_digest
from suppression.requests import BodyTooLarge, read_at_most

MAX_ENTRIES: Final = 1_000
MAX_BODY_BYTES: Final = 1024 * 1024
MAX_KEY_CHARACTERS: Final = 200
RETRY_AFTER_SECONDS: Final = 5

_WHOM: Final = frozenset({"address", "digest", "list"})
_SUPPRESSION: Final = _WHOM | {"kind", "reason"}
_CONSENT: Final = _WHOM | {"basis", "source", "at", "evidence"}
_KINDS: Final = {
    "unsubscribe": Kind.UNSUBSCRIBE, "complaint": Kind.COMPLAINT, "hard-bounce": Kind.HARD_BOUNCE,
    "manual": Kind.MANUAL, "legal": Kind.LEGAL,
}  # fmt: skip

_QUERIES = load_queries("suppression", "api.sql")


T = TypeVar("T")
Work = Callable[[Appending | None], Awaitable[tuple[bytes, int]]]
"""Does what was asked for, in a transaction if there is one; the answer, and how many new suppressions there are."""
Prepare = Callable[["Caller", Sequence[Any]], Awaitable[Work]]
"""Reads a caller's entries; `Refused` when one is none."""


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
        authenticate: Callable[[str, str], Awaitable[Caller | None]],
        list_id: Callable[[int, str], Awaitable[int]],
        require_tls: bool = True,
        on_suppressed: Callable[[int], None] | None = None,
    ) -> None:
        """`authenticate` gets the Authorization field and the client's address; `list_id` a tenant and a name,
        ValueError when it can't be one; `on_suppressed` the number of new entries after each commit."""
        self._suppression_log = log
        self._digest = digest
        self._authenticate = authenticate
        self._list_id = list_id
        self._require_tls = require_tls
        self._on_suppressed = on_suppressed

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [web.post("/v1/suppressions", self.suppress), web.post("/v1/consents", self.consent)]

    async def suppress(self, request: web.Request) -> web.Response:
        """Suppress; 200 after the commit."""
        return await self._post(request, self._suppressing)

    async def consent(self, request: web.Request) -> web.Response:
        """Record consents; 200 after the commit."""
        return await self._post(request, self._consenting)

    async def _post(self, request: web.Request, prepare: "Prepare") -> web.Response:
        try:
            return _json(200, await self._answer(request, prepare))
        except Refused as refusal:
            answer: dict[str, Any] = {"error": str(refusal)}
            if refusal.entry is not None:
                answer["entry"] = refusal.entry
            headers = {"WWW-Authenticate": 'Basic realm="heed"'} if refusal.status == 401 else {}
            return _json(refusal.status, orjson.dumps(answer), headers)
        except DatabaseUnavailable:
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            return _json(503, orjson.dumps({"error": "not recorded: no database now, try again"}), headers)

    async def _answer(self, request: web.Request, prepare: "Prepare") -> bytes:
        if self._require_tls and not request.secure:
            raise Refused(403, "use https")
        caller = await self._authenticate(request.headers.get("Authorization", ""), request.remote or "")
        if caller is None:
            raise Refused(401, "not authorised")
        key = request.headers.get("Idempotency-Key", "")
        if len(key) > MAX_KEY_CHARACTERS or not key.isprintable():
            raise Refused(400, f"an Idempotency-Key has at most {MAX_KEY_CHARACTERS} printable characters")
        try:
            body = await read_at_most(request, MAX_BODY_BYTES)
        except BodyTooLarge:
            raise Refused(413, f"a request has at most {MAX_BODY_BYTES} bytes") from None
        work = await prepare(caller, _items(body))
        # apps are free to use addresses as keys, and a digest without a key could be guessed from a request (P1)
        name = self._digest.of(key.encode()).hex() if key else ""
        return await self._once(caller, name, self._digest.of(body), work)

    async def _once(self, caller: Caller, key: str, fingerprint: bytes, work: "Work") -> bytes:
        """Do it, or give the answer that was given when this key was used before."""
        if not key:
            answer, new = await work(None)
            self._count(new)
            return answer
        async with self._suppression_log.appending() as appending:
            earlier = await appending.connection.fetch(_QUERIES.earlier_answer, caller.tenant_id, key)
            if earlier:
                if earlier[0]["request_sha256"] != fingerprint:
                    raise Refused(409, "this Idempotency-Key was used for another request")
                return str(earlier[0]["answer"]).encode()
            answer, new = await work(appending)
            await appending.connection.execute(
                _QUERIES.keep_answer, caller.tenant_id, key, fingerprint, answer.decode()
            )
        self._count(new)
        return answer

    async def _suppressing(self, caller: Caller, items: Sequence[Any]) -> "Work":
        asked = [await self._checked(caller, number, item, self._entry) for number, item in enumerate(items)]

        async def work(appending: Appending | None) -> tuple[bytes, int]:
            # without a transaction of its own it shares that of others
            return _told(await (appending.suppress(asked) if appending else self._suppression_log.append(asked)))

        return work

    async def _consenting(self, caller: Caller, items: Sequence[Any]) -> "Work":
        given = [await self._checked(caller, number, item, self._consent) for number, item in enumerate(items)]

        async def work(appending: Appending | None) -> tuple[bytes, int]:
            try:
                if appending:
                    return _recorded(given, await record(appending, given)), 0
                async with self._suppression_log.appending() as own:
                    recorded = await record(own, given)
            except ValueError as error:
                raise Refused(400, str(error)) from None
            return _recorded(given, recorded), 0

        return work

    def _count(self, new: int) -> None:
        if self._on_suppressed is not None and new:
            self._on_suppressed(new)

    async def _checked(self, caller: Caller, number: int, item: Any, read: Callable[..., Awaitable[T]]) -> T:
        try:
            if not isinstance(item, dict) or not all(isinstance(value, str) for value in item.values()):
                raise _Wrong("an entry is an object of strings")
            if ("address" in item) == ("digest" in item):
                raise _Wrong("an entry has an address or a digest")
            return await read(caller, item)
        except (ValueError, TypeError) as error:
            text = str(error) if isinstance(error, _Wrong | AddressError) else "not an entry"
            raise Refused(400, text, number) from None

    async def _whom(self, caller: Caller, item: dict[str, str], fields: Set[str]) -> tuple[int, Scope, int]:
        if unknown := item.keys() - fields:
            raise _Wrong(f"{len(unknown)} unknown fields; known are {', '.join(sorted(fields))}")
        person = self._digest.person(item["address"]) if "address" in item else person_of_digest(item["digest"])
        list_id = await self._list_id(caller.tenant_id, item["list"]) if item.get("list") else 0
        return person, Scope.LIST if list_id else Scope.TENANT, list_id

    async def _entry(self, caller: Caller, item: dict[str, str]) -> NewEntry:
        kind = _KINDS.get(item.get("kind", "unsubscribe"))
        if kind is None:
            raise _Wrong(f"kind is one of {', '.join(_KINDS)}")
        person, scope, list_id = await self._whom(caller, item, _SUPPRESSION)
        return NewEntry(
            person, scope, kind, caller.tenant_id, list_id, Channel.API, caller.name, reason=item.get("reason", "")
        )

    async def _consent(self, caller: Caller, item: dict[str, str]) -> Consent:
        if not item.get("basis") or not item.get("source"):
            raise _Wrong("a consent has a basis and a source")
        at = None
        if "at" in item:
            at = consent_time(item["at"])
            if at is None:
                raise _Wrong("at is written like 2026-11-23T18:30:00+01:00")
        person, scope, list_id = await self._whom(caller, item, _CONSENT)
        return Consent(
            person, scope, caller.tenant_id, list_id, item["basis"], item["source"], caller.name, at,
            item.get("evidence", ""),
        )  # fmt: skip


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


def _recorded(given: Sequence[Consent], recorded: Sequence[Recorded]) -> bytes:
    told = [
        {
            "digest": digest_text(consent.person), "consent": each.consent_id, "at": each.at,
            "lifted_by_position": each.lifted.position if each.lifted else None,
        }
        for consent, each in zip(given, recorded, strict=True)
    ]  # fmt: skip
    return orjson.dumps({"entries": told})


def _json(status: int, body: bytes, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)
