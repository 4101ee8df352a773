"""The `heed` command: puts the commands together.

Only what the command line asks for is imported: an operator waits for it.
"""

import sys
from importlib import import_module
from typing import Annotated, Final

import typer

from config.log import quieten
from mta.terminal import EXIT_CODES, load_quickly, say

# Each command or group of commands, and what it is.
_COMMANDS: Final = {
    "run": "mta.commands_daemon.run",
    "check-config": "mta.commands_daemon.check_config",
    "tenant": "mta.commands_accounts.tenants",
    "group": "mta.commands_accounts.groups",
    "credential": "mta.commands_accounts.credentials",
    "dkim": "mta.commands_accounts.dkim",
    "check-domain": "mta.commands_check.check_domain",
    "doctor": "mta.commands_check.doctor",
    "send": "mta.commands_test.send",
    "sink": "mta.commands_test.sink",
    "campaign": "mta.commands_campaign.campaigns",
    "top": "mta.commands_top.top",
    "queue": "mta.commands_queue.queue",
    "explain": "mta.commands_look.explain",
    "trace": "mta.commands_look.trace",
    "suppress": "mta.commands_suppress.suppress",
    "consent": "mta.commands_consent.consent",
    "prove": "mta.commands_suppress.prove",
    "verify-log": "mta.commands_suppress.verify_log",
    "classify": "mta.commands_daemon.classify",
    "events": "mta.commands_events.events",
    "webhook": "mta.commands_events.webhooks",
    "report": "mta.commands_reports.report",
    "usage": "mta.commands_reports.usage",
}


def application(word: str = "") -> typer.Typer:
    """The whole of `heed`; or, where the word is a command of it, only as much as that command needs."""
    app = typer.Typer(
        name="heed",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(heed)
    for name in [word] if word in _COMMANDS else _COMMANDS:
        module, _, attribute = _COMMANDS[name].rpartition(".")
        command = getattr(import_module(module), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    app.command("manual")(print_manual)
    _state_exit_codes(app)
    return app


def main() -> None:
    """Entry point."""
    load_quickly()
    quieten()
    application(*sys.argv[1:2])()


def _print_version(asked: bool) -> None:
    if asked:
        say(f"heed {_version() or 'from a source tree'}")
        raise typer.Exit


def _version() -> str:
    """Of what is installed; empty when run from a source tree that is not."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("heed-mta")
    except PackageNotFoundError:
        return ""


def heed(
    _version: Annotated[  # read by its callback
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A mail delivery daemon for mail that people asked for."""


def print_manual() -> None:
    """Print the man page; save it as heed.1 in a directory such as /usr/local/share/man/man1."""
    from mta.manual import manual

    sys.stdout.write(manual(typer.main.get_command(application()), _version()))


def _state_exit_codes(group: typer.Typer) -> None:
    """In the help of every command; what a command has beyond these is in its description."""
    group.info.epilog = EXIT_CODES
    for command in group.registered_commands:
        command.epilog = EXIT_CODES
    for child in group.registered_groups:
        if child.typer_instance is not None:
            _state_exit_codes(child.typer_instance)


if __name__ == "__main__":
    main()
