"""How fast Heed is beside Postfix, and whether it stays so: `python -m tests.bench.bench_throughput --help`.

Runs the rows of the table of goals (tests/bench/rows.py), each beside its peer in the same minutes, and prints one
table; docs/performance.md says how to read it. Needs smtp-source and smtp-sink of Debian's package postfix; rows A to E
need OpenDKIM and root too. Ends with 2 where something is missing, with 1 where mail did not arrive.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tests.bench.drive import Stuck
from tests.bench.endurance import idle, soak
from tests.bench.fleet import Fleet
from tests.bench.machine import Description
from tests.bench.peers import Missing, require, versions
from tests.bench.rows import ROWS, WITH_PEERS, Bench, Line
from tests.support.daemon import DaemonError

_IDLE: Final = "idle"
_BACKLOG: Final = 1_000_000
_SHORT_BACKLOG: Final = 100_000
_ROUNDS: Final = 5
_SHORT_ROUNDS: Final = 2
_SHORT_FACTOR: Final = 0.15


async def measure(options: argparse.Namespace, wanted: Sequence[str]) -> list[Line]:
    """The lines of all the rows that are wanted; those that were done are said even where one fails."""
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", file=sys.stderr, flush=True)

    lines: list[Line] = []
    async with Fleet(options.directory) as fleet:
        bench = Bench(fleet, options.rounds, options.factor, options.backlog, say)
        if options.soak:
            return await soak(fleet, options.soak, say)
        for row in wanted:
            try:
                lines += await idle(fleet, options.connections, say) if row == _IDLE else await ROWS[row](bench)
            except (Stuck, DaemonError) as error:
                say(f"{row}: {error}")
                lines.append(Line(row, "could not be measured", "", "", "", None, False, str(error).partition("\n")[0]))
    return lines


def print_table(lines: Sequence[Line]) -> None:
    """One table, as wide as it must be."""
    rows = [("", "what", "goal", "measured", "beside", "ratio", "met", "")]
    for line in lines:
        met = {True: "yes", False: "NO", None: "–"}[line.met]
        found = "" if line.ratio is None else f"{line.ratio:.2f}"
        rows.append((line.row, line.what, line.goal, line.measured, line.peer, found, met, line.note))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def parser() -> argparse.ArgumentParser:
    """What can be told on the command line."""
    told = argparse.ArgumentParser(prog="python -m tests.bench.bench_throughput", description=__doc__.partition(":")[0])
    told.add_argument(
        "--only", default="", metavar="A,D", help=f"these rows ({', '.join(ROWS)}, {_IDLE}); default: A to J"
    )
    told.add_argument("--short", action="store_true", help="less of everything: under three minutes")
    told.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured there too")
    told.add_argument("--rounds", type=int, help=f"of each pair; default {_ROUNDS}, short {_SHORT_ROUNDS}")
    told.add_argument("--factor", type=float, help=f"of every load; default 1, short {_SHORT_FACTOR}")
    told.add_argument(
        "--backlog", type=int, help=f"rows of a full queue; default {_BACKLOG:,}, short {_SHORT_BACKLOG:,}"
    )
    told.add_argument("--connections", type=int, default=10_000, help="for idle; default 10,000")
    told.add_argument("--soak", type=float, metavar="MINUTES", help="instead: a steady load, and what grows meanwhile")
    told.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on the disk that is to be measured")
    return told


def options_of(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The options with what follows from --short, and the rows that are wanted."""
    told = parser()
    options = told.parse_args(arguments)
    wanted = [each.strip() for each in options.only.split(",") if each.strip()] or list(ROWS)
    wanted = [each.lower() if each.lower() == _IDLE else each.upper() for each in wanted]
    if unknown := [each for each in wanted if each not in ROWS and each != _IDLE]:
        told.error(f"there is no row {', '.join(unknown)}")
    options.rounds = options.rounds or (_SHORT_ROUNDS if options.short else _ROUNDS)
    options.factor = options.factor or (_SHORT_FACTOR if options.short else 1.0)
    options.backlog = options.backlog or (_SHORT_BACKLOG if options.short else _BACKLOG)
    return options, wanted


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    options, wanted = options_of(arguments)
    try:
        require(peers=not options.soak and not WITH_PEERS.isdisjoint(wanted))
        postfix, opendkim = versions()
        machine = Description.here(postfix=postfix, opendkim=opendkim)
        began = time.time()
        lines = asyncio.run(measure(options, wanted))
    except Missing as error:
        print(f"bench_throughput: {error}", file=sys.stderr)
        return 2
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("bench_throughput: interrupted", file=sys.stderr)
        return 130
    print(
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB; Linux {machine.kernel}, Python "
        f"{machine.python}, Postfix {machine.postfix}, OpenDKIM {machine.opendkim or 'none'}; {options.rounds} rounds\n"
    )
    print_table(lines)
    if options.json:
        result: dict[str, Any] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
            "seconds": round(time.time() - began),
            "machine": asdict(machine),
            "rounds": options.rounds,
            "factor": options.factor,
            "backlog": options.backlog,
            "lines": [asdict(line) for line in lines],
        }
        options.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    return 1 if any(line.what == "could not be measured" for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
