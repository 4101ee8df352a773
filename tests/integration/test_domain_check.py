"""check-domain against name servers on the loopback interface: each wrong record has its own finding."""

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mta.domain_check import ALL, DomainCheck, Finding, Level, PublicKey, Sender
from mta.resolver import Resolver
from mta.spf import Spf, Verdict
from tests.support.dns import FAIL, NameServer

SPKI = PublicFormat.SubjectPublicKeyInfo
HOST, MAIL = "mx.example.org", "bounces.example.org"


def public_key(bits: int) -> bytes:
    return rsa.generate_private_key(65537, bits).public_key().public_bytes(Encoding.DER, SPKI)


KEY = public_key(2048)
KEY_768 = rsa.RSAPublicNumbers(65537, 2**767 + 1).public_key().public_bytes(Encoding.DER, SPKI)
ELLIPTIC = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.DER, SPKI)
ED25519 = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()


def dkim(key: bytes, more: str = "", kind: str = "rsa") -> list[str]:
    return dkim_text(f"v=DKIM1; k={kind}; {more}p={base64.b64encode(key).decode()}")


def dkim_text(value: str) -> list[str]:
    return ["300 TXT " + " ".join(f'"{value[at : at + 255]}"' for at in range(0, len(value), 255))]


GOOD = {
    HOST: ["300 A 192.0.2.1"],
    "1.2.0.192.in-addr.arpa": [f"300 PTR {HOST}."],
    MAIL: ['300 TXT "v=spf1 a:mx.example.org -all"', f"300 MX 10 {HOST}."],
    "heed._domainkey.example.com": dkim(KEY),
    "_dmarc.example.com": ['300 TXT "v=DMARC1; p=none; rua=mailto:dmarc@example.com"'],
}
WEB = {"web-unreachable", "one-click-unanswered"}
SENDER = Sender("example.com", MAIL, HOST, (), [PublicKey("example.com", "heed", KEY)], "https://127.0.0.1:1")


@asynccontextmanager
async def checking(zone: dict[str, list[str] | str]) -> AsyncIterator[DomainCheck]:
    async with NameServer(zone) as server:
        yield DomainCheck(Resolver(nameservers=["127.0.0.1"], port=server.port))


async def found(changes: Mapping[str, list[str] | str | None], sender: Sender = SENDER) -> dict[str, Finding]:
    zone = {name: records for name, records in {**GOOD, **changes}.items() if records is not None}
    async with checking(zone) as check:
        return {finding.name: finding for finding in await check.findings(sender)}


async def test_a_domain_that_is_ready() -> None:
    findings = await found({})
    names = ("ptr", "spf", "dkim", "dmarc", "bounce-mx")
    assert {findings[name].level for name in names} == {Level.OK}


