"""Signed heads: once a day, in the log and in a file, and checked with the rest of the log."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from config.database import Database
from suppression.digest import MessageClass
from suppression.heads import HeadSigner, sign_head
from suppression.index import Index
from suppression.log import SuppressionLog
from suppression.prove import Attempt, late_deliveries
from suppression.scopes import Scopes
from suppression.verify import verify_log
from tests.support.suppressions import DIGEST, asked, opened

SIGNER = HeadSigner(bytes(range(32)))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture
def log(database: Database) -> SuppressionLog:
    return SuppressionLog(database, DIGEST)


async def test_an_empty_log_is_not_signed(log: SuppressionLog, tmp_path: Path) -> None:
    assert await sign_head(log, SIGNER, tmp_path / "heads") is None
    assert not (tmp_path / "heads").exists()


async def test_a_head_is_signed_once_a_day(log: SuppressionLog, tmp_path: Path) -> None:
    [last] = await log.append([asked(5)])
    signed = await sign_head(log, SIGNER, tmp_path / "heads")
    assert signed is not None
    assert signed.previous == last.hash
    assert await sign_head(log, SIGNER, tmp_path / "heads") is None
    assert await sign_head(log, SIGNER, tmp_path / "heads", every_seconds=0) is not None
    assert len((tmp_path / "heads").read_text().splitlines()) == 2
    await log.append([asked(6)])
    assert (await verify_log(log, DIGEST, public_key=SIGNER.public_key)).intact


async def test_a_line_of_the_file_proves_the_chain_to_anybody(log: SuppressionLog, tmp_path: Path) -> None:
    await log.append([asked(5), asked(6)])
    await sign_head(log, SIGNER, tmp_path / "heads")
    line = json.loads((tmp_path / "heads").read_text())
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(line["public_key"]))
    statement = b"heed suppression log\0" + line["position"].to_bytes(8, "big") + bytes.fromhex(line["hash"])
    key.verify(bytes.fromhex(line["signature"]), statement)
    assert (await log.read_after(1, 1))[0].hash.hex() == line["hash"]


async def test_a_head_that_another_key_signed_is_found(log: SuppressionLog, tmp_path: Path) -> None:
    await log.append([asked(5)])
    await sign_head(log, HeadSigner(b"o" * 32), tmp_path / "heads")
    assert (await verify_log(log, DIGEST)).intact
    result = await verify_log(log, DIGEST, public_key=SIGNER.public_key)
    assert (result.broken_position, result.reason) == (2, "it is signed with another key")


@pytest.mark.parametrize(
    ("reason", "fault"),
    [("", "it has no signature"), (SIGNER.reason(1, bytes(32)), "its signature is wrong")],
)
async def test_a_forged_head_is_found(log: SuppressionLog, reason: str, fault: str) -> None:
    await log.append([asked(5)])
    async with log.appending() as appending:
        await appending.sign(reason)
    result = await verify_log(log, DIGEST)
    assert (result.broken_position, result.reason) == (2, fault)


async def test_the_index_passes_over_a_signed_head(log: SuppressionLog, tmp_path: Path) -> None:
    await log.append([asked(5)])
    await sign_head(log, SIGNER, tmp_path / "heads")
    index = Index()
    index.apply(entry.step for entry in await log.read_after(0, 9))
    assert (index.position, index.delta_entries) == (2, 1)


async def test_deliveries_are_compared_with_the_log_afterwards(log: SuppressionLog) -> None:
    [entry] = await log.append([asked(5)])

    def delivered(seconds_after: float, list_id: int = 9) -> Attempt:
        at = entry.at + seconds_after
        return Attempt(at, "delivered", 7, list_id, 1, 1, MessageClass.CAMPAIGN, "2.0.0")

    given = [(5, delivered(-1)), (5, delivered(1)), (5, delivered(1, list_id=8)), (6, delivered(1))]
    assert await late_deliveries(log, given, Scopes(DIGEST)) == [given[1][1]]
    assert await late_deliveries(log, [], Scopes(DIGEST)) == []
