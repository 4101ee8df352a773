"""Whether this machine can run Heed well: database, clock, disk, ports, DNS, master key, permissions.

Only looks. What can be decided without looking is plain functions; each finding says what would be right.
"""

import asyncio
import os
import resource
import shutil
import socket
import stat
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from config.database import Database, DatabaseUnavailable, load_queries
from config.keyring import Keyring, KeyringError
from mta.domain_check import Finding, Level
from mta.resolver import Resolver
from suppression.log import SuppressionLog
from suppression.receipts import ReceiptFile

_QUERIES: Final = load_queries("mta", "doctor.sql")
_OLDEST_VERSION: Final = 150_000
_CLOCK_SECONDS: Final = 2.0
_LONG_TRANSACTION_SECONDS: Final = 600.0
_FREE_BYTES: Final = 2 << 30
_FREE_SHARE: Final = 0.05
_FILES: Final = 4_096
# a random key of 32 bytes has fewer different ones than this once in 10^12 keys
_DIFFERENT_BYTES: Final = 20


async def database_findings(
    database: Database, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> list[Finding]:
    """What the server says of itself, and how far its clock is from ours."""
    try:
        async with database.connection() as connection:
            before = now()
            (row,) = await connection.fetch(_QUERIES.state)
            after = now()
        waits = await held_back(database, _LONG_TRANSACTION_SECONDS)
    except DatabaseUnavailable as error:
        return [Finding("database", Level.FAILED, str(error))]
    middle = before + (after - before) / 2
    found = server_findings(dict(row), (row["now"] - middle).total_seconds())
    return [*found, Finding("events-wait", Level.WARNING, waits)] if waits else found


async def held_back(database: Database, seconds: float) -> str:
    """What events have been waiting for, for longer than this; empty when nothing holds them back.

    Any database of the server may have it: numbers of transactions are the server's. Not every role sees all of them.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(_QUERIES.oldest_writer)
    if not rows or rows[0]["seconds"] < seconds:
        return ""
    return (
        f"a transaction in database {rows[0]['database']} has been open for {rows[0]['seconds'] / 60:.0f} minutes: "
        "webhooks, `heed events` and reports wait for its end"
    )


def server_findings(state: dict[str, Any], clock_seconds: float) -> list[Finding]:
    """What the state of the server means. clock_seconds: how far it is ahead of this machine."""
    version = state["version"]
    found = [Finding("database", Level.OK, f"PostgreSQL {version // 10_000}, {state['bytes'] / 1e6:,.0f} MB")]
    if version < _OLDEST_VERSION:
        found = [Finding("database-version", Level.FAILED, f"PostgreSQL {version // 10_000}: 15 or later is needed")]
    for name in ("fsync", "full_page_writes"):
        if state[name] != "on":
            found.append(Finding(f"database-{name}", Level.FAILED, f"{name} is off: a crash loses mail that got 250"))
    if abs(clock_seconds) > _CLOCK_SECONDS:
        text = f"the database's clock is {clock_seconds:+.1f} s from this machine's; let NTP keep both"
        found.append(Finding("clock", Level.FAILED, text))
    else:
        found.append(Finding("clock", Level.OK, f"{clock_seconds:+.3f} s between the database's clock and this one"))
    oldest = state["oldest_transaction_seconds"] or 0.0
    if oldest > _LONG_TRANSACTION_SECONDS:
        text = f"a transaction in Heed's database has been open for {oldest / 60:.0f} minutes: the queue's tables grow"
        found.append(Finding("long-transaction", Level.WARNING, text))
    workers = state["workers"]
    found.append(
        Finding("workers", Level.OK if workers else Level.WARNING, f"{workers} workers are alive on all nodes")
    )
    return found


async def receipt_findings(file: ReceiptFile, log: SuppressionLog) -> list[Finding]:
    """The database holds the newest entry of the suppression log that this node has seen, unless it is an older one."""
    try:
        last = file.last()
        if last is None or await log.hashes_at([last[0]]) == {last[0]: last[1]}:
            return []
    except (DatabaseUnavailable, OSError) as error:
        return [Finding("receipts", Level.FAILED, str(error))]
    text = f"the database lacks entry {last[0]}, which this node has seen; nothing is sent until heed suppress replay"
    return [Finding("receipts", Level.FAILED, text)]


def disk_findings(data_dir: Path) -> list[Finding]:
    """Room where the data is."""
    try:
        usage = shutil.disk_usage(data_dir)
    except OSError as error:
        return [Finding("disk", Level.FAILED, f"{data_dir}: {error.strerror}")]
    text = f"{usage.free / 1e9:,.1f} GB of {usage.total / 1e9:,.1f} GB are free in {data_dir}"
    low = usage.free < _FREE_BYTES or usage.free < usage.total * _FREE_SHARE
    return [Finding("disk", Level.FAILED if low else Level.OK, text)]


def key_findings(path: Path) -> list[Finding]:
    """The master key: there, whole, readable by this user alone, and random."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        lines = path.read_text("ascii", "replace").splitlines()
        Keyring.load(path)  # which says what is wrong with one that can't be used
    except FileNotFoundError:
        text = f"{path} is missing: put back your copy of it; only the first start of a new installation makes a key"
        return [Finding("master-key", Level.FAILED, text)]
    except OSError as error:
        return [Finding("master-key", Level.FAILED, f"{path}: {error.strerror}")]
    except KeyringError as error:
        return [Finding("master-key", Level.FAILED, f"{error}; put back your copy of the file")]
    found = []
    if mode & 0o077:
        text = f"{path} can be read by others (mode {mode:04o}); chmod 600 {path}"
        found.append(Finding("master-key-mode", Level.FAILED, text))
    for number, key in (line.split() for line in lines if line.strip() and not line.startswith("#")):
        if len(set(bytes.fromhex(key))) < _DIFFERENT_BYTES:
            text = f"key {number} in {path} is not random: let Heed make keys, never type one"
            found.append(Finding("master-key-entropy", Level.FAILED, text))
    return found or [Finding("master-key", Level.OK, f"{path} is private and random; keep a copy of it elsewhere")]


def directory_findings(data_dir: Path) -> list[Finding]:
    """The data directory is ours and nobody else's."""
    try:
        state = data_dir.stat()
    except OSError as error:
        return [Finding("data-dir", Level.FAILED, f"{data_dir}: {error.strerror}")]
    mode = stat.S_IMODE(state.st_mode)
    if state.st_uid != os.geteuid() and os.geteuid() != 0:
        return [
            Finding("data-dir-owner", Level.FAILED, f"{data_dir} belongs to user id {state.st_uid}, not to this one")
        ]
    if mode & 0o077:
        text = f"{data_dir} is open to others (mode {mode:04o}); chmod 700 {data_dir}"
        return [Finding("data-dir-mode", Level.WARNING, text)]
    return [Finding("data-dir", Level.OK, f"{data_dir} is private")]


def limit_findings() -> list[Finding]:
    """Each connection is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FILES:
        text = f"a process may open {soft} files, at most {hard}; allow {_FILES} or more (LimitNOFILE=, ulimit -n)"
        return [Finding("open-files", Level.WARNING, text)]
    return [Finding("open-files", Level.OK, f"a process may open {soft} files")]


def port_findings(listeners: Sequence[tuple[str, str, int]], *, running: bool) -> list[Finding]:
    """Every listener's port is free, or a daemon of ours has it. listeners: option, host, port."""
    found = []
    for option, host, port in listeners:
        busy = _busy(host, port)
        if busy and not running:
            text = f"{option} = {host}:{port}: {busy}; choose another, or end what listens there"
            found.append(Finding("port", Level.FAILED, text))
    free = "are held by a running Heed" if running else "are free"
    return found or [Finding("ports", Level.OK, f"{len(listeners)} ports {free}")]


def _busy(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or type(error).__name__
    return ""


async def dns_findings(resolver: Resolver, name: str) -> list[Finding]:
    """Name servers answer at all, and soon."""
    began = asyncio.get_running_loop().time()
    found = await resolver.mx(name)
    seconds = asyncio.get_running_loop().time() - began
    if found.failure:
        return [
            Finding("dns", Level.FAILED, f"the name servers do not answer: {found.failure}; mail would be deferred")
        ]
    if seconds > 1.0:
        return [Finding("dns-slow", Level.WARNING, f"a look-up took {seconds:.1f} s; run a resolver on this machine")]
    return [Finding("dns", Level.OK, f"the name servers answer in {seconds * 1000:.0f} ms")]
