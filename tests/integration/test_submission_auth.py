"""AUTH on the submission listener (RFC 4954): mechanisms, wrong input, wrong passwords, and limits on guessing."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mta.door import Door
from mta.submission import protocols
from suppression.digest import MessageClass
from tests.support.client import Client, connected, trusting
from tests.support.node import Node, listening, node, server_tls

USER, PASSWORD = "acme-app", "correct horse battery"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


RIGHT = b64(f"\0{USER}\0{PASSWORD}")
WRONG = b64(f"\0{USER}\0guess")


class Monotonic:
    """Seconds that pass when a test says so."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
async def n(database_url: str, tmp_path: Path) -> AsyncIterator[Node]:
    async with node(database_url, tmp_path) as made:
        await made.parts.accounts.add_tenant("acme")
        await made.parts.accounts.add_credential("acme", USER, MessageClass.CAMPAIGN, PASSWORD)
        yield made


@asynccontextmanager
async def over_tls(door: Door) -> AsyncIterator[Client]:
    async with listening(protocols(door), server_tls()) as port, connected(port, trusting()) as client:
        await client.greet()
        yield client


@pytest.fixture
async def client(n: Node) -> AsyncIterator[Client]:
    async with over_tls(await n.door(trusted=None, tls=None)) as made:
        yield made


async def may_submit(client: Client) -> bool:
    return (await client.say("MAIL FROM:<news@example.com>")).startswith("250")


async def test_plain_with_an_initial_response(client: Client) -> None:
    assert await client.say(f"AUTH PLAIN {RIGHT}") == "235 2.7.0 Authenticated"
    assert await may_submit(client)


async def test_plain_without_one(client: Client) -> None:
    assert await client.say("auth plain") == "334 "
    assert await client.say(RIGHT) == "235 2.7.0 Authenticated"
    assert await may_submit(client)


async def test_plain_with_an_authorisation_identity(client: Client) -> None:
    assert (await client.say("AUTH PLAIN " + b64(f"somebody\0{USER}\0{PASSWORD}"))).startswith("235")


async def test_login_asks_for_both(client: Client) -> None:
    assert await client.say("AUTH LOGIN") == "334 " + b64("Username:")
    assert await client.say(b64(USER)) == "334 " + b64("Password:")
    assert (await client.say(b64(PASSWORD))).startswith("235 ")
    assert await may_submit(client)


async def test_login_with_the_user_name_given(client: Client) -> None:
    assert await client.say(f"AUTH LOGIN {b64(USER)}") == "334 " + b64("Password:")
    assert (await client.say(b64(PASSWORD))).startswith("235 ")


async def test_a_whole_login_in_one_packet(client: Client) -> None:
    client.send(f"AUTH LOGIN\r\n{b64(USER)}\r\n{b64(PASSWORD)}\r\nMAIL FROM:<>\r\n".encode())
    assert await client.codes(4) == [334, 334, 235, 250]


@pytest.mark.parametrize(
    ("first", "answers", "last"),
    [
        ("AUTH PLAIN", ["*"], "501 5.7.0 Cancelled"),
        ("AUTH LOGIN", [b64(USER), "*"], "501 5.7.0 Cancelled"),
        ("AUTH PLAIN", ["not base64!"], "501 5.5.2 Not base64"),
        ("AUTH PLAIN !", [], "501 5.5.2 Not base64"),
        ("AUTH PLAIN abc", [], "501 5.5.2 Not base64"),
        ("AUTH PLAIN " + b64("no nul"), [], "501 5.5.2 Not a PLAIN response"),
        ("AUTH PLAIN =", [], "501 5.5.2 Not a PLAIN response"),
        ("AUTH PLAIN " + base64.b64encode(b"\0\xff\0\xff").decode(), [], "501 5.5.2 Not UTF-8"),
        ("AUTH LOGIN", ["!"], "501 5.5.2 Not base64"),
        ("AUTH CRAM-MD5", [], "504 5.5.4 PLAIN and LOGIN are known here"),
        ("AUTH", [], "504 5.5.4 PLAIN and LOGIN are known here"),
        ("AUTH PLAIN " + b64("\0\0"), [], "535 5.7.8 Wrong user name or password"),
        ("AUTH PLAIN " + b64(f"\0nobody\0{PASSWORD}"), [], "535 5.7.8 Wrong user name or password"),
        ("AUTH PLAIN " + WRONG, [], "535 5.7.8 Wrong user name or password"),
        ("AUTH PLAIN " + b64(f"\0{USER}\0"), [], "535 5.7.8 Wrong user name or password"),
        ("AUTH PLAIN " + b64(f"\0{USER}\0{PASSWORD} "), [], "535 5.7.8 Wrong user name or password"),
    ],
)
async def test_what_does_not_authenticate(client: Client, first: str, answers: list[str], last: str) -> None:
    reply = await client.say(first)
    for answer in answers:
        assert reply.startswith("334 ")
        reply = await client.say(answer)
    assert reply == last
    assert not await may_submit(client)
    assert (await client.say(f"AUTH PLAIN {RIGHT}")).startswith("235 ")


