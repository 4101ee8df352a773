"""`heed suppress`: add, check, remove (lift), import and export suppressions.

Addresses are read from arguments or files and never printed back; what is shown are scopes, kinds, times and counts.
"""

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from config.failure import Failed, WrongUse
from mta.terminal import (
    Config,
    Json,
    Set,
    complain,
    console,
    operator,
    print_json,
    run_with_parts,
    say,
    settings_of,
    table,
)

if TYPE_CHECKING:
    from mta.parts import Parts
    from suppression.transfer import Importer, ImportOrder, Progress

suppress = typer.Typer(help="Suppressions: who gets no more mail.", no_args_is_help=True)

Address = Annotated[str, typer.Argument(help="The address.", show_default=False)]
TenantOption = Annotated[str, typer.Option("--tenant", help="For this tenant's mail; without it, for everybody's.")]
ListOption = Annotated[str, typer.Option("--list", help="Only for this list of the tenant.")]
GroupOption = Annotated[str, typer.Option("--group", help="For the mail of every tenant of this group.")]


async def scope_of(
    parts: Any, tenant: str, list_name: str, group: str = "", *, new_list: bool = True
) -> tuple[Any, int, int]:
    """Scope, tenant id, and list or group id of what the options name. new_list: a list is made where it is new."""
    from suppression.digest import Scope

    if group:
        if tenant or list_name:
            raise WrongUse("--group names all tenants of a group: leave --tenant and --list out")
        return Scope.GROUP, 0, (await parts.groups.by_name(group)).id
    if not tenant:
        if list_name:
            raise WrongUse("--list names a list of a tenant: give --tenant too")
        return Scope.EVERYTHING, 0, 0
    owner = await parts.accounts.tenant(tenant)
    if not list_name:
        return Scope.TENANT, owner.id, 0
    if new_list:
        return Scope.LIST, owner.id, await parts.accounts.list_id(owner.id, list_name)
    return Scope.LIST, owner.id, await parts.accounts.existing_list_id(owner, list_name)


def person_of(parts: Any, address: str) -> int:
    """The digest of an address, or a message that does not repeat it."""
    from suppression.digest import AddressError

    try:
        return int(parts.digest.person(address))
    except AddressError:
        raise WrongUse("that is not a mail address") from None


