"""What every command of `heed` shares: options, errors turned into messages and exit codes, output.

Exit codes are EXIT_CODES. No traceback for anything that an operator can meet, and no address in any output unless it
was given on the command line.

Modules of commands import what they need where they need it, and so does this one: an operator waits for it.
"""

import gc
import getpass
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from config.failure import DatabaseFailed, Failed, WrongUse, file_trouble

if TYPE_CHECKING:
    from rich.console import Console

    from config.settings import Endpoint, Settings

EXIT_CODES = "Exit codes: 0 done; 1 could not be done, or something was found wrong; 2 wrong use or configuration."

Config = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", help="TOML file, repeatable, later ones win. Default: /etc/heed/heed.toml, if any."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One option, such as workers=4; a list with commas: roles=web,delivery. Repeatable.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_USUAL_THRESHOLDS: Final = gc.get_threshold()
_THRESHOLD_WHILE_LOADING: Final = 100_000
_WITHOUT_CONTROLS: Final = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {*map(ord, "\t\n")})
_ON_ONE_LINE: Final = _WITHOUT_CONTROLS | dict.fromkeys(map(ord, "\t\n"), " ")
_AS_WIDE_AS_IT_IS: Final = 1_000_000

T = TypeVar("T")


def load_quickly() -> None:
    """Let the collector of garbage look rarely for now: nothing that is being imported is any."""
    gc.set_threshold(_THRESHOLD_WHILE_LOADING)


def loaded() -> None:
    """What is here stays until the end: the collector need not look at it again, nor when the process ends."""
    gc.freeze()
    gc.set_threshold(*_USUAL_THRESHOLDS)


def carried_out(work: Coroutine[Any, Any, T]) -> T:
    """The result of what a command does, for which everything is imported by now."""
    import asyncio

    loaded()
    return asyncio.run(work)


def say(text: str) -> None:
    """A line of output. A bracket in a name is no markup, and what strangers wrote controls no terminal."""
    typer.echo(text.translate(_WITHOUT_CONTROLS))


def complain(text: str) -> None:
    """A line on standard error, likewise."""
    typer.echo(text.translate(_WITHOUT_CONTROLS), err=True)


@cache
def console(*, errors: bool = False, width: int | None = None) -> "Console":
    """The terminal, for tables, progress bars and whole screens. width: another one than it has."""
    from rich.console import Console

    return Console(stderr=errors, highlight=False, soft_wrap=True, emoji=False, width=width)


def address_of(text: str, option: str) -> "Endpoint":
    """A host and port given as an option, or exit code 2."""
    from config.settings import endpoint

    try:
        return endpoint(text)
    except ValueError as error:
        complain(f"{option} {text!r}: {error}")
        raise typer.Exit(2) from None


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
            complain(problem)
        raise typer.Exit(2) from None


def run_with_parts(
    settings: "Settings",
    work: Callable[[Any], Awaitable[T]],
    *,
    founds: bool = False,
    without_database: Callable[[str], None] | None = None,
) -> T:
    """Run something with the Parts of an installation, and turn what an operator can meet into exit code 1 or 2.

    founds: make the installation where there is none; without_database: shows what is known even then, before the end.
    """
    with _failure_told():
        try:
            return attempt_with_parts(settings, work, founds=founds)
        except DatabaseFailed as error:
            if without_database is not None:
                without_database(str(error))
            raise


def run_with_installation(settings: "Settings", work: Callable[[Any], Awaitable[T]]) -> T:
    """The same with no more than an Installation, for which an operator waits less long."""
    from mta.installation import opened

    with _failure_told():
        return _attempt(opened, settings, work)


def attempt_with_parts(settings: "Settings", work: Callable[[Any], Awaitable[T]], *, founds: bool = False) -> T:
    """The same, for a command that goes on without; raises Failed for whatever an operator can meet."""
    from mta.parts import opened

    return _attempt(partial(opened, founds=founds), settings, work)


@contextmanager
def _failure_told() -> Iterator[None]:
    try:
        yield
    except Failed as error:
        complain(str(error))
        raise typer.Exit(2 if isinstance(error, WrongUse) else 1) from None


def _attempt(opened: Any, settings: "Settings", work: Callable[[Any], Awaitable[T]]) -> T:
    from config.database import UNSTORABLE

    async def main() -> T:
        async with opened(settings, name="heed command") as installation:
            return await work(installation)

    try:
        return carried_out(main())
    except DatabaseFailed as error:
        raise DatabaseFailed(f"database: {error}") from None
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
    """A table for people, a line for each row, as wide as its cells are: names are to be copied and searched for."""
    from rich.table import Table
    from rich.text import Text

    if not rows:
        say(empty)
        return
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        grid.add_column(column, no_wrap=True)
    for row in rows:
        # names and subjects come from outside: brackets in them are no markup
        grid.add_row(*(Text("" if value is None else str(value).translate(_ON_ONE_LINE)) for value in row))
    console(width=_AS_WIDE_AS_IT_IS).print(grid)
