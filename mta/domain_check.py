"""Whether a domain is ready to send: what Gmail, Yahoo and Outlook publish as their requirements, looked up one by one.

Each finding has a name of its own, says what is wrong and what would be right, and who demands it. Nothing is changed
anywhere. A look-up that fails for now is a finding of its own kind: it says nothing about the domain.
"""

import asyncio
import base64
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mta.dkim_keys import signing_domains
from mta.resolver import Found, Resolver
from mta.spf import NOBODY, Spf

GMAIL: Final = "Gmail"
YAHOO: Final = "Yahoo"
OUTLOOK: Final = "Outlook"
ALL: Final = (GMAIL, YAHOO, OUTLOOK)
_EXPIRY_DAYS: Final = 14
_TIMEOUT_SECONDS: Final = 10.0
# no token: Heed answers 404 to it, and nobody is unsubscribed
_NO_TOKEN: Final = "/u/heed-check-domain"  # noqa: S105


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. demanded_by: the providers whose published requirements ask for it."""

    name: str
    level: Level
    text: str
    demanded_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A DKIM key of ours, as it must be published. public_key: as in the p= tag, decoded; empty: whatever is there."""

    domain: str
    selector: str
    public_key: bytes = b""


@dataclass(frozen=True, slots=True)
class Sender:
    """How mail of a domain leaves: envelope domain, addresses, keys and web address."""

    domain: str
    mail_domain: str
    hostname: str
    addresses: Sequence[str]
    keys: Sequence[PublicKey]
    web_url: str


