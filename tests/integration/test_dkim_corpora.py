"""Other people's mail: their DKIM vectors by our canonical forms, and our signatures on mail that nobody made for us.

HEED_CORPORA names the folder of the corpora (default: ../shared/corpora); without it these tests skip.
"""

import hashlib
import json
import os
import re
from base64 import b64decode
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mta.message import Message, name_of, parse, refuse
from mta.signing import ED25519_SHA256, RSA_SHA256, canonical_body, canonical_fields
from suppression.digest import MessageClass
from tests.support.mail import rendered
from tests.support.verifiers import dkimpy_verdicts, needs_opendkim, opendkim_verdicts, signing_key, unstuffed

CORPORA = Path(os.environ.get("HEED_CORPORA", Path(__file__).resolve().parents[3] / "shared" / "corpora"))
pytestmark = pytest.mark.skipif(not CORPORA.is_dir(), reason="no corpora (HEED_CORPORA)")

CHASQUID = CORPORA / "dkim_chasquid" / "testdata"


def files(pattern: str) -> list[Path]:
    return sorted(path for path in CORPORA.glob(pattern) if path.is_file())


def with_crlf(raw: bytes) -> bytes:
    return re.sub(rb"\r\n|\r|\n", b"\r\n", raw)


def published() -> dict[str, list[bytes]]:
    """Every public key that the vectors' DNS files name."""
    keys: dict[str, list[bytes]] = {}
    for path in files("dkim_chasquid/testdata/*.dns"):
        text = path.read_text().replace("\\\n", "")
        for name, key in re.findall(r"^(\S+): .*?p=(\S+)", text, re.MULTILINE):
            keys.setdefault(name, []).append(b64decode(key))
    return keys


def verifies(message: Message, position: int, keys: dict[str, list[bytes]]) -> bool:
    """Whether the signature in that field holds, by our canonical forms."""
    raw_field = message.fields[position]
    tags = dict(re.findall(rb"(\w+)\s*=([^;]*)", raw_field.partition(b":")[2]))
    tags = {name: b"".join(value.split()) for name, value in tags.items()}
    body = canonical_body(message.body)[: int(tags[b"l"]) if b"l" in tags else None]
    if hashlib.sha256(body).digest() != b64decode(tags[b"bh"]):
        return False
    unused = [field for number, field in enumerate(message.fields) if number != position]
    selected: list[bytes] = []
    for name in tags[b"h"].lower().split(b":"):
        found = [number for number, field in enumerate(unused) if name_of(field) == name]
        selected += [unused.pop(found[-1])] if found else []
    selected.append(re.sub(rb"(?<=[;\s])b\s*=[^;]*", b"b=", raw_field))
    canonical = b"".join(text for _, text in canonical_fields(selected)).removesuffix(b"\r\n")
    digest, signature = hashlib.sha256(canonical).digest(), b64decode(tags[b"b"])
    name = f"{tags[b's'].decode()}._domainkey.{tags[b'd'].decode()}"
    return any(holds(tags[b"a"].decode(), key, signature, digest) for key in keys.get(name, []))


def holds(algorithm: str, key: bytes, signature: bytes, digest: bytes) -> bool:
    if (algorithm == ED25519_SHA256) != (len(key) == 32):
        return False
    try:
        if algorithm == ED25519_SHA256:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, digest)
        else:
            public = load_der_public_key(key)
            assert isinstance(public, RSAPublicKey)
            public.verify(signature, digest, PKCS1v15(), Prehashed(SHA256()))
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("path", files("dkim_chasquid/testdata/*.msg"), ids=lambda path: path.stem)
def test_signatures_of_others_verify_by_our_canonical_forms(path: Path) -> None:
    result = path.with_suffix(".result")
    if not result.exists():
        pytest.skip("no expected result: the message is malformed on purpose")
    expected = {one["B"] for one in json.loads(result.read_text())["Results"] if one["State"] == "SUCCESS"}
    message, keys = parse(with_crlf(path.read_bytes())), published()
    signatures = [number for number, field in enumerate(message.fields) if name_of(field) == b"dkim-signature"]
    for number in signatures:
        value = re.search(rb"(?<=[;\s])b\s*=([^;]*)", message.fields[number])
        assert value is not None
        if b"".join(value[1].split()).decode() in expected:
            assert verifies(message, number, keys)


def real_mail() -> list[Path]:
    patterns = (
        "dkim_*/*/*.msg",
        "dkim_*/*/*.message",
        "dkim_*/*/*.mbox",
        "mime_cpython/*.txt",
        "sisimai/maildir/*/*",
        "kumo/*/*",
        "arf_mailauth/*/*",
    )
    return [path for pattern in patterns for path in files(pattern)]


def acceptable(path: Path) -> bytes | None:
    """The content as it would come in by SMTP, without the faults of the archive that it is from."""
    raw = with_crlf(path.read_bytes()).replace(b"\0", b"")
    fields = b"".join(field for field in parse(raw).fields if name_of(field) != b"from")
    raw = b"From: news@example.com\r\n" + fields + b"\r\n" + parse(raw).body
    refusal = refuse(raw, smtputf8=True, eight_bit=True, message_class=MessageClass.CAMPAIGN)
    return None if refusal else raw


def test_our_signatures_on_real_mail_verify_with_dkimpy() -> None:
    key = signing_key(RSA_SHA256)
    checked = 0
    for path in real_mail():
        raw = acceptable(path)
        if raw is not None:
            assert dkimpy_verdicts(unstuffed(rendered(raw, key).wire), [key]) == [True], path
            checked += 1
    assert checked > 0.9 * len(real_mail())


@needs_opendkim
def test_our_signatures_on_real_mail_verify_with_opendkim(tmp_path: Path) -> None:
    key = signing_key(RSA_SHA256)
    for path in real_mail()[::10]:
        raw = acceptable(path)
        if raw is not None:
            content = unstuffed(rendered(raw, key).wire)
            assert opendkim_verdicts(content, [key], tmp_path) == {RSA_SHA256: "pass"}, path
