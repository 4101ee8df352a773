"""The test MX on a real socket: what it takes, turns away, stores, and how it ends."""

import asyncio
import json
import os
import signal
import smtplib
import socket
import ssl
import sys
from pathlib import Path

import pytest
import trustme

from mta.maildir import content, envelope_recipients, summary
from mta.sink import Behaviour, Sink

MESSAGE = b"From: a@example.com\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= =?utf-8?q?!?=\r\n\r\n.dot\r\nhello\r\n"


def deliver(port: int, *recipients: str, message: bytes = MESSAGE, tls: ssl.SSLContext | None = None) -> dict[str, int]:
    """One message by the standard library's client; what was refused, with its code."""
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
        if tls is not None:
            client.starttls(context=tls)
        try:
            refused = client.sendmail("a@example.com", recipients, message)
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        return {recipient: code for recipient, (code, _) in refused.items()}


async def dialogue(sink: Sink, *packets: bytes) -> list[str]:
    """Send packet by packet, each after an answer to the one before it; all reply lines."""
    reader, writer = await asyncio.open_connection(sink.host, sink.port)
    lines = [await reader.readline()]
    for packet in packets:
        writer.write(packet)
        lines.append(await reader.readline())
    writer.write(b"QUIT\r\n")
    lines += (await reader.read()).splitlines()
    writer.close()
    return [line.decode().strip() for line in lines]


@pytest.fixture
def certificates() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


async def test_a_message_is_stored_as_it_came_with_its_envelope(tmp_path: Path) -> None:
    async with Sink(maildir=tmp_path / "mail", keep=5) as sink:
        assert await asyncio.to_thread(deliver, sink.port, "b@example.net", "c@example.net") == {}
        await asyncio.to_thread(deliver, sink.port, "B@example.net")
        await sink.messages(2)
    assert sink.received[0].sender == b"a@example.com"
    assert sink.received[0].content == MESSAGE
    files = sorted((tmp_path / "mail" / "new").iterdir())
    assert [envelope_recipients(file) for file in files] == [[b"b@example.net", b"c@example.net"], [b"B@example.net"]]
    assert content(files[0]) == MESSAGE
    assert list((tmp_path / "mail" / "tmp").iterdir()) == []
    found = summary(tmp_path / "mail", last=1)
    assert (found.messages, found.recipients, found.distinct_recipients) == (2, 3, 2)
    assert [(entry.subject, entry.size_octets) for entry in found.last] == [("Grüße!", len(MESSAGE))]


async def test_nobody_else_may_read_what_is_stored(tmp_path: Path) -> None:
    async with Sink(maildir=tmp_path / "mail") as sink:
        await asyncio.to_thread(deliver, sink.port, "b@example.net")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "mail").rglob("*") if path.is_file()}
    directories = {path.stat().st_mode & 0o777 for path in (tmp_path / "mail", tmp_path / "mail" / "new")}
    assert (modes, directories) == ({0o600}, {0o700})


async def test_a_full_disk_is_a_temporary_refusal(tmp_path: Path) -> None:
    async with Sink(maildir=tmp_path / "mail") as sink:
        (tmp_path / "mail" / "tmp").rmdir()
        with pytest.raises(smtplib.SMTPDataError, match="452"):
            await asyncio.to_thread(deliver, sink.port, "b@example.net")
    assert (sink.counts.messages, sink.counts.deferred) == (0, 1)


async def test_the_refused_stay_refused_and_the_deferred_get_through() -> None:
    behaviour = Behaviour(defer_share=0.3, refuse_share=0.2, seed=7)
    people = [f"reader-{n}@example.net" for n in range(300)]
    async with Sink(behaviour=behaviour) as sink:
        first = await asyncio.to_thread(deliver, sink.port, *people)
        again = await asyncio.to_thread(deliver, sink.port, *first)
    refused = {person for person, code in first.items() if code == 550}
    deferred = first.keys() - refused
    assert 40 <= len(refused) <= 80
    assert 50 <= len(deferred) <= 100
    assert {person for person, code in again.items() if code == 550} == refused
    assert len(again.keys() - refused) < len(deferred)
    assert sink.counts.recipients == len(people) - len(first) + len(first) - len(again)


async def test_commands_in_one_packet_are_answered_in_one() -> None:
    async with Sink(keep=2) as sink:
        replies = await dialogue(
            sink,
            b"EHLO a\r\nMAIL FROM:<> SIZE=4\r\nRCPT TO:<b@example.net>\r\nDATA\r\nx\r\n.\r\n"
            b"MAIL FROM:<c@example.com>\r\nRCPT TO:<d@example.net>\r\nDATA\r\n.\r\n",
        )
    assert [reply[:3] for reply in replies[-9:]] == ["250", "250", "354", "250", "250", "250", "354", "250", "221"]
    assert [(d.sender, d.content) for d in sink.received] == [(b"", b"x\r\n"), (b"c@example.com", b"")]


