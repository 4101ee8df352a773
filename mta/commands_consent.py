"""`heed consent`: what persons agreed to, one by one or from a file.

A consent is recorded for ever, and lifts an unsubscribe of its own scope that is older than it.
"""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from config.failure import WrongUse
from mta.commands_suppress import Address, ListOption, person_of, run_import, scope_of
from mta.terminal import Config, Json, Set, complain, print_json, run_with_parts, say, settings_of

if TYPE_CHECKING:
    from mta.parts import Parts

consent = typer.Typer(help="Consents: what a person agreed to.", no_args_is_help=True)

Tenant = Annotated[str, typer.Option("--tenant", help="For this tenant's mail.")]


def _moment(text: str) -> float | None:
    """A time that names its zone, None for none given; exit code 2 for anything else."""
    from suppression.consent import consent_time

    at = consent_time(text) if text else None
    if text and at is None:
        complain("--at is written like 2026-11-23T18:30:00+01:00")
        raise typer.Exit(2)
    return at


@consent.command("add")
def consent_add(
    address: Address,
    tenant: Tenant,
    basis: Annotated[str, typer.Option(help="Such as double-opt-in or purchase.")],
    source: Annotated[str, typer.Option(help="Where it was given, such as a form's name.")],
    list_name: ListOption = "",
    at: Annotated[str, typer.Option(help="When, ISO 8601; default: now.")] = "",
    evidence: Annotated[str, typer.Option(help="A reference to what proves it.")] = "",
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Record a consent. One that is newer than an unsubscribe of the same scope lifts it; nothing else can."""
    from suppression.consent import Consent, Consents

    given = _moment(at)

    async def work(parts: Any) -> Any:
        scope, tenant_id, list_id = await scope_of(parts, tenant, list_name)
        person = person_of(parts, address)
        wish = Consent(person, scope, tenant_id, list_id, basis, source, getpass.getuser(), given, evidence)
        try:
            return (await Consents(parts.database, parts.log).record([wish]))[0]
        except ValueError as error:
            raise WrongUse(str(error)) from None

    recorded = run_with_parts(settings_of(config, overrides), work)
    lifted = recorded.lifted.position if recorded.lifted else None
    if as_json:
        print_json({"consent": recorded.consent_id, "lifted_by_entry": lifted})
    elif lifted is None:
        say(f"Consent {recorded.consent_id} is recorded; there was no older unsubscribe of that scope to lift.")
    else:
        say(f"Consent {recorded.consent_id} is recorded, and entry {lifted} of the log lifts the unsubscribe.")


@consent.command("import")
def consent_import(
    file: Annotated[Path, typer.Argument(help="CSV with an address or digest column, and a time column.")],
    tenant: Tenant,
    list_name: ListOption = "",
    basis: Annotated[str, typer.Option(help="For rows without one, such as double-opt-in.")] = "",
    source: Annotated[str, typer.Option(help="For rows without one: where it was given.")] = "",
    at: Annotated[str, typer.Option(help="For rows without a time: when, ISO 8601 with a zone.")] = "",
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Record the consents in a file: columns address, at, and if you like list, basis, source, evidence.

    A row without a time that names its zone, a basis or a source is refused. Started again it goes on.
    """
    from suppression.consent_import import ConsentImporter, Defaults
    from suppression.digest import Kind
    from suppression.transfer import ImportOrder, Progress

    defaults = Defaults(basis, source, _moment(at))

    async def work(parts: "Parts") -> Progress:
        scope, tenant_id, list_id = await scope_of(parts, tenant, list_name)
        order = ImportOrder(file, scope, Kind.UNSUBSCRIBE, tenant_id, list_id, getpass.getuser())
        importer = ConsentImporter(parts.database, parts.log, parts.digest, parts.accounts.list_id, defaults)
        return await run_import(importer, order, as_json)

    done = run_with_parts(settings_of(config, overrides), work)
    if as_json:
        print_json({"read": done.read, "added": done.added, "refused": done.refused})
    else:
        say(f"{done.read} rows: {done.added} consents recorded, {done.refused} refused.")
