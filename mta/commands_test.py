"""`heed sink` and `heed send`: a test MX, and a test campaign."""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from config.failure import file_trouble
from mta.terminal import (
    Config,
    Json,
    Set,
    address_of,
    carried_out,
    complain,
    console,
    print_json,
    say,
    settings_of,
    table,
)

sink = typer.Typer(help="A test MX: takes everything, and shows what it took.", no_args_is_help=True)


@sink.command("run")
def sink_run(
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen; default: sink.listen.")] = "",
    maildir: Annotated[Path | None, typer.Option(help="Keep the messages here; default: only count them.")] = None,
    defer: Annotated[float, typer.Option(min=0, max=1, help="Share of recipients that get 450.")] = 0.0,
    refuse: Annotated[float, typer.Option(min=0, max=1, help="Share of recipients that get 550.")] = 0.0,
    delay: Annotated[float, typer.Option(min=0, help="Seconds before the answer to a message.")] = 0.0,
    config: Config = None,
    overrides: Set = None,
) -> None:
    """Run a sink in the foreground until SIGTERM; prints what it counted at the end."""
    from mta.sink import Behaviour, run_sink

    host, port = address_of(listen or settings_of(config, overrides).sink.listen, "--listen")

    def ready(host: str, port: int) -> None:
        say(f"The sink listens on {host}:{port}.")

    try:
        behaviour = Behaviour(defer, refuse, delay, 0)
        counts = carried_out(run_sink(host=host, port=port, maildir=maildir, behaviour=behaviour, ready=ready))
    except OSError as error:
        where = error.filename or f"{host}:{port}"
        complain(f"sink: {where}: {error.strerror or error}; choose another with --listen or --maildir")
        raise typer.Exit(1) from None
    say(json.dumps(asdict(counts)))


@sink.command("show")
def sink_show(
    maildir: Annotated[Path | None, typer.Option(help="Default: that of the sandbox.")] = None,
    last: Annotated[int, typer.Option(min=0, help="Newest messages to list.")] = 10,
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Show what the sink received: counts, and the newest messages by subject and size."""
    from mta.maildir import summary

    path = maildir or settings_of(config, overrides).data_dir / "sink"
    try:
        found = summary(path, last)
    except OSError as error:
        complain(file_trouble(error))
        raise typer.Exit(1) from None
    if as_json:
        print_json(asdict(found) | {"maildir": str(path)})
        return
    say(
        f"{found.messages} messages for {found.recipients} recipients ({found.distinct_recipients} different ones), "
        f"{found.size_octets} octets, in {path}"
    )
    rows: list[tuple[object, ...]] = [(_time(e.received_at), e.size_octets, e.subject) for e in found.last]
    if rows:
        table("received", "octets", "subject", rows=rows, empty="")


def send(
    count: Annotated[int, typer.Option(min=1, help="Messages.")] = 1_000,
    size: Annotated[int, typer.Option(min=0, help="Octets of each, about.")] = 10_000,
    connections: Annotated[int, typer.Option(min=1, max=1_000, help="Open at once.")] = 10,
    recipients: Annotated[int, typer.Option(min=1, max=10_000, help="Of each message.")] = 1,
    to: Annotated[str, typer.Option(metavar="HOST:PORT", help="Default: submission.listen.")] = "",
    campaign: Annotated[str, typer.Option(help="Name of the campaign.")] = "test",
    list_name: Annotated[str, typer.Option("--list", help="Name of the list.")] = "weekly.example.com",
    sender: Annotated[str, typer.Option(help="Envelope sender and From.")] = "news@example.com",
    user: Annotated[str, typer.Option(help="For AUTH; the password is asked for, or HEED_SEND_PASSWORD.")] = "",
    tls: Annotated[Literal["none", "starttls", "implicit"], typer.Option(help="Encryption.")] = "none",
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Send a test campaign to a running daemon, every message to other readers, with a progress bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mta.send import NOBODY, Campaign, Result
    from mta.send import send as send_campaign

    settings = settings_of(config, overrides)
    host, port = where = address_of(to or next(iter(settings.submission.listen), ""), "--to")
    what = Campaign(
        count,
        size,
        recipients,
        sender=sender,
        campaign=campaign,
        list_name=list_name,
        campaign_header=settings.submission.campaign_header,
    )
    login = _login(host, user, tls)
    columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(errors=True), transient=True, disable=as_json) as bar:
        task = bar.add_task("sending", total=count)

        def progress(result: Result) -> None:
            bar.update(task, completed=result.done)

        work = send_campaign(what, host, port, connections=connections, login=login, progress=progress)
        result = carried_out(work)
    if as_json:
        # not asdict(): it counts the items of a Counter
        print_json({field.name: getattr(result, field.name) for field in fields(result)})
    elif set(result.failures) != {NOBODY} or result.done:
        say(
            f"{result.accepted} of {result.messages} messages accepted in {result.seconds:.2f} s "
            f"({result.accepted_per_second:.0f}/s), for {result.accepted_recipients} recipients"
        )
        for what_failed, counts in (("recipients", result.refused), ("connections", result.failures)):
            for kind, number in sorted(counts.items()):
                say(f"  {number} {what_failed}: {kind}")
    if result.failures[NOBODY] and not result.done:
        complain(f"nothing listens on {where}; is the daemon running?")
    if result.accepted < result.messages:
        raise typer.Exit(1)


def _login(host: str, user: str, tls: str) -> Any:
    import os
    import ssl

    from mta.send_session import Login

    if not user:
        password = ""
    else:
        password = os.environ.get("HEED_SEND_PASSWORD") or typer.prompt("password", hide_input=True, err=True)
    context = None
    if tls != "none":
        # a test client for one's own daemon, whose certificate is self-signed at first
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        return Login(tls=tls, context=context, server_name=host, user=user, password=password)
    except ValueError as error:
        complain(f"{error}; add --tls starttls")
        raise typer.Exit(2) from None


def _time(seconds: float) -> str:
    import datetime

    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M:%S}"
