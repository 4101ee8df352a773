"""`heed queue`: what waits, by tenant, campaign, list, state and site.

Answered from the queue's summary: counted on the spot while the queue is small, and as of some seconds ago otherwise;
the answer says how old it is.
"""

from typing import Annotated, Any, Literal

import typer

from config.failure import Failed
from mta.terminal import Config, Json, Set, print_json, run_with_installation, say, settings_of, table


def queue(
    campaign: Annotated[str, typer.Option("--campaign", help="Of this campaign alone, by name or id.")] = "",
    list_name: Annotated[str, typer.Option("--list", help="Of this list alone.")] = "",
    tenant: Annotated[str, typer.Option("--tenant", help="Of this tenant alone.")] = "",
    site: Annotated[str, typer.Option("--site", help="For this site alone.")] = "",
    state: Annotated[
        Literal["", "queued", "leased", "held"], typer.Option("--state", help="In this state alone.")
    ] = "",
    most: Annotated[int, typer.Option("--most", min=1, max=10_000, help="Groups to show, the largest first.")] = 50,
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Show what is queued by tenant, campaign, state and site, with the oldest message and the next attempt."""

    async def look(parts: Any) -> dict[str, Any]:
        from mta.summary import STATES

        summary = parts.summary
        unknown = await summary.unknown(tenant=tenant, campaign=campaign, list_name=list_name)
        if unknown:
            names = {"tenant": tenant, "campaign": campaign, "list": list_name}
            raise Failed(_no_such(unknown, names[unknown], tenant))
        await summary.refresh_now()
        totals = await summary.totals()
        return {
            "totals": {name: totals[name]["recipients"] if name in totals else 0 for name in STATES},
            "counted_seconds_ago": await summary.age_seconds(),
            "groups": await summary.overview(
                most, tenant=tenant, campaign=campaign, list_name=list_name, site=site, state=state
            ),
        }

    found = run_with_installation(settings_of(config, overrides), look)
    if as_json:
        print_json(found)
        return
    totals = ", ".join(f"{count} {name}" for name, count in found["totals"].items())
    say(f"{totals}; counted {found['counted_seconds_ago']:.0f} s ago")
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
        for group in found["groups"]
    ]
    if rows:
        columns = ("tenant", "campaign", "state", "site", "recipients", "oldest", "next attempt")
        table(*columns, rows=rows, empty="")
    elif any((campaign, list_name, tenant, site, state)):
        alone = site and not any((campaign, list_name, tenant, state))
        say("No mail for a site of that name is queued." if alone else "Nothing is queued that fits.")


def _no_such(kind: str, name: str, tenant: str) -> str:
    of = f" of tenant {tenant}" if tenant and kind != "tenant" else ""
    hint = "mail names it in its List-Id" if kind == "list" else f"`heed {kind} list` shows them"
    return f"there is no {kind} {name!r}{of}; {hint}"


def _time(value: Any) -> str:
    return "" if value is None else f"{value:%Y-%m-%d %H:%M:%S}"
