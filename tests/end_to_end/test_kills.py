"""kill -9 of a random process under load, again and again: what got 250 arrives, and duplicates are those of D3.

HEED_TEST_KILL_ROUNDS sets the number of rounds; the default is small, so that the suite stays short.
"""

import os
import random
import signal
from collections import Counter
from pathlib import Path

import psutil

from mta.maildir import envelope_recipients
from mta.sink import Sink
from tests.support.daemon import Daemon, DaemonError, running
from tests.support.load import Load

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


async def test_what_got_250_arrives(tmp_path: Path) -> None:
    chance = random.Random(20261123)
    maildir = tmp_path / "sink"
    async with Sink(host="127.0.0.1", port=0, maildir=maildir) as sink:
        settings = {"delivery.next_hop": f"127.0.0.1:{sink.port}", "delivery.retry_seconds": "1"}
        async with running(Daemon(tmp_path / "node", None, settings=settings)) as daemon:
            load = Load(daemon.ports.submission, connections=CONNECTIONS)
            killed: Counter[str] = Counter()
            async with load:
                for _ in range(ROUNDS):
                    await load.progress(200)
                    killed[await kill_one(daemon, chance)] += 1
                    await daemon.ready()
                await load.progress(200)

            def arrived() -> Counter[str]:
                files = [file for folder in ("new", "cur") for file in (maildir / folder).iterdir()]
                return Counter(r.strip(b"<> ").decode() for file in files for r in envelope_recipients(file))

            async def all_arrived() -> bool:
                return load.accepted <= arrived().keys()

            try:
                await daemon.eventually(all_arrived, 90, "lost mail")
            except DaemonError as error:
                missing = sorted(load.accepted - arrived().keys())
                raise AssertionError(f"{len(missing)} of {len(load.accepted)} accepted are missing: {error}") from None
            counts = arrived()
            duplicates = sum(count - 1 for count in counts.values())
            unasked = counts.keys() - load.accepted - load.unanswered
            print(f"{len(load.accepted)} accepted, killed {dict(killed)}, {duplicates} duplicates")
            # D3: only what was between its final dot and the reply when the process died, on each open connection
            assert duplicates <= killed.total() * 20
            assert not unasked
