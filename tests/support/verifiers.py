"""What other people's software says of our signatures: dkimpy and OpenDKIM, with given keys instead of the DNS."""

import functools
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import dkim
import pytest

from mta.signing import ED25519_SHA256, SigningKey, dns_record, generate

HAS_OPENDKIM = shutil.which("opendkim") is not None
needs_opendkim = pytest.mark.skipif(not HAS_OPENDKIM, reason="opendkim is not installed (Debian: apt install opendkim)")


@functools.cache
def signing_key(algorithm: str, domain: str = "example.com") -> SigningKey:
    """One key per algorithm for the whole test run: making RSA keys is slow."""
    return generate(domain, "e1" if algorithm == ED25519_SHA256 else "r1", algorithm)


def unstuffed(wire: bytes) -> bytes:
    """What the peer makes of the wire's octets."""
    text = b"\r\n" + wire
    return text.replace(b"\r\n.", b"\r\n")[2:]


def dkimpy_verdicts(content: bytes, keys: Sequence[SigningKey]) -> list[bool]:
    """dkimpy's word on each of the first len(keys) signatures, top to bottom."""
    records = {name: "".join(strings) for name, strings in map(dns_record, keys)}

    def lookup(name: bytes, timeout: float = 5) -> bytes:
        return records[name.decode("ascii").rstrip(".")].encode("ascii")

    def verdict(index: int) -> bool:
        try:
            return bool(verifier.verify(index, dnsfunc=lookup))
        except dkim.ValidationError:
            return False

    verifier = dkim.DKIM(content)
    return [verdict(index) for index in range(len(keys))]


def opendkim_verdicts(content: bytes, keys: Sequence[SigningKey], directory: Path) -> dict[str, str]:
    """OpenDKIM's result ("pass", "fail" …) per algorithm, for signatures of the keys' own domains."""
    message, records, settings = directory / "message", directory / "keys", directory / "opendkim.conf"
    message.write_bytes(content)
    records.write_text("".join(f"{name} {''.join(strings)}\n" for name, strings in map(dns_record, keys)))
    settings.write_text(f"Mode v\nTestPublicKeys {records}\nSyslog no\n")
    run = subprocess.run(
        ["opendkim", "-t", str(message), "-x", str(settings), "-vvv"], capture_output=True, timeout=30, check=False
    )
    text = run.stdout.decode("latin-1")
    found = re.findall(r"dkim=(\w+)(?: \([^)]*\))* header\.d=(\S+) header\.i=\S+ header\.a=(\S+)", text)
    domains = {key.domain for key in keys}
    return {algorithm: result for result, domain, algorithm in found if domain in domains}
