"""How fast the test MX and the load client are, beside Postfix's smtp-sink and smtp-source.

    python -m tests.bench.bench_tools [--messages 20000] [--size 10000] [--connections 20]

Each pair of a client and a server runs as two processes; CPU is each one's own, user and system together, a message.
The last lines are our two in one process, which is what one core can carry of both. Not collected by pytest.
"""

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mta.send import Campaign, send
from mta.sink import Sink

PORT = 11599


@dataclass(frozen=True, slots=True)
class Load:
    """What every pair has to carry."""

    messages: int
    size: int
    connections: int


def server_command(name: str, maildir: str) -> list[str]:
    """The server's command line; Postfix's takes no root."""
    match name:
        case "smtp-sink":
            user = ["-u", "postfix"] if os.getuid() == 0 else []
            return ["smtp-sink", *user, f"127.0.0.1:{PORT}", "1000"]
        case "sink, Maildir":
            return [sys.executable, "-m", "mta.sink", "--listen", f"127.0.0.1:{PORT}", "--maildir", maildir]
        case _:
            return [sys.executable, "-m", "mta.sink", "--listen", f"127.0.0.1:{PORT}"]


def client_command(name: str, load: Load) -> list[str]:
    """The client's command line."""
    if name == "smtp-source":
        counts = ["-s", str(load.connections), "-l", str(load.size), "-m", str(load.messages)]
        return ["smtp-source", "-d", *counts, "-f", "a@example.com", "-t", "b@example.net", f"127.0.0.1:{PORT}"]
    counts = ["--messages", str(load.messages), "--size", str(load.size), "--connections", str(load.connections)]
    return [sys.executable, "-m", "tests.bench.bench_tools", "--send-to", str(PORT), *counts]


async def until_it_listens() -> None:
    """A server is there when it takes a connection; there is no event for that in another process."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", PORT)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
    raise TimeoutError("the server does not listen")


def cpu_seconds() -> float:
    """Of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def pair(client: str, server: str, load: Load) -> str:
    """Run one pair; its line of the table."""
    with tempfile.TemporaryDirectory() as directory:
        running = subprocess.Popen(server_command(server, directory), stdout=subprocess.DEVNULL)
        try:
            asyncio.run(until_it_listens())
            before, start = cpu_seconds(), time.monotonic()
            subprocess.run(client_command(client, load), check=True, stdout=subprocess.DEVNULL)
            seconds, client_cpu = time.monotonic() - start, cpu_seconds() - before
        finally:
            before = cpu_seconds()
            running.terminate()
            running.wait()
    return row(f"{client} → {server}", load, seconds, client_cpu, cpu_seconds() - before)


def row(name: str, load: Load, seconds: float, *cpu: float) -> str:
    """Messages a second, then microseconds of CPU a message for each process."""
    each = "  ".join(f"{used / load.messages * 1e6:7.0f} µs" for used in cpu)
    return f"{name:32} {load.messages / seconds:8.0f} msg/s  {each}"


async def one_process(load: Load, maildir: Path | None) -> float:
    """Our client and our server on one event loop; the seconds it took."""
    async with Sink(maildir=maildir) as sink:
        campaign = Campaign(load.messages, size_octets=load.size)
        result = await send(campaign, sink.host, sink.port, connections=load.connections)
        if result.accepted != load.messages:
            raise SystemExit(f"only {result.accepted} accepted: {result}")
    return result.seconds


async def send_only(load: Load, port: int) -> None:
    """The client's own process."""
    campaign = Campaign(load.messages, size_octets=load.size)
    result = await send(campaign, "127.0.0.1", port, connections=load.connections)
    if result.accepted != load.messages:
        raise SystemExit(f"only {result.accepted} accepted: {result}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--send-to", type=int, default=0, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    load = Load(options.messages, options.size, options.connections)
    if options.send_to:
        asyncio.run(send_only(load, options.send_to))
        return
    say(f"{load}\n{'client → server':32} {'':14}  {'client':>10}  {'server':>10}")
    for client in ("smtp-source", "heed send"):
        for server in ("smtp-sink", "sink", "sink, Maildir"):
            say(pair(client, server, load))
    with tempfile.TemporaryDirectory() as directory:
        for name, maildir in (("one process", None), ("one process, Maildir", Path(directory) / "mail")):
            seconds = asyncio.run(one_process(load, maildir))
            say(row(name, load, seconds, seconds))


def say(line: str) -> None:
    """Print at once, also into a file."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
