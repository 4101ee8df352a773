"""`heed top`: the screen of top.py, read anew each second until q or Ctrl-C; --once prints it once, for pipes.

Without a database it shows once what the node says of itself, and ends with exit code 1.
"""

import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mta.terminal import Config, Json, Set, console, print_json, run_with_parts, settings_of

if TYPE_CHECKING:
    from config.settings import Settings
    from mta.top import Reading

_EVERY_SECONDS = 1.0


def top(
    once: Annotated[bool, typer.Option("--once", help="Print it once, with rates over a second, and end.")] = False,
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Show live what this node and the queue are doing: rates, queue, campaigns, slowest sites, the promise."""
    settings = settings_of(config, overrides)
    live = not (once or as_json) and sys.stdout.isatty() and not console().is_dumb_terminal

    async def watch(parts: Any) -> None:
        import asyncio

        from rich.live import Live

        from mta.top import screen

        before = await _reading(parts, settings)
        if not live:
            await _show(before, parts, settings, as_json)
            return
        with _keys(), Live(screen(None, before), console=console(), screen=True, auto_refresh=False) as shown:
            while not await asyncio.to_thread(_asked_to_end, _EVERY_SECONDS):
                now = await _reading(parts, settings)
                shown.update(screen(before, now), refresh=True)
                before = now

    with suppress(KeyboardInterrupt):
        run_with_parts(settings, watch, without_database=partial(_without_database, settings, as_json))


def _without_database(settings: "Settings", as_json: bool, trouble: str) -> None:
    """What the node says while the database can't be asked."""
    import asyncio

    async def show() -> None:
        await _show(await _reading(None, settings, trouble), None, settings, as_json)

    asyncio.run(show())


async def _show(before: "Reading", parts: Any, settings: "Settings", as_json: bool) -> None:
    """Once: as JSON at once, for people with rates over a second."""
    import asyncio

    from mta.top import screen

    if not as_json:
        await asyncio.sleep(_EVERY_SECONDS)
        console().print(screen(before, await _reading(parts, settings, before.trouble)), width=80)
        return
    campaigns = [{"campaign": name, "waiting": waiting, "state": says} for name, waiting, says in before.campaigns]
    orders = [{"about": name, "state": says} for name, says in before.orders]
    print_json(
        {
            "state": before.state,
            "metrics": dict(before.metrics),
            "queue": dict(before.totals),
            "campaigns": campaigns,
            "orders": orders,
            "trouble": before.trouble,
        }
    )


async def _reading(parts: Any, settings: "Settings", trouble: str = "") -> "Reading":
    """A reading; parts: None where there is no database, with the trouble."""
    import asyncio

    from config.database import DatabaseUnavailable
    from mta.inquiry import node_metrics, node_state
    from mta.top import Reading

    state, metrics = await asyncio.to_thread(node_state, settings), await asyncio.to_thread(node_metrics, settings)
    now = time.time()
    if parts is not None:
        with suppress(DatabaseUnavailable):
            return Reading(now, state, metrics, **await _counted(parts, now))
    return Reading(now, state, metrics, trouble=trouble or "the database does not answer")


async def _counted(parts: Any, now: float) -> dict[str, Any]:
    """What the database says, as fields of a reading."""
    from mta.node_state import campaign_state
    from mta.orders import Reach, Standing
    from mta.summary import STATES
    from mta.top import briefly

    totals = await parts.summary.totals()
    orders = await parts.orders.orders()
    names = await parts.orders.target_names(orders)
    return {
        "totals": {name: totals[name]["recipients"] if name in totals else 0 for name in STATES},
        "campaigns": [
            (
                f"{row['tenant']}/{row['campaign'] or '-'}",
                row["queued"] + row["leased"] + row["held"],
                campaign_state(row, orders, now, lambda order: briefly(order, now)),
            )
            for row in await parts.summary.campaigns(5)
        ],
        "orders": [
            (
                f"{order.reach.name.lower()} {order.site or names.get((order.reach, order.target), '-')}",
                briefly(order, now),
            )
            for order in orders
            if order.reach is not Reach.CAMPAIGN and order.standing(now) is not Standing.GO
        ],
        "counted_seconds_ago": await parts.summary.age_seconds(),
    }


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
