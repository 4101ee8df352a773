"""A node's life: it starts by itself, takes mail, survives the end of any of its processes, and stops when asked to."""

import asyncio
import json
import os
import re
import signal
import smtplib
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tests.support.daemon import Daemon, DaemonError, running
from tests.support.peer import Connection, Peer
from tests.support.script import Script
from tests.support.submit import message, submit


@pytest.fixture
async def daemon(tmp_path: Path, database_url: str) -> AsyncIterator[Daemon]:
    async with running(Daemon(tmp_path / "node", database_url)) as daemon:
        yield daemon


async def deliver(daemon: Daemon, *recipients: str) -> None:
    """Submit a message and wait until the sink has it."""
    before = received(daemon)
    assert await asyncio.to_thread(submit, daemon.ports.submission, recipients, message("hello")) == {}

    async def arrived() -> bool:
        return received(daemon) >= before + len(recipients)

    await daemon.eventually(arrived, 20, "did not deliver")


def received(daemon: Daemon) -> int:
    return sum(1 for name in ("new", "cur") for _ in (daemon.data_dir / "sink" / name).glob("*"))


async def test_a_message_goes_all_the_way(daemon: Daemon) -> None:
    await deliver(daemon, "anna@example.net", "bob@example.org")
    assert await daemon.metric("heed_delivered_total") == 2
    shown = await asyncio.to_thread(daemon.command, "sink", "show", "--json")
    assert json.loads(shown.stdout)["messages"] == 2
    assert await daemon.stop() == 0
    assert "anna" not in daemon.log


async def test_probes_and_metrics_answer(daemon: Daemon) -> None:
    assert (await daemon.get("/healthz"))[0] == 200
    status, text = await daemon.get("/readyz")
    assert status == 200
    assert json.loads(text)["ready"] is True
    assert await daemon.metric("heed_database_up") == 1


async def test_a_worker_that_is_killed_is_replaced(daemon: Daemon) -> None:
    victims = daemon.worker_pids()
    assert len(victims) == 2
    for victim in victims:
        os.kill(victim, signal.SIGKILL)

    async def replaced() -> bool:
        workers = daemon.worker_pids()
        return len(workers) == 2 and not set(workers) & set(victims)

    await daemon.eventually(replaced, 20, "did not start new workers")
    await daemon.ready()
    await deliver(daemon, "anna@example.net")


async def test_a_worker_that_hangs_is_named_and_replaced(tmp_path: Path, database_url: str) -> None:
    settings = {"queue.lease_timeout_seconds": 15}
    async with running(Daemon(tmp_path / "node", database_url, settings=settings)) as daemon:
        victim = daemon.worker_pids()[0]
        os.kill(victim, signal.SIGSTOP)

        async def said(ready: int) -> list[str] | None:
            shown = json.loads((await daemon.get("/readyz"))[1])
            return shown["reasons"] if shown["workers"]["ready"] == ready else None

        async def named() -> bool:
            return any("has said nothing for" in reason for reason in await said(1) or [])

        async def replaced() -> bool:
            return victim not in daemon.worker_pids() and await said(2) == []

        await daemon.eventually(named, 15, "did not notice that a worker hangs")
        await daemon.eventually(replaced, 40, "did not replace a worker that hangs")


async def test_a_client_that_is_stuck_at_the_end_has_nothing_sent_twice(tmp_path: Path, database_url: str) -> None:
    """The web listener waits for a request that never ends; delivery must not begin anything in that time."""
    hurry = asyncio.Event()
    begun = 0

    async def answer(connection: Connection) -> None:
        nonlocal begun
        begun += 1
        await hurry.wait()
        await connection.proceed()

    readers = [f"reader-{number}@example.net" for number in range(16)]
    async with Peer(Script().on("DOT", answer)) as peer:
        settings = {"delivery.next_hop": f"127.0.0.1:{peer.port}", "delivery.connections_per_site": 4}
        async with running(Daemon(tmp_path / "node", database_url, workers=1, settings=settings)) as daemon:
            assert await asyncio.to_thread(submit, daemon.ports.submission, readers, message("news")) == {}

            async def all_busy() -> bool:
                return begun == 4

            await daemon.eventually(all_busy, 20, "did not use its connections")
            reader, writer = await asyncio.open_connection("127.0.0.1", daemon.ports.web)
            writer.write(b"POST /u/x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n")
            assert b"100" in await reader.readline()
            stopping = asyncio.create_task(daemon.stop())

            async def closed() -> bool:
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", daemon.ports.submission)) != 0

            await daemon.eventually(closed, 20, "did not begin to stop")
            hurry.set()
            assert await stopping == 0
            assert begun == 4
            writer.close()
            await daemon.start()

            async def all_arrived() -> bool:
                return set(peer.deliveries()) == set(readers)

            await daemon.eventually(all_arrived, 30, "did not go on")
            assert set(peer.deliveries().values()) == {1}


