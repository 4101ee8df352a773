"""What events cost a message: `python -m tests.bench.bench_events [--messages 20000] [--batch 100] [--url URL]`.

Times the statements that store messages and make recipients final, with their events and without, on batches as the
daemon makes them; the difference is what events cost, in wall clock (one connection, nothing else going on) and in CPU
of both processes. Then reads all of it back as a webhook does. Not collected by pytest.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

import psutil

from bounce.outcome import Action, BounceClass, Outcome, Stage, Trouble
from config.database import Database, migrate
from mta.events import Cursor, Events
from mta.identifiers import LANES, MessageIds
from mta.queue import Completion, FinalState, NewMessage, NewRecipient, Queue
from suppression.digest import MessageClass
from tests.bench.bench_suppression_log import postgres

DONE = Outcome(
    Action.DELIVERED, "2.0.0", 250, "OK queued as 4bXYZ123", "mx1.example.net", BounceClass.NONE, Trouble.RECIPIENT,
    Stage.DOT,
)  # fmt: skip
WITHOUT = """
DELETE FROM recipient r USING unnest($1::smallint[], $2::bigint[], $3::integer[]) AS d (lane, message_id, ordinal)
WHERE r.lane = d.lane AND r.message_id = d.message_id AND r.ordinal = d.ordinal AND r.worker_id = $4
RETURNING r.message_id, r.ordinal
"""


def messages(ids: MessageIds, count: int, batch: int, worker_id: int) -> Iterator[list[NewMessage]]:
    """Batches of one lane, each message to one recipient, leased."""
    for number in range(0, count, batch):
        lane = number // batch % LANES
        now = time.time()
        recipient = NewRecipient(0, 0, os.urandom(70), worker_id)
        yield [
            NewMessage(
                ids.next(lane), 1, 1, 1, MessageClass.CAMPAIGN, now, now + 1000, os.urandom(60), os.urandom(2_000),
                [replace(recipient, person=int.from_bytes(os.urandom(8), signed=True))], 10_000,
            )
            for _ in range(batch)
        ]  # fmt: skip


def completions(batch: Sequence[NewMessage]) -> list[Completion]:
    """All of them delivered."""
    return [
        Completion(
            m.id, 0, FinalState.DELIVERED, 1, time.time(), DONE, "mx1.example.net,mx2.example.net", 0.0, False, "",
            1, 1, 1, m.recipients[0].person, m.received_at, True, 0.2,
        )
        for m in batch
    ]  # fmt: skip


class Timer:
    """Wall clock here, and CPU of one backend."""

    def __init__(self, backend: psutil.Process) -> None:
        self._backend = backend

    def _cpu(self) -> float:
        times = self._backend.cpu_times()
        return times.user + times.system + time.process_time()

    async def run(self, work: Sequence[Callable[[], Awaitable[object]]], count: int) -> tuple[float, float]:
        """Microseconds of wall clock and of CPU (the backend's and ours) for each message."""
        began, cpu = time.perf_counter(), self._cpu()
        for each in work:
            await each()
        return (time.perf_counter() - began) / count * 1e6, (self._cpu() - cpu) / count * 1e6


async def measure(url: str, count: int, size: int) -> None:
    """All of it."""
    await migrate(url)
    database = await Database.open(url, size=1, application_name="bench", command_timeout_seconds=60)
    async with database.connection() as connection:
        worker_id = await connection.fetchval("INSERT INTO worker (node) VALUES ('bench') RETURNING id")
        backend = psutil.Process(await connection.fetchval("SELECT pg_backend_pid()"))
    queue, events, timer = Queue(database, worker_id, "bench"), Events(database), Timer(backend)
    await events.keep(30)

    async def bare(batch: Sequence[NewMessage]) -> None:
        async with database.connection() as connection:
            ids = [m.id for m in batch]
            await connection.fetch(WITHOUT, [i % LANES for i in ids], ids, [0] * len(ids), worker_id)

    ids = MessageIds(worker_id)
    for _ in range(2):  # the first round warms everything up
        kept = list(messages(ids, count, size, worker_id))
        plain = [[replace(m, submitted_bytes=-1) for m in batch] for batch in messages(ids, count, size, worker_id)]
        done = [completions(batch) for batch in kept]
        times = {
            "store, without events": await timer.run([lambda b=b: queue.insert(b) for b in plain], count),  # type: ignore[misc]
            "store, with Reception": await timer.run([lambda b=b: queue.insert(b) for b in kept], count),  # type: ignore[misc]
            "finish, without events": await timer.run([lambda b=b: bare(b) for b in plain], count),  # type: ignore[misc]
            "finish, with Delivery": await timer.run([lambda b=b: queue.finish(b) for b in done], count),  # type: ignore[misc]
        }
    for name, (wall, cpu) in times.items():
        print(f"{name:30} {wall:8.1f} µs {cpu:8.1f} µs CPU")
    names = list(times)
    for index, label in ((0, "wall clock"), (1, "CPU")):
        cost = sum(times[names[n]][index] - times[names[n - 1]][index] for n in (1, 3))
        print(f"{'events, a message, ' + label:30} {cost:8.1f} µs")

    cursor, read, began = Cursor(), 0, time.perf_counter()
    while True:
        page, cursor = await events.of_tenant(1, cursor, 500)
        if not page:
            break
        read += len(page)
    print(f"{'read as a webhook, an event':30} {(time.perf_counter() - began) / read * 1e6:8.1f} µs ({read} events)")
    await database.close()


async def main() -> None:
    """With a database of its own, unless one is given."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--url")
    options = parser.parse_args()
    async with postgres(options.url) as url:
        await measure(url, options.messages, options.batch)


if __name__ == "__main__":
    asyncio.run(main())