@pytest.mark.parametrize(
    ("changes", "name", "level"),
    [
        ({HOST: None}, "hostname-address", Level.FAILED),
        ({"1.2.0.192.in-addr.arpa": None}, "ptr-missing", Level.FAILED),
        ({"1.2.0.192.in-addr.arpa": ["300 PTR other.example.org."]}, "ptr-not-confirmed", Level.FAILED),
        (
            {"1.2.0.192.in-addr.arpa": ["300 PTR o.example.org."], "o.example.org": ["300 A 192.0.2.1"]},
            "ptr-other-name",
            Level.WARNING,
        ),
        ({"1.2.0.192.in-addr.arpa": FAIL}, "ptr", Level.UNKNOWN),
        ({MAIL: [f"300 MX 10 {HOST}."]}, "spf-missing", Level.FAILED),
        ({MAIL: ['300 TXT "v=spf1 ip4:198.51.100.0/24 -all"']}, "spf-not-allowed", Level.FAILED),
        ({MAIL: ['300 TXT "v=spf1 -all"', '300 TXT "v=spf1 +all"']}, "spf-broken", Level.FAILED),
        ({MAIL: ['300 TXT "v=spf1 ipv4:192.0.2.1 -all"']}, "spf-broken", Level.FAILED),
        ({MAIL: ['300 TXT "v=spf1 ip4:192.0.2.300 +all"']}, "spf-broken", Level.FAILED),
        ({MAIL: ['300 TXT "v=spf1 a:mx.example.org +all"']}, "spf-allows-all", Level.WARNING),
        ({MAIL: ['300 TXT "v=spf1 ip4:0.0.0.0/0 -all"']}, "spf-allows-all", Level.WARNING),
        ({MAIL: ['300 TXT "v=spf1 ip4:192.0.2.1 include:gone.example.org -all"']}, "spf-broken", Level.WARNING),
        ({MAIL: ['300 TXT "v=spf1 exists:%{i}._spf.example.org -all"']}, "spf-not-evaluated", Level.WARNING),
        ({MAIL: ['300 TXT "v=spf1 ptr -all"']}, "spf-not-evaluated", Level.WARNING),
        ({HOST: None, MAIL: None}, "spf-missing", Level.FAILED),
        ({HOST: None, MAIL: ['300 TXT "v=spf1 ipv4:192.0.2.1 -all"']}, "spf-broken", Level.FAILED),
        ({HOST: None, MAIL: ['300 TXT "v=spf1 mx +all"']}, "spf-allows-all", Level.WARNING),
        ({HOST: None}, "spf", Level.UNKNOWN),
        ({HOST: FAIL}, "spf", Level.UNKNOWN),
        ({MAIL: FAIL}, "spf", Level.UNKNOWN),
        ({MAIL: ['300 TXT "v=spf1 a:mx.example.org -all"']}, "bounce-mx-missing", Level.FAILED),
        ({MAIL: ["300 MX 10 gone.example.org."]}, "bounce-mx-no-address", Level.FAILED),
        ({"heed._domainkey.example.com": None}, "dkim-missing", Level.FAILED),
        ({"heed._domainkey.example.com": dkim(b"")}, "dkim-revoked", Level.FAILED),
        ({"heed._domainkey.example.com": dkim(public_key(2048))}, "dkim-other-key", Level.FAILED),
        ({"heed._domainkey.example.com": dkim(KEY) + dkim(KEY, "t=s; ")}, "dkim-several", Level.FAILED),
        ({"heed._domainkey.example.com": dkim(KEY, "t=y; ")}, "dkim-testing", Level.WARNING),
        ({"heed._domainkey.example.com": ['300 TXT "v=DKIM1; p=***"']}, "dkim-broken", Level.FAILED),
        ({"heed._domainkey.example.com": FAIL}, "dkim", Level.UNKNOWN),
        ({"_dmarc.example.com": None}, "dmarc-missing", Level.FAILED),
        ({"_dmarc.example.com": ['300 TXT "v=DMARC1; rua=mailto:a@example.com"']}, "dmarc-no-policy", Level.FAILED),
        ({"_dmarc.example.com": ['300 TXT "v=DMARC1; p=reject"']}, "dmarc-no-reports", Level.WARNING),
        (
            {"_dmarc.example.com": ['300 TXT "v=DMARC1; p=none"', '300 TXT "v=DMARC1; p=reject"']},
            "dmarc-several",
            Level.FAILED,
        ),
    ],
)
async def test_each_wrong_record_has_its_own_finding(
    changes: dict[str, list[str] | str | None], name: str, level: Level
) -> None:
    finding = (await found(changes))[name]
    assert finding.level is level
    assert level is not Level.FAILED or finding.demanded_by == ALL


async def test_the_spf_record_to_publish_names_every_address() -> None:
    sender = replace(SENDER, addresses=("192.0.2.1", "2001:db8::1"))
    assert "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 -all" in (await found({MAIL: None}, sender))["spf-missing"].text
    assert f"v=spf1 a:{HOST} -all" in (await found({MAIL: None, HOST: None}))["spf-missing"].text


@pytest.mark.parametrize("addresses", [(), ("192.0.2.1",)])
async def test_what_no_name_server_answers_is_unknown(addresses: tuple[str, ...]) -> None:
    sender = replace(SENDER, addresses=addresses)
    findings = await found({HOST: FAIL, "1.2.0.192.in-addr.arpa": ["300 PTR mx.example.org."]}, sender)
    asked = "ptr" if addresses else "hostname-address"
    assert {findings[name].level for name in (asked, "bounce-mx", "spf")} == {Level.UNKNOWN}
    assert {name for name in findings if findings[name].level is Level.FAILED} == WEB


