"""DKIM signatures (RFC 6376, RFC 8301, RFC 8463): relaxed/relaxed, by OpenSSL, the body hashed once a message.

dkimpy canonicalises header fields, where there is anything to do. The body goes through `canonical_body`, which gives
what dkimpy's gives but as a vector, without a regular expression whose time is the square of a run of blanks. Property
tests hold both together.
A `Signer` belongs to one message. It hashes what all its recipients share once; per recipient it adds the fields that
differ and the signature's own field, and signs. Domain and selector are checked before they come near a header.
Raises `SigningError`, whose text names the key and never its material: a message that can't be signed must not go (K1).
"""

import hashlib
import re
from binascii import b2a_base64
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from dkim.canonicalization import Relaxed

from mta.message import MAX_DOMAIN_CHARACTERS, domain_name, name_of, unfolded

RSA_SHA256 = "rsa-sha256"
ED25519_SHA256 = "ed25519-sha256"
ALGORITHMS = (RSA_SHA256, ED25519_SHA256)

MIN_RSA_BITS, MAX_RSA_BITS = 1024, 4096
"""What verifiers must be able to check (RFC 8301 §3.2). New keys have 2048 or more."""

COVERED = (
    b"from", b"sender", b"reply-to", b"to", b"cc", b"subject", b"date", b"message-id", b"in-reply-to", b"references",
    b"mime-version", b"content-type", b"content-transfer-encoding", b"list-id", b"list-help", b"list-subscribe",
    b"list-post", b"list-owner", b"list-archive", b"feedback-id", b"list-unsubscribe", b"list-unsubscribe-post",
)  # fmt: skip
"""Fields that h= names when they are present: K2's, and those that RFC 6376 §5.4.1 recommends."""

OVERSIGNED = frozenset((b"from", b"reply-to", b"to", b"cc", b"subject"))
"""Named in h= once more than they occur, even when absent, so that a replayed message can't be given another one.
Every other field of COVERED is oversigned where it is present."""

_SELECTOR = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_TAG = re.compile(rb"\s*([A-Za-z][A-Za-z0-9_]*)\s*=([\t -~]*)")
_REQUIRED_TAGS = (b"v", b"a", b"b", b"bh", b"d", b"h", b"s")
_SPACE, _TAB, _CR = b" \t\r"
_PADDING = PKCS1v15()
_HASH = Prehashed(SHA256())
_FOLD = b"\r\n\t"
_FOLD_COLUMN = 72


class SigningError(Exception):
    """A key that can't be used, or a signature that could not be made."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One private key and the name under which its public half is published."""

    domain: str
    selector: str
    algorithm: str
    private_key: RSAPrivateKey | Ed25519PrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        if domain_name(self.domain) != self.domain or len(self.domain) > MAX_DOMAIN_CHARACTERS - 64:
            raise SigningError("a signing domain is a domain name in lower case, as A-labels")
        if _SELECTOR.fullmatch(self.selector) is None or len(self.selector) > 63:
            raise SigningError("a selector is letters, digits, hyphens and dots, 63 at most")
        wanted = Ed25519PrivateKey if self.algorithm == ED25519_SHA256 else RSAPrivateKey
        if self.algorithm not in ALGORITHMS or not isinstance(self.private_key, wanted):
            raise SigningError(f"{self.name}: the key is not one for {ALGORITHMS[0]} or {ALGORITHMS[1]}")
        if isinstance(self.private_key, RSAPrivateKey) and not (
            MIN_RSA_BITS <= self.private_key.key_size <= MAX_RSA_BITS
        ):
            raise SigningError(f"{self.name}: an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")

    @property
    def name(self) -> str:
        """Where the public key is published."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def public_key(self) -> bytes:
        """What p= holds: SubjectPublicKeyInfo for RSA (RFC 6376 §3.6.1), 32 bare octets for Ed25519 (RFC 8463 §4)."""
        public = self.private_key.public_key()
        if self.algorithm == ED25519_SHA256:
            return public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def pkcs8(self) -> bytes:
        """The private key as PKCS #8 DER, in clear: for sealing, and nothing else."""
        return self.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, digest: bytes) -> bytes:
        """The signature of a SHA-256 digest: PKCS #1 v1.5, or PureEdDSA over the digest's octets (RFC 8463 §3)."""
        try:
            if isinstance(self.private_key, RSAPrivateKey):
                return self.private_key.sign(digest, _PADDING, _HASH)
            return self.private_key.sign(digest)
        except (ValueError, InternalError, UnsupportedAlgorithm) as error:
            raise SigningError(f"{self.name}: {type(error).__name__}") from None


