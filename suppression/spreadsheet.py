"""Reading lists of addresses as people export them: CSV with any usual delimiter, column name and encoding mark.

Pure, but for the file that is read. Rows come with the byte offset behind them, so that reading can go on there later.
Memory holds a row. What is no address is a row without a person, never an error; nothing here quotes a cell.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from suppression.digest import AddressError, Digest, Kind
from suppression.prove import person_of_digest

ADDRESS_COLUMNS: Final = (
    "email", "emailaddress", "address", "mail", "mailaddress", "recipient", "rcpt", "subscriber", "contact",
    "emailadresse", "mailadresse", "adressemail", "adresseemail", "courriel", "correo", "correoelectronico", "to",
    "destination", "user", "username", "login",
)  # fmt: skip
DIGEST_COLUMNS: Final = ("digest", "person")
KIND_COLUMNS: Final = ("kind", "type", "reason", "status", "suppressiontype", "category")
SAMPLE_BYTES: Final = 64 * 1024
MAX_LINE_BYTES: Final = 64 * 1024
MAX_LINES_OF_A_ROW: Final = 20

_DELIMITERS: Final = ",;\t|"
_KIND_WORDS: Final = {
    word: kind
    for kind, words in {
        Kind.HARD_BOUNCE: "hardbounce hard bounce bounced invalid",
        Kind.COMPLAINT: "complaint complained spam spamreport abuse",
        Kind.UNSUBSCRIBE: "unsubscribe unsubscribed unsub optout",
        Kind.MANUAL: "manual",
        Kind.LEGAL: "legal",
    }.items()
    for word in words.split()
}


class SpreadsheetError(Exception):
    """The file has no column that could hold addresses; the text names the columns that it has."""


class Row(NamedTuple):
    """A row: whom it names (None: nobody), the kind that it states (None: nothing known), and where the next begins.
    `more`: what it says in the other columns that were asked for; empty where there is no such column."""

    person: int | None
    kind: Kind | None
    offset: int
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file is read: its delimiter, the columns that count, whether they hold digests, where the rows begin."""

    delimiter: str
    column: int
    digests: bool
    kind_column: int | None
    begin: int
    more: tuple[int | None, ...] = ()


def _plain(name: str) -> str:
    return "".join(character for character in name.strip().lower() if character.isalnum())


def _index(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def layout_of(sample: bytes, more: Sequence[Sequence[str]] = ()) -> Layout:
    """Decide how to read a file from its first bytes; `SpreadsheetError` when nothing in it looks like addresses.

    `more`: the names of each of the other columns that are wanted.
    """
    mark = 3 if sample.startswith(b"\xef\xbb\xbf") else 0
    first = sample[mark:].split(b"\n", 1)[0]
    begin = mark + len(first) + 1
    text = first.decode("utf-8", "replace").strip("\r")
    delimiter = max(_DELIMITERS, key=text.count) if any(mark in text for mark in _DELIMITERS) else ","
    cells = next(csv.reader([text], delimiter=delimiter), [])
    names = [_plain(cell) for cell in cells]
    for wanted, digests in ((DIGEST_COLUMNS, True), (ADDRESS_COLUMNS, False)):
        for name in wanted:
            if name in names and "@" not in cells[names.index(name)]:
                others = tuple(_index(names, each) for each in more)
                return Layout(delimiter, names.index(name), digests, _index(names, KIND_COLUMNS), begin, others)
    for column, cell in enumerate(cells):
        if "@" in cell:
            return Layout(delimiter, column, False, None, mark, (None,) * len(more))
    raise SpreadsheetError(f"no column of addresses among: {', '.join(names[:20]) or 'nothing'}")


def rows(path: Path, digest: Digest, offset: int = 0, more: Sequence[Sequence[str]] = ()) -> Iterator[Row]:
    """The rows of a file, from an offset that an earlier row gave; `SpreadsheetError`, OSError."""
    with path.open("rb") as file:
        layout = layout_of(file.read(SAMPLE_BYTES), more)
        begin = max(offset, layout.begin)
        file.seek(begin)
        for text, behind in _texts(file, begin):
            try:
                cells = next(csv.reader([text], delimiter=layout.delimiter), [])
            except csv.Error:
                cells = ["?"]
            if any(cells):
                others = tuple(_cell(cells, column) for column in layout.more)
                yield Row(_person(cells, layout, digest), _kind(cells, layout), behind, others)


def _texts(file: BinaryIO, offset: int) -> Iterator[tuple[str, int]]:
    """Each row's text and the offset behind it. A row has several lines where a quoted cell has.

    A quote that is never closed must not swallow the rest of the file: after some lines its line counts as a row.
    """
    while line := file.readline(MAX_LINE_BYTES):
        offset += len(line)
        if line.count(b'"') % 2:
            more = _until_closed(file)
            line += more
            offset += len(more)
        yield line.decode("utf-8", "replace").replace("\0", "\ufffd"), offset


def _until_closed(file: BinaryIO) -> bytes:
    begin = file.tell()
    lines = []
    for _ in range(MAX_LINES_OF_A_ROW):
        line = file.readline(MAX_LINE_BYTES)
        lines.append(line)
        if line.count(b'"') % 2:
            return b"".join(lines)
    file.seek(begin)
    return b""


def _person(cells: list[str], layout: Layout, digest: Digest) -> int | None:
    cell = cells[layout.column].strip() if layout.column < len(cells) else ""
    try:
        if layout.digests:
            return person_of_digest(cell)
        return None if "\ufffd" in cell else digest.person(cell)
    except AddressError:
        return None


def _cell(cells: list[str], column: int | None) -> str:
    return cells[column].strip() if column is not None and column < len(cells) else ""


def _kind(cells: list[str], layout: Layout) -> Kind | None:
    if layout.kind_column is None or layout.kind_column >= len(cells):
        return None
    return _KIND_WORDS.get(_plain(cells[layout.kind_column]))
