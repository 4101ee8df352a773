"""`heed tenant`, `heed group`, `heed credential`, `heed dkim`: who may submit, and how their mail is signed."""

from typing import Annotated, Any, Literal

import typer

from config.failure import Failed, WrongUse
from mta.terminal import Config, Json, Set, complain, operator, print_json, run_with_parts, say, settings_of, table

tenants = typer.Typer(help="Tenants: whose mail it is.", no_args_is_help=True)
groups = typer.Typer(help="Groups of tenants that share one policy.", no_args_is_help=True)
credentials = typer.Typer(help="User names and passwords for submission.", no_args_is_help=True)
dkim = typer.Typer(help="DKIM keys of a tenant's domains.", no_args_is_help=True)

TenantName = Annotated[str, typer.Argument(help="The tenant's name.")]
Domain = Annotated[str, typer.Argument(help="The domain of the From address.")]
OfTenant = Annotated[str, typer.Option("--tenant", help="Whose domain it is.")]


@tenants.command("add")
def tenant_add(name: TenantName, config: Config = None, overrides: Set = None, as_json: Json = False) -> None:
    """Make a tenant; before the first start also the installation, with its database and master key."""
    from mta.installation import missing

    settings = settings_of(config, overrides)
    if missing(settings):
        complain(f"A new installation is made in {settings.data_dir.absolute()}.")
    tenant = run_with_parts(settings, lambda parts: parts.accounts.add_tenant(name), founds=True)
    if as_json:
        print_json({"id": tenant.id, "name": tenant.name})
    else:
        say(f"Tenant {tenant.name} is made; `heed credential add {tenant.name} USER` lets it submit mail.")


@tenants.command("list")
def tenant_list(config: Config = None, overrides: Set = None, as_json: Json = False) -> None:
    """Show all tenants."""
    rows = run_with_parts(settings_of(config, overrides), lambda parts: parts.accounts.tenants())
    if as_json:
        print_json(rows)
        return
    shown: list[tuple[object, ...]] = [
        (
            row["id"],
            row["name"],
            row["credentials"],
            "yes" if row["consent_required"] else "",
            f"{row['created_at']:%Y-%m-%d}",
        )
        for row in rows
    ]
    table("id", "tenant", "credentials", "needs consent", "since", rows=shown, empty="There are no tenants.")


@tenants.command("set")
def tenant_set(
    name: TenantName,
    consent_required: Annotated[
        bool,
        typer.Option(
            "--require-consent/--no-require-consent", help="Take campaign mail only for who is recorded to consent."
        ),
    ],
    reason: Annotated[str, typer.Option(help="Kept with the order.")] = "",
    config: Config = None,
    overrides: Set = None,
) -> None:
    """Change what a tenant may do; in force on every node within a second, for mail that is submitted from then on."""

    async def change(parts: Any) -> None:
        target = await parts.orders.find("", "", (await parts.accounts.tenant(name)).name, "")
        await parts.orders.require_consent(target, consent_required, reason, operator())

    run_with_parts(settings_of(config, overrides), change)
    say(f"Campaign mail of {name} needs {'a' if consent_required else 'no'} recorded consent.")


