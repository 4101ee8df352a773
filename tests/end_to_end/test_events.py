"""Webhooks of a running daemon: the receiver misbehaves, processes are killed, and all of it arrives in order."""

import asyncio
import json
import os
import signal
import time
from collections import defaultdict
from pathlib import Path

from mta.sink import Sink
from tests.support.daemon import Daemon, running
from tests.support.load import Load
from tests.support.receiver import Receiver, verify
from tests.support.submit import message, submit


async def command(daemon: Daemon, *arguments: str) -> str:
    done = await asyncio.to_thread(daemon.command, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def add_webhook(daemon: Daemon, url: str) -> tuple[int, str]:
    made = json.loads(await command(daemon, "webhook", "add", "sandbox", url, "--json"))
    return made["id"], made["secret"]


async def test_nothing_is_lost_while_the_receiver_fails_and_processes_die(tmp_path: Path, database_url: str) -> None:
    async with Sink(host="127.0.0.1", port=0) as sink, Receiver("500") as receiver:
        settings = {"delivery.next_hop": f"127.0.0.1:{sink.port}", "delivery.retry_seconds": "0.5"}
        async with running(Daemon(tmp_path / "node", database_url, settings=settings)) as daemon:
            _, secret = await add_webhook(daemon, receiver.url)
            async with Load(daemon.ports.submission, connections=4) as load:
                await load.progress(100)
                await receiver.asked(1)
                await receiver.set("hang")
                os.kill(daemon.worker_pids()[0], signal.SIGKILL)
                await load.progress(100)
                daemon.kill_supervisor()
                await daemon.start()
                await receiver.set("lie")
                await load.progress(100)

            async def empty() -> bool:
                return await daemon.queued() == 0

            await daemon.eventually(empty, 60, "did not deliver")
            await receiver.set("ok")

            def told() -> dict[str, list[str]]:
                stories: dict[str, list[str]] = defaultdict(list)
                for event in receiver.unique():
                    stories[event.get("recipient", "")].append(event["type"])
                return stories

            async def all_told() -> bool:
                stories = told()
                return all(stories[recipient][-1:] == ["Delivery"] for recipient in load.accepted)

            await daemon.eventually(all_told, 90, "did not tell of every delivery")
            for recipient in load.accepted:
                assert told()[recipient][0] == "Reception"
                assert told()[recipient].count("Delivery") == 1
            for headers, body in receiver.requests:
                verify(secret, headers, body, time.time())


async def test_events_and_reports_on_the_command_line(tmp_path: Path, database_url: str) -> None:
    async with Sink(host="127.0.0.1", port=0) as sink:
        files = tmp_path / "files"
        settings = {"delivery.next_hop": f"127.0.0.1:{sink.port}", "events.file_dir": str(files)}
        async with running(Daemon(tmp_path / "node", database_url, settings=settings)) as daemon:
            readers = [f"reader-{number}@example.net" for number in range(30)]
            await asyncio.to_thread(submit, daemon.ports.submission, readers, message("news", campaign="spring"))

            async def written() -> bool:
                path = files / "events.jsonl"
                return path.exists() and path.read_text().count('"Delivery"') == 30

            await daemon.eventually(written, 30, "did not write the file of events")
            assert "reader-" not in (files / "events.jsonl").read_text()
            lines = [json.loads(line) for line in (await command(daemon, "events", "tail")).splitlines()]
            assert [line["type"] for line in lines].count("Delivery") == 30
            exported = await command(
                daemon, "events", "export", "--since", "1h", "--tenant", "sandbox", "--campaign", "spring"
            )
            assert len(exported.splitlines()) == 31
            usage = json.loads(await command(daemon, "usage", "--json"))
            assert [(row["tenant"], row["accepted"], row["delivered"]) for row in usage] == [("sandbox", 30, 30)]
            about = ("report", "spring", "--tenant", "sandbox", "--set")
            shown = json.loads(await command(daemon, *about, "reports.min_cell=31", "--json"))
            assert shown["campaign"] == "spring"
            # below min_cell nothing is ever shown, whatever the noise
            assert set(shown["totals"].values()) == {None}
            shown_from_ten = (*about, "reports.min_cell=2")
            assert "<svg" in await command(daemon, *shown_from_ten, "--format", "html")
            assert "total,,delivered," in await command(daemon, *shown_from_ten, "--format", "csv")
            assert "delivered" in await command(daemon, *shown_from_ten)
            (webhook, _) = await add_webhook(daemon, "http://127.0.0.1:9/")
            done = await asyncio.to_thread(daemon.command, "webhook", "test", str(webhook))
            assert done.returncode == 1
            assert "no connection" in done.stderr
            assert "127.0.0.1:9" in await command(daemon, "webhook", "list")
            await command(daemon, "events", "replay", "--webhook", str(webhook), "--since", "1h")
            await command(daemon, "webhook", "remove", str(webhook))
