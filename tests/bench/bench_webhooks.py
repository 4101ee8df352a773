"""The rate of mail beside a webhook receiver that fails: `python -m tests.bench.bench_webhooks [--messages 3000]`.

Two daemons take turns under the same load, one without a webhook, one with one whose receiver is down, answers 500,
hangs, answers too late, or works. Ratios are medians of the rounds; on a busy machine that of CPU says more than that
of rates. Afterwards the receiver works, and every event of every message must arrive, of each recipient in its order:
ends with 1 where one does not.
"""

import argparse
import asyncio
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

from tests.bench.drive import Load, Run, alternate, ratio
from tests.bench.fleet import Fleet, Member
from tests.support.receiver import Receiver

_MODES: Final = ("down", "500", "hang", "slow", "ok")
_PATIENCE_SECONDS: Final = 120.0
_STORY: Final = ["Reception", "Delivery"]


async def misbehave(member: Member, receiver: Receiver, mode: str) -> None:
    """Let the receiver behave so from now on, and the webhook be tried at once, as if it had not failed before."""
    await receiver.down()
    if mode != "down":
        await receiver.up()
    await receiver.set(mode)
    await member.store.execute("UPDATE webhook SET failures = 0, next_at = '-infinity'")


async def measure(fleet: Fleet, receiver: Receiver, load: Load, rounds: int) -> None:
    """A line for each way of failing."""
    for mode in _MODES:
        member = await fleet.member("with")
        await misbehave(member, receiver, mode)
        runs: dict[str, list[Run]] = await alternate(
            {name: lambda name=name: fleet.drive(name, load) for name in ("without", "with")},  # type: ignore[misc]
            rounds,
        )
        rates = {name: [run.delivered_per_s for run in of_name] for name, of_name in runs.items()}
        middle = {name: statistics.median(of_name) for name, of_name in rates.items()}
        cpu = {name: [run.own_ms for run in of_name] for name, of_name in runs.items()}
        others = statistics.median(run.others_cores for of_name in runs.values() for run in of_name)
        print(
            f"{mode:5} {middle['without']:7.0f}/s without, {middle['with']:7.0f}/s with a webhook: ratio"
            f" {ratio(rates['with'], rates['without']):.2f}; of CPU for a message"
            f" {ratio(cpu['with'], cpu['without']):.2f}; {others:.1f} cores were busy with something else",
            flush=True,
        )


async def all_told(member: Member, receiver: Receiver) -> bool:
    """Whether every event arrives, and of each recipient in its order; says how many there were."""
    await misbehave(member, receiver, "ok")
    since = "SELECT count(*) FROM event e, webhook w WHERE e.received_at > w.created_at"
    events = int(await member.store.value(since))
    await receiver.until(events, _PATIENCE_SECONDS)
    stories: dict[str, list[str]] = defaultdict(list)
    for event in receiver.unique():
        if event["type"] in _STORY:
            stories[event["message"]].append(event["type"])
    wrong = sum(story != _STORY for story in stories.values())
    told = len(receiver.unique())
    again = len(receiver.taken) - told
    print(f"{told} events arrived of {len(stories)} messages, {again} of them again; {wrong} in another order")
    return wrong == 0


async def main(options: argparse.Namespace) -> int:
    """All of it; the exit code."""
    async with Fleet(options.directory) as fleet, Receiver("ok") as receiver:
        await fleet.member("without")
        member = await fleet.member("with")
        done = await asyncio.to_thread(member.daemon.command, "webhook", "add", "sandbox", receiver.url, "--json")
        assert json.loads(done.stdout)["id"] == 1, done.stderr
        await measure(fleet, receiver, Load(options.messages), options.rounds)
        return int(not await all_told(await fleet.member("with"), receiver))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--messages", type=int, default=3_000, help="of each run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on the disk that is to be measured")
    sys.exit(asyncio.run(main(parser.parse_args())))
