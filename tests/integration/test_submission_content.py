"""What the submission listener takes and refuses: content, recipients, suppression, a database that is down."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import asyncpg
import pytest

from mta.door import Door
from mta.submission import SubmissionProtocol, protocols
from mta.vault import Address, CampaignKey
from suppression.digest import MessageClass
from tests.support.client import Client, connected
from tests.support.node import Node, eventually, listening, node, until

HEADER = b"From: news@example.com\r\nSubject: x\r\n\r\n"
MESSAGE = HEADER + b"hello\r\n"


@pytest.fixture
async def n(database_url: str, tmp_path: Path) -> AsyncIterator[Node]:
    async with node(database_url, tmp_path) as made:
        yield made


@pytest.fixture
async def door(n: Node) -> Door:
    return await n.door()


@pytest.fixture
async def client(door: Door) -> AsyncIterator[Client]:
    async with listening(protocols(door)) as port, connected(port) as made:
        await made.greet()
        yield made


async def envelope(client: Client, *recipients: str, sender: str = "<news@example.com>") -> None:
    """MAIL, RCPT and DATA, all of which succeed."""
    assert (await client.say(f"MAIL FROM:{sender}")).startswith("250")
    for recipient in recipients or ("<anna@example.net>",):
        assert (await client.say(f"RCPT TO:{recipient}")).startswith("250")
    assert (await client.say("DATA")).startswith("354")


async def deliver(client: Client, content: bytes, *recipients: str, sender: str = "<news@example.com>") -> str:
    await envelope(client, *recipients, sender=sender)
    client.send(content + b".\r\n")
    return await client.hear()


async def stored(n: Node) -> tuple[list[Address], list[bytes]]:
    """Recipients and contents as they can be opened from the database."""
    accounts = n.parts.accounts
    addresses, contents = [], []
    for message_id, campaign_id, content in await n.rows("SELECT id, campaign_id, content FROM message ORDER BY id"):
        key: CampaignKey = (await accounts.campaign_by_id(campaign_id)).key
        contents.append(key.open_content(message_id, content))
        query = "SELECT ordinal, address FROM recipient WHERE message_id = $1 ORDER BY ordinal"
        addresses += [
            key.open_address(message_id, number, sealed) for number, sealed in await n.rows(query, message_id)
        ]
    return addresses, contents


# --- the end of the content


@pytest.mark.parametrize("place", range(-8, 0))
async def test_the_end_may_come_in_pieces(n: Node, door: Door, client: Client, place: int) -> None:
    octets = MESSAGE + b".\r\n"
    await envelope(client)
    client.send(octets[:place])
    connection = cast("SubmissionProtocol", next(iter(door.connections)))
    await until(lambda: connection._data is not None)  # the first piece has been read
    client.send(octets[place:])
    assert (await client.hear()).startswith("250 ")
    assert (await stored(n))[1] == [MESSAGE]


async def test_dots_are_unstuffed_and_what_looks_like_an_end_is_none(n: Node, client: Client) -> None:
    body = b"..\r\n..two\r\n. \r\n.x\r\nx.\r\n"
    assert (await deliver(client, HEADER + body)).startswith("250 ")
    assert (await stored(n))[1] == [HEADER + b".\r\n.two\r\n \r\nx\r\nx.\r\n"]


@pytest.mark.parametrize(
    "ending",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\r\r\n.\r\n",
        b"x\ny\r\n",
        b"x\ry\r\n",
        b"\n",
    ],
)
async def test_only_crlf_dot_crlf_ends_and_bare_ones_are_refused(n: Node, client: Client, ending: bytes) -> None:
    await envelope(client)
    smuggled = b"MAIL FROM:<eve@example.com>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n" + MESSAGE + b".\r\n"
    client.send(HEADER + b"hello" + ending + smuggled)
    assert await client.rest() == b"550 5.5.2 Bare CR or LF in message: lines end in CRLF\r\n"
    assert await n.messages() == 0


async def test_nul_is_refused(n: Node, client: Client) -> None:
    await envelope(client)
    client.send(HEADER + b"a\0b\r\n.\r\n")
    assert await client.rest() == b"550 5.6.0 NUL in message\r\n"
    assert await n.messages() == 0


async def test_a_message_as_large_as_allowed_and_one_larger(n: Node, client: Client) -> None:
    def of(size: int) -> bytes:
        return HEADER + b"x" * (size - len(HEADER) - 2) + b"\r\n"

    assert (await deliver(client, of(100_000))).startswith("250 ")
    assert (await deliver(client, of(100_001))).startswith("552 5.3.4 ")
    assert (await deliver(client, of(500_000))).startswith("552 5.3.4 ")
    assert (await deliver(client, MESSAGE)).startswith("250 ")
    assert await n.messages() == 2


async def test_memory_is_bounded_while_too_much_comes(door: Door, client: Client) -> None:
    await envelope(client)
    client.send(HEADER)
    for _ in range(50):
        client.send(b"x" * 98 + b"\r\n" + b"y" * 99_898 + b"\r\n")
        await client.writer.drain()
        await asyncio.sleep(0)
        assert door.content_room.octets < 500_000
    client.send(b".\r\n")
    assert (await client.hear()).startswith("552 ")
    assert door.content_room.octets == 0


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (b"Subject: x\r\n\r\nx\r\n", "550 5.6.0"),
        (b"From: a@example.com\r\nFrom: b@example.com\r\n\r\nx\r\n", "550 5.6.0"),
        (b"From: a@example.com, b@example.com\r\n\r\nx\r\n", "550 5.6.0"),
        (b"no header at all\r\n", "550 5.6.0"),
        (b"", "550 5.6.0"),
        (b"\r\n", "550 5.6.0"),
        (b"From: a@example.com\r\nbroken line\r\n\r\nx\r\n", "550 5.6.0"),
        (b"From: a@example.com\r\nSubject: " + b"x" * 1_000 + b"\r\n\r\nx\r\n", "550 5.6.0"),
        (b"Received: x\r\n" * 101 + MESSAGE, "550 5.4.6"),
        ("From: ä@example.com\r\n\r\nx\r\n".encode(), "550 5.6.7"),
        (HEADER + b"\xff\xfe\r\n", "250 2.0.0"),
        (HEADER + b"x" * 5_000 + b"\r\n", "250 2.0.0"),
        (b"From: a@example.com\r\n", "250 2.0.0"),
    ],
)
async def test_content_that_is_refused(n: Node, client: Client, content: bytes, reply: str) -> None:
    assert (await deliver(client, content)).startswith(reply)
    assert await n.messages() == (1 if reply.startswith("250") else 0)
    assert (await deliver(client, MESSAGE)).startswith("250")


# --- recipients


async def test_too_many_recipients(n: Node, client: Client) -> None:
    client.send(b"MAIL FROM:<>\r\n" + b"".join(b"RCPT TO:<r%d@example.net>\r\n" % number for number in range(7)))
    assert await client.codes(8) == [250] * 6 + [452] * 2
    client.send(b"DATA\r\n" + MESSAGE + b".\r\n")
    assert await client.codes(2) == [354, 250]
    assert len((await stored(n))[0]) == 5


async def test_the_same_recipient_twice_is_one(n: Node, client: Client) -> None:
    recipients = ("<anna@example.net>", "<ANNA@Example.NET>", "<anna+news@example.net>")
    assert (await deliver(client, MESSAGE, *recipients)).startswith("250")
    addresses = [address.address for address in (await stored(n))[0]]
    assert sorted(address.lower() for address in addresses) == ["anna+news@example.net", "anna@example.net"]


async def test_dsn_parameters_are_kept(n: Node, client: Client) -> None:
    recipient = "<anna@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;anna+40example.net"
    assert (await deliver(client, MESSAGE, recipient, sender="<n@example.com> RET=HDRS ENVID=a1")).startswith("250")
    address = (await stored(n))[0][0]
    assert (address.notify, address.orcpt) == ("SUCCESS,FAILURE", "rfc822;anna+40example.net")
    ((message_id, campaign_id, sealed),) = await n.rows("SELECT id, campaign_id, envelope FROM message")
    key = (await n.parts.accounts.campaign_by_id(campaign_id)).key
    kept = key.open_envelope(message_id, sealed)
    assert (kept.sender, kept.ret, kept.envid) == ("n@example.com", "HDRS", "a1")


async def test_smtputf8(n: Node, client: Client) -> None:
    assert (await client.say("MAIL FROM:<>")).startswith("250")
    assert (await client.say("RCPT TO:<ännä@example.net>")).startswith("553 5.6.7")
    await client.say("RSET")
    content = "From: ä@example.com\r\nSubject: ü\r\n\r\nö\r\n".encode()
    assert (await deliver(client, content, "<ännä@bücher.example.net>", sender="<> SMTPUTF8")).startswith("250")
    assert (await stored(n))[0][0].address == "ännä@bücher.example.net"


async def test_no_address_in_clear_reaches_the_database(n: Node, client: Client) -> None:
    assert (await deliver(client, MESSAGE, "<marker-anna@example.net>", sender="<marker-news@example.com>")).startswith(
        "2"
    )
    for table in ("message", "recipient", "campaign", "list", "outcome"):
        assert "marker" not in str(await n.rows(f"SELECT * FROM {table}"))
        assert "6d61726b6572" not in str(await n.rows(f"SELECT t::text FROM {table} t"))


# --- suppression


async def test_a_suppressed_recipient_is_refused_at_rcpt(n: Node, client: Client) -> None:
    tenant = await n.parts.accounts.tenant("acme")
    n.stop("anna@example.net", tenant.id)
    client.send(
        b"MAIL FROM:<>\r\nRCPT TO:<anna@example.net>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n" + MESSAGE + b".\r\n"
    )
    assert await client.codes(5) == [250, 550, 250, 354, 250]
    await client.say("MAIL FROM:<>")
    assert await client.say("RCPT TO:<Anna@EXAMPLE.net>") == "550 5.7.1 Recipient is suppressed"
    assert await n.rows("SELECT person FROM recipient") == [(n.person("bob@example.net"),)]


async def test_one_tenant_learns_nothing_of_another(n: Node, client: Client) -> None:
    n.stop("anna@example.net", (await n.parts.accounts.add_tenant("other")).id)
    assert (await deliver(client, MESSAGE)).startswith("250")


async def test_who_left_the_list_is_left_out_after_data(n: Node, client: Client) -> None:
    tenant = await n.parts.accounts.tenant("acme")
    list_id = await n.parts.accounts.list_id(tenant.id, "news.example.com")
    n.stop("anna@example.net", tenant.id, list_id)
    mail = b"List-Id: News <news.example.com>\r\n" + MESSAGE
    assert (await deliver(client, mail, "<anna@example.net>", "<bob@example.net>")).startswith("250")
    assert await n.rows("SELECT person FROM recipient") == [(n.person("bob@example.net"),)]
    assert await deliver(client, mail, "<anna@example.net>") == "550 5.7.1 Recipient is suppressed"
    assert (await deliver(client, b"List-Id: <offers.example.com>\r\n" + MESSAGE)).startswith("250")


async def test_a_stale_watermark_takes_no_recipients(n: Node, client: Client) -> None:
    n.gate.stale = True
    await client.say("MAIL FROM:<>")
    assert (await client.say("RCPT TO:<anna@example.net>")).startswith("451 4.3.0 ")
    n.gate.stale = False
    assert (await client.say("RCPT TO:<anna@example.net>")).startswith("250")


# --- the database


async def test_a_database_that_is_down_is_said_at_once_and_never_250(n: Node, client: Client) -> None:
    assert (await deliver(client, MESSAGE)).startswith("250")
    await n.database.close()
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await deliver(client, MESSAGE)).startswith("451 4.3.0 ")
    assert (await deliver(client, b"X-Campaign: new\r\n" + MESSAGE)).startswith("451 4.3.0 ")
    assert loop.time() - began < 5


async def test_a_commit_that_fails_is_no_250_and_leaves_nothing(n: Node, client: Client) -> None:
    assert (await deliver(client, MESSAGE)).startswith("250")
    await n.execute("ALTER TABLE recipient ADD CONSTRAINT never CHECK (ordinal < 0) NOT VALID")
    assert (await deliver(client, MESSAGE)).startswith("451 ")
    await n.execute("ALTER TABLE recipient DROP CONSTRAINT never")
    assert (await deliver(client, MESSAGE)).startswith("250")
    assert await n.messages() == 2


WAITING = """SELECT count(*) FROM pg_locks
    WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
