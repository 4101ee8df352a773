"""`heed explain` and `heed trace` on the real daemon: each cause that keeps mail back is named by its own sentence."""

import asyncio
import json
import os
import pty
import re
import smtplib
from pathlib import Path

import asyncpg
import pytest

from tests.support.daemon import Daemon, founded, running
from tests.support.dns import FAIL, NameServer
from tests.support.peer import Connection, Peer
from tests.support.ports import free_port
from tests.support.script import Script, reply
from tests.support.submit import message, submit


async def heed(daemon: Daemon, *arguments: str) -> str:
    """Run a command that has to succeed."""
    done = await asyncio.to_thread(daemon.command, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def says(daemon: Daemon, words: str, *arguments: str) -> None:
    """Until `heed explain` says something."""

    async def said() -> bool:
        done = await asyncio.to_thread(daemon.command, "explain", *arguments)
        return words in done.stdout

    await daemon.eventually(said, 20, f"did not explain {arguments} by {words!r}")


def hand_in(port: int, recipient: str) -> str:
    """Submit one message; returns its queue id."""
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.ehlo()
        client.mail("news@example.com")
        client.rcpt(recipient)
        code, answer = client.data(message("news", campaign="spring"))
        assert code == 250
        return answer.decode().rpartition(" ")[2]


async def test_every_cause_has_its_sentence(tmp_path: Path, database_url: str) -> None:
    script = Script().on("RCPT", reply("450 4.2.1 mailbox busy"), when="bob")
    script.on("RCPT", reply("550 5.1.1 no such user"), when="carol")
    async with Peer(script) as peer:
        site = f"127.0.0.1:{peer.port}"
        daemon = Daemon(tmp_path / "node", database_url, settings={"delivery.next_hop": site})
        async with running(daemon):
            port = daemon.ports.submission
            anna = await asyncio.to_thread(hand_in, port, "anna@example.net")
            bob = await asyncio.to_thread(hand_in, port, "bob@example.net")
            await asyncio.to_thread(hand_in, port, "carol@example.net")
            await says(daemon, "It was delivered at", anna)
            await says(daemon, "It is deferred until", bob)
            await says(daemon, "450 4.2.1", "bob@example.net")
            await says(daemon, "Bounce at", "carol@example.net")
            await says(daemon, "The recipient is suppressed since", "carol@example.net")
            await heed(daemon, "tenant", "add", "acme")
            others = await asyncio.to_thread(daemon.command, "explain", "bob@example.net", "--tenant", "acme")
            assert (others.returncode, others.stdout) == (1, "")
            await says(daemon, "It is deferred until", "bob@example.net", "--tenant", "sandbox")
            await says(daemon, f"{site} said last: 450 4.2.1 mailbox busy", site)
            await says(daemon, "The next attempt is due at", "spring")
            await heed(daemon, "campaign", "pause", "spring", "--reason", "complaints", "--by", "kim")
            await says(daemon, "Its campaign is paused by kim", "spring")
            await says(daemon, "It is held until the order is lifted", f"{bob}.0")
            await heed(daemon, "campaign", "pause", "--site", site, "--reason", "blocked\nagain", "--by", "kim")
            await says(daemon, "Its site is paused by kim", site)
            await says(daemon, "blocked again", site)
            assert "anna" not in daemon.log
            assert "bob" not in daemon.log


async def test_a_trace_tells_the_whole_story_and_no_address(tmp_path: Path, database_url: str) -> None:
    script = Script().on("RCPT", reply("450 4.2.1 mailbox busy"), times=1)
    async with Peer(script) as peer:
        daemon = Daemon(tmp_path / "node", database_url, settings={"delivery.next_hop": f"127.0.0.1:{peer.port}"})
        daemon.set("delivery.retry_seconds", "1")
        async with running(daemon):
            anna = await asyncio.to_thread(hand_in, daemon.ports.submission, "anna@example.net")
            await peer.message()

            async def told() -> bool:
                return "Delivery" in await heed(daemon, "trace", anna)

            await daemon.eventually(told, 20, "did not trace the delivery")
            text = await heed(daemon, "trace", anna)
            assert re.findall(r"Reception|TransientFailure|Delivery", text) == [
                "Reception",
                "TransientFailure",
                "Delivery",
            ]
            assert "a…@example.net" in text
            assert "anna" not in text
            assert " ms" in text
            by_person = json.loads(await heed(daemon, "trace", "anna@example.net", "--json"))["events"]
            assert [event["type"] for event in by_person][-2:] == ["TransientFailure", "Delivery"]
            revealed = await heed(daemon, "trace", anna, "--reveal", "ticket 7")
            assert "anna@example.net" in revealed
            of_person = await heed(daemon, "trace", "anna@example.net", "--reveal", "anna@example.net\nasked")
            assert "anna@example.net" in of_person
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT reason, details FROM operator_log WHERE action = 'reveal' ORDER BY id")
        assert tuple(rows[0]) == ("ticket 7", f"queue id {anna}")
        assert "anna" not in rows[1]["reason"]
        assert re.fullmatch("person [0-9a-f]{16}", rows[1]["details"])
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["trace", "nonsense"], 2, "no queue id"),
        (["trace", "0H2AAAAAAAAAA"], 1, "nothing is known"),
        (["trace", "0000000000000"], 2, "no queue id"),
        (["trace", "0H2AAAAAAAAAA", "--reveal", "  "], 2, "must say why"),
        (["trace", "0H2AAAAAAAAAA", "--reveal", ""], 2, "must say why"),
        (["trace", "nobody@example.net"], 1, "nothing is known"),
        (["explain", "nothing"], 1, "nothing is known of 'nothing'"),
        (["explain", "nothing", "--kind", "campaign"], 1, "there is no campaign"),
        (["explain", "x", "--kind", "moon"], 2, "Invalid value"),
        (["explain"], 2, "Missing argument"),
        (["explain", " "], 2, "Name a campaign"),
        (["explain", "nobody@example.net", "--tenant", "nope"], 1, "there is no tenant 'nope'"),
    ],
)
async def test_wrong_use_says_what_to_do(
    tmp_path: Path, database_url: str, arguments: list[str], code: int, complaint: str
) -> None:
    daemon = Daemon(founded(tmp_path / "node"), database_url)
    done = await asyncio.to_thread(daemon.command, *arguments)
    assert done.returncode == code, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_site_at_its_limit_is_named_before_anything_was_tried(tmp_path: Path, database_url: str) -> None:
    hurry = asyncio.Event()

    async def wait(connection: Connection) -> None:
        await hurry.wait()
        await connection.proceed()

    async with Peer(Script().on("RCPT", wait)) as peer:
        site = f"127.0.0.1:{peer.port}"
        settings = {"delivery.next_hop": site, "delivery.connections_per_site": 1}
        async with running(Daemon(tmp_path / "node", database_url, workers=1, settings=settings)) as daemon:
            readers = [f"reader{number}@example.net" for number in range(3)]
            campaign = message("news", campaign="spring")
            assert await asyncio.to_thread(submit, daemon.ports.submission, readers, campaign) == {}
            limit = f"{site} has all 1 connections of this node in use and 2 recipients waiting"
            await says(daemon, limit, "spring")
            await says(daemon, f"{site} has 0 queued, 3 leased and 0 held recipients.", site)
            hurry.set()