async def test_a_null_mx_is_no_question_to_a_name_server() -> None:
    records = ['300 TXT "v=spf1 a:mx.example.org -all"', "300 MX 0 ."]
    assert (await found({MAIL: records, "": FAIL}))["bounce-mx-no-address"].level is Level.FAILED


@pytest.mark.parametrize(
    ("record", "name", "level"),
    [
        (dkim(b"\0\0\0", kind="ed25519"), "dkim-broken", Level.FAILED),
        (dkim(KEY, kind="ed25519"), "dkim-broken", Level.FAILED),
        (dkim(b"\0\0\0"), "dkim-broken", Level.FAILED),
        (dkim(ED25519), "dkim-broken", Level.FAILED),
        (dkim(ELLIPTIC), "dkim-broken", Level.FAILED),
        (dkim(KEY, "p=AAAA; "), "dkim-broken", Level.FAILED),
        (dkim_text("v=DKIM1; k=rsa"), "dkim-broken", Level.FAILED),
        (dkim_text("v=DKIM1; k=rsa p=AAAA"), "dkim-broken", Level.FAILED),
        (dkim_text("v=DKIM2; p=AAAA"), "dkim-broken", Level.FAILED),
        (dkim_text("k=rsa; v=DKIM1; p=AAAA"), "dkim-broken", Level.FAILED),
        (dkim_text("v=spf1 exp=example.org"), "dkim-missing", Level.FAILED),
        (dkim(KEY, kind="dsa"), "dkim-key-type", Level.FAILED),
        (dkim(KEY, "h=sha1; "), "dkim-hash", Level.FAILED),
        (dkim(KEY, "h=sha1 : sha256; "), "dkim", Level.OK),
        (dkim(KEY, "s=tlsrpt; "), "dkim-service", Level.FAILED),
        (dkim(KEY, "s=tlsrpt:email; "), "dkim", Level.OK),
        (dkim(KEY, "s=*; "), "dkim", Level.OK),
        (dkim(b"\0\0\0", "t=y; "), "dkim-broken", Level.FAILED),
        (dkim(KEY_768), "dkim-short-key", Level.FAILED),
        (dkim(public_key(1024), "t=s:y; "), "dkim-testing", Level.WARNING),
        (dkim(public_key(1024), "t=y; "), "dkim-weak-key", Level.WARNING),
    ],
)
async def test_what_makes_a_dkim_record_useless(record: list[str], name: str, level: Level) -> None:
    sender = replace(SENDER, keys=[PublicKey("example.com", "heed")])
    findings = await found({"heed._domainkey.example.com": record}, sender)
    assert findings[name].level is level
    assert level is Level.OK or "dkim" not in findings


async def test_ed25519_alone_is_read_by_few() -> None:
    zone = {"ed._domainkey.example.com": dkim(ED25519, kind="ed25519")}
    key = PublicKey("example.com", "ed", ED25519)
    alone = await found(zone, replace(SENDER, keys=[key]))
    assert (alone["dkim-only-ed25519"].level, "dkim" in alone) == (Level.WARNING, False)
    both = await found(zone, replace(SENDER, keys=[*SENDER.keys, key]))
    assert (both["dkim"].level, "dkim-only-ed25519" in both) == (Level.OK, False)


@pytest.mark.parametrize(("bits", "name"), [(1024, "dkim-weak-key"), (512 * 2 + 1024, "dkim")])
async def test_the_size_of_a_key(bits: int, name: str) -> None:
    key = public_key(bits)
    sender = Sender("example.com", MAIL, HOST, (), [PublicKey("example.com", "heed")], SENDER.web_url)
    assert name in await found({"heed._domainkey.example.com": dkim(key)}, sender)


