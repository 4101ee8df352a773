"""DKIM keys, canonical forms, header lists, and the vector of RFC 8463."""

import hashlib
import time
from base64 import b64decode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mta.message import name_of, parse, unfolded
from mta.signing import (
    COVERED,
    ED25519_SHA256,
    OVERSIGNED,
    RSA_SHA256,
    Signer,
    SigningError,
    SigningKey,
    body_hash,
    canonical_body,
    canonical_fields,
    dns_record,
    generate,
    load,
)
from tests.support.verifiers import signing_key

# RFC 8463 appendix A: keys, message, and the signature over it.
RFC_KEY = Ed25519PrivateKey.from_private_bytes(b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="))
RFC_MESSAGE = parse(
    b"From: Joe SixPack <joe@football.example.com>\r\n"
    b"To: Suzie Q <suzie@shopping.example.net>\r\n"
    b"Subject: Is dinner ready?\r\n"
    b"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"
    b"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n"
    b"\r\nHi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
)
RFC_SIGNATURE_FIELD = (
    b"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
    b" d=football.example.com; i=@football.example.com;\r\n"
    b" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n subject : date : message-id : from : subject : date;\r\n"
    b" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b="
)
RFC_SIGNATURE = "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw=="


def test_the_vector_of_rfc_8463() -> None:
    key = SigningKey("football.example.com", "brisbane", ED25519_SHA256, RFC_KEY)
    canonical = [text for _, text in canonical_fields((*RFC_MESSAGE.fields, RFC_SIGNATURE_FIELD + b"\r\n"))]
    digest = hashlib.sha256(b"".join(canonical).removesuffix(b"\r\n")).digest()
    assert body_hash(RFC_MESSAGE.body) == b"2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="
    assert key.sign(digest) == b64decode(RFC_SIGNATURE)
    name, value = dns_record(key)
    assert name == "brisbane._domainkey.football.example.com"
    assert value == ("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",)


@pytest.mark.parametrize(
    ("body", "canonical"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b"\r\n\r\n \r\n", b""),
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),
        (b"\tx\t\t y\r\n", b" x y\r\n"),
        (b"a\r\n\r\nb\r\n \t \r\n", b"a\r\n\r\nb\r\n"),
        (b"a\v \f\r\n", b"a\v \f\r\n"),
    ],
)
def test_the_relaxed_body(body: bytes, canonical: bytes) -> None:
    assert canonical_body(body) == canonical


def test_a_body_of_blanks_takes_linear_time() -> None:
    started = time.perf_counter()
    assert canonical_body(b" \t" * 2_000_000 + b"x\r\n") == b" x\r\n"
    assert time.perf_counter() - started < 1


def field_of(
    fields: list[bytes], own: list[bytes], *keys: SigningKey, own_text: bytes = b""
) -> list[dict[bytes, bytes]]:
    """The tags of the signatures over those fields."""
    signer = Signer(keys or [signing_key(ED25519_SHA256)], fields, own, b"x\r\n")
    message = parse(signer.sign(own_text, 1_700_000_000) + b"\r\n")
    tags = [dict(tag.strip().split(b"=", 1) for tag in unfolded(raw_field).split(b";")) for raw_field in message.fields]
    return [{name: value.replace(b"\t", b"") for name, value in one.items()} for one in tags]


def test_the_header_list_covers_what_is_there_and_one_more_of_each() -> None:
    fields = [name.title() + b": x\r\n" for name in COVERED] + [b"X-Other: x\r\n", b"DKIM-Signature: x\r\n"]
    (tags,) = field_of(fields, [])
    names = tags[b"h"].split(b":")
    assert sorted(names) == sorted(COVERED * 2)
    assert tags[b"t"] == b"1700000000"


def test_absent_fields_are_in_the_header_list_only_where_adding_one_would_mislead() -> None:
    (tags,) = field_of([b"From: a@example.com\r\n"], [])
    names = tags[b"h"].split(b":")
    assert names.count(b"from") == 2
    assert sorted(names) == sorted([*OVERSIGNED, b"from"])