@tenants.command("replies")
def tenant_replies(
    name: TenantName,
    to: Annotated[str, typer.Option("--to", help="Mailbox that gets the answers to this tenant's campaigns.")] = "",
    off: Annotated[bool, typer.Option("--off", help="Leave answers to the tenant's own mail system.")] = False,
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Have answers to campaigns read: who answers "unsubscribe" is, and all else goes to a mailbox of the tenant."""
    from mta.replies import tenant_address

    settings = settings_of(config, overrides)

    async def change(parts: Any) -> tuple[str, str]:
        tenant = await parts.accounts.tenant(name)
        if to and off:
            raise WrongUse("--to and --off contradict each other")
        if to:
            _check_mailbox(to, settings.identity.mail_domain)
        if to or off:
            await parts.accounts.set_reply_address(name, to)
        return await parts.accounts.reply_address(tenant.id), tenant_address(parts, tenant.id)

    mailbox, redirect = run_with_parts(settings, change)
    if as_json:
        print_json({"tenant": name, "reply_address": mailbox or None, "redirect_to": redirect if mailbox else None})
    elif mailbox:
        text = f"answers go to  {mailbox}\nredirect to    {redirect}\n"
        say(text + "Campaign mail without a Reply-To gets one. Where it has its own, redirect that mailbox.")
    else:
        say("Answers are not read here.")


def _check_mailbox(address: str, mail_domain: str) -> None:
    """Refuse what can't be written to, and what would come back here."""
    from suppression.digest import AddressError, normalise

    try:
        domain = normalise(address).rpartition("@")[2]
    except AddressError:
        raise WrongUse("--to is a mail address") from None
    if domain == mail_domain.lower():
        raise WrongUse(f"--to must not be at {mail_domain}: answers would come back")


@groups.command("add")
def group_add(
    name: Annotated[str, typer.Argument(help="The group's name.")],
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Make a group. An unsubscribe from everything that one of its tenants offers will bind them all."""
    made = run_with_parts(settings_of(config, overrides), lambda parts: parts.groups.add(name))
    if as_json:
        print_json({"id": made.id, "name": made.name})
    else:
        say(f"Group {made.name} is made; `heed group join {made.name} TENANT` lets a tenant join it.")


@groups.command("join")
def group_join(
    group: Annotated[str, typer.Argument(help="The group.")],
    tenant: TenantName,
    reason: Annotated[str, typer.Option(help="Kept in the log; an address in it is cut out.")] = "",
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Let a tenant join a group, for ever: what was said to the group before binds it too, and nothing unbinds it."""

    async def join(parts: Any) -> Any:
        owner = await parts.accounts.tenant(tenant)
        return await parts.groups.join(await parts.groups.by_name(group), owner.id, operator(), reason)

    entry = run_with_parts(settings_of(config, overrides), join)
    if as_json:
        print_json({"position": entry.position if entry else None, "already": entry is None})
    elif entry is None:
        say(f"{tenant} is in group {group} already.")
    else:
        say(f"{tenant} is in group {group}, by entry {entry.position} of the log.")


@groups.command("list")
def group_list(config: Config = None, overrides: Set = None, as_json: Json = False) -> None:
    """Show all groups and their tenants."""
    found = run_with_parts(settings_of(config, overrides), lambda parts: parts.groups.all())
    if as_json:
        print_json([{"id": group.id, "name": group.name, "tenants": group.tenants} for group in found])
        return
    rows: list[tuple[object, ...]] = [(group.id, group.name, ", ".join(group.tenants)) for group in found]
    table("id", "group", "tenants", rows=rows, empty="There are no groups.")


@credentials.command("add")
def credential_add(
    tenant: TenantName,
    username: Annotated[str, typer.Argument(help="The user name for AUTH.")],
    message_class: Annotated[
        Literal["campaign", "transactional"], typer.Option("--class", help="Class of the mail submitted with it.")
    ] = "campaign",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input instead of making one.")
    ] = False,
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Make a user name with a new password, which is shown this once only."""
    from suppression.digest import MessageClass

    given = typer.get_text_stream("stdin").readline().rstrip("\n") if password_stdin else None
    kind = MessageClass[message_class.upper()]

    async def add(parts: Any) -> str:
        return str(await parts.accounts.add_credential(tenant, username, kind, given))

    password = run_with_parts(settings_of(config, overrides), add)
    if as_json:
        print_json({"tenant": tenant, "username": username, "class": message_class, "password": password})
    elif given is None:
        text = f"user name  {username}\npassword   {password}\nThe password is not stored, and not shown again."
        say(text)
    else:
        say(f"Credential {username} is made.")


@credentials.command("list")
def credential_list(tenant: TenantName, config: Config = None, overrides: Set = None, as_json: Json = False) -> None:
    """Show a tenant's user names."""
    rows = run_with_parts(settings_of(config, overrides), lambda parts: parts.accounts.credentials(tenant))
    if as_json:
        print_json(rows)
        return
    shown: list[tuple[object, ...]] = [
        (
            r["username"],
            "transactional" if r["class"] else "campaign",
            f"{r['created_at']:%Y-%m-%d}",
            r["revoked_at"] or "",
        )
        for r in rows
    ]
    table("user name", "class", "since", "revoked", rows=shown, empty="This tenant has no credentials.")


@credentials.command("revoke")
def credential_revoke(
    username: Annotated[str, typer.Argument(help="The user name to switch off.")],
    config: Config = None,
    overrides: Set = None,
) -> None:
    """Switch a user name off; in force within a minute on every node."""
    run_with_parts(settings_of(config, overrides), lambda parts: parts.accounts.revoke_credential(username))
    say(f"Credential {username} is revoked.")


@dkim.command("new")
def dkim_new(
    domain: Domain,
    tenant: OfTenant = "sandbox",
    selector: Annotated[str, typer.Option(help="Name of the key in the DNS; default: by date and algorithm.")] = "",
    algorithm: Annotated[Literal["rsa", "ed25519"], typer.Option(help="Kind of key.")] = "rsa",
    bits: Annotated[int, typer.Option(min=2048, max=4096, help="Size of an RSA key.")] = 2048,
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Make a key and print the DNS record to publish; mail of the domain is signed with it at once."""
    import datetime

    from mta.dkim_keys import DkimKeyError
    from mta.signing import SigningError, dns_record, generate

    name = selector or f"{algorithm[0]}{datetime.datetime.now(datetime.UTC):%Y%m%d%H%M}"

    async def make(parts: Any) -> tuple[str, tuple[str, ...]]:
        owner = await parts.accounts.tenant(tenant)
        try:
            key = generate(domain, name, f"{algorithm}-sha256", bits)
            await parts.dkim_keys.add(owner.id, key)
        except (DkimKeyError, SigningError, ValueError) as error:
            raise Failed(str(error)) from None
        return dns_record(key)

    record = run_with_parts(settings_of(config, overrides), make)
    _print_records([record], as_json)


@dkim.command("show")
def dkim_show(
    domain: Annotated[str, typer.Argument(help="Only keys of this domain.")] = "",
    tenant: Annotated[str, typer.Option("--tenant", help="Only keys of this tenant.")] = "",
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Print the DNS records of the keys in use."""
    from mta.signing import dns_record

    async def find(parts: Any) -> list[tuple[str, tuple[str, ...]]]:
        owner = await parts.accounts.tenant(tenant) if tenant else None
        records = await parts.dkim_keys.listed(owner.id if owner else None)
        chosen = [r for r in records if r.retired_at is None and domain.lower() in ("", r.domain)]
        return [dns_record(record) for record in chosen]

    _print_records(run_with_parts(settings_of(config, overrides), find), as_json)


@dkim.command("retire")
def dkim_retire(
    domain: Domain,
    selector: Annotated[str, typer.Argument(help="Name of the key in the DNS.")],
    tenant: OfTenant = "sandbox",
    config: Config = None,
    overrides: Set = None,
) -> None:
    """Sign no more with a key; leave its DNS record in place for a week."""

    async def retire(parts: Any) -> None:
        owner = await parts.accounts.tenant(tenant)
        if not await parts.dkim_keys.retire(owner.id, domain, selector):
            raise Failed(f"there is no key {selector}._domainkey.{domain} in use")

    run_with_parts(settings_of(config, overrides), retire)
    say(f"{selector}._domainkey.{domain} is retired.")


def _print_records(records: list[tuple[str, tuple[str, ...]]], as_json: bool) -> None:
    if as_json:
        print_json([{"name": name, "type": "TXT", "value": "".join(parts)} for name, parts in records])
        return
    if not records:
        say("There is no key.")
    for name, parts in records:
        strings = " ".join(f'"{part}"' for part in parts)
        say(f"{name}. IN TXT ( {strings} )")
