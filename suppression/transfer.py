"""Import of suppressions from files of any size, and export of what is in force.

An import only ever adds: what is in force stays as it is, whatever the file says (S5). It goes in batches, each one
commit that also says how far the file is done, so that it can be stopped and killed at any time and goes on from there;
memory holds a batch or two. An export has digests, never addresses: there are none. Raises DatabaseUnavailable.
"""

import asyncio
import csv
import hashlib
import io
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from config.database import Database, load_queries
from suppression.digest import Digest, Kind, Scope
from suppression.entry import Channel, NewEntry
from suppression.log import Appending, SuppressionLog
from suppression.prove import digest_text
from suppression.spreadsheet import Row, rows

BATCH_ROWS: Final = 2_000
"""A batch holds the log's lock for some 100 ms, for which an unsubscribe may have to wait."""

EXPORT_COLUMNS: Final = ("digest", "scope", "kind", "tenant_id", "list_id", "group_id", "channel", "position", "at")

_QUERIES = load_queries("suppression", "transfer.sql")


@dataclass(frozen=True, slots=True)
class ImportOrder:
    """What is imported, and as what. `kind`: for rows that state none that is known."""

    path: Path
    scope: Scope
    kind: Kind
    tenant_id: int
    list_id: int
    actor: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is: bytes of the file, rows read, entries added, rows refused because they name nobody."""

    offset: int
    size: int
    read: int
    added: int
    refused: int


Put = Callable[[Appending], Awaitable[tuple[int, int]]]


class ImportTakenOver(Exception):
    """Another process imports the same file in the same way, and is ahead."""


class Importer:
    """Imports files into the log."""

    what = ""
    """Tells what is imported as something else than suppressions."""

    columns: Sequence[Sequence[str]] = ()
    """Names of each further column that is read."""

    def __init__(self, database: Database, log: SuppressionLog, digest: Digest) -> None:
        self._database = database
        self._log = log
        self._digest = digest

    async def run(self, order: ImportOrder, report: Callable[[Progress], None] | None = None) -> Progress:
        """Import a file, or the rest of it; the result counts all runs.

        Raises OSError, `SpreadsheetError`, `ImportTakenOver`.
        """
        source = await asyncio.to_thread(_fingerprint, order, self.what)
        so_far = await self._state(source, order.path.stat().st_size)
        reader = rows(order.path, self._digest, so_far.offset, self.columns)
        batch = await asyncio.to_thread(_next_batch, reader)
        while batch:
            # The next batch is read while the database writes this one.
            reading = asyncio.create_task(asyncio.to_thread(_next_batch, reader))
            try:
                so_far = await self._write(source, order, batch, so_far)
            finally:
                batch = await reading
            if report is not None:
                report(so_far)
        return so_far

    async def _write(self, source: bytes, order: ImportOrder, batch: list[Row], so_far: Progress) -> Progress:
        put = await self._prepare(order, batch)
        async with self._log.appending() as appending:
            added, refused = await put(appending)
            done = Progress(
                batch[-1].offset, so_far.size, so_far.read + len(batch), so_far.added + added, so_far.refused + refused
            )
            advanced = await appending.connection.fetchval(
                _QUERIES.import_advanced, source, so_far.offset, done.offset, done.read, done.added, done.refused
            )
            if advanced is None:
                raise ImportTakenOver
        return done

    async def _prepare(self, order: ImportOrder, batch: list[Row]) -> "Put":
        """What puts a batch into the log: how many rows it added, and how many it refused."""
        entries = [_entry(order, row.person, row.kind) for row in batch if row.person is not None]

        async def put(appending: Appending) -> tuple[int, int]:
            if entries:
                await appending.suppress(entries)
            return len(appending.written), len(batch) - len(entries)

        return put

    async def _state(self, source: bytes, size: int) -> Progress:
        async with self._database.connection() as connection:
            found = await connection.fetch(_QUERIES.import_state, source)
        return Progress(found[0][0], size, *found[0][1:]) if found else Progress(0, size, 0, 0, 0)


def _fingerprint(order: ImportOrder, what: str) -> bytes:
    """Names the content of the file and what it is imported as: the same order again goes on, another starts anew."""
    with order.path.open("rb") as file:
        state = hashlib.file_digest(file, "sha256")
    state.update(what.encode())
    state.update(repr((order.scope, order.kind, order.tenant_id, order.list_id)).encode())
    return state.digest()


def _next_batch(reader: Iterator[Row]) -> list[Row]:
    return list(islice(reader, BATCH_ROWS))


def _entry(order: ImportOrder, person: int, kind: Kind | None) -> NewEntry:
    return NewEntry(
        person, order.scope, kind or order.kind, order.tenant_id, order.list_id, Channel.IMPORT, order.actor,
        reason=order.reason,
    )  # fmt: skip


async def export(database: Database, write: Callable[[str], object]) -> int:
    """Write what is in force as CSV, row after row; how many rows there were."""
    count = 0
    write(_line(EXPORT_COLUMNS))
    async with database.transaction() as connection:
        await connection.execute(_QUERIES.export)
        while found := await connection.fetch(_QUERIES.export_next):
            for person, scope, kind, tenant_id, list_id, channel, position, at in found:
                names = digest_text(person), Scope(scope).name.lower(), Kind(kind).name.lower()
                places = (tenant_id, 0, list_id) if scope == Scope.GROUP else (tenant_id, list_id, 0)
                write(_line((*names, *places, channel, position, at.isoformat())))
            count += len(found)
    return count


def _line(cells: tuple[object, ...]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
