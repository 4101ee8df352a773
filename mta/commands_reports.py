"""`heed report` and `heed usage`: what became of a campaign, in aggregates; and what tenants have used."""

import csv
import sys
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer

from config.failure import Failed
from mta.terminal import Config, Json, Set, print_json, run_with_parts, say, settings_of, table

_RETRY_SECONDS = 0.1


def report(
    campaign: Annotated[str, typer.Argument(help="The campaign's name; '' for mail without one.")],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose campaign it is.")],
    form: Annotated[Literal["text", "json", "csv", "html"], typer.Option("--format", help="What to print.")] = "text",
    as_json: Json = False,
    config: Config = None,
    overrides: Set = None,
) -> None:
    """Report on a campaign in aggregates, which say nothing about any one recipient."""
    if as_json and form in ("csv", "html"):
        raise typer.BadParameter(f"--json and --format {form} contradict each other")
    settings = settings_of(config, overrides)

    async def make(parts: Any) -> Any:
        from mta.report import Blur, report_of

        owner = await parts.accounts.tenant(tenant)
        tallies = await _caught_up(parts)
        campaign_id = await tallies.campaign_id(owner.id, campaign)
        if campaign_id is None:
            raise Failed(f"tenant {tenant} has no campaign {campaign!r}")
        return report_of(
            await tallies.campaign(owner.id, campaign_id),
            tenant=tenant,
            campaign=campaign,
            campaign_id=campaign_id,
            as_of=datetime.now(UTC),
            blur=Blur(parts.keyring.digest_key, settings.reports.min_cell),
        )

    made = run_with_parts(settings, make)
    if as_json or form == "json":
        print_json(made.as_dict())
    elif form == "csv":
        writer = csv.writer(sys.stdout)
        writer.writerow(("section", "name", "measure", "number"))
        writer.writerows(made.rows())
    elif form == "html":
        from mta.report_page import page

        sys.stdout.write(page(made))
    else:
        _print(made)


def usage(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant.")] = None,
    month: Annotated[str | None, typer.Option("--month", metavar="YYYY-MM", help="Only this month.")] = None,
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Show what tenants have used, by month: messages, recipients and bytes, counted exactly."""
    since, until = _months(month)

    async def look(parts: Any) -> list[dict[str, Any]]:
        tenant_id = (await parts.accounts.tenant(tenant)).id if tenant else 0
        rows: list[dict[str, Any]] = await (await _caught_up(parts)).usage(tenant_id, since, until)
        return rows

    rows = run_with_parts(settings_of(config, overrides), look)
    for row in rows:
        row["month"] = f"{row['month'].astimezone(UTC):%Y-%m}"
    if as_json:
        print_json(rows)
        return
    columns = ("tenant", "month", "messages", "accepted", "delivered", "bounced", "bytes")
    table(*columns, rows=[tuple(row[name] for name in columns) for row in rows], empty="Nothing was sent.")


async def _caught_up(parts: Any) -> Any:
    """The tallies, with everything counted that has happened."""
    import asyncio

    from mta.events import Events
    from mta.tally import Tallies

    tallies = Tallies(parts.database, Events(parts.database))
    while not await tallies.catch_up():  # noqa: ASYNC110  # another process counts: it has no way to tell us
        await asyncio.sleep(_RETRY_SECONDS)
    return tallies


def _print(made: Any) -> None:
    def text(number: int | None) -> str:
        return "–" if number is None else f"{number:,}"

    say(f"Campaign {made.campaign or '(none)'} of {made.tenant}, as of {made.as_of:%Y-%m-%d %H:%M} UTC\n")
    table("", "recipients", rows=[(name.replace("_", " "), text(n)) for name, n in made.totals.items()], empty="")
    if made.by_provider:
        say("")
        rows = [(name, *(text(n) for n in row.values())) for name, row in made.by_provider.items()]
        table("provider", *next(iter(made.by_provider.values())), rows=rows, empty="")
    for title, numbers in (
        ("bounced, by reason", made.bounced_by_class),
        ("unsubscribed, by way", made.unsubscribes_by_channel),
        (f"delivered by {made.unit}", {f"{at:%Y-%m-%d %H:%M}": n for at, n in made.over_time}),
    ):
        if numbers:
            say("")
            table(title, "recipients", rows=[(name, text(n)) for name, n in numbers.items()], empty="")
    say(f"\n{made.note}")


def _months(month: str | None) -> tuple[datetime, datetime]:
    if month is None:
        return datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
    try:
        since = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
        return since, since.replace(year=since.year + since.month // 12, month=since.month % 12 + 1)
    except ValueError:  # also for the year after the last one
        raise typer.BadParameter(f"{month!r} is no month; write 2026-11") from None