async def test_a_name_server_that_does_not_answer_is_named(tmp_path: Path, database_url: str) -> None:
    async with NameServer({"example.net": FAIL}) as dns:
        network = '{network = "127.0.0.1/32", tenant = "acme", message_class = "campaign"}'
        settings = {"delivery.mode": "mx", "delivery.nameservers": f"127.0.0.1:{dns.port}"}
        daemon = Daemon(tmp_path / "node", database_url, settings=settings)
        daemon.set("submission.trusted_networks", f"[{network}]")
        await heed(daemon, "tenant", "add", "acme")
        async with running(daemon):
            await asyncio.to_thread(hand_in, daemon.ports.submission, "anna@example.net")
            await says(daemon, "Where some of it goes could not be found out: 4.4.3 MX lookup", "spring")


async def test_many_readers_are_one_trace(tmp_path: Path, database_url: str) -> None:
    async with Peer() as peer:
        daemon = Daemon(tmp_path / "node", database_url, settings={"delivery.next_hop": f"127.0.0.1:{peer.port}"})
        async with running(daemon):
            readers = [f"reader{number}@example.net" for number in range(3)]
            assert await asyncio.to_thread(submit, daemon.ports.submission, readers, message("news")) == {}
            for _ in readers:
                await peer.message()
            events = json.loads(await heed(daemon, "trace", "reader1@example.net", "--json"))["events"]
            queue_id = events[-1]["queue_id"]

            async def told() -> bool:
                return (await heed(daemon, "trace", queue_id)).count("Delivery") == 3

            await daemon.eventually(told, 20, "did not trace every reader")
            only = await heed(daemon, "trace", f"{queue_id}.{events[-1]['ordinal']}")
            assert only.count("Delivery") == 1