def generate(domain: str, selector: str, algorithm: str, bits: int = 2048) -> SigningKey:
    """A new key; `bits` counts for RSA only (2048 to 4096)."""
    if algorithm == ED25519_SHA256:
        return SigningKey(domain, selector, algorithm, Ed25519PrivateKey.generate())
    if not 2048 <= bits <= MAX_RSA_BITS:
        raise SigningError(f"a new RSA key has 2048 to {MAX_RSA_BITS} bits")
    return SigningKey(domain, selector, algorithm, generate_private_key(65537, bits))


def load(domain: str, selector: str, algorithm: str, pkcs8: bytes) -> SigningKey:
    """The key in PKCS #8 DER (what `SigningKey.pkcs8` gave)."""
    try:
        private = load_der_private_key(pkcs8, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SigningError(f"{selector}._domainkey.{domain}: the stored key can't be read") from None
    if not isinstance(private, RSAPrivateKey | Ed25519PrivateKey):
        raise SigningError(f"{selector}._domainkey.{domain}: the stored key is neither RSA nor Ed25519")
    return SigningKey(domain, selector, algorithm, private)


class Published(Protocol):
    """What a DNS record says of a key: a `SigningKey`, or what is known of one that is not opened."""

    @property
    def name(self) -> str:
        """Where the record is."""
        ...

    @property
    def algorithm(self) -> str:
        """One of ALGORITHMS."""
        ...

    @property
    def public_key(self) -> bytes:
        """As `SigningKey.public_key` gives it."""
        ...


def dns_record(key: Published) -> tuple[str, tuple[str, ...]]:
    """Name of the TXT record to publish, and its value in strings of at most 255 characters (RFC 6376 §3.6.2.2)."""
    kind = "ed25519" if key.algorithm == ED25519_SHA256 else "rsa"
    value = f"v=DKIM1; k={kind}; p={_base64(key.public_key).decode('ascii')}"
    return key.name, tuple(value[start : start + 255] for start in range(0, len(value), 255))


def canonical_body(body: bytes) -> bytes:
    """The relaxed form (RFC 6376 §3.4.4) of a body that is empty or ends in CRLF and has no other CR or LF."""
    octets = numpy.frombuffer(body, numpy.uint8)
    blank = octets == _SPACE
    blank |= octets == _TAB
    # Of each run of blanks the last one stays, and none does before a line end.
    dropped = octets[1:] == _CR
    dropped |= blank[1:]
    dropped &= blank[:-1]
    if dropped.any():
        body = octets[:-1][~dropped].tobytes() + b"\n"
    body = body.replace(b"\t", b" ").rstrip(b"\r\n")
    return body + b"\r\n" if body else b""


def body_hash(body: bytes) -> bytes:
    """What bh= holds for that body, in base64."""
    return _base64(hashlib.sha256(canonical_body(body)).digest())


def canonical_fields(raw_fields: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """Name and complete relaxed form (RFC 6376 §3.4.2, with CRLF) of each raw field."""
    return [_canonical_field(raw_field) for raw_field in raw_fields]


def _canonical_field(raw_field: bytes) -> tuple[bytes, bytes]:
    name, _, value = raw_field.partition(b":")
    if value.find(b"\r\n") == len(value) - 2 and b"  " not in value and b"\t" not in value:
        name = name.lower()  # neither folded nor with runs of blanks: there is nothing for dkimpy to do
        return name, name + b":" + value.strip() + b"\r\n"
    ((name, value),) = Relaxed.canonicalize_headers([(name, value)])
    return name, name + b":" + value


def is_signature(raw_field: bytes) -> bool:
    """Whether a DKIM-Signature field is well-formed (RFC 6376 §3.2, §3.5), so that it could be valid at all.

    One that is not makes OpenDKIM give up on the whole message, with every good signature in it.
    """
    tags: dict[bytes, bytes] = {}
    for part in unfolded(raw_field).removesuffix(b";").split(b";"):
        match = _TAG.fullmatch(part)
        if match is None or match[1] in tags:
            return False
        tags[match[1]] = match[2].strip()
    numbers = [tags[name] for name in (b"t", b"x", b"l") if name in tags]
    return all(map(tags.get, _REQUIRED_TAGS)) and all(number.isdigit() and len(number) <= 12 for number in numbers)


class Signer:
    """Signs one message for any number of recipients, with every key given."""

    def __init__(self, keys: Sequence[SigningKey], shared: Sequence[bytes], own: Sequence[bytes], body: bytes) -> None:
        """`shared`: raw fields that all recipients get; `own`: lower-case names of fields made for each recipient, once
        each and never among the shared ones; `body` as `canonical_body` takes it.
        """
        fields = canonical_fields(raw_field for raw_field in shared if name_of(raw_field) in _COVERED_SET)
        order, names = _selection(tuple(name for name, _ in fields), tuple(own))
        self._state = hashlib.sha256(b"".join([fields[place][1] for place in order]))
        digest = body_hash(body)
        self._parts = [(key, *_signature_field(key, names, digest)) for key in keys]

    def sign(self, own: bytes, now: int) -> bytes:
        """The complete DKIM-Signature fields. `own`: this recipient's fields in relaxed form, in the order of their
        names; `now` in epoch seconds.
        """
        state = self._state.copy()
        state.update(own)
        time = b"%d;" % now
        signed = b""
        for key, field_start, canonical_start in self._parts:
            signature_state = state.copy()
            signature_state.update(canonical_start + time + b" b=")
            text = b2a_base64(key.sign(signature_state.digest()), newline=False)
            lines = [text[start : start + _FOLD_COLUMN] for start in range(0, len(text), _FOLD_COLUMN)]
            signed += field_start + time + b"\r\n\tb=" + _FOLD.join(lines) + b"\r\n"
        return signed


_COVERED_SET = frozenset(COVERED)


@lru_cache(maxsize=256)  # the messages of one application have the same fields
def _selection(shared: tuple[bytes, ...], own: tuple[bytes, ...]) -> tuple[list[int], bytes]:
    """Which of the shared fields, by place, go into the hash and in which order; and the value of h= that says so.

    The order is that of COVERED, and fields of one name from the bottom up (§5.4.2). Oversigned names come last.
    """
    places: dict[bytes, list[int]] = defaultdict(list)
    for place, name in enumerate(shared):
        places[name].insert(0, place)
    order = [place for name in COVERED for place in places.get(name, ())]
    names = [*(shared[place] for place in order), *own]
    names += [name for name in COVERED if name in OVERSIGNED or name in names]
    return order, _folded_names(names)


def _signature_field(key: SigningKey, names: bytes, body_digest: bytes) -> tuple[bytes, bytes]:
    """The signature's field up to the value of t=, as it is sent and in relaxed form."""
    text = b"DKIM-Signature: v=1; a=%s; c=relaxed/relaxed; d=%s;%ss=%s; h=%s;%sbh=%s;%st=" % (
        key.algorithm.encode("ascii"),
        key.domain.encode("ascii"),
        _FOLD,
        key.selector.encode("ascii"),
        names,
        _FOLD,
        body_digest,
        _FOLD,
    )
    return text, b"dkim-signature:" + text.replace(_FOLD, b" ").removeprefix(b"DKIM-Signature: ")


def _folded_names(names: Sequence[bytes]) -> bytes:
    """The value of h=, starting on a line of its own."""
    lines: list[bytes] = [b""]
    for name in names:
        if len(lines[-1]) + len(name) > _FOLD_COLUMN:
            lines.append(b"")
        lines[-1] += name + b":"
    return _FOLD + _FOLD.join(lines).removesuffix(b":")


def _base64(octets: bytes) -> bytes:
    return b2a_base64(octets, newline=False)
