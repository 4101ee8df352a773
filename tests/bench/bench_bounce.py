"""Messages a second through the bounce reader on one core: a mix of makes of our own, and the corpora where they are.

    python -m tests.bench.bench_bounce [--json]

CPU seconds of this process, the best of several rounds, so that a busy machine counts as little as can be. Not
collected by pytest.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from bounce.reader import read
from tests.support.bounces import MAKES, PROSE, Failed, Shape, bounce

ROUNDS = 7
CORPORA = Path(os.environ.get("HEED_CORPORA") or Path(__file__).parents[2].parent / "shared" / "corpora")


def own_mix() -> list[bytes]:
    """One bounce of every make in every language, with an original of about 3 kB."""
    filler = b"\n" + b"This is what is new, and it is quite a lot.\n" * 60
    shapes = [Shape(make=make, language=language, returned="full") for make in MAKES for language in sorted(PROSE)]
    return [bounce([Failed()], shape) + filler for shape in shapes]


def corpus() -> list[bytes]:
    """The real mails of the corpora, or none."""
    folder = CORPORA / "sisimai" / "maildir" / "bsd"
    return [file.read_bytes() for file in sorted(folder.iterdir())] if folder.is_dir() else []


def messages_per_second(messages: list[bytes]) -> float:
    """The best round's rate."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        for message in messages:
            read(message)
        best = min(best, time.process_time() - started)
    return len(messages) / best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    mixes = {"own mix": own_mix(), "corpora": corpus()}
    rates = {name: round(messages_per_second(messages)) for name, messages in mixes.items() if messages}
    if options.json:
        sys.stdout.write(json.dumps(rates) + "\n")
        return
    for name, rate in rates.items():
        sizes = [len(message) for message in mixes[name]]
        sys.stdout.write(
            f"{name}: {rate} messages/s a core ({len(sizes)} messages of {sum(sizes) // len(sizes)} bytes)\n"
        )


if __name__ == "__main__":
    main()