async def test_top_shows_the_node_and_the_queue(tmp_path: Path, database_url: str) -> None:
    daemon = Daemon(founded(tmp_path / "node"), database_url)
    done = await asyncio.to_thread(daemon.command, "top", "--once")
    assert done.returncode == 0, done.stderr
    assert "no daemon answers" in done.stdout
    async with running(daemon):
        shown = await heed(daemon, "top", "--once")
        assert "ready" in shown
        assert "queue" in shown
        assert max(map(len, shown.splitlines())) <= 80
        assert "heed_database_up" in json.loads(await heed(daemon, "top", "--json"))["metrics"]


async def test_top_names_what_is_stopped_and_by_whose_order(tmp_path: Path, database_url: str) -> None:
    async with running(Daemon(tmp_path / "node", database_url)) as daemon:
        campaign = message("news", campaign="50% [/off]")
        assert await asyncio.to_thread(submit, daemon.ports.submission, ["anna@example.net"], campaign) == {}
        await heed(daemon, "campaign", "pause", "--tenant", "sandbox", "--reason", "complaints", "--by", "kim")
        shown = await heed(daemon, "top", "--once")
        assert re.search(r"sandbox/50% \[/off\] .* tenant paused: complaints", shown)
        assert "orders       1: tenant sandbox paused: complaints" in shown
        found = json.loads(await heed(daemon, "top", "--json"))
        assert ("sandbox/50% [/off]", "tenant paused: complaints") in [
            (row["campaign"], row["state"]) for row in found["campaigns"]
        ]
        assert found["orders"] == [{"about": "tenant sandbox", "state": "paused: complaints"}]
        _, page = await daemon.get("/status")
        assert re.search(r"sandbox/50% \[/off\].*tenant paused by kim since", page)


async def test_top_on_a_terminal_that_can_only_print_is_printed_once(tmp_path: Path, database_url: str) -> None:
    daemon = Daemon(founded(tmp_path / "node"), database_url)
    ours, its = pty.openpty()
    try:
        done = await asyncio.to_thread(daemon.command, "top", stdout=its, TERM="dumb")
        assert done.returncode == 0, done.stderr
        assert b"no daemon answers" in os.read(ours, 10_000)
    finally:
        os.close(ours)
        os.close(its)


async def test_without_a_database_the_node_is_heard_still(tmp_path: Path, database_url: str) -> None:
    async with running(Daemon(tmp_path / "node", database_url)) as daemon:
        away = f"postgresql://heed@127.0.0.1:{free_port()}/heed"
        for arguments, words in (
            (("top", "--once"), "Heed on "),
            (("top", "--once"), "queue        database: "),
            (("top", "--json"), '"trouble": "database: '),
            (("explain", "spring"), "The database can't be asked"),
        ):
            done = await asyncio.to_thread(daemon.command, *arguments, HEED_DATABASE__URL=away)
            assert done.returncode == 1, done.stdout
            assert words in done.stdout, (arguments, done.stdout)
            assert done.stderr.startswith("database: ")
