"""docs/backup.md, followed word by word: an older backup is restored, and nobody who unsubscribed since gets mail."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config.cluster import programs
from tests.support.daemon import Daemon, running
from tests.support.pages import blocks
from tests.support.submit import message, submit


class Shell:
    """Runs commands of the page as its reader does, with the directories and users of a test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._program = directory / "bin" / "heed"
        self._program.parent.mkdir()
        self._commands = [commands for note, commands in blocks("backup.md") if not note]

    async def follow(self, first: str, daemon: Daemon, url: str) -> str:
        """Run the block that begins so; what it said."""
        [commands] = [commands for commands in self._commands if commands.startswith(first)]
        places = {
            "/var/lib/heed": daemon.data_dir,
            "/backup": self._directory / "backup",
            "/elsewhere": self._directory,
        }
        for place, ours in places.items():
            commands = commands.replace(place, str(ours))
        commands = commands.replace("runuser -u heed -- ", "").replace("heed:heed", f"{os.geteuid()}:{os.getegid()}")
        options = " ".join(f"--set {option}" for option in daemon._options)
        self._program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mta.cli "$@" {options}\n')
        self._program.chmod(0o755)
        path = f"{self._program.parent}:{programs(None)}:/usr/bin:/bin"
        done = await asyncio.to_thread(
            subprocess.run, ["/bin/sh", "-e", "-c", commands], capture_output=True, text=True, check=False,
            env={**daemon._environment(), "HEED_DATABASE__URL": url, "DATABASE": url, "PATH": path},
        )  # fmt: skip
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def refusals(daemon: Daemon) -> dict[str, str]:
    return submit(daemon.ports.submission, ["anna@example.net", "dora@example.net"], message("after"))


@pytest.mark.skipif("HEED_TEST_DATABASE_URL" in os.environ, reason="the programs are those of the embedded PostgreSQL")
async def test_an_older_backup_resurrects_nobody(tmp_path: Path, database_url: str, empty_database_url: str) -> None:
    (tmp_path / "backup").mkdir()
    shell = Shell(tmp_path)
    async with running(Daemon(tmp_path / "old", database_url, workers=1)) as old:
        await asyncio.to_thread(old.command, "tenant", "add", "acme")
        await shell.follow("pg_dump", old, database_url)
        await shell.follow("install -D --mode=600 /var/lib/heed/keys", old, database_url)
        unsubscribed = await asyncio.to_thread(
            old.command, "suppress", "add", "anna@example.net", "--tenant", "sandbox", "--reason", "asked on the phone"
        )
        assert unsubscribed.returncode == 0, unsubscribed.stderr

        async def receipted() -> bool:
            receipts = old.data_dir / "suppression" / "receipts"
            return receipts.exists() and b"phone" in receipts.read_bytes()

        await old.eventually(receipted, 30, "wrote no receipt")
        await shell.follow("install -D --mode=600 /var/lib/heed/suppression", old, database_url)

    shutil.rmtree(old.data_dir)
    new = Daemon(tmp_path / "new", empty_database_url, workers=1)
    await shell.follow("pg_restore", new, empty_database_url)
    await shell.follow("install -D --mode=600 /elsewhere", new, empty_database_url)
    try:
        new.launch()

        async def refuses() -> bool:
            status, said = await new.get("/readyz")
            return status == 503 and "heed suppress replay" in said

        await new.eventually(refuses, 60, "did not refuse the older database")
        assert "1 suppressions" in await shell.follow("runuser -u heed -- heed suppress", new, empty_database_url)
        await new.ready()
        refused = await asyncio.to_thread(refusals, new)
        assert list(refused) == ["anna@example.net"]
        assert refused["anna@example.net"].startswith("550")
        await new.stop()
    finally:
        new.destroy()
