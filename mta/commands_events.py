"""`heed webhook` and `heed events`: who is told what became of mail, and the same for people and files."""

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from config.failure import Failed, WrongUse
from mta.terminal import Config, Json, Set, complain, print_json, run_with_parts, say, settings_of, table

webhooks = typer.Typer(help="Webhooks: tell a tenant's application what became of its mail.", no_args_is_help=True)
events = typer.Typer(help="Events: what became of every message and recipient.", no_args_is_help=True)

_PAGE: Final = 1_000
_POLL_SECONDS: Final = 0.5
# a transaction that is open for longer is worth a word
_LONG_SECONDS: Final = 60.0
_AGO: Final = re.compile(r"(\d+)([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

OfTenant = Annotated[str | None, typer.Option("--tenant", help="Only of this tenant.")]
Since = Annotated[str, typer.Option("--since", help="A UTC time such as 2026-11-23T10:00, or 90s, 15m, 6h, 2d ago.")]
WebhookId = Annotated[int, typer.Argument(metavar="ID", help="The webhook's id, as `heed webhook list` shows it.")]


@webhooks.command("add")
def webhook_add(
    tenant: Annotated[str, typer.Argument(help="The tenant's name.")],
    url: Annotated[str, typer.Argument(help="Where events are sent to by POST; https, or http on this machine.")],
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Only events of this type, such as Bounce; may be repeated.")
    ] = None,
    addresses: Annotated[bool, typer.Option(help="Name the tenant's recipients, or give their digests only.")] = True,
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Make a webhook, which gets everything that happens from now on; shows the secret of its signatures, once."""
    from mta.webhooks import WebhookError, check

    try:
        check(url, types or [])
    except WebhookError as error:
        raise typer.BadParameter(str(error)) from None

    async def add(parts: Any) -> tuple[int, str]:
        hooks, stream = _hooks(parts)
        owner = await parts.accounts.tenant(tenant)
        made: tuple[int, str] = await hooks.add(
            owner.id, url, await stream.now(), types=types or [], addresses=addresses
        )
        return made

    number, secret = _run(config, overrides, add)
    if as_json:
        print_json({"id": number, "secret": secret})
        return
    say(f"webhook  {number}\nsecret   {secret}\nThe secret is not shown again.")


@webhooks.command("list")
def webhook_list(tenant: OfTenant = None, config: Config = None, overrides: Set = None, as_json: Json = False) -> None:
    """Show webhooks, what they have taken, and which of them fail."""

    from mta.doctor import held_back

    async def look(parts: Any) -> tuple[list[dict[str, Any]], str]:
        hooks, _ = _hooks(parts)
        return await hooks.listed(await _tenant_id(parts, tenant)), await held_back(parts.database, _LONG_SECONDS)

    rows, waits = _run(config, overrides, look)
    if as_json:
        print_json([{key: value for key, value in row.items() if key != "leased_until"} for row in rows])
        return
    shown: list[tuple[object, ...]] = [
        (
            row["id"],
            row["tenant"],
            row["url"],
            ", ".join(row["types"]) or "all",
            row["sent"],
            f"{row['last_error']} since {row['failing_since']:%Y-%m-%d %H:%M}" if row["failures"] else "ok",
        )
        for row in rows
    ]
    table("id", "tenant", "url", "events", "sent", "state", rows=shown, empty="There are no webhooks.")
    if rows and waits:
        say(f"\nEvents are held back: {waits}.")


@webhooks.command("remove")
def webhook_remove(number: WebhookId, config: Config = None, overrides: Set = None) -> None:
    """Forget a webhook."""
    _run(config, overrides, lambda parts: _hooks(parts)[0].remove(number))
    say(f"Webhook {number} is removed.")


@webhooks.command("test")
def webhook_test(number: WebhookId, config: Config = None, overrides: Set = None) -> None:
    """Send one signed request without events, and say what the receiver answered."""
    from mta.courier import Courier, Refused, send_test
    from mta.event_records import Records

    async def send(parts: Any) -> int:
        hooks, stream = _hooks(parts)
        courier = Courier(hooks, stream, Records(stream, parts.accounts, parts.digest))
        try:
            return await send_test(courier, await hooks.one(number))
        except Refused as error:
            raise Failed(f"webhook {number}: {error}") from None

    status = _run(config, overrides, send)
    if not 200 <= status < 300:
        raise typer.Exit(_complain(f"webhook {number}: the receiver answered HTTP {status}; only 2xx means taken"))
    say(f"The receiver answered HTTP {status}.")


@events.command("tail")
def events_tail(
    tenant: OfTenant = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    since: Since = "5m",
    config: Config = None,
    overrides: Set = None,
) -> None:
    """Show what happened lately as JSON lines, without addresses, and what happens from now on."""
    begin = _time(since)

    async def show(parts: Any) -> None:
        import asyncio

        from mta.event_records import Records

        _, stream = _hooks(parts)
        records = Records(stream, parts.accounts, parts.digest)
        owner = await _tenant_id(parts, tenant)
        cursor = await stream.since(begin)
        while True:
            read = stream.of_tenant(owner, cursor, _PAGE) if owner else stream.of_all(cursor, _PAGE)
            batch, cursor = await read
            await _print(records, [event for event in batch if event.at >= begin])
            if not batch:
                if not follow:
                    return
                await asyncio.sleep(_POLL_SECONDS)

    try:
        _run(config, overrides, show)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@events.command("export")
def events_export(
    since: Since,
    until: Annotated[str, typer.Option("--until", help="Likewise; without it, until now.")] = "0s",
    tenant: OfTenant = None,
    campaign: Annotated[str | None, typer.Option("--campaign", help="Only of this campaign of the tenant.")] = None,
    config: Config = None,
    overrides: Set = None,
) -> None:
    """Write the events of a span of time as JSON lines on standard output, without addresses."""
    begin, end = _time(since), _time(until)

    async def write(parts: Any) -> None:
        from mta.event_records import Records

        _, stream = _hooks(parts)
        records = Records(stream, parts.accounts, parts.digest)
        owner = await _tenant_id(parts, tenant)
        only = await _campaign_id(parts, owner, campaign)
        async for page in stream.span(begin, end, tenant_id=owner, campaign_id=only, limit=_PAGE):
            await _print(records, page)

    _run(config, overrides, write)


@events.command("replay")
def events_replay(
    webhook: Annotated[int, typer.Option("--webhook", metavar="ID", help="The webhook that gets them again.")],
    since: Since,
    config: Config = None,
    overrides: Set = None,
) -> None:
    """Send a webhook everything since a time once more, in its order, after what it has not taken yet from before."""
    begin = _time(since)
    if begin > datetime.now(UTC):
        raise typer.BadParameter(f"--since {since} is in the future: nothing of that has happened yet")

    async def rewind(parts: Any) -> None:
        hooks, stream = _hooks(parts)
        await hooks.rewind(webhook, await stream.since(begin))

    _run(config, overrides, rewind)
    say(f"Webhook {webhook} gets everything since {begin:%Y-%m-%d %H:%M:%S} UTC again.")


async def _print(records: Any, batch: Sequence[Any]) -> None:
    import orjson

    for record in await records.records(batch, addresses=False):
        sys.stdout.write(orjson.dumps(record).decode() + "\n")
    sys.stdout.flush()


def _hooks(parts: Any) -> tuple[Any, Any]:
    """Webhooks and the stream, on a command's connections."""
    from mta.events import Events
    from mta.webhooks import Webhooks

    return Webhooks(parts.database, parts.keyring, "heed command"), Events(parts.database)


async def _tenant_id(parts: Any, name: str | None) -> int:
    return (await parts.accounts.tenant(name)).id if name else 0


async def _campaign_id(parts: Any, tenant_id: int, name: str | None) -> int:
    from mta.events import Events
    from mta.tally import Tallies

    if name is None:
        return 0
    if not tenant_id:
        raise WrongUse("--campaign needs --tenant: names of campaigns are a tenant's own")
    found = await Tallies(parts.database, Events(parts.database)).campaign_id(tenant_id, name)
    if found is None:
        raise Failed(f"there is no campaign {name!r} of this tenant")
    return found


def _run(config: Any, overrides: Any, work: Any) -> Any:
    return run_with_parts(settings_of(config, overrides), work)


def _time(text: str) -> datetime:
    """A time of an option, in UTC; typer.BadParameter for what is none."""
    try:
        if match := _AGO.fullmatch(text):
            return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time; write 2026-11-23T10:00 (UTC), or 15m for 15 minutes ago"
        ) from None


def _complain(text: str) -> int:
    complain(text)
    return 1
