"""heed doctor: what is wrong with a machine is named, and what is right is said."""

import socket
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from config.keyring import Keyring
from mta.doctor import (
    database_findings,
    directory_findings,
    disk_findings,
    dns_findings,
    held_back,
    key_findings,
    limit_findings,
    port_findings,
    receipt_findings,
    server_findings,
)
from mta.domain_check import Level
from mta.resolver import Resolver
from suppression.log import SuppressionLog
from suppression.receipts import ReceiptFile, ReceiptKeeper
from tests.integration.test_suppression_watch import restore
from tests.support.dns import FAIL, NameServer
from tests.support.suppressions import DIGEST, asked, opened

STATE = {
    "version": 180_001, "fsync": "on", "full_page_writes": "on", "bytes": 10_000_000, "workers": 2,
    "oldest_transaction_seconds": None, "now": datetime.now(UTC),
}  # fmt: skip


async def test_a_database_in_order(database_url: str) -> None:
    async with opened(database_url) as database:
        findings = {finding.name: finding.level for finding in await database_findings(database)}
    assert (findings["database"], findings["clock"], findings["workers"]) == (Level.OK, Level.OK, Level.WARNING)


@pytest.mark.parametrize(
    ("changes", "clock", "name"),
    [
        ({"version": 140_010}, 0.0, "database-version"),
        ({"fsync": "off"}, 0.0, "database-fsync"),
        ({"full_page_writes": "off"}, 0.0, "database-full_page_writes"),
        ({}, -7.0, "clock"),
    ],
)
def test_what_loses_mail_has_failed(changes: dict[str, object], clock: float, name: str) -> None:
    findings = {finding.name: finding for finding in server_findings({**STATE, **changes}, clock)}
    assert findings[name].level is Level.FAILED


async def test_a_database_that_is_older_than_what_this_node_has_seen(database_url: str, tmp_path: Path) -> None:
    file = ReceiptFile(tmp_path / "receipts")
    async with opened(database_url) as database:
        log = SuppressionLog(database, DIGEST)
        [kept] = await log.append([asked(5)])
        await log.append([asked(6)])
        assert await receipt_findings(file, log) == []
        await ReceiptKeeper(file, log).write()
        assert await receipt_findings(file, log) == []
        await restore(database, kept.position, kept.hash)
        [finding] = await receipt_findings(file, log)
    assert (finding.level, "heed suppress replay" in finding.text) == (Level.FAILED, True)


def test_a_long_transaction_is_a_warning() -> None:
    findings = {f.name for f in server_findings({**STATE, "oldest_transaction_seconds": 4_000.0}, 0.0)}
    assert "long-transaction" in findings


async def test_what_writes_in_another_database_holds_events_back(database_url: str, empty_database_url: str) -> None:
    other = await asyncpg.connect(empty_database_url)
    name = await other.fetchval("SELECT current_database()")
    async with opened(database_url) as database:
        assert await held_back(database, 0) == ""
        await other.execute("BEGIN")
        assert await held_back(database, 0) == ""  # it has only read
        await other.execute("SELECT pg_current_xact_id()")
        assert f"in database {name} has been open for 0 minutes" in await held_back(database, 0)
        assert await held_back(database, 600) == ""
        await other.execute("ROLLBACK")
        assert await held_back(database, 0) == ""
    await other.close()


def test_the_master_key(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    assert key_findings(path)[0].level is Level.FAILED
    Keyring.generate().save(path)
    assert [finding.level for finding in key_findings(path)] == [Level.OK]
    path.chmod(0o640)
    assert [finding.name for finding in key_findings(path)] == ["master-key-mode"]
    for damaged in (b"", b"garbage\n", b"1 zz\n", b"1 \xff\n", b"1 abcd\n", b"# a comment\n\n"):
        path.write_bytes(damaged)
        (finding,) = key_findings(path)
        assert (finding.name, finding.level) == ("master-key", Level.FAILED)
        assert "put back your copy" in finding.text
    path.write_text("1 " + "ab" * 32 + "\n")
    path.chmod(0o600)
    assert [finding.name for finding in key_findings(path)] == ["master-key-entropy"]


def test_the_data_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert directory_findings(tmp_path)[0].level is Level.OK
    tmp_path.chmod(0o755)
    assert directory_findings(tmp_path)[0].name == "data-dir-mode"
    assert disk_findings(tmp_path)[0].name == "disk"
    assert limit_findings()[0].name == "open-files"


def test_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listeners = [("web.listen", "127.0.0.1", port)]
        (finding,) = port_findings(listeners, running=False)
        assert (finding.name, finding.level) == ("port", Level.FAILED)
        assert "web.listen" in finding.text
        assert port_findings(listeners, running=True)[0].level is Level.OK
    assert port_findings(listeners, running=False)[0].level is Level.OK


async def test_name_servers() -> None:
    async with NameServer({"example.org": ["60 MX 5 mx.example.org."], "broken.example.org": FAIL}) as server:
        resolver = Resolver(nameservers=["127.0.0.1"], port=server.port)
        assert (await dns_findings(resolver, "example.org"))[0].level is Level.OK
        assert (await dns_findings(resolver, "broken.example.org"))[0].level is Level.FAILED
