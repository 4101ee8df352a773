"""Postfix and Exim take campaign mail, find out later that it can't be delivered, and bounce it back to Heed.

Each is the next hop of a real daemon. What they say reaches the inbound listener by their own queue, in their own form.
"""

import asyncio
import json
import smtplib
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from config.keyring import Keyring
from suppression.digest import Digest, Kind
from tests.support.daemon import Daemon, running
from tests.support.mtas import MAIL_DOMAIN, Exim, Mta, MtaUnavailable, Postfix, Returned, unpacked_exim
from tests.support.peer import Peer
from tests.support.script import Script, reply
from tests.support.submit import submit

ONWARD_GONE, ONWARD_FULL, LATE, FINE = (f"{name}@example.net" for name in ("gone", "stuffed", "late", "fine"))
INTERNATIONAL = "jörg@example.net"
UNKNOWN, FORMER, FULL, AWAY = (f"{name}@example.org" for name in ("nobody", "former", "full", "away"))
EVERYBODY = (ONWARD_GONE, ONWARD_FULL, LATE, FINE, INTERNATIONAL, UNKNOWN, FORMER, FULL, AWAY)
_SECONDS = 60.0

Maker = Callable[[int, int, Returned], Mta]


def onward() -> Peer:
    """The host behind the next hop, which knows who is there."""
    script = Script()
    for name in ("gone@", "jörg@"):
        script.on("RCPT", reply("550 5.1.1 <whoever@example.net>: Recipient address rejected: User unknown"), when=name)
    script.on("RCPT", reply("552 5.2.2 Mailbox full, over quota"), when="stuffed@")
    script.on("RCPT", reply("451 4.3.2 Not now, come back later"), when="late@")
    return Peer(script)


def letter(subject: str) -> bytes:
    """A campaign message with 8-bit text."""
    fields = [
        "From: News <news@example.com>",
        "To: readers@example.com",
        f"Subject: {subject}",
        "List-Id: <news.example.com>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
    ]
    return "\r\n".join([*fields, "", "Grüße, und 550 5.1.1 Grüße an <someone@example.org>.", ""]).encode()


def submit_international(port: int, recipient: str, content: bytes) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.ehlo()
        client.sendmail("news@example.com", [recipient], content, mail_options=["SMTPUTF8", "BODY=8BITMIME"])


@pytest.fixture
def postfix() -> Maker:
    try:
        Postfix.require()
    except MtaUnavailable as error:
        pytest.skip(str(error))
    return lambda inbound, onward, returned: Postfix(inbound_port=inbound, onward_port=onward, returned=returned)


@pytest.fixture(scope="module")
def exim_root() -> Iterator[Path]:
    try:
        unpacked = unpacked_exim()
        root = unpacked.__enter__()
    except MtaUnavailable as error:
        pytest.skip(str(error))
    yield root
    unpacked.__exit__(None, None, None)


@pytest.fixture
def exim(exim_root: Path) -> Maker:
    return lambda inbound, onward, returned: Exim(
        exim_root, inbound_port=inbound, onward_port=onward, returned=returned
    )