async def test_alignment() -> None:
    other = Sender("example.com", MAIL, HOST, (), [PublicKey("example.net", "heed", KEY)], SENDER.web_url)
    assert "dkim-not-aligned" in await found({"heed._domainkey.example.net": dkim(KEY)}, other)
    below = Sender("news.example.com", MAIL, HOST, (), [PublicKey("example.com", "heed", KEY)], SENDER.web_url)
    strict = {"_dmarc.example.com": ['300 TXT "v=DMARC1; p=none; adkim=s; rua=mailto:a@example.com"']}
    assert "dmarc-not-aligned" in await found(strict, below)
    assert "dmarc-not-aligned" not in await found({}, below)
    assert "dkim-no-key" in await found({}, Sender("example.com", MAIL, HOST, (), [], SENDER.web_url))


async def test_nobody_answers_at_the_web_address() -> None:
    findings = await found({})
    assert findings["web-unreachable"].demanded_by == findings["one-click-unanswered"].demanded_by == ("Gmail", "Yahoo")


@pytest.mark.parametrize(
    ("code", "levels"),
    [
        (socket.EAI_AGAIN, {"web-certificate": Level.UNKNOWN, "one-click": Level.UNKNOWN}),
        (socket.EAI_NONAME, dict.fromkeys(WEB, Level.FAILED)),
    ],
)
async def test_the_web_address_has_a_name_server_too(
    code: int, levels: dict[str, Level], monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(code, "no address")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    findings = await found({}, replace(SENDER, web_url="https://web.example.org"))
    assert {name: findings[name].level for name in levels} == levels


@asynccontextmanager
async def website(
    status: int, server: str, expires: datetime | None = None
) -> AsyncIterator[tuple[str, ssl.SSLContext]]:
    """A web server with a certificate, and what trusts it."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", not_after=expires).configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Server": server, "Location": "https://example.com/"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}", trusting
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "server", "name", "level"),
    [
        (404, "heed", "one-click", Level.OK),
        (302, "heed", "one-click-redirects", Level.FAILED),
        (200, "nginx", "one-click-elsewhere", Level.FAILED),
    ],
)
async def test_the_web_address(status: int, server: str, name: str, level: Level) -> None:
    async with website(status, server) as (url, trusting), NameServer(GOOD) as dns:
        sender = Sender("example.com", MAIL, HOST, (), SENDER.keys, url)
        resolver = Resolver(nameservers=["127.0.0.1"], port=dns.port)
        findings = {f.name: f for f in await DomainCheck(resolver, tls=trusting).findings(sender)}
        assert findings[name].level is level
        assert findings["web-certificate"].level is Level.OK
        untrusting = {f.name: f for f in await DomainCheck(resolver).findings(sender)}
        assert untrusting["web-certificate"].level is Level.FAILED


async def test_a_certificate_that_ends_soon() -> None:
    soon = datetime.now(UTC) + timedelta(days=5)
    async with website(404, "heed", soon) as (url, trusting), NameServer(GOOD) as dns:
        check = DomainCheck(Resolver(nameservers=["127.0.0.1"], port=dns.port), tls=trusting)
        findings = {f.name for f in await check.findings(Sender("example.com", MAIL, HOST, (), SENDER.keys, url))}
        assert "web-certificate-expires" in findings


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("v=spf1 ip4:192.0.2.0/24 -all", "pass"),
        ("v=spf1 include:one.example.org ~all", "pass"),
        ("v=spf1 mx -all", "pass"),
        ("v=spf1 redirect=one.example.org", "pass"),
        ("v=spf1 ip6:2001:db8::/32 ?all", "neutral"),
        ("v=spf1 ~all", "softfail"),
        ("v=spf1 a:mx.example.org. -all", "pass"),
        ("v=spf1 a:other.example.org/24//64 -all", "pass"),
        ("v=spf1 a:other.example.org -all", "fail"),
        ("V=SPF1  IP4:192.0.2.1  -ALL", "pass"),
        ("v=spf1 ip4:192.0.2.77/24 -all", "pass"),
        ("v=spf1 redirect=one.example.org exp=why.example.org unknown=%{d}", "pass"),
        ("v=spf1 redirect=one.example.org ~all", "softfail"),
        ("v=spf1", "neutral"),
        ("v=spf10 +all", "none"),
        ("v=spf1 include:two.example.org -all", "fail"),
        ("v=spf1 exists:%{ir}.%{v}._spf.%{d2} ptr:example.org a:%{d} ?all", "neutral"),
        ("v=spf1 a:gone.example.org a:gone.example.org -all", "fail"),
        ("v=spf1 a:fails.example.org +all", "temperror"),
        ("v=spf1 mx:many.example.org +all", "pass"),
        ("v=spf1 mx:fails.example.org +all", "temperror"),
        ("v=spf1 mx:behind.example.org +all", "temperror"),
        ("v=spf1 include:fails.example.org +all", "temperror"),
        ("v=spf1 redirect=fails.example.org", "temperror"),
        ("v=spf1 redirect=gone.example.org", "permerror"),
        ("v=spf1 include:gone.example.org +all", "permerror"),
        ("v=spf1 mx:more.example.org +all", "permerror"),
        ("v=spf1 " + "a:other.example.org " * 10 + "+all", "pass"),
        ("v=spf1 " + "a:other.example.org " * 11 + "+all", "permerror"),
        ("v=spf1 " + "a:gone.example.org " * 3 + "+all", "permerror"),
        ("v=spf1 include:loop.example.org -all", "permerror"),
    ],
)
async def test_spf(record: str, result: str) -> None:
    assert (await spf_verdict(record)).result == result


@pytest.mark.parametrize(
    "term",
    [
        "ip4:192.0.2.300", "ip4:192.0.2.1/33", "ip4:192.0.2.1/255.255.255.0", "ip4:192.0.2.1//24", "ip4:2001:db8::1",
        "ip4:", "ip4", "ip6:192.0.2.1", "ip6:2001:db8::/129", "ip6:fe80::1%25", "a:mx.example.org/33", "a/024",
        "mx//129", "a:", "a:/24", "a:localhost", "a:mx..example.org", "a:mx.example.123",
        "a:" + "m" * 64 + ".example.org",
        "include", "include:", "include:one.example.org/24", "exists", "all:example.org", "all/8", "ptr/24",
        "ipv4:192.0.2.1", "nonsense", "+-all", "%", "exists:%{x}.example.org", "exists:%{d0}.example.org",
        "exists:%(d)", "redirect=", "redirect=localhost", "redirect=a.example.org redirect=a.example.org",
        "exp=a.b exp=a.b", "x=%{", "-redirect=one.example.org",
    ],
)  # fmt: skip
async def test_a_wrong_term_breaks_spf_wherever_it_is(term: str) -> None:
    for record in (f"v=spf1 {term} +all", f"v=spf1 ip4:192.0.2.1 {term}", f"v=spf1 +all {term}"):
        verdict = await spf_verdict(record)
        assert verdict.result == "permerror"
        assert verdict.reason.startswith("spf.example.org: ")


async def spf_verdict(record: str) -> Verdict:
    """For 192.0.2.1."""
    zone = {
        "spf.example.org": [f'300 TXT "{record}"', "300 MX 5 mx.example.org."],
        "mx.example.org": ["300 A 192.0.2.1"],
        "other.example.org": ["300 A 192.0.2.99", "300 AAAA 2001:db8::99"],
        "many.example.org": ["300 MX 5 mx.example.org."] + ["300 MX 5 other.example.org."] * 2,
        "more.example.org": [f"300 MX {at} other.example.org." for at in range(11)],
        "behind.example.org": ["300 MX 5 fails.example.org."],
        "fails.example.org": FAIL,
        "one.example.org": ['300 TXT "v=spf1 ip4:192.0.2.1 -all"'],
        "two.example.org": ['300 TXT "v=spf1 -all"'],
        "loop.example.org": ['300 TXT "v=spf1 include:loop.example.org"'],
    }
    async with NameServer(zone) as server:
        async with asyncio.timeout(10):
            return await Spf(Resolver(nameservers=["127.0.0.1"], port=server.port)).check(
                "spf.example.org", "192.0.2.1"
            )
