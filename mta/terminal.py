"""What every command of `heed` shares: options, errors turned into messages and exit codes, output.

Exit codes are EXIT_CODES. No traceback for anything that an operator can
meet, and no address in any output unless it was given on the command line.

Modules of commands import what they need where they need it: every start of `heed` loads all of these modules, and an
operator waits for it.
"""

import getpass
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console

from config.rights import file_trouble

if TYPE_CHECKING:
    from config.settings import Endpoint, Settings

OUT = Console(highlight=False, soft_wrap=True, emoji=False)
ERR = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

EXIT_CODES = "Exit codes: 0 done; 1 could not be done, or something was found wrong; 2 wrong use or configuration."

Config = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", help="TOML file, repeatable, later ones win. Default: /etc/heed/heed.toml, if any."),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One option, such as workers=4; repeatable.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

T = TypeVar("T")


def address_of(text: str, option: str) -> "Endpoint":
    """A host and port given as an option, or exit code 2."""
    from config.settings import endpoint

    try:
        return endpoint(text)
    except ValueError as error:
        ERR.print(f"{option} {text!r}: {error}", markup=False)
        raise typer.Exit(2) from None


class Failed(Exception):
    """The command could not do what it was asked for; the text says why and what would help."""


def operator() -> str:
    """Who is at the keyboard."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def settings_of(config: list[Path] | None, overrides: list[str] | None) -> "Settings":
    """The configuration, or exit code 2 with everything that is wrong with it."""
    from config.settings import SettingsError
    from config.sources import default_files, load

    try:
        return load(config or default_files(), overrides or [])
    except SettingsError as error:
        for problem in error.problems:
            ERR.print(problem, markup=False)
        raise typer.Exit(2) from None


def run_with_parts(settings: "Settings", work: Callable[[Any], Awaitable[T]]) -> T:
    """Run something that needs the database, and turn what an operator can meet into a message and exit code 1."""
    try:
        return attempt_with_parts(settings, work)
    except Failed as error:
        ERR.print(str(error), markup=False)
        raise typer.Exit(1) from None


def attempt_with_parts(settings: "Settings", work: Callable[[Any], Awaitable[T]]) -> T:
    """The same, for a command that goes on without; raises Failed for whatever an operator can meet."""
    import asyncio

    from config.cluster import PostgresError
    from config.database import UNSTORABLE, DatabaseUnavailable, MigrationError
    from config.keyring import KeyringError
    from mta.accounts import AccountError, WrongInstallation
    from mta.logs import configure
    from mta.parts import opened
    from suppression.groups import GroupError

    configure("warning", "console")

    async def main() -> T:
        async with opened(settings, name="heed command") as parts:
            return await work(parts)

    try:
        return asyncio.run(main())
    except (AccountError, GroupError, KeyringError) as error:
        raise Failed(str(error)) from None
    except (DatabaseUnavailable, MigrationError, PostgresError, WrongInstallation) as error:
        raise Failed(f"database: {error}") from None
    except UNSTORABLE:
        text = "nothing is known by such a name: text is UTF-8 without NUL, and ids are not that large"
        raise Failed(text) from None
    except OSError as error:
        raise Failed(file_trouble(error)) from None


def print_json(value: object) -> None:
    """One JSON value on standard output; times in UTC."""
    import orjson

    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode() + "\n")


def table(*columns: str, rows: list[tuple[object, ...]], empty: str) -> None:
    """A table for people."""
    from rich.table import Table
    from rich.text import Text

    if not rows:
        OUT.print(empty)
        return
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        grid.add_column(column)
    for row in rows:
        # names and subjects come from outside: brackets in them are no markup
        grid.add_row(*(Text("" if value is None else str(value)) for value in row))
    OUT.print(grid)
