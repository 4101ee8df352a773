"""Debian's Prometheus scrapes a running daemon under load, and every panel of every dashboard has data."""

import asyncio
import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from metrics.dashboards import DASHBOARDS
from tests.support.daemon import ROOT, Daemon, running
from tests.support.load import Load
from tests.support.peer import Peer
from tests.support.ports import free_port
from tests.support.script import Script, reply

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is not installed (Debian: prometheus)"
)
needs_prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")


@needs_promtool
@pytest.mark.parametrize("arguments", [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"],
                                       ["check", "config", "prometheus.yml"]])  # fmt: skip
def test_promtool_agrees(arguments: list[str]) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=ROOT / "config/prometheus", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@asynccontextmanager
async def prometheus(directory: Path, target: int) -> AsyncIterator[int]:
    """A Prometheus of this test alone, looking each half second; its port."""
    port = free_port()
    config = (
        "global: {scrape_interval: 500ms}\nscrape_configs:\n"
        f"  - {{job_name: heed, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}\n"
    )
    directory.mkdir()  # noqa: ASYNC240
    (directory / "prometheus.yml").write_text(config)
    process = await asyncio.create_subprocess_exec(
        "prometheus", "--config.file", directory / "prometheus.yml", "--storage.tsdb.path", directory / "data",
        "--web.listen-address", f"127.0.0.1:{port}", "--log.level", "error",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield port
    finally:
        process.kill()
        await process.wait()


async def ask(port: int, expression: str) -> list[Any]:
    """The result of an instant query; empty while nobody answers."""
    query = urllib.parse.urlencode({"query": expression.replace("$__rate_interval", "1m")})

    def fetch() -> list[Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=5) as answer:
            found: list[Any] = json.load(answer)["data"]["result"]
            return found

    try:
        return await asyncio.to_thread(fetch)
    except OSError:
        return []


@needs_prometheus
async def test_every_panel_has_data_under_load(tmp_path: Path, database_url: str) -> None:
    script = Script().on("RCPT", reply("450 4.2.1 come again"), when="reader-1", times=30)
    script.on("RCPT", reply("550 5.1.1 nobody"), when="reader-2", times=30)
    async with Peer(script) as peer:
        daemon = Daemon(tmp_path / "node", database_url, settings={"delivery.next_hop": f"127.0.0.1:{peer.port}"})
        async with (
            running(daemon),
            prometheus(tmp_path / "prometheus", daemon.ports.metrics) as port,
            Load(daemon.ports.submission, connections=4) as load,
        ):

            async def scraped() -> bool:
                found = await ask(port, "rate(heed_delivered_total[1m]) > 0")
                return bool(found)

            await load.progress(300)
            await daemon.eventually(scraped, 30, "was not scraped")
            await load.progress(300)
            missing = []
            for name, (_, panels) in DASHBOARDS.items():
                for panel in panels:
                    for expression, legend in panel.series:
                        if not await ask(port, expression):
                            missing.append(f"{name}: {panel.title}: {legend}: {expression}")
            assert missing == []


async def test_a_scrape_is_quick_and_small(tmp_path: Path, database_url: str) -> None:
    async with (
        running(Daemon(tmp_path / "node", database_url)) as daemon,
        Load(daemon.ports.submission, connections=2) as load,
    ):
        await load.progress(50)
        began = time.perf_counter()
        status, text = await daemon.get("/metrics")
        assert status == 200
        assert len(text) < 2_000_000
        assert time.perf_counter() - began < 2  # 200 ms where nothing else runs; tests share their machine
