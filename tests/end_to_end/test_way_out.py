"""The three ways out, taken while the recipient is deferred: nothing more arrives for it, and the rest does."""

import asyncio
import re
import smtplib
import ssl
import urllib.request
from pathlib import Path

from tests.support.daemon import Daemon, running
from tests.support.peer import Connection, Peer
from tests.support.script import Script
from tests.support.submit import message, submit

EVERYONE = {"anna@example.net", "bob@example.net", "carol@example.net", "dave@example.net"}


class Moody:
    """A peer's hook: answers the final dot with 450 as long as it is told to."""

    def __init__(self) -> None:
        self.deferring = True

    async def __call__(self, connection: Connection) -> None:
        if self.deferring:
            await connection.reply("450 4.2.1 mailbox busy, come again")
        else:
            await connection.proceed()


def header(content: bytes, name: str) -> str:
    """A header field, unfolded."""
    match = re.search(rf"^{name}: ([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", content.decode(), re.MULTILINE | re.IGNORECASE)
    assert match is not None, f"no {name}"
    return match[1].replace("\r\n", "")


def post(url: str, body: bytes = b"List-Unsubscribe=One-Click") -> int:
    """One-click, over TLS with whatever certificate there is."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(url, data=body, method="POST")  # noqa: S310
    with urllib.request.urlopen(request, context=context, timeout=10) as answer:  # noqa: S310
        return int(answer.status)


def mail(port: int, sender: str, recipient: str, content: bytes) -> None:
    """Hand a message to the inbound listener."""
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
        client.sendmail(sender, [recipient], content)


def bounce(return_path: str, recipient: str) -> bytes:
    """An ordinary DSN (RFC 3464) about a mailbox that does not exist."""
    return "\r\n".join(
        [
            "From: Mail Delivery System <MAILER-DAEMON@mx.example.net>",
            f"To: {return_path}",
            "Subject: Undelivered Mail Returned to Sender",
            "Auto-Submitted: auto-replied",
            "MIME-Version: 1.0",
            'Content-Type: multipart/report; report-type=delivery-status; boundary="cut"',
            "",
            "--cut",
            "Content-Type: text/plain",
            "",
            f"<{recipient}>: user unknown",
            "--cut",
            "Content-Type: message/delivery-status",
            "",
            "Reporting-MTA: dns; mx.example.net",
            "",
            f"Final-Recipient: rfc822; {recipient}",
            "Action: failed",
            "Status: 5.1.1",
            "Diagnostic-Code: smtp; 550 5.1.1 User unknown",
            "",
            "--cut--",
            "",
        ]
    ).encode()


async def test_nothing_arrives_after_any_way_out(tmp_path: Path, database_url: str) -> None:
    moody = Moody()
    async with Peer(Script().on("DOT", moody)) as peer:
        settings = {
            "delivery.next_hop": f"127.0.0.1:{peer.port}",
            "delivery.retry_seconds": "0.5",
            "queue.poll_seconds": "0.1",
        }
        daemon = Daemon(tmp_path / "node", database_url, settings=settings)
        async with running(daemon):
            await asyncio.to_thread(submit, daemon.ports.submission, sorted(EVERYONE), message("news"))
            offered: dict[str, tuple[str, bytes]] = {}
            while offered.keys() != EVERYONE:
                received = await peer.message()
                offered[received.recipients[0]] = (received.sender, received.content)

            way_out = header(offered["anna@example.net"][1], "List-Unsubscribe")
            assert await asyncio.to_thread(post, re.findall(r"<(https:.*?)>", way_out)[0]) == 200
            mailto = re.findall(r"<mailto:(.*?)\?", header(offered["bob@example.net"][1], "List-Unsubscribe"))[0]
            please = b"From: bob@example.net\r\nTo: list\r\nSubject: unsubscribe\r\n\r\nplease\r\n"
            await asyncio.to_thread(mail, daemon.ports.inbound, "bob@example.net", mailto, please)
            return_path = offered["carol@example.net"][0]
            report = bounce(return_path, "carol@example.net")
            await asyncio.to_thread(mail, daemon.ports.inbound, "", return_path, report)

            moody.deferring = False

            async def empty() -> bool:
                return await daemon.queued() == 0

            await daemon.eventually(empty, 20, "did not settle every recipient")
            assert peer.deliveries() == {"dave@example.net": 1}
            for channel in ("one-click", "mailto", "bounce"):
                assert await daemon.metric("heed_unsubscribes_total", channel=channel) == 1
            await the_promise_is_shown(daemon, entries=3, workers=2)
            proof = await asyncio.to_thread(daemon.command, "prove", "carol@example.net")
            assert proof.returncode == 0, proof.stderr
            assert "because of unknown-user (5.1.1): permanent" in " ".join(proof.stdout.split())

            refused = await asyncio.to_thread(submit, daemon.ports.submission, sorted(EVERYONE), message("more"))
            # carol is suppressed for the tenant; anna and bob left a list, which is known only after DATA
            assert refused == {"carol@example.net": "550 5.7.1 Recipient is suppressed"}
            await daemon.eventually(empty, 20, "did not settle every recipient")
            assert peer.deliveries() == {"dave@example.net": 2}


async def the_promise_is_shown(daemon: Daemon, *, entries: int, workers: int) -> None:
    """What an operator sees of it: each entry in force at each worker, soon, and nobody behind."""

    async def shown() -> bool:
        return await daemon.metric("heed_suppression_position") >= entries

    await daemon.eventually(shown, 10, "did not show how far its index is")
    assert await daemon.metric("heed_suppression_entries") >= entries
    assert await daemon.metric("heed_suppression_lag_entries") == 0
    assert 0 < await daemon.metric("heed_watermark_age_seconds") < 5
    applied = "heed_unsubscribe_effective_seconds"
    assert await daemon.metric(f"{applied}_count") >= entries * workers
    assert await daemon.metric(f"{applied}_bucket", le="2.0") == await daemon.metric(f"{applied}_count")
    assert await daemon.metric("heed_sends_after_suppression_total") == 0


async def test_looking_at_the_link_changes_nothing(tmp_path: Path, database_url: str) -> None:
    async with Peer() as peer:
        settings = {"delivery.next_hop": f"127.0.0.1:{peer.port}", "suppression.canary_seconds": 0}
        daemon = Daemon(tmp_path / "node", database_url, settings=settings)
        async with running(daemon):
            await asyncio.to_thread(submit, daemon.ports.submission, ["anna@example.net"], message("news"))
            received = await peer.message()
            url = re.findall(r"<(https:.*?)>", header(received.content, "List-Unsubscribe"))[0]
            plain = url.replace("https:", "http:")  # the same port speaks both

            def look(method: str) -> int:
                with urllib.request.urlopen(urllib.request.Request(plain, method=method), timeout=10) as answer:  # noqa: S310
                    return int(answer.status)

            for method in ("GET", "HEAD", "OPTIONS"):
                assert await asyncio.to_thread(look, method) in (200, 204)
            assert await daemon.metric("heed_unsubscribes_total") == 0
            refused = await asyncio.to_thread(submit, daemon.ports.submission, ["anna@example.net"], message("more"))
            assert refused == {}
            await peer.message()
