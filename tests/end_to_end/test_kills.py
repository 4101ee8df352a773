"""kill -9 of a random process under load, again and again: what got 250 arrives, and duplicates are those of D3.

HEED_TEST_KILL_ROUNDS sets the number of rounds; the default is small, so that the suite stays short.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from pathlib import Path

import psutil

from tests.support.daemon import Daemon, DaemonError, running
from tests.support.load import Load
from tests.support.peer import Connection, Peer, Received
from tests.support.script import Script

ROUNDS = int(os.environ.get("HEED_TEST_KILL_ROUNDS", "4"))
CONNECTIONS = 8


async def kill_one(daemon: Daemon, chance: random.Random) -> str:
    """Kill a worker, the supervisor or the database server; returns which."""
    what = chance.choice(["worker", "worker", "supervisor", "postmaster"])
    if what == "supervisor":
        workers = daemon.worker_pids()
        daemon.kill_supervisor()

        async def ended() -> bool:
            return not any(psutil.pid_exists(worker) for worker in workers)

        await daemon.eventually(ended, 30, "left workers behind")
        await daemon.start()
    elif what == "postmaster":
        pid = int((daemon.data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGKILL)
    else:
        workers = daemon.worker_pids()
        if workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
    return what


async def take_time(connection: Connection) -> None:
    """So that a death often comes between a final dot and its reply."""
    await asyncio.sleep(0.03)
    await connection.proceed()


def was_last(message: Received) -> bool:
    """Whether nothing came after its final dot: the reply, if there was one, may never have been read."""
    commands = message.connection.commands
    ends = [place for place, command in enumerate(commands) if command == "DATA"]
    return commands[ends[message.connection.messages.index(message)] + 1 :] == []


async def test_what_got_250_arrives(tmp_path: Path) -> None:
    chance = random.Random(20261123)
    async with Peer(Script().on("DOT", take_time)) as peer:
        settings = {"delivery.next_hop": f"127.0.0.1:{peer.port}", "delivery.retry_seconds": "1"}
        async with running(Daemon(tmp_path / "node", None, settings=settings)) as daemon:
            load = Load(daemon.ports.submission, connections=CONNECTIONS)
            killed: Counter[str] = Counter()
            async with load:
                for _ in range(ROUNDS):
                    await load.progress(200)
                    killed[await kill_one(daemon, chance)] += 1
                    await daemon.ready()
                await load.progress(200)

            async def all_arrived() -> bool:
                return load.accepted <= peer.deliveries().keys()

            try:
                await daemon.eventually(all_arrived, 90, "lost mail")
            except DaemonError as error:
                missing = len(load.accepted - peer.deliveries().keys())
                raise AssertionError(f"{missing} of {len(load.accepted)} accepted are missing: {error}") from None
            counts = peer.deliveries()
            again = {recipient for recipient, count in counts.items() if count > 1}
            print(f"{len(load.accepted)} accepted, killed {dict(killed)}, {len(again)} delivered again")
            # D3: delivered again is only what nothing followed on its connection, by which its reply had been read
            for recipient in again:
                *earlier, _ = [message for message in peer.messages if recipient in message.recipients]
                assert all(was_last(message) for message in earlier)
            assert not counts.keys() - load.accepted - load.unanswered