async def test_workers_end_with_their_supervisor_and_the_node_starts_again(daemon: Daemon) -> None:
    workers = daemon.worker_pids()
    daemon.kill_supervisor()

    async def ended() -> bool:
        return not any(psutil.pid_exists(worker) for worker in workers)

    await daemon.eventually(ended, 20, "left workers behind")
    await daemon.start()
    await deliver(daemon, "anna@example.net")


async def test_an_embedded_database_that_is_killed_comes_back(tmp_path: Path) -> None:
    # of two workers, one may take mail again a moment before the other
    async with running(Daemon(tmp_path / "node", None, workers=1)) as daemon:
        await deliver(daemon, "anna@example.net")
        pid = int((daemon.data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGKILL)
        replies: list[int] = []

        async def taken() -> bool:
            try:
                await asyncio.to_thread(submit, daemon.ports.submission, ["bob@example.org"], message("again"))
            except smtplib.SMTPResponseException as refused:
                replies.append(refused.smtp_code)
                return False
            except smtplib.SMTPRecipientsRefused as refused:
                replies.extend(code for code, _ in refused.recipients.values())
                return False
            return True

        await daemon.eventually(taken, 30, "did not take mail again")
        assert all(400 <= reply < 500 for reply in replies)
        await deliver(daemon, "carol@example.com")
        assert await daemon.stop() == 0
        assert not (daemon.data_dir / "postgres" / "postmaster.pid").exists()


async def test_a_daemon_whose_announcement_nobody_reads_goes_on(tmp_path: Path, database_url: str) -> None:
    daemon = Daemon(tmp_path / "node", database_url, workers=1)
    nobody, writing = os.pipe()
    os.close(nobody)
    try:
        daemon.launch(stdout=writing)
        os.close(writing)
        await daemon.ready()
        await deliver(daemon, "anna@example.net")
        assert await daemon.stop() == 0
        assert "can't go on" not in daemon.log
    finally:
        daemon.destroy()


def test_a_supervisor_that_can_not_go_on_ends_with_an_error(tmp_path: Path, database_url: str) -> None:
    script = (
        "import mta.supervisor, sys\n"
        "async def fail(self): raise OSError\n"
        "mta.supervisor.Supervisor._sample_for_ever = fail\n"
        "from mta.cli import main; sys.argv[0] = 'heed'; main()\n"
    )
    daemon = Daemon(tmp_path / "node", database_url, workers=1)
    done = daemon.command("run", program=("-c", script))
    assert done.returncode == 1
    assert "the supervisor can't go on" in done.stderr


async def test_a_busy_port_is_named(tmp_path: Path, database_url: str) -> None:
    daemon = Daemon(tmp_path / "node", database_url)
    with socket.create_server(("127.0.0.1", daemon.ports.inbound)), pytest.raises(DaemonError) as caught:
        await daemon.start()
    daemon.destroy()
    said = re.sub(r"\s+", " ", str(caught.value))
    assert f"inbound.listen = 127.0.0.1:{daemon.ports.inbound}" in said


async def test_a_second_node_on_the_same_data_is_refused(daemon: Daemon, database_url: str) -> None:
    second = Daemon(daemon.data_dir, database_url)
    with pytest.raises(DaemonError, match="another"):
        await second.start()
    await deliver(daemon, "anna@example.net")
    assert await daemon.metric("heed_delivered_total") == 1


async def test_data_is_private(daemon: Daemon) -> None:
    await deliver(daemon, "anna@example.net")
    assert stat.S_IMODE(daemon.data_dir.stat().st_mode) & 0o077 == 0


async def test_wrong_settings_are_all_named_at_once(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "node", None, settings={"delivery.next_hopp": "x:25", "workers": "many"})
    with pytest.raises(DaemonError) as caught:
        await daemon.start()
    assert "delivery.next_hopp" in str(caught.value)
    assert "workers" in str(caught.value)