def test_every_one_of_a_repeated_field_is_covered() -> None:
    (tags,) = field_of([b"From: a@example.com\r\n", b"To: a\r\n", b"To: b\r\n", b"To: c\r\n"], [])
    assert tags[b"h"].split(b":").count(b"to") == 4


def test_a_recipients_own_fields_come_after_the_shared_ones() -> None:
    (tags,) = field_of([b"From: a@example.com\r\n", b"List-Id: <x>\r\n"], [b"message-id", b"list-unsubscribe"])
    names = tags[b"h"].split(b":")
    assert names[:4] == [b"from", b"list-id", b"message-id", b"list-unsubscribe"]
    assert names.count(b"message-id") == names.count(b"list-unsubscribe") == 2


def test_one_signature_a_key() -> None:
    found = field_of([b"From: a@example.com\r\n"], [], signing_key(RSA_SHA256), signing_key(ED25519_SHA256))
    assert [(tags[b"a"], tags[b"s"]) for tags in found] == [(b"rsa-sha256", b"r1"), (b"ed25519-sha256", b"e1")]


def test_signature_lines_are_short_however_many_fields_there_are() -> None:
    signer = Signer([signing_key(RSA_SHA256)], [b"To: x\r\n"] * 900, [], b"")
    assert max(map(len, signer.sign(b"", 0).split(b"\r\n"))) <= 100


def test_an_empty_message_can_be_signed_by_nobody_or_somebody() -> None:
    assert Signer([], [], [], b"").sign(b"", 0) == b""
    assert Signer([signing_key(ED25519_SHA256)], [], [], b"").sign(b"", 0).startswith(b"DKIM-Signature: ")


@pytest.mark.parametrize("algorithm", [RSA_SHA256, ED25519_SHA256])
def test_a_key_survives_its_storage(algorithm: str) -> None:
    key = signing_key(algorithm)
    again = load(key.domain, key.selector, algorithm, key.pkcs8())
    assert again.public_key == key.public_key
    assert dns_record(again) == dns_record(key)


def test_a_long_record_is_split() -> None:
    name, strings = dns_record(signing_key(RSA_SHA256))
    assert name == "r1._domainkey.example.com"
    assert max(map(len, strings)) <= 255
    assert "".join(strings).startswith("v=DKIM1; k=rsa; p=MIIBI")


@pytest.mark.parametrize(
    ("domain", "selector"),
    [
        ("example.com\r\nBcc: x", "s"),
        ("Example.com", "s"),
        ("b\xfccher.example.com", "s"),
        ("", "s"),
        ("example.com", ""),
        ("example.com", "s;"),
        ("example.com", "s\r\n"),
        ("example.com", "s\n"),
        ("example.com\n", "s"),
        ("example.com", "-s"),
        ("example.com", "a" * 64),
    ],
)
def test_names_that_would_break_a_header(domain: str, selector: str) -> None:
    with pytest.raises(SigningError):
        SigningKey(domain, selector, ED25519_SHA256, RFC_KEY)


def test_keys_that_can_not_sign() -> None:
    with pytest.raises(SigningError, match="not one for"):
        SigningKey("example.com", "s", RSA_SHA256, RFC_KEY)
    with pytest.raises(SigningError, match="not one for"):
        SigningKey("example.com", "s", "rsa-sha1", signing_key(RSA_SHA256).private_key)
    with pytest.raises(SigningError, match="2048"):
        generate("example.com", "s", RSA_SHA256, 1024)
    with pytest.raises(SigningError, match="can't be read"):
        load("example.com", "s", RSA_SHA256, b"nothing")
    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(SigningError, match="neither"):
        load("example.com", "s", RSA_SHA256, curve)


def test_no_key_material_in_a_repr() -> None:
    assert "private_key" not in repr(signing_key(ED25519_SHA256))


def test_names_are_compared_in_lower_case() -> None:
    assert [name_of(raw_field) for raw_field in (b"FROM: x\r\n", b"from:x\r\n")] == [b"from", b"from"]
