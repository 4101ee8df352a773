"""The `heed` command: puts the commands together, and holds those that belong to none of the groups.

Only reads arguments and prints results; what a command does is in the modules that it calls.
"""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from config.rights import file_trouble
from mta import (
    commands_accounts,
    commands_campaign,
    commands_check,
    commands_consent,
    commands_events,
    commands_look,
    commands_queue,
    commands_reports,
    commands_suppress,
    commands_test,
    commands_top,
)
from mta.terminal import ERR, EXIT_CODES, OUT, Config, Json, Set, print_json, settings_of

if TYPE_CHECKING:
    from config.settings import Settings

app = typer.Typer(
    name="heed",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(commands_accounts.tenants, name="tenant")
app.add_typer(commands_accounts.groups, name="group")
app.add_typer(commands_accounts.credentials, name="credential")
app.add_typer(commands_accounts.dkim, name="dkim")
app.add_typer(commands_campaign.campaigns, name="campaign")
app.add_typer(commands_suppress.suppress, name="suppress")
app.add_typer(commands_test.sink, name="sink")
app.add_typer(commands_consent.consent, name="consent")
app.command("verify-log")(commands_suppress.verify_log)
app.command()(commands_suppress.prove)
app.command()(commands_test.send)
app.command()(commands_queue.queue)
app.command()(commands_look.explain)
app.command()(commands_look.trace)
app.command()(commands_top.top)
app.add_typer(commands_events.webhooks, name="webhook")
app.add_typer(commands_events.events, name="events")
app.command()(commands_reports.report)
app.command()(commands_reports.usage)
app.command("check-domain")(commands_check.check_domain)
app.command()(commands_check.doctor)


def _print_version(asked: bool) -> None:
    if asked:
        OUT.print(f"heed {_version() or 'from a source tree'}")
        raise typer.Exit


def _version() -> str:
    """Of what is installed; empty when run from a source tree that is not."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("heed-mta")
    except PackageNotFoundError:
        return ""


@app.callback()
def heed(
    _version: Annotated[  # read by its callback
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A mail delivery daemon for mail that people asked for."""


@app.command()
def run(config: Config = None, overrides: Set = None) -> None:
    """Run the daemon in the foreground until SIGTERM."""
    settings = settings_of(config, overrides)
    _run_daemon(settings)


def _run_daemon(settings: "Settings") -> None:
    from mta.logs import configure

    configure(settings.log.level, settings.log.format)
    # prometheus_client decides at its import whether it shares values between processes
    from mta.metrics_directory import forget_metrics, share_metrics

    try:
        share_metrics(settings.data_dir)
    except OSError as error:
        ERR.print(f"{settings.data_dir}: {error.strerror}; data_dir must be a directory of this user", markup=False)
        raise typer.Exit(1) from None
    import asyncio

    from mta.announcement import announcement
    from mta.supervisor import StartError, Supervisor

    async def main() -> int:
        return await Supervisor(settings).run(lambda: OUT.print(announcement(settings), markup=False))

    try:
        raise typer.Exit(asyncio.run(main()))
    except StartError as error:
        ERR.print(f"heed can't start: {error}", markup=False)
        raise typer.Exit(1) from None
    finally:
        forget_metrics()


@app.command("manual")
def print_manual() -> None:
    """Print the man page; save it as heed.1 in a directory such as /usr/local/share/man/man1."""
    from mta.manual import manual

    sys.stdout.write(manual(typer.main.get_command(app), _version()))


@app.command("check-config")
def check_config(config: Config = None, overrides: Set = None, as_json: Json = False) -> None:
    """Check the configuration, and print it as it would be used. Exit code 2 when something is wrong."""
    settings = settings_of(config, overrides)
    values = settings.model_dump(mode="json")
    if as_json:
        print_json(values)
        return
    for name, value in values.items():
        if isinstance(value, dict):
            for key, inner in value.items():
                OUT.print(f"{name}.{key} = {inner!r}", markup=False)
        else:
            OUT.print(f"{name} = {value!r}", markup=False)
    OUT.print("The configuration is valid.")


@app.command()
def classify(
    files: Annotated[list[str], typer.Argument(help="Messages, mbox files or Maildirs; - for standard input.")],
    as_json: Json = False,
) -> None:
    """Say what messages are (bounce, complaint, auto-reply …) and what Heed would do. Needs no database."""
    import orjson

    from bounce.report import classify_paths

    try:
        for item in classify_paths(files):
            if as_json:
                sys.stdout.write(orjson.dumps(item).decode() + "\n")
            else:
                _print_reading(item)
    except OSError as error:
        ERR.print(file_trouble(error), markup=False)
        raise typer.Exit(1) from None


def _print_reading(item: dict[str, Any]) -> None:
    OUT.print(f"{item['file']}: {item['kind']} {item['feedback_type'] or ''}".rstrip(), markup=False)
    for recipient in item["recipients"]:
        verdict = "suppress" if recipient["suppress"] else "keep"
        fields = [recipient[name] for name in ("address", "action", "status", "reply_code", "class")]
        words = " ".join(str(field) for field in fields if field)
        OUT.print(f"  {words}: {verdict} ({recipient['reason']})", markup=False)


def _state_exit_codes(group: typer.Typer) -> None:
    """In the help of every command; what a command has beyond these is in its description."""
    group.info.epilog = EXIT_CODES
    for command in group.registered_commands:
        command.epilog = EXIT_CODES
    for child in group.registered_groups:
        if child.typer_instance is not None:
            _state_exit_codes(child.typer_instance)


_state_exit_codes(app)


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