@suppress.command("add")
def add(
    address: Address,
    tenant: TenantOption = "",
    list_name: ListOption = "",
    group: GroupOption = "",
    kind: Annotated[
        Literal["unsubscribe", "complaint", "hard-bounce", "manual", "legal"], typer.Option(help="Why.")
    ] = "manual",
    reason: Annotated[str, typer.Option(help="Kept in the log; an address in it is cut out.")] = "",
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Suppress an address; in force on every node within seconds, queued mail to it is cancelled."""
    from suppression.digest import Kind
    from suppression.entry import Channel, NewEntry

    async def append(parts: Any) -> Any:
        scope, tenant_id, list_id = await scope_of(parts, tenant, list_name, group)
        meant = Kind[kind.upper().replace("-", "_")]
        person = person_of(parts, address)
        entry = NewEntry(person, scope, meant, tenant_id, list_id, Channel.CLI, operator(), reason=reason)
        return (await parts.log.append([entry]))[0]

    entry = run_with_parts(settings_of(config, overrides), append)
    if as_json:
        print_json({"position": entry.position, "cancelled": entry.cancelled, "already": entry.already_in_force})
    elif entry.already_in_force:
        say(f"Suppressed already, by entry {entry.position} of the log.")
    else:
        say(f"Suppressed by entry {entry.position} of the log; {entry.cancelled} queued recipients cancelled.")


@suppress.command("check")
def check(
    address: Address,
    tenant: TenantOption = "",
    list_name: ListOption = "",
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Show what is in force for an address. Exit code 0 when it is suppressed, 3 when it is not."""

    async def find(parts: Any) -> list[dict[str, Any]]:
        _, tenant_id, list_id = await scope_of(parts, tenant, list_name, new_list=False)
        person = person_of(parts, address)
        found = await parts.log.in_force(await parts.keys(person, tenant_id, list_id))
        return [await describe(parts, entry) for entry in found]

    found = run_with_parts(settings_of(config, overrides), find)
    if as_json:
        print_json(found)
    else:
        columns = ("position", "at", "scope", "tenant", "list", "group", "kind", "channel")
        rows: list[tuple[object, ...]] = [tuple(each[name] for name in columns) for each in found]
        columns = ("entry", "time", *columns[2:])
        table(*columns, rows=rows, empty="Not suppressed.")
    if not found:
        raise typer.Exit(3)


async def describe(parts: Any, entry: Any) -> dict[str, Any]:
    """An entry of the log in words."""
    import datetime

    return {
        "position": entry.position,
        "at": f"{datetime.datetime.fromtimestamp(entry.at, datetime.UTC):%Y-%m-%d %H:%M:%S.%f}",
        "scope": entry.scope.name.lower(),
        "tenant": await parts.accounts.tenant_name(entry.tenant_id) if entry.tenant_id else "",
        "list": "" if entry.group_id else await parts.accounts.list_name(entry.list_id),
        "group": await parts.groups.name(entry.group_id) if entry.group_id else "",
        "kind": entry.kind.name.lower().replace("_", "-"),
        "channel": entry.channel,
        "reason": entry.reason,
    }


@suppress.command("remove")
def remove(
    address: Address,
    reason: Annotated[str, typer.Option(help="Why it may be lifted; kept in the log for ever.")],
    tenant: TenantOption = "",
    list_name: ListOption = "",
    group: GroupOption = "",
    kind: Annotated[
        Literal["complaint", "hard-bounce", "manual", "legal", "unsubscribe"], typer.Option(help="What is lifted.")
    ] = "manual",
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Lift a suppression. An unsubscribe is lifted by the person's own newer consent only."""
    from suppression.digest import Kind
    from suppression.entry import Action, Channel
    from suppression.plan import Lift

    meant = Kind[kind.upper().replace("-", "_")]
    if meant is Kind.UNSUBSCRIBE:
        complain("An unsubscribe is lifted only by the person's own, newer consent.")
        raise typer.Exit(1)
    if not reason.strip():
        complain("--reason must say why; it is kept in the log for ever.")
        raise typer.Exit(2)

    async def lift(parts: Any) -> Any:
        scope, tenant_id, list_id = await scope_of(parts, tenant, list_name, group, new_list=False)
        person = person_of(parts, address)
        wanted = Lift(person, scope, frozenset({meant}), tenant_id, list_id, Channel.CLI, operator(), reason)
        async with parts.log.appending() as appending:
            lifted = await appending.lift([wanted], Action.LIFT_BY_OPERATOR)
        return lifted[0] if lifted else None

    entry = run_with_parts(settings_of(config, overrides), lift)
    if as_json:
        print_json({"position": entry.position if entry else None})
    elif entry is None:
        say("Nothing of that kind is in force for that scope.")
    else:
        say(f"Lifted by entry {entry.position} of the log.")


async def run_import(importer: "Importer", order: "ImportOrder", quiet: bool) -> "Progress":
    """Import a file, with a bar that shows how far it is."""
    from rich import progress

    from suppression.spreadsheet import SpreadsheetError
    from suppression.transfer import ImportTakenOver

    columns = (
        progress.TextColumn("importing"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console(errors=True), transient=True, disable=quiet) as bar:
        task = bar.add_task("importing", total=order.path.stat().st_size)
        try:
            return await importer.run(order, lambda done: bar.update(task, completed=done.offset))
        except SpreadsheetError as error:
            raise Failed(f"{order.path}: {error}") from None
        except ImportTakenOver:
            raise Failed(f"{order.path}: another process is importing it already") from None


@suppress.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV with an address or digest column, or one address a line.")],
    tenant: TenantOption = "",
    list_name: ListOption = "",
    group: GroupOption = "",
    kind: Annotated[
        Literal["unsubscribe", "complaint", "hard-bounce", "manual", "legal"],
        typer.Option(help="For rows that say nothing of it."),
    ] = "unsubscribe",
    reason: Annotated[str, typer.Option(help="Kept in the log; an address in it is cut out.")] = "",
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Add suppressions from a file of any size. Only ever adds; when it was stopped, the same command goes on."""
    from suppression.digest import Kind
    from suppression.transfer import Importer, ImportOrder, Progress

    async def work(parts: "Parts") -> Progress:
        scope, tenant_id, list_id = await scope_of(parts, tenant, list_name, group)
        meant = Kind[kind.upper().replace("-", "_")]
        order = ImportOrder(file, scope, meant, tenant_id, list_id, operator(), reason)
        return await run_import(Importer(parts.database, parts.log, parts.digest), order, as_json)

    done = run_with_parts(settings_of(config, overrides), work)
    if as_json:
        print_json({"read": done.read, "added": done.added, "refused": done.refused})
    else:
        known = done.read - done.added - done.refused
        say(f"{done.read} rows: {done.added} added, {known} in force already, {done.refused} without an address.")


@suppress.command("export")
def export_(
    file: Annotated[Path | None, typer.Argument(help="Where to write; default: standard output.")] = None,
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Write what is in force as CSV, or as JSON lines: digests, scopes, kinds and times. There are no addresses."""
    import sys

    from suppression.transfer import EXPORT_COLUMNS, export

    def as_object(line: str) -> str:
        cells = next(csv.reader([line]))
        return (
            "" if tuple(cells) == EXPORT_COLUMNS else json.dumps(dict(zip(EXPORT_COLUMNS, cells, strict=True))) + "\n"
        )

    async def work(parts: Any) -> int:
        if file is None:
            return await write_to(parts, sys.stdout)
        with file.open("w", encoding="utf-8") as out:
            return await write_to(parts, out)

    async def write_to(parts: Any, out: TextIO) -> int:
        return await export(parts.database, lambda line: out.write(as_object(line) if as_json else line))

    count = run_with_parts(settings_of(config, overrides), work)
    complain(f"{count} suppressions.")


@suppress.command("replay")
def replay_(config: Config = None, overrides: Set = None, as_json: Json = False) -> None:
    """Bring back what this node knows and a restored, older database has lost. Until then the node sends nothing."""
    from rich.progress import Progress, TextColumn

    from suppression.receipts import ReceiptFile, Replayed, replay

    async def work(parts: Any) -> Replayed:
        with Progress(
            TextColumn("{task.completed} receipts read"), console=console(errors=True), transient=True, disable=as_json
        ) as bar:
            task = bar.add_task("replaying")
            file = ReceiptFile(parts.paths.receipts)
            try:
                return await replay(file, parts.log, operator(), lambda read: bar.update(task, completed=read))
            except RuntimeError as error:
                raise Failed(str(error)) from None

    result = run_with_parts(settings_of(config, overrides), work)
    if as_json:
        print_json({"read": result.read, "lost": result.lost, "suppressed": result.suppressed, "lifted": result.lifted})
    else:
        say(
            f"{result.read} receipts read; the database had lost {result.lost} of them. "
            f"{result.suppressed} suppressions and {result.lifted} lifts are back."
        )


def verify_log(config: Config = None, overrides: Set = None, as_json: Json = False) -> None:
    """Check the whole suppression log: no entry missing, changed or out of order. Exit code 1 when one is."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from suppression.verify import Verification
    from suppression.verify import verify_log as verify

    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())

    async def work(parts: Any) -> Verification:
        with Progress(*columns, console=console(errors=True), transient=True, disable=as_json) as bar:
            task = bar.add_task("verifying", total=None)
            report = lambda done, whole: bar.update(task, completed=done, total=whole)  # noqa: E731
            return await verify(parts.log, parts.digest, report)

    result = run_with_parts(settings_of(config, overrides), work)
    if as_json:
        broken = result.broken_position or None
        print_json({"entries": result.entries, "hash": result.hash.hex(), "broken": broken, "reason": result.reason})
    elif result.intact:
        say(f"The log is whole: {result.entries} entries, the last with hash {result.hash.hex()}.")
    else:
        say(f"Entry {result.broken_position} is broken: {result.reason}. The {result.entries} before it are whole.")
    if not result.intact:
        raise typer.Exit(1)


def prove(
    who: Annotated[str, typer.Argument(help="Address, token, or digest (16 hex digits).", show_default=False)],
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Print a person's whole story: what was suppressed when and how, what was sent before, what was withheld after.

    Exit code 1 when something was sent after a suppression.
    """
    from suppression.consent import Consents
    from suppression.digest import AddressError
    from suppression.prove import Story, person_of, story_of

    async def work(parts: Any) -> Story:
        try:
            person = person_of(who, parts.digest, parts.tokens)
        except AddressError:
            raise WrongUse("that is neither an address nor a token nor a digest") from None
        consents = Consents(parts.database, parts.log)
        bound = parts.settings.suppression.max_staleness
        parts.scopes.learn(await parts.groups.members())
        return await story_of(person, parts.log, consents, parts.queue.attempts_of, parts.scopes, bound)

    story = run_with_parts(settings_of(config, overrides), work)
    if as_json:
        print_json(story.as_dict())
    else:
        say(story.as_text())
    if story.late:
        raise typer.Exit(1)