TERMINATE = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""


async def test_connections_broken_in_their_commit_are_451(n: Node, client: Client) -> None:
    assert (await deliver(client, MESSAGE)).startswith("250")
    other = await asyncpg.connect(n.url)
    try:
        lock = other.transaction()
        await lock.start()
        await other.execute("LOCK TABLE message IN ACCESS EXCLUSIVE MODE")
        await envelope(client)
        client.send(MESSAGE + b".\r\n")

        async def waiting() -> bool:
            return bool(await other.fetchval(WAITING))

        await eventually(waiting)
        await other.execute(TERMINATE)
        assert (await client.hear()).startswith("451 4.3.0 ")
        await lock.rollback()
    finally:
        await other.close()
    assert (await deliver(client, MESSAGE)).startswith("250")

    async def nothing_in_doubt() -> bool:
        return await n.rows("SELECT count(*) FROM recipient") == [(2,)]

    await eventually(nothing_in_doubt)


async def test_campaigns_and_lists_come_into_being(n: Node, client: Client) -> None:
    mail = b"List-Id: <news.example.com>\r\nX-Campaign: spring\r\n" + MESSAGE
    assert (await deliver(client, mail)).startswith("250")
    assert (await deliver(client, mail)).startswith("250")
    assert (await deliver(client, b"X-Campaign: to anna@example.net\r\n" + MESSAGE)).startswith("250")
    names = [name for (name,) in await n.rows("SELECT name FROM campaign ORDER BY name")]
    assert names[1] == "spring"
    assert names[0].startswith("digest-")
    assert len(names) == 2
    assert await n.rows("SELECT name FROM list") == [("news.example.com",)]


# --- other people's dialogues


def seeds() -> list[bytes]:
    """What another project's fuzzer found worth keeping; none where the corpora are absent."""
    folder = Path(os.environ.get("HEED_CORPORA", "/nonexistent"), "smtp_fuzz_chasquid", "FuzzConnection")
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]


async def test_other_peoples_fuzz_seeds_break_nothing(n: Node) -> None:
    if not (octets := seeds()):
        pytest.skip("HEED_CORPORA names no folder of corpora")
    door = await n.door(trusted=MessageClass.CAMPAIGN)
    async with listening(protocols(door)) as port:
        for seed in octets:
            async with connected(port) as client:
                client.send(seed.replace(b"\n", b"\r\n"))
                client.half_close()
                assert (await client.rest()).startswith(b"220 ")
        await until(lambda: not door.connections)
        assert door.content_room.octets == 0
