"""`heed top`: the screen of top.py, read anew each second until q or Ctrl-C; --once prints it once, for pipes."""

import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mta.terminal import Config, Json, Set, console, print_json, run_with_parts, settings_of

if TYPE_CHECKING:
    from config.settings import Settings

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
        import asyncio

        from rich.live import Live

        from mta.top import screen

        before = await _reading(parts, settings)
        if as_json:
            print_json({"state": before.state, "metrics": dict(before.metrics), "queue": dict(before.totals)})
            return
        if once or not sys.stdout.isatty():
            await asyncio.sleep(_EVERY_SECONDS)
            console().print(screen(before, await _reading(parts, settings)), width=80)
            return
        with _keys(), Live(screen(None, before), console=console(), screen=True, auto_refresh=False) as live:
            while not await asyncio.to_thread(_asked_to_end, _EVERY_SECONDS):
                now = await _reading(parts, settings)
                live.update(screen(before, now), refresh=True)
                before = now

    with suppress(KeyboardInterrupt):
        run_with_parts(settings, watch)


async def _reading(parts: Any, settings: "Settings") -> Any:
    import asyncio

    from config.database import DatabaseUnavailable
    from mta.inquiry import node_metrics, node_state
    from mta.orders import Reach
    from mta.summary import STATES
    from mta.top import Reading

    state, metrics = await asyncio.to_thread(node_state, settings), await asyncio.to_thread(node_metrics, settings)
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
