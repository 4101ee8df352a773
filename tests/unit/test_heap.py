"""Memory that is free goes back to the system, also from between things that are in use."""

import os
from pathlib import Path

from mta.heap import give_back


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_what_a_flood_leaves_is_given_back() -> None:
    give_back()
    before = resident_bytes()
    pieces = [bytes([1]) * 20_000 for _ in range(3_000)]
    kept = pieces[::100]
    full = resident_bytes()
    assert full - before > 40_000_000
    del pieces
    give_back()
    assert resident_bytes() - before < 15_000_000
    assert len(kept) == 30


def test_what_refers_to_itself_is_given_back_too() -> None:
    give_back()
    before = resident_bytes()
    for number in range(300):
        connection: list[object] = [bytes([number % 255 + 1]) * 200_000]
        connection.append(connection)
    del connection
    give_back()
    assert resident_bytes() - before < 15_000_000
