"""docs/quick-start.md, followed word by word: its commands, in their order, in a shell, with ports of our own."""

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, running
from tests.support.pages import blocks

PAGE = Path(__file__).parents[2] / "docs" / "quick-start.md"
PORTS = {"2587": "submission", "9125": "metrics", "8025": "web"}


def shell(commands: str, directory: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run commands as somebody at a terminal does, up to the first one that fails."""
    return subprocess.run(
        ["/bin/sh", "-e", "-c", commands],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_only_the_installation_and_the_daemon_are_run_otherwise() -> None:
    notes = [note for note, _ in blocks(PAGE.name)]
    assert notes[:2] == ["not run: needs the network", "background"]
    assert not any(notes[2:])


def test_the_links_lead_somewhere() -> None:
    for page in PAGE.parent.glob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.skipif(not (shutil.which("swaks") and shutil.which("curl")), reason="swaks and curl are not installed")
async def test_the_quick_start_works(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "var", None, workers=1)
    # heed as it is installed, for this daemon's directory and ports
    program = tmp_path / "bin" / "heed"
    program.parent.mkdir()
    options = " ".join(f"--set {option}" for option in daemon._options)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mta.cli "$@" {options}\n')
    program.chmod(0o755)
    environment = {**daemon._environment(), "PATH": f"{program.parent}:/usr/local/bin:/usr/bin:/bin"}
    async with running(daemon):
        outputs = []
        for _, commands in blocks(PAGE.name)[2:]:
            for port, name in PORTS.items():
                commands = re.sub(rf"\b{port}\b", str(getattr(daemon.ports, name)), commands)
            done = await asyncio.to_thread(shell, commands, tmp_path, environment)
            assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
            outputs.append(done.stdout)
        assert outputs[1].count('"Delivery"') == 2
        assert "200" in outputs[2].split()
        assert "accepted" in outputs[4]
        assert '"ready":true' in outputs[5].replace(" ", "")