class Scene:
    """A daemon, and what it has made of the answers."""

    def __init__(self, daemon: Daemon, mta: Mta, peer: Peer, database_url: str) -> None:
        self.daemon = daemon
        self.mta = mta
        self._peer = peer
        self._database_url = database_url

    async def mail(self, recipients: list[str], subject: str) -> dict[str, str]:
        """Submit a campaign message; the refused recipients with their replies."""
        return await asyncio.to_thread(submit, self.daemon.ports.submission, recipients, letter(subject))

    async def mail_international(self, recipient: str) -> None:
        port = self.daemon.ports.submission
        await asyncio.to_thread(submit_international, port, recipient, letter("Frühling"))

    async def answered(self, **kinds: int) -> None:
        """Until so many answers of these kinds have come; no others have."""

        async def have_come() -> bool:
            return all([await self._answers(kind) >= number for kind, number in kinds.items()])

        try:
            await self.daemon.eventually(have_come, _SECONDS, f"did not get {kinds}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n--- the other server's log:\n{self.mta.log}") from None
        for kind in ("bounce", "delay", "auto-reply", "other", "unsubscribe", "complaint", "challenge", "receipt"):
            expected = kinds.get(kind.replace("-", "_"), 0)
            # a warning of delay may come more than once
            assert kind == "delay" or await self._answers(kind) == expected, kind

    async def suppressed(self) -> dict[str, int]:
        """Whom the log suppresses, with the kind; the daemon's own probe apart."""
        rows = await self._rows("SELECT person, kind FROM suppression_log WHERE channel <> 'canary'")
        digest = Digest(Keyring.load(self.daemon.data_dir / "keys/master.key").digest_key)
        names = {digest.person(address): address for address in EVERYBODY}
        return {names[person]: kind for person, kind in rows}

    async def shown(self, address: str) -> list[str]:
        """The kinds that `heed suppress check` shows of an address."""
        command = ("suppress", "check", address, "--tenant", "sandbox", "--json")
        done = await asyncio.to_thread(self.daemon.command, *command)
        kinds = [entry["kind"] for entry in json.loads(done.stdout)]
        assert done.returncode == (0 if kinds else 3), done.stderr
        return kinds

    async def counted(self) -> list[str]:
        """The classes of the bounces that were only counted."""
        return [row[0] for row in await self._rows("SELECT class FROM bounce_count ORDER BY class")]

    async def _rows(self, query: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self._database_url)
        try:
            return list(await connection.fetch(query))
        finally:
            await connection.close()

    async def settled(self, suppressed: int, counted: int) -> None:
        """Until what the answers lead to is committed; they are counted before."""

        async def committed() -> bool:
            return len(await self.suppressed()) >= suppressed and len(await self.counted()) >= counted

        await self.daemon.eventually(committed, _SECONDS, "did not act on what it read")

    async def arrived(self, address: str, times: int) -> None:
        """Until so many messages to an address came through the other server."""
        while self._peer.deliveries()[address] < times:
            await self._peer.message()
        assert self._peer.deliveries()[address] == times

    async def _answers(self, kind: str) -> float:
        return await self.daemon.metric("heed_answers_total", kind=kind.replace("_", "-"))


async def play(scene: Scene, others: list[str], **answers: int) -> None:
    """What is the same whoever bounces: those who are gone are suppressed, and nobody else."""
    gone, full = [ONWARD_GONE, UNKNOWN, FORMER, INTERNATIONAL], [ONWARD_FULL, FULL]
    everybody = [*gone, *full, *others, FINE]
    assert await scene.mail([address for address in everybody if address.isascii()], "spring") == {}
    await scene.mail_international(INTERNATIONAL)
    await scene.answered(bounce=len(gone) + len(full), **answers)
    await scene.settled(len(gone), len(full))
    assert await scene.suppressed() == dict.fromkeys(gone, int(Kind.HARD_BOUNCE))
    assert await scene.counted() == ["mailbox-full"] * len(full)
    assert await scene.shown(gone[0]) == ["hard-bounce"]
    assert await scene.shown(full[0]) == []
    assert "Remote host closed connection" not in scene.mta.log
    await scene.arrived(FINE, 1)
    assert await scene.mail([gone[0], FINE], "summer") == {gone[0]: "550 5.7.1 Recipient is suppressed"}
    await scene.arrived(FINE, 2)


async def on_stage(
    make: Maker, returned: Returned, directory: Path, database_url: str, others: list[str], **answers: int
) -> None:
    """Set the scene, and play."""
    async with onward() as peer:
        settings = {"identity.mail_domain": MAIL_DOMAIN, "queue.poll_seconds": "0.1"}
        daemon = Daemon(directory / "node", database_url, workers=1, settings=settings)
        mta = make(daemon.ports.inbound, peer.port, returned)
        daemon.set("delivery.next_hop", f"127.0.0.1:{mta.port}")
        async with mta.running(), running(daemon):
            await play(Scene(daemon, mta, peer, database_url), others, **answers)


@pytest.mark.parametrize("returned", ["message", "header"])
async def test_postfix_bounces_it_back(postfix: Maker, returned: Returned, tmp_path: Path, database_url: str) -> None:
    await on_stage(postfix, returned, tmp_path, database_url, [LATE], delay=1)


@pytest.mark.parametrize("returned", ["message", "header"])
async def test_exim_bounces_it_back(exim: Maker, returned: Returned, tmp_path: Path, database_url: str) -> None:
    await on_stage(exim, returned, tmp_path, database_url, [LATE, AWAY], delay=1, auto_reply=1)