async def test_an_octet_at_a_time_makes_no_difference() -> None:
    async with Sink(keep=1) as sink:
        reader, writer = await asyncio.open_connection(sink.host, sink.port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in b"MAIL FROM:<>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n..\r\n\r\n.\r\nQUIT\r\n":
            writer.write(bytes([octet]))
            await asyncio.sleep(0)
        assert len((await reader.read()).splitlines()) == 6
        writer.close()
    assert sink.received[0].content == b".\r\n\r\n"


@pytest.mark.parametrize(
    ("packets", "reply"),
    [
        ([b"RCPT TO:<b@example.net>\r\n"], "503"),
        ([b"MAIL FROM:<a@example.com\r\n"], "501"),
        ([b"MAIL FROM:<a@example.com> SIZE=99999999999\r\n"], "552"),
        ([b"MAIL FROM:<>\r\n", b"MAIL FROM:<>\r\n"], "503"),
        ([b"MAIL FROM:<>\r\n", b"RCPT TO:<>\r\n"], "501"),
        ([b"MAIL FROM:<>\r\n", b"DATA\r\n"], "503"),
        ([b"MAIL FROM:<>\r\n", b"RCPT TO:<b@example.net>\r\n", b"DATA now\r\n"], "501"),
        ([b"NOOP\rRSET\r\n"], "500"),
        ([b"XYZZY\r\n"], "500"),
        ([b"STARTTLS\r\n"], "502"),
        ([b"VRFY b\r\n"], "252"),
        ([b"MAIL FROM:<>\r\n", b"RCPT TO:<b@example.net>\r\n", b"DATA\r\n", b"x\n.\n\r\n.\r\n"], "554"),
    ],
)
async def test_what_is_wrong_gets_its_reply_and_the_dialogue_goes_on(packets: list[bytes], reply: str) -> None:
    async with Sink() as sink:
        replies = await dialogue(sink, *packets)
    assert replies[-2][:3] == reply
    assert replies[-1][:3] == "221"
    assert sink.counts.messages == 0


async def test_a_line_without_end_ends_the_dialogue() -> None:
    async with Sink() as sink:
        replies = await dialogue(sink, b"x" * 70_000)
    assert replies[1][:3] == "500"
    assert len(replies) == 2


async def test_starttls(certificates: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = certificates
    async with Sink(tls=server, keep=1) as sink:
        await asyncio.to_thread(deliver, sink.port, "b@example.net", tls=client)
        assert sink.received[0].recipients == (b"b@example.net",)


async def test_nothing_said_before_tls_counts_after_it(certificates: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with Sink(tls=certificates[0]) as sink:
        replies = await dialogue(sink, b"STARTTLS\r\nNOOP\r\n")
    assert replies[1:] == ["501 5.5.4 nothing may follow STARTTLS"]


async def test_a_delay_holds_the_reply_and_all_after_it() -> None:
    async with Sink(behaviour=Behaviour(delay_seconds=0.001)) as sink:
        packet = b"MAIL FROM:<>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n.\r\nNOOP\r\n"
        replies = await dialogue(sink, packet)
    assert [reply[:3] for reply in replies] == ["220", "250", "250", "354", "250", "250", "221"]


async def start_process(*arguments: str) -> tuple[asyncio.subprocess.Process, int]:
    command = (sys.executable, "-m", "mta.sink", "--listen", "127.0.0.1:0", *arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
    assert line.startswith("sink listens on 127.0.0.1:")
    return process, int(line.rpartition(":")[2])


async def test_the_process_ends_on_sigterm_and_says_what_it_saw(tmp_path: Path) -> None:
    process, port = await start_process("--maildir", str(tmp_path / "mail"), "--refuse", "1")
    assert await asyncio.to_thread(deliver, port, "b@example.net") == {"b@example.net": 550}
    process.send_signal(signal.SIGTERM)
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert json.loads(out)["refused"] == 1
    assert process.returncode == 0


async def test_the_process_ends_with_its_parent_when_told_so() -> None:
    process, _ = await start_process("--until-stdin-closes")
    assert process.stdin is not None
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 20) == 0
    await process.communicate()


async def test_a_taken_port_is_a_clear_error() -> None:
    async with Sink() as sink:
        command = (sys.executable, "-m", "mta.sink", "--listen", f"127.0.0.1:{sink.port}")
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, env={**os.environ})
        _, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert f"sink on 127.0.0.1:{sink.port}".encode() in err
    assert b"Traceback" not in err
