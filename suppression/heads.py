"""Signed heads: once a day the log says, under the installation's own signature, how far it was and with which hash.

Whoever has kept one such line can later prove that nothing before it was changed: the chain up to that position must
give that hash. Written to the log (action 4) and, after the commit, to a file of lines of JSON. Ed25519 over "heed
suppression log", a zero byte, the position as i64 and the hash (big endian). Raises DatabaseUnavailable, OSError.
"""

import json
import os
import re
import struct
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from config.database import load_queries
from suppression.entry import Entry
from suppression.log import SuppressionLog

DAY_SECONDS: Final = 86_400.0

_CONTEXT: Final = b"heed suppression log\0"
_POSITION = struct.Struct(">q")
_REASON: Final = re.compile(r"ed25519 ([0-9a-f]{64}) ([0-9a-f]{128})")
_QUERIES = load_queries("suppression", "heads.sql")


class HeadSigner:
    """Signs heads with a key made of a 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes_raw()

    def reason(self, position: int, digest: bytes) -> str:
        """What a signed head's entry says of the entry before it."""
        return f"ed25519 {self.public_key.hex()} {self._key.sign(_statement(position, digest)).hex()}"


def _statement(position: int, digest: bytes) -> bytes:
    return _CONTEXT + _POSITION.pack(position) + digest


def signature_fault(entry: Entry, public_key: bytes | None = None) -> str:
    """What is wrong with a signed head; empty when it is right. `public_key`: the one that it must be signed with."""
    found = _REASON.fullmatch(entry.reason)
    if found is None:
        return "it has no signature"
    named = bytes.fromhex(found[1])
    if public_key is not None and named != public_key:
        return "it is signed with another key"
    try:
        signature, statement = bytes.fromhex(found[2]), _statement(entry.position - 1, entry.previous)
        Ed25519PublicKey.from_public_bytes(named).verify(signature, statement)
    except InvalidSignature:
        return "its signature is wrong"
    return ""


async def sign_head(
    log: SuppressionLog, signer: HeadSigner, path: Path, *, every_seconds: float = DAY_SECONDS
) -> Entry | None:
    """Sign the head if that is due; any worker of any node may ask, as often as it likes."""
    async with log.appending() as appending:
        found = await appending.connection.fetch(_QUERIES.last_signed_at)
        if appending.position == 0 or (found and appending.now - found[0]["at"].timestamp() < every_seconds):
            return None
        entry = await appending.sign(signer.reason(appending.position, appending.hash))
    line = {
        "position": entry.position - 1, "hash": entry.previous.hex(), "at": entry.at,
        "public_key": signer.public_key.hex(), "signature": entry.reason.rpartition(" ")[2],
    }  # fmt: skip
    _append_line(path, json.dumps(line))
    return entry


def _append_line(path: Path, line: str) -> None:
    with path.open("a", encoding="ascii") as file:
        file.write(f"{line}\n")
        file.flush()
        os.fsync(file.fileno())
