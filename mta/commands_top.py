"""`heed top`: the screen of top.py, read anew each second until q or Ctrl-C; --once prints it once, for pipes."""

import asyncio
import select
import sys
import termios
import time
import tty
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import typer

from config.settings import Settings, endpoint
from mta.terminal import OUT, Config, Json, Set, print_json, run_with_parts, settings_of

_EVERY_SECONDS = 1.0


def top(
    once: Annotated[bool, typer.Option("--once", help="Print it once, with rates over a second, and end.")] = False,
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Show live what this node and the queue are doing: rates, queue, campaigns, slowest sites, the promise."""
    settings = settings_of(config, overrides)

    async def watch(parts: Any) -> None:
        from rich.live import Live

        from mta.top import screen

        before = await _reading(parts, settings)
        if as_json:
            print_json({"state": before.state, "metrics": dict(before.metrics), "queue": dict(before.totals)})
            return
        if once or not sys.stdout.isatty():
            await asyncio.sleep(_EVERY_SECONDS)
            OUT.print(screen(before, await _reading(parts, settings)), width=80)
            return
        with _keys(), Live(screen(None, before), console=OUT, screen=True, auto_refresh=False) as live:
            while not await asyncio.to_thread(_asked_to_end, _EVERY_SECONDS):
                now = await _reading(parts, settings)
                live.update(screen(before, now), refresh=True)
                before = now

    with suppress(KeyboardInterrupt):
        run_with_parts(settings, watch)


async def _reading(parts: Any, settings: Settings) -> Any:
    from config.database import DatabaseUnavailable
    from mta.commands_look import node_state
    from mta.orders import Reach
    from mta.summary import STATES
    from mta.top import Reading

    state, metrics = await asyncio.to_thread(node_state, settings), await asyncio.to_thread(_metrics, settings)
    now = time.time()
    try:
        totals = await parts.summary.totals()
        own = {order.target: order for order in await parts.orders.orders() if order.reach is Reach.CAMPAIGN}
        campaigns = [
            (
                f"{row['tenant']}/{row['campaign'] or '-'}",
                row["queued"] + row["leased"] + row["held"],
                own[row["id"]].says(now) if row["id"] in own else "running",
            )
            for row in await parts.summary.campaigns(5)
        ]
        age = await parts.summary.age_seconds()
    except DatabaseUnavailable:
        return Reading(now, state, metrics, trouble="the database does not answer")
    counts = {name: totals[name]["recipients"] if name in totals else 0 for name in STATES}
    return Reading(now, state, metrics, counts, campaigns, age)


def _metrics(settings: Settings) -> dict[str, float]:
    """The node's metrics, summed as metrics.history.read() does; empty when no daemon answers."""
    from prometheus_client.parser import text_string_to_metric_families

    host, port = endpoint(settings.metrics.listen)
    try:
        with urllib.request.urlopen(f"http://{host or '127.0.0.1'}:{port}/metrics", timeout=1) as answer:  # ours
            text = answer.read().decode()
    except (OSError, urllib.error.URLError):
        return {}
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
            if len(sample.labels) == 1:
                found[f"{sample.name}{{{next(iter(sample.labels.values()))}}}"] = sample.value
    return found


@contextmanager
def _keys() -> Iterator[None]:
    """Single keys without Enter, where there is a keyboard."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _asked_to_end(seconds: float) -> bool:
    """Wait for a key at most so long; whether it was q."""
    if not sys.stdin.isatty():
        time.sleep(seconds)
        return False
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and sys.stdin.read(1) in ("q", "Q")