class DomainCheck:
    """Checks one sender. tls: what the web address is checked with, that of browsers unless a test says otherwise."""

    def __init__(
        self, resolver: Resolver, *, tls: ssl.SSLContext | None = None, now: Callable[[], datetime] | None = None
    ) -> None:
        self._resolver = resolver
        self._tls = tls or ssl.create_default_context()
        self._now = now or (lambda: datetime.now(UTC))

    async def findings(self, sender: Sender) -> list[Finding]:
        """Everything, in the order of the page in docs/."""
        checks: list[Awaitable[list[Finding]]] = [
            self._names(sender),
            self._spf(sender),
            self._dkim(sender),
            self._dmarc(sender),
            self._bounces(sender),
            self._certificate(sender),
            self._one_click(sender),
        ]
        return [finding for found in await asyncio.gather(*checks) for finding in found]

    async def _names(self, sender: Sender) -> list[Finding]:
        """PTR of every sending address, and back."""
        found = await self._addresses(sender)
        if found.failure:
            return [Finding("hostname-address", Level.UNKNOWN, f"addresses of {sender.hostname}: {found.failure}")]
        if not found.values:
            text = f"{sender.hostname} has no address: set identity.hostname to this node's name, or give --address"
            return [Finding("hostname-address", Level.FAILED, text, ALL)]
        return [await self._pointer(address, sender.hostname) for address in found.values]

    async def _addresses(self, sender: Sender) -> Found[str]:
        """Those that were named, or those of the host name."""
        if sender.addresses:
            return Found(tuple(sender.addresses))
        return await self._resolver.addresses(sender.hostname)

    async def _pointer(self, address: str, hostname: str) -> Finding:
        names = await self._resolver.pointers(address)
        if names.failure:
            return Finding("ptr", Level.UNKNOWN, f"PTR of {address}: {names.failure}")
        if not names.values:
            return Finding("ptr-missing", Level.FAILED, f"{address} has no PTR record; it should be {hostname}", ALL)
        failure = ""
        for name in names.values:
            found = await self._resolver.addresses(name)
            if address in found.values:
                if name != hostname:
                    text = f"{address} is called {name}, but says {hostname} in EHLO; they should be the same"
                    return Finding("ptr-other-name", Level.WARNING, text, (GMAIL,))
                return Finding("ptr", Level.OK, f"{address} is {name}, and back", ALL)
            if found.failure:
                failure = f"{address} is called {name}, whose addresses can't be had: {found.failure}"
        if failure:
            return Finding("ptr", Level.UNKNOWN, failure)
        text = f"{address} is called {names.values[0]}, which does not have that address (no forward confirmation)"
        return Finding("ptr-not-confirmed", Level.FAILED, text, ALL)

    async def _spf(self, sender: Sender) -> list[Finding]:
        """The record by itself, and for every sending address."""
        addresses = (await self._addresses(sender)).values
        domain = sender.mail_domain
        others = await Spf(self._resolver).check(domain, NOBODY)
        if others.result == "none":
            named = " ".join(f"ip{6 if ':' in address else 4}:{address}" for address in addresses)
            text = f"{domain} has no SPF record; publish for example: v=spf1 {named or f'a:{sender.hostname}'} -all"
            return [Finding("spf-missing", Level.FAILED, text, ALL)]
        found = [await self._allowed(domain, address) for address in addresses]
        if others.result == "pass":
            text = f"the SPF record of {domain} lets anybody send ({others.reason}); let it end with -all or ~all"
            found.append(Finding("spf-allows-all", Level.WARNING, text, ALL))
        if others.result == "permerror" and all(finding.level is not Level.FAILED for finding in found):
            text = f"SPF of {domain} for addresses that it does not name: permanent error, {others.reason}"
            found.append(Finding("spf-broken", Level.WARNING if found else Level.FAILED, text, ALL))
        if not found:
            text = f"{domain} has an SPF record; whether it names the sending address can't be said without one"
            found.append(Finding("spf", Level.UNKNOWN, others.reason if others.result == "temperror" else text))
        return found

    async def _allowed(self, domain: str, address: str) -> Finding:
        spf = Spf(self._resolver)
        verdict = await spf.check(domain, address)
        at = f"SPF of {domain} for {address}"
        match verdict.result:
            case "pass":
                return Finding("spf", Level.OK, f"{at}: pass ({verdict.reason})", ALL)
            case "permerror":
                return Finding("spf-broken", Level.FAILED, f"{at}: permanent error, {verdict.reason}", ALL)
            case "temperror":
                return Finding("spf", Level.UNKNOWN, f"{at}: {verdict.reason}")
            case result if spf.left_out:
                text = f"{at}: {result}, unless {spf.left_out} allows it, which is not looked up here"
                return Finding("spf-not-evaluated", Level.WARNING, text, ALL)
            case result:
                text = f"{at}: {result} ({verdict.reason}); the record must name the address"
                return Finding("spf-not-allowed", Level.FAILED, text, ALL)

    async def _dkim(self, sender: Sender) -> list[Finding]:
        if not sender.keys:
            text = f"there is no DKIM key for {sender.domain}; `heed dkim new {sender.domain} --tenant …` makes one"
            return [Finding("dkim-no-key", Level.FAILED, text, ALL)]
        published = [await self._published(key) for key in sender.keys]
        alone = all(not isinstance(record, Finding) and record.get("k") == "ed25519" for record in published)
        found = []
        for key, record in zip(sender.keys, published, strict=True):
            found += [record] if isinstance(record, Finding) else _judged(key, record, alone=alone)
        organisation = signing_domains(sender.domain)[-1]
        for key in sender.keys:
            if signing_domains(key.domain)[-1] != organisation:
                text = f"key {key.selector} signs for {key.domain}, which is not aligned with {sender.domain}"
                found.append(Finding("dkim-not-aligned", Level.FAILED, text, ALL))
        return found

    async def _published(self, key: PublicKey) -> dict[str, str] | Finding:
        """The tags of a key's one record, or why there is none to judge."""
        name = _record_name(key)
        texts = await self._resolver.texts(name)
        if texts.failure:
            return Finding("dkim", Level.UNKNOWN, f"{name}: {texts.failure}")
        records = [tags for tags in map(_tags, texts.values) if "p" in dict(tags) or ("v", "DKIM1") in tags]
        if not records:
            return Finding("dkim-missing", Level.FAILED, f"{name} has no DKIM record; `heed dkim list` shows it", ALL)
        if len(records) > 1:
            return Finding("dkim-several", Level.FAILED, f"{name} has {len(records)} records, and must have one", ALL)
        tags = dict(records[0])
        if len(tags) < len(records[0]):
            return Finding("dkim-broken", Level.FAILED, f"{name} has a tag twice, which makes all of it invalid", ALL)
        return tags

    async def _dmarc(self, sender: Sender) -> list[Finding]:
        organisation = signing_domains(sender.domain)[-1]
        for domain in dict.fromkeys((sender.domain, organisation)):
            texts = await self._resolver.texts(f"_dmarc.{domain}")
            if texts.failure:
                return [Finding("dmarc", Level.UNKNOWN, f"_dmarc.{domain}: {texts.failure}")]
            records = [text for text in texts.values if text.lower().replace(" ", "").startswith("v=dmarc1")]
            if len(records) > 1:
                return [Finding("dmarc-several", Level.FAILED, f"_dmarc.{domain} has several DMARC records", ALL)]
            if records:
                return _dmarc_findings(domain, dict(_tags(records[0])), sender)
        text = f"there is no DMARC record; publish at _dmarc.{organisation}: v=DMARC1; p=none; rua=mailto:…"
        return [Finding("dmarc-missing", Level.FAILED, text, ALL)]

    async def _bounces(self, sender: Sender) -> list[Finding]:
        """Where bounces and unsubscribe mail come to."""
        found = await self._resolver.mx(sender.mail_domain)
        if found.failure:
            return [Finding("bounce-mx", Level.UNKNOWN, f"MX of {sender.mail_domain}: {found.failure}")]
        if not found.values:
            text = (
                f"{sender.mail_domain} has no MX: bounces and unsubscribe mail can't come; let it be {sender.hostname}"
            )
            return [Finding("bounce-mx-missing", Level.FAILED, text, ALL)]
        failure = ""
        for exchange in filter(None, (mx.exchange for mx in found.values)):
            hosts = await self._resolver.addresses(exchange)
            if hosts.values:
                return [Finding("bounce-mx", Level.OK, f"mail to {sender.mail_domain} goes to {exchange}", ALL)]
            if hosts.failure:
                failure = f"addresses of {exchange}, an MX of {sender.mail_domain}: {hosts.failure}"
        if failure:
            return [Finding("bounce-mx", Level.UNKNOWN, failure)]
        text = f"{found.values[0].exchange or 'the null MX'}, the MX of {sender.mail_domain}, has no address"
        return [Finding("bounce-mx-no-address", Level.FAILED, text, ALL)]

    async def _certificate(self, sender: Sender) -> list[Finding]:
        parts = urlsplit(sender.web_url)
        host, port = parts.hostname or "", parts.port or 443
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                _, writer = await asyncio.open_connection(host, port, ssl=self._tls, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            text = f"the certificate of {host}:{port} is not accepted: {error.verify_message}"
            return [Finding("web-certificate", Level.FAILED, text, (GMAIL, YAHOO))]
        except (OSError, TimeoutError) as error:
            if _unanswered(error):
                return [Finding("web-certificate", Level.UNKNOWN, f"no name server says where {host} is")]
            text = f"no TLS connection to {host}:{port} ({type(error).__name__}): one-click can't work"
            return [Finding("web-unreachable", Level.FAILED, text, (GMAIL, YAHOO))]
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        expires = x509.load_der_x509_certificate(der).not_valid_after_utc
        days = (expires - self._now()).days
        if days < _EXPIRY_DAYS:
            text = f"the certificate of {host} ends on {expires:%Y-%m-%d}, in {days} days"
            return [Finding("web-certificate-expires", Level.WARNING, text, (GMAIL, YAHOO))]
        return [Finding("web-certificate", Level.OK, f"the certificate of {host} is valid until {expires:%Y-%m-%d}")]

    async def _one_click(self, sender: Sender) -> list[Finding]:
        """A POST as a mailbox provider makes it, with a token that is none."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
        connector = aiohttp.TCPConnector(ssl=self._tls)
        body = {"List-Unsubscribe": "One-Click"}
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
                session.post(sender.web_url + _NO_TOKEN, data=body, allow_redirects=False) as answer,
            ):
                status, server = answer.status, answer.headers.get("Server", "")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if _unanswered(error):
                return [Finding("one-click", Level.UNKNOWN, f"no name server says where {sender.web_url} is")]
            text = f"a one-click POST to {sender.web_url} is not answered ({type(error).__name__})"
            return [Finding("one-click-unanswered", Level.FAILED, text, (GMAIL, YAHOO))]
        if 300 <= status < 400:
            text = f"{sender.web_url} redirects a one-click POST, which RFC 8058 forbids"
            return [Finding("one-click-redirects", Level.FAILED, text, (GMAIL, YAHOO))]
        if status != 404 or server != "heed":
            text = f"{sender.web_url} answers HTTP {status} and is not Heed's web listener"
            return [Finding("one-click-elsewhere", Level.FAILED, text, (GMAIL, YAHOO))]
        return [Finding("one-click", Level.OK, "one-click unsubscribe is answered by Heed", (GMAIL, YAHOO))]


def _unanswered(error: BaseException) -> bool:
    """Whether the system's resolver had no answer: it may have one later."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN


def _record_name(key: PublicKey) -> str:
    return f"{key.selector}._domainkey.{key.domain}"


def _judged(key: PublicKey, tags: dict[str, str], *, alone: bool) -> list[Finding]:
    """A published record against the key that signs: what makes it useless, or all warnings, or that it is right.

    alone: there is no RSA key.
    """
    name = _record_name(key)
    wrong = _wrong(tags, key.public_key)
    if wrong is not None:
        return [Finding(wrong[0], Level.FAILED, f"{name} {wrong[1]}", ALL)]
    bits = _rsa_bits(tags)
    found = []
    if "y" in _listed(tags.get("t", "")):
        text = f"{name} says t=y: receivers may ignore the signature"
        found.append(Finding("dkim-testing", Level.WARNING, text, ALL))
    if 0 < bits < 2048:
        text = f"{name} has {bits} bits; 2048 are recommended"
        found.append(Finding("dkim-weak-key", Level.WARNING, text, (GMAIL,)))
    if alone:
        text = f"{name} is Ed25519, which few receivers read; keep an RSA key beside it"
        found.append(Finding("dkim-only-ed25519", Level.WARNING, text, ALL))
    kind = f"{bits} bits" if tags.get("k", "rsa") == "rsa" else "Ed25519"
    return found or [Finding("dkim", Level.OK, f"{name} is published, {kind}", ALL)]


def _wrong(tags: dict[str, str], expected: bytes) -> tuple[str, str] | None:
    """What makes a record useless to receivers (RFC 6376 §3.6.1): the finding's name, and what the record does."""
    kind = tags.get("k", "rsa")
    if "v" in tags and next(iter(tags.items())) != ("v", "DKIM1"):
        return "dkim-broken", "must begin with v=DKIM1"
    if "p" not in tags:
        return "dkim-broken", "has no p="
    if not tags["p"]:
        return "dkim-revoked", "has an empty p=: the key is revoked"
    if kind not in ("rsa", "ed25519"):
        return "dkim-key-type", f"says k={kind}; receivers know rsa and ed25519"
    if "sha256" not in _listed(tags.get("h", "sha256")):
        return "dkim-hash", f"says h={tags['h']}, and Heed signs with sha256; take h= out"
    if not {"*", "email"} & set(_listed(tags.get("s", "*"))):
        return "dkim-service", f"says s={tags['s']}: the key is not for mail; take s= out"
    published = _octets(tags)
    if published is None:
        return "dkim-broken", "has a p= that is not base64"
    if expected and published != expected:
        return "dkim-other-key", "is another key than the one that signs; `heed dkim list` shows what to publish"
    bits = _rsa_bits(tags)
    if kind == "ed25519":
        return None if len(published) == 32 else ("dkim-broken", f"has {len(published)} octets as Ed25519 key, not 32")
    if not bits:
        return "dkim-broken", "has a p= that holds no RSA key"
    return ("dkim-short-key", f"has {bits} bits; at least 1024 are demanded") if bits < 1024 else None


def _octets(tags: dict[str, str]) -> bytes | None:
    try:
        return base64.b64decode("".join(tags["p"].split()), validate=True)
    except ValueError:  # of characters beyond ASCII, too
        return None


def _rsa_bits(tags: dict[str, str]) -> int:
    """The size of the RSA key that is published; 0: it is none."""
    try:
        key = load_der_public_key(_octets(tags) or b"")
    except (ValueError, UnsupportedAlgorithm):
        return 0
    return key.key_size if isinstance(key, RSAPublicKey) else 0


def _listed(value: str) -> list[str]:
    """A colon-separated list."""
    return [each.strip() for each in value.split(":")]


def _dmarc_findings(domain: str, tags: dict[str, str], sender: Sender) -> list[Finding]:
    policy = tags.get("p", "").lower()
    if policy not in ("none", "quarantine", "reject"):
        text = f"_dmarc.{domain} has no valid p=; at least p=none is demanded"
        return [Finding("dmarc-no-policy", Level.FAILED, text, ALL)]
    found = [Finding("dmarc", Level.OK, f"_dmarc.{domain}: p={policy}", ALL)]
    if "rua" not in tags:
        text = f"_dmarc.{domain} has no rua=: nobody gets reports about forged mail"
        found.append(Finding("dmarc-no-reports", Level.WARNING, text, (GMAIL, YAHOO)))
    if tags.get("adkim", "r").lower() == "s" and not any(key.domain == sender.domain for key in sender.keys):
        text = f"adkim=s demands a key for {sender.domain} itself; the keys are for other domains"
        found.append(Finding("dmarc-not-aligned", Level.FAILED, text, ALL))
    return found


def _tags(record: str) -> list[tuple[str, str]]:
    """A tag-list (RFC 6376 §3.2)."""
    pairs = (part.partition("=") for part in record.split(";"))
    return [(name.strip().lower(), value.strip()) for name, _, value in pairs if name.strip()]
