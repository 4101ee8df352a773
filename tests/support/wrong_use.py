"""Uses every command of `heed` wrongly, in one process: `python -m tests.support.wrong_use SEED ROUNDS OPTION...`.

Prints what ended otherwise than by an exit code that `heed` promises, and ends with 1 then. The options are given to
each command. Commands that run until they are told to stop are left out.
"""

import random
import sys
from collections.abc import Iterator
from typing import Any, Final

import typer
from typer.testing import CliRunner

from mta.cli import application

JUNK: Final = (
    "", "no such thing", "\udcff", "-1", "0", "7", "2147483648", "9" * 23, "a" * 300, "x\0y", "💥", "../..", "/none/x",
    "nan", "1e999", "anna@example.net", "a@b", "mx.example.net", "2026-13-45", "5000000d", "[red]", "%s", "\n",
    "0123456789abcdef", "0AMX3JBW3SWP0", "'; DROP TABLE x", "127.0.0.1:99999", "http://x", "https://[::1",
)  # fmt: skip
_ENDLESS: Final = {("run",), ("sink", "run")}
_GIVEN: Final[dict[tuple[str, ...], tuple[str, ...]]] = {("send",): ("--to", "127.0.0.1:1", "--count", "1")}
_LEFT_OUT: Final = {"config", "overrides", "follow"}


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that is no group, with the words by which it is called."""
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from commands(child, (*path, name))


def wrong(command: Any, choose: random.Random) -> list[str]:
    """What is needed, and some of what is not, filled with what nobody means."""
    words: list[str] = []
    for parameter in command.params:
        if parameter.name in _LEFT_OUT:
            continue
        if parameter.param_type_name == "argument":
            words += [choose.choice(JUNK)] if parameter.required or choose.random() < 0.7 else []
        elif parameter.required or choose.random() < 0.4:
            words += [choose.choice(parameter.opts)] + ([] if parameter.is_flag else [choose.choice(JUNK)])
    return words


def main(seed: int, rounds: int, options: list[str]) -> int:
    """How many ended in a way that is not promised."""
    choose, found, app = random.Random(seed), 0, application()
    for path, command in [each for each in commands(typer.main.get_command(app)) if each[0] not in _ENDLESS] * rounds:
        words = [*path, *_GIVEN.get(path, ()), *wrong(command, choose)]
        done = CliRunner().invoke(app, [*words, *options], input="y\n")
        if done.exit_code not in (0, 1, 2, 3) or not isinstance(done.exception, SystemExit | None):
            print(f"{words}: exit code {done.exit_code}, {done.exception!r}")
            found += 1
    return found


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])))
