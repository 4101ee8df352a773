"""The status page of a running daemon, in a browser that people use; and the state that commands read."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon, running
from tests.support.peer import Peer
from tests.support.submit import message, submit

CHROMIUM = shutil.which("chromium")


def browse(profile: Path, url: str, *options: str) -> str:
    """What a headless Chromium makes of a page: its document, or a screenshot with --screenshot."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={profile}", *options, url],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout


async def test_the_node_says_what_it_does(tmp_path: Path, database_url: str) -> None:
    async with Peer() as peer:
        daemon = Daemon(tmp_path / "node", database_url, settings={"delivery.next_hop": f"127.0.0.1:{peer.port}"})
        async with running(daemon):
            campaign = message("news", campaign="<i>spring</i>")
            assert await asyncio.to_thread(submit, daemon.ports.submission, ["anna@example.net"], campaign) == {}
            await peer.message()

            async def state() -> dict[str, Any]:
                status, text = await daemon.get("/state")
                assert status == 200
                return dict(json.loads(text))

            async def both_ready() -> bool:
                return bool((await state())["workers"] == {"ready": 2, "expected": 2})

            await daemon.eventually(both_ready, 30, "did not get both workers ready")
            assert [site["site"] for site in (await state())["sites"]] in ([], [f"127.0.0.1:{peer.port}"])
            paused = ("campaign", "pause", "--tenant", "sandbox", "--reason", "a & b")
            assert (await asyncio.to_thread(daemon.command, *paused)).returncode == 0
            status, text = await daemon.get("/status")
            assert status == 200
            assert "sandbox/&lt;i&gt;spring&lt;/i&gt;" in text
            assert "a &amp; b" in text
            assert "anna" not in text


async def test_what_remote_servers_say_ends_no_node(tmp_path: Path, database_url: str) -> None:
    """Fifty sites, each with a refusal as long as is kept, in characters of three bytes: more than a pipe holds."""

    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"421 4.3.2 {'邮件' * 240}\r\n".encode())
        await writer.drain()
        writer.close()

    servers = [await asyncio.start_server(refuse, "127.0.0.1", 0) for _ in range(50)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    settings = {f"delivery.routes.d{n}.example.net": f"127.0.0.1:{port}" for n, port in enumerate(ports)}
    async with running(Daemon(tmp_path / "node", database_url, workers=1, settings=settings)) as daemon:
        readers = [f"anna@d{n}.example.net" for n in range(50)]
        assert await asyncio.to_thread(submit, daemon.ports.submission, readers, message("news")) == {}

        async def all_shown() -> bool:
            sites = json.loads((await daemon.get("/state"))[1] or "{}").get("sites", [])
            return sum("邮件" in site["last_reply"] for site in sites) == 50

        await daemon.eventually(all_shown, 30, "did not show what its sites had said")
        assert await daemon.stop() == 0
    for server in servers:
        server.close()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
async def test_a_browser_shows_it(tmp_path: Path, database_url: str) -> None:
    async with running(Daemon(tmp_path / "node", database_url)) as daemon:
        url = f"http://127.0.0.1:{daemon.ports.metrics}/status"
        document = await asyncio.to_thread(browse, tmp_path / "profile", url, "--dump-dom")
        assert "Recipients in and out" in document
        assert document.count("<svg") == 6
        picture = tmp_path / "status.png"
        await asyncio.to_thread(browse, tmp_path / "profile", url, f"--screenshot={picture}", "--window-size=1200,900")
        assert picture.stat().st_size > 10_000
