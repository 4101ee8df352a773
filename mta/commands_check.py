"""`heed check-domain` and `heed doctor`: is a domain ready to send, and is this machine ready to run Heed?

Exit code 1 when something failed, so that a deployment can stop there.
"""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from config.failure import Failed
from mta.terminal import (
    Config,
    Json,
    Set,
    attempt_with_parts,
    carried_out,
    print_json,
    run_with_parts,
    say,
    settings_of,
)

if TYPE_CHECKING:
    from config.settings import Settings

_MARKS: Final = {"ok": "ok     ", "warning": "warning", "failed": "FAILED ", "unknown": "unknown"}


def check_domain(
    domain: Annotated[str, typer.Argument(help="The domain of the From address.")],
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Whose DKIM keys sign; without it, all tenants'.")
    ] = None,
    selector: Annotated[
        list[str] | None, typer.Option("--selector", help="Check this selector instead of the keys stored here.")
    ] = None,
    address: Annotated[
        list[str] | None,
        typer.Option("--address", help="A sending IP address; without it, those of identity.hostname."),
    ] = None,
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Compare a domain's DNS and this installation with what Gmail, Yahoo and Outlook demand of senders."""
    from mta.domain import normalised_domain
    from mta.domain_check import DomainCheck, PublicKey, Sender

    settings = settings_of(config, overrides)
    name = normalised_domain(domain)
    if name is None or name.startswith("["):
        raise typer.BadParameter("is a domain such as example.com")
    for each in address or ():
        _check_address(each)
    if selector:
        keys = [PublicKey(name, each) for each in selector]
    else:
        keys = run_with_parts(settings, lambda parts: _keys(parts, name, tenant))
    identity = settings.identity
    sender = Sender(name, identity.mail_domain, identity.hostname, address or (), keys, settings.web_url)
    findings = carried_out(DomainCheck(_resolver(settings)).findings(sender))
    _show(findings, as_json=as_json)


def doctor(config: Config = None, overrides: Set = None, as_json: Json = False) -> None:
    """Look at what Heed needs of this machine: database, clock, disk, ports, DNS, master key, permissions."""
    from mta import doctor as looks
    from mta.domain_check import Finding, Level
    from mta.installation import Paths
    from suppression.receipts import ReceiptFile

    settings = settings_of(config, overrides)
    paths = Paths(settings.data_dir)

    async def look(parts: Any) -> list[Any]:
        found: list[Any] = await looks.database_findings(parts.database)
        found += await looks.receipt_findings(ReceiptFile(paths.receipts), parts.log)
        if not settings.sandbox:
            found += await looks.dns_findings(_resolver(settings), settings.identity.mail_domain)
        return found

    running = _is_running(paths.lock)
    try:
        findings = attempt_with_parts(settings, look)
    except Failed as error:
        # a doctor who stops at the first complaint finds only that one
        findings = [Finding("installation", Level.FAILED, str(error))]
    findings += looks.disk_findings(paths.data_dir)
    findings += looks.key_findings(paths.keys)
    findings += looks.directory_findings(paths.data_dir)
    findings += looks.limit_findings()
    findings += looks.port_findings(_listeners(settings), running=running)
    _show(findings, as_json=as_json)


def _check_address(text: str) -> None:
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise typer.BadParameter(f"--address {text!r} is an IP address such as 192.0.2.1") from None


async def _keys(parts: Any, domain: str, tenant: str | None) -> list[Any]:
    """The keys that sign for a domain: its own, or those of a parent up to the organisational domain."""
    from mta.dkim_keys import signing_domains
    from mta.domain_check import PublicKey

    owner = (await parts.accounts.tenant(tenant)).id if tenant else None
    records = [record for record in await parts.dkim_keys.listed(owner) if record.retired_at is None]
    for candidate in signing_domains(domain):
        found = [PublicKey(r.domain, r.selector, r.public_key) for r in records if r.domain == candidate]
        if found:
            return found
    return []


def _resolver(settings: "Settings") -> Any:
    from config.settings import endpoint
    from mta.resolver import Resolver

    servers = [endpoint(server, 53) for server in settings.delivery.nameservers]
    return Resolver(nameservers=[server.host for server in servers], port=servers[0].port if servers else 53)


def _listeners(settings: "Settings") -> list[tuple[str, str, int]]:
    from config.settings import endpoint
    from mta.supervisor import addresses

    return [(option, *endpoint(address)) for option, address in addresses(settings)]


def _is_running(lock: Path) -> bool:
    """Whether a supervisor holds the data directory."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _show(findings: Sequence[Any], *, as_json: bool) -> None:
    if as_json:
        print_json([{"name": f.name, "level": f.level, "text": f.text, "demanded_by": f.demanded_by} for f in findings])
    else:
        for finding in findings:
            by = (
                f" (demanded by {', '.join(finding.demanded_by)})"
                if finding.level == "failed" and finding.demanded_by
                else ""
            )
            say(f"{_MARKS[finding.level]}  {finding.name}: {finding.text}{by}")
    if any(finding.level == "failed" for finding in findings):
        raise typer.Exit(1)
