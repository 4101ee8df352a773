"""The receipt file: whole records only, whatever a crash left."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from suppression.digest import Effect, Kind, Scope
from suppression.entry import GENESIS, Action, Entry, chain, decoded
from suppression.receipts import ReceiptFile


def entries(count: int) -> list[Entry]:
    at = datetime(2026, 5, 4, 3, 2, 1, 123457, tzinfo=UTC).timestamp()
    made = [
        Entry(
            position, at, Action.SUPPRESS, Scope.LIST, Kind.UNSUBSCRIBE, Effect.CAMPAIGN, 7, 9, 11, position, 1 << 40,
            -position, position * 2, "web", f"token:{position}", "für immer", b"", b"",
        )
        for position in range(1, count + 1)
    ]  # fmt: skip
    return chain(made, GENESIS)


def test_an_entry_survives_its_encoding() -> None:
    for entry in entries(3):
        assert decoded(entry.encoded(), entry.previous, entry.hash) == entry


def test_an_encoding_that_was_changed_is_refused() -> None:
    [entry] = entries(1)
    with pytest.raises(ValueError, match="hash"):
        decoded(entry.encoded()[:-1] + b"x", entry.previous, entry.hash)


def test_no_file_has_no_receipts(tmp_path: Path) -> None:
    assert ReceiptFile(tmp_path / "receipts").last() is None
    assert list(ReceiptFile(tmp_path / "receipts").entries()) == []


def test_receipts_are_read_as_they_were_written(tmp_path: Path) -> None:
    file, made = ReceiptFile(tmp_path / "receipts"), entries(5)
    file.append(made[:2])
    file.append(made[2:])
    assert list(file.entries()) == made
    assert file.last() == (5, made[-1].hash)


@pytest.mark.parametrize("cut", range(1, 160, 7))
def test_a_torn_end_is_cut_off_by_the_next_append(tmp_path: Path, cut: int) -> None:
    file, made = ReceiptFile(tmp_path / "receipts"), entries(3)
    file.append(made)
    whole = (tmp_path / "receipts").read_bytes()
    (tmp_path / "receipts").write_bytes(whole[:-cut])
    assert file.last() == (2, made[1].hash)
    file.append(made[2:])
    assert (tmp_path / "receipts").read_bytes() == whole


def test_rubbish_at_the_end_is_no_receipt(tmp_path: Path) -> None:
    file, made = ReceiptFile(tmp_path / "receipts"), entries(3)
    file.append(made)
    with (tmp_path / "receipts").open("ab") as raw:
        raw.write(bytes(1000))
    assert file.last() == (3, made[2].hash)
    file.append([])
    assert list(file.entries()) == made


def test_only_one_process_has_the_lock(tmp_path: Path) -> None:
    with ReceiptFile(tmp_path / "receipts").lock() as one, ReceiptFile(tmp_path / "receipts").lock() as other:
        assert (one, other) == (True, False)
    with ReceiptFile(tmp_path / "receipts").lock() as again:
        assert again
