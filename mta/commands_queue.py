"""`heed queue`: what waits, by tenant, campaign, state and site."""

from typing import Annotated, Any

import typer

from mta.terminal import OUT, Config, Json, Set, print_json, run_with_parts, settings_of, table

_STATES = ("queued", "leased", "held")


def queue(
    most: Annotated[int, typer.Option("--most", min=1, max=10_000, help="Groups to show, the largest first.")] = 50,
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Show what is queued by tenant, campaign, state and site, with the oldest message and the next attempt."""

    async def look(parts: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        return await parts.queue.counts(), await parts.queue.overview(most)

    counts, groups = run_with_parts(settings_of(config, overrides), look)
    totals = {state: counts[state][0] if state in counts else 0 for state in _STATES}
    for group in groups:
        group["state"] = _STATES[group["state"]]
    if as_json:
        print_json({"totals": totals, "groups": groups})
        return
    OUT.print(", ".join(f"{count} {state}" for state, count in totals.items()))
    rows: list[tuple[object, ...]] = [
        (
            group["tenant"],
            group["campaign"] or "-",
            group["state"],
            group["site"] or "-",
            group["recipients"],
            _time(group["oldest"]),
            _time(group["next_attempt"]),
        )
        for group in groups
    ]
    if rows:
        columns = ("tenant", "campaign", "state", "site", "recipients", "oldest", "next attempt")
        table(*columns, rows=rows, empty="")


def _time(value: Any) -> str:
    return "" if value is None else f"{value:%Y-%m-%d %H:%M:%S}"