async def test_only_in_its_place(client: Client) -> None:
    assert (await client.say(f"AUTH PLAIN {RIGHT}")).startswith("235")
    assert (await client.say(f"AUTH PLAIN {RIGHT}")).startswith("503")


async def test_not_before_ehlo_nor_after_helo(n: Node) -> None:
    door = await n.door(trusted=None, tls=None)
    async with listening(protocols(door), server_tls()) as port, connected(port, trusting()) as client:
        await client.hear()
        assert (await client.say(f"AUTH PLAIN {RIGHT}")).startswith("503")
        await client.say("HELO app.example.com")
        assert (await client.say(f"AUTH PLAIN {RIGHT}")).startswith("503")


async def test_never_in_clear(n: Node) -> None:
    door = await n.door(trusted=None)
    async with listening(protocols(door)) as port, connected(port) as client:
        assert "AUTH" not in await client.greet()
        assert (await client.say(f"AUTH PLAIN {RIGHT}")).startswith("538 5.7.11 ")
        assert not await may_submit(client)


async def test_a_trusted_client_may_speak_for_another_tenant(n: Node) -> None:
    await n.parts.accounts.add_tenant("shop")
    await n.parts.accounts.add_credential("shop", "shop-app", MessageClass.TRANSACTIONAL, PASSWORD)
    async with over_tls(await n.door(tls=None)) as client:
        assert (await client.say("AUTH PLAIN " + b64(f"\0shop-app\0{PASSWORD}"))).startswith("235")
        client.send(b"MAIL FROM:<>\r\nRCPT TO:<a@example.net>\r\nDATA\r\nFrom: a@example.com\r\n\r\nx\r\n.\r\n")
        assert await client.codes(4) == [250, 250, 354, 250]
    query = "SELECT t.name, m.class FROM message m JOIN tenant t ON t.id = m.tenant_id"
    assert await n.rows(query) == [("shop", 1)]


async def test_a_revoked_credential_is_refused(n: Node) -> None:
    await n.parts.accounts.revoke_credential(USER)
    async with over_tls(await n.door(trusted=None, tls=None)) as client:
        assert (await client.say(f"AUTH PLAIN {RIGHT}")).startswith("535")


async def test_three_wrong_passwords_end_the_connection(client: Client) -> None:
    assert (await client.say(f"AUTH PLAIN {WRONG}")).startswith("535")
    assert (await client.say(f"AUTH PLAIN {WRONG}")).startswith("535")
    client.send(f"AUTH PLAIN {WRONG}\r\nAUTH PLAIN {RIGHT}\r\n".encode())
    assert await client.rest() == b"421 4.7.0 Too many failures\r\n"


async def test_a_database_that_is_down_is_no_wrong_password(n: Node) -> None:
    door = await n.door(trusted=None, tls=None)
    await n.database.close()
    async with over_tls(door) as client:
        assert (await client.say(f"AUTH PLAIN {RIGHT}")).startswith("454 4.7.0 ")


async def test_endless_wrong_input_ends_the_connection(client: Client) -> None:
    client.send(b"AUTH PLAIN !\r\n" * 30)
    assert (await client.rest()).splitlines() == [b"501 5.5.2 Not base64"] * 21 + [b"421 4.7.0 Too many errors"]


async def test_past_the_limit_an_address_is_refused_unseen_for_a_minute(n: Node) -> None:
    clock = Monotonic()
    door = await n.door(trusted=None, tls=None, failures_per_minute=2, clock=clock)
    async with over_tls(door) as first:
        assert (await first.say(f"AUTH PLAIN {WRONG}")).startswith("535")
        assert (await first.say(f"AUTH PLAIN {WRONG}")).startswith("535")
    async with over_tls(door) as second:
        first_word = b"421 4.7.0 Too many failures, try again later\r\n"
        second.send(f"AUTH PLAIN {RIGHT}\r\nAUTH PLAIN {RIGHT}\r\n".encode())
        assert await second.rest() == first_word
    clock.seconds = 61.0
    async with over_tls(door) as third:
        assert (await third.say(f"AUTH PLAIN {RIGHT}")).startswith("235")


async def test_guessing_on_many_connections_at_once_is_counted_as_well(
    n: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = await n.door(trusted=None, tls=None, failures_per_minute=3)
    tried = 0

    def matches(*_: Any) -> bool:
        nonlocal tried
        tried += 1
        return False

    monkeypatch.setattr(door.passwords._check, "matches", matches)
    guesses = [door.passwords.check("192.0.2.1", USER, f"guess {number}") for number in range(20)]
    await asyncio.gather(*guesses, return_exceptions=True)
    # two are compared at a time, so one more than the limit may be on its way
    assert tried <= 4
