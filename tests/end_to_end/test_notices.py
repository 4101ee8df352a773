"""What the envelope sender is told (RFC 3461, 3464), and what not."""

import asyncio
import email
import email.policy
import smtplib
from email.message import EmailMessage
from pathlib import Path
from typing import cast

from bounce.reader import read
from bounce.reading import Kind
from tests.support.daemon import Daemon, running
from tests.support.peer import Peer
from tests.support.script import Script, reply
from tests.support.submit import message, submit

SENDER = "news@example.com"


def submit_with(port: int, options: dict[str, list[str]], *, mail_options: tuple[str, ...] = ()) -> None:
    """Submit one message; recipients with their RCPT parameters."""
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.ehlo()
        client.mail(SENDER, list(mail_options))
        for recipient, parameters in options.items():
            assert client.rcpt(recipient, parameters)[0] == 250
        assert client.data(message("hello"))[0] == 250


async def test_a_failure_is_reported_to_the_sender(tmp_path: Path, database_url: str) -> None:
    script = Script().on("RCPT", reply("550 5.1.1 no such user"), when="gone@")
    script.on("RCPT", reply("550 5.1.1 no such user"), when="quiet@")
    async with Peer(script) as peer:
        settings = {"delivery.next_hop": f"127.0.0.1:{peer.port}", "queue.poll_seconds": "0.1"}
        async with running(Daemon(tmp_path / "node", database_url, settings=settings)) as daemon:
            options = {
                "gone@example.net": ["ORCPT=rfc822;gone+40example.org"],
                "quiet@example.net": ["NOTIFY=NEVER"],
                "fine@example.net": [],
                "eager@example.net": ["NOTIFY=SUCCESS,FAILURE"],
            }
            mail_options = ("RET=HDRS", "ENVID=campaign-7")
            await asyncio.to_thread(submit_with, daemon.ports.submission, options, mail_options=mail_options)
            notices: list[EmailMessage] = []
            arrived: list[str] = []
            while len(notices) < 2 or len(arrived) < 2:
                received = await peer.message()
                if received.recipients == (SENDER,):
                    assert received.sender == ""
                    notices.append(parsed(received.content))
                else:
                    arrived.append(received.recipients[0])
            assert sorted(arrived) == ["eager@example.net", "fine@example.net"]
            told = {status["Final-Recipient"]: status for notice in notices for status in statuses(notice)}
            assert set(told) == {"rfc822; gone@example.net", "rfc822; eager@example.net"}
            failed = told["rfc822; gone@example.net"]
            assert (failed["Action"], failed["Status"]) == ("failed", "5.1.1")
            assert failed["Original-Recipient"] == "rfc822; gone@example.org"
            assert told["rfc822; eager@example.net"]["Action"] == "relayed"
            assert all("campaign-7" in notice.as_string() for notice in notices)
            assert all(notice["Auto-Submitted"] == "auto-replied" for notice in notices)
            kinds = {read(notice.as_bytes()).kind for notice in notices}
            assert Kind.BOUNCE in kinds

            async def settled() -> bool:
                return await daemon.queued() == 0

            await daemon.eventually(settled, 10, "left something in its queue")
            assert peer.deliveries()[SENDER] == 2


async def test_notices_can_be_switched_off(tmp_path: Path, database_url: str) -> None:
    async with Peer(Script().on("RCPT", reply("550 5.1.1 no such user"), when="gone@")) as peer:
        settings = {
            "delivery.next_hop": f"127.0.0.1:{peer.port}",
            "submission.dsn": "false",
            "queue.poll_seconds": "0.1",
        }
        async with running(Daemon(tmp_path / "node", database_url, settings=settings)) as daemon:
            everyone = ["gone@example.net", "fine@example.net"]
            await asyncio.to_thread(submit, daemon.ports.submission, everyone, message("hello"))
            await peer.message()

            async def settled() -> bool:
                return await daemon.queued() == 0

            await daemon.eventually(settled, 10, "left something in its queue")
            assert peer.deliveries() == {"fine@example.net": 1}


def parsed(content: bytes) -> EmailMessage:
    return email.message_from_bytes(content, policy=email.policy.default)


def statuses(notice: EmailMessage) -> list[EmailMessage]:
    """The recipients' groups of fields."""
    (part,) = (part for part in notice.walk() if part.get_content_type() == "message/delivery-status")
    groups = cast(list[EmailMessage], part.get_payload())
    return [group for group in groups if group["Final-Recipient"]]
