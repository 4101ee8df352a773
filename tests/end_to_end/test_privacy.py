"""Marker addresses through every way that Heed has: none is in a log, a metric, or the database's files (P1)."""

import asyncio
import smtplib
from pathlib import Path

import asyncpg

from tests.end_to_end.test_way_out import bounce, header, mail
from tests.support.daemon import Daemon, running
from tests.support.peer import Connection, Peer, Received
from tests.support.script import Script
from tests.support.submit import message, submit

MARKER = "qzxmarker"


def address(name: str) -> str:
    return f"{MARKER}-{name}@example.net"


async def chatty(connection: Connection) -> None:
    """A peer that quotes recipients in its replies, in more than one spelling."""
    said = connection.commands[-1].lower()
    if "bounced" in said:
        await connection.reply(f"550-5.1.1 <{address('bounced').upper()}>: no such user\n550 5.1.1 {MARKER}-bounced?")
    elif "deferred" in said:
        await connection.reply(f"450 4.2.2 mailbox of {address('deferred')} ({MARKER}-deferred) is full")
    else:
        await connection.proceed()


async def test_no_address_is_written_anywhere(tmp_path: Path, database_url: str) -> None:
    async with Peer(Script().on("RCPT", chatty)) as peer:
        settings = {"delivery.next_hop": f"127.0.0.1:{peer.port}", "log.level": "debug"}
        async with running(Daemon(tmp_path / "node", database_url, settings=settings)) as daemon:
            names = ("delivered", "bounced", "deferred", "leaver")
            content = message(f"for {address('subject')}", campaign=address("campaign"))
            sender = address("sender")
            port = daemon.ports.submission
            await asyncio.to_thread(submit, port, [address(name) for name in names], content, sender=sender)
            seen: dict[str, Received] = {}
            while not {address("delivered"), address("leaver"), sender} <= seen.keys():
                received = await peer.message()
                seen[received.recipients[0]] = received

            async def bounced() -> bool:
                return (
                    await daemon.metric("heed_bounced_total") >= 1 and await daemon.metric("heed_deferred_total") >= 1
                )

            await daemon.eventually(bounced, 20, "did not bounce")
            await be_a_nuisance(daemon)
            leaver = seen[address("leaver")]
            mailto = header(leaver.content, "List-Unsubscribe").split("<mailto:")[1].split("?")[0]
            please = f"From: {address('leaver')}\r\nSubject: unsubscribe {address('leaver')}\r\n\r\n".encode()
            await asyncio.to_thread(mail, daemon.ports.inbound, address("leaver"), mailto, please)
            path = seen[address("delivered")].sender
            report = bounce(path, address("delivered"))
            await asyncio.to_thread(mail, daemon.ports.inbound, "", path, report)
            for command in (
                ["suppress", "add", address("manual"), "--reason", f"{address('reason')} asked"],
                ["queue"],
            ):
                done = await asyncio.to_thread(daemon.command, *command)
                assert done.returncode == 0, done.stderr
                assert MARKER not in done.stdout + done.stderr
            _, metrics = await daemon.get("/metrics")
            assert MARKER not in metrics.lower()
            stored = await dump(database_url)
            assert "@example.net" not in stored.lower()  # a host may be named: mx.example.net reported
            assert MARKER not in stored.lower()
            journals = b"".join(path.read_bytes() for path in (daemon.data_dir / "journals").iterdir())
            assert MARKER.encode() not in journals.lower()
        assert MARKER not in daemon.log.lower()


async def be_a_nuisance(daemon: Daemon) -> None:
    """Everything wrong that quotes an address, to make errors that could quote it back."""

    def dialogue(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.ehlo(address("helo"))
            for line in (
                f"MAIL FROM:<{address('bad sender')}>",
                f"MAIL FROM:<{address('from')}> SIZE=x",
                f"RCPT TO:<{address('early')}>",
                f"MAIL FROM:<{address('from')}>",
                f"RCPT TO:<{address('to')}> NOTIFY={address('notify')}",
                f"RCPT TO:<<{address('to')}>",
                f"VRFY {address('vrfy')}",
                f"{address('verb')}",
            ):
                client.docmd(line)

    for port in (daemon.ports.submission, daemon.ports.inbound):
        await asyncio.to_thread(dialogue, port)


async def dump(url: str) -> str:
    """Every row of every table as text."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = []
        for table in tables:
            for row in await connection.fetch(f'SELECT t::text FROM "{table["tablename"]}" t'):
                # a bytea is shown in hex: its octets may hold text too
                text = row[0]
                rows.append(text)
                rows += [
                    bytes.fromhex(word).decode("latin-1")
                    for part in text.replace('"', ",").split("\\x")[1:]
                    if len(word := part.split(",")[0].split(")")[0].strip("\\")) % 2 == 0
                    and all(digit in "0123456789abcdef" for digit in word)
                ]
        return "\n".join(rows)
    finally:
        await connection.close()
