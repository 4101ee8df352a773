"""`heed suppress`: add, check, remove (lift), import and export suppressions.

Addresses are read from arguments or files and never printed back; what is shown are scopes, kinds, times and counts.
"""

import getpass
from typing import Annotated, Any, Literal

import typer

from mta.terminal import ERR, OUT, Config, Failed, Json, Set, print_json, run_with_parts, settings_of, table

suppress = typer.Typer(help="Suppressions: who gets no more mail.", no_args_is_help=True)

Address = Annotated[str, typer.Argument(help="The address.", show_default=False)]
TenantOption = Annotated[str, typer.Option("--tenant", help="For this tenant's mail; without it, for everybody's.")]
ListOption = Annotated[str, typer.Option("--list", help="Only for this list of the tenant.")]


async def scope_of(parts: Any, tenant: str, list_name: str) -> tuple[Any, int, int]:
    """Scope, tenant id and list id of what the options name."""
    from suppression.digest import Scope

    if not tenant:
        if list_name:
            raise Failed("--list names a list of a tenant: give --tenant too")
        return Scope.EVERYTHING, 0, 0
    owner = await parts.accounts.tenant(tenant)
    if not list_name:
        return Scope.TENANT, owner.id, 0
    return Scope.LIST, owner.id, await parts.accounts.list_id(owner.id, list_name)


def person_of(parts: Any, address: str) -> int:
    """The digest of an address, or a message that does not repeat it."""
    from suppression.digest import AddressError

    try:
        return int(parts.digest.person(address))
    except AddressError:
        raise Failed("that is not a mail address") from None


@suppress.command("add")
def add(
    address: Address,
    tenant: TenantOption = "",
    list_name: ListOption = "",
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
        scope, tenant_id, list_id = await scope_of(parts, tenant, list_name)
        meant = Kind[kind.upper().replace("-", "_")]
        person = person_of(parts, address)
        entry = NewEntry(person, scope, meant, tenant_id, list_id, Channel.CLI, getpass.getuser(), reason=reason)
        return (await parts.log.append([entry]))[0]

    entry = run_with_parts(settings_of(config, overrides), append)
    if as_json:
        print_json({"position": entry.position, "cancelled": entry.cancelled, "already": entry.already_in_force})
    elif entry.already_in_force:
        OUT.print(f"Suppressed already, by entry {entry.position} of the log.")
    else:
        OUT.print(f"Suppressed by entry {entry.position} of the log; {entry.cancelled} queued recipients cancelled.")


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
        _, tenant_id, list_id = await scope_of(parts, tenant, list_name)
        person = person_of(parts, address)
        found = await parts.log.in_force(parts.digest.keys(person, tenant_id, list_id))
        return [await describe(parts, entry) for entry in found]

    found = run_with_parts(settings_of(config, overrides), find)
    if as_json:
        print_json(found)
    else:
        rows: list[tuple[object, ...]] = [
            (f["position"], f["at"], f["scope"], f["tenant"], f["list"], f["kind"], f["channel"]) for f in found
        ]
        columns = ("entry", "time", "scope", "tenant", "list", "kind", "channel")
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
        "list": await parts.accounts.list_name(entry.list_id),
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
        ERR.print("An unsubscribe is lifted only by the person's own, newer consent.")
        raise typer.Exit(1)
    if not reason.strip():
        ERR.print("--reason must say why; it is kept in the log for ever.")
        raise typer.Exit(2)

    async def lift(parts: Any) -> Any:
        scope, tenant_id, list_id = await scope_of(parts, tenant, list_name)
        person = person_of(parts, address)
        wanted = Lift(person, scope, frozenset({meant}), tenant_id, list_id, Channel.CLI, getpass.getuser(), reason)
        async with parts.log.appending() as appending:
            lifted = await appending.lift([wanted], Action.LIFT_BY_OPERATOR)
        return lifted[0] if lifted else None

    entry = run_with_parts(settings_of(config, overrides), lift)
    if as_json:
        print_json({"position": entry.position if entry else None})
    elif entry is None:
        OUT.print("Nothing of that kind is in force for that scope.")
    else:
        OUT.print(f"Lifted by entry {entry.position} of the log.")
