"""Encryption of what the queue stores: content, envelope, recipient, each with the key of its campaign.

A campaign's key is made when its first message comes, and stored sealed by the master key. Every ciphertext is bound
to its message (and recipient), so that rows can't be exchanged. Raises VaultError for what can't be opened.
"""

import os
from dataclasses import dataclass, field

import orjson
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
_COMPRESSOR = zstandard.ZstdCompressor(level=1, write_content_size=True)
_DECOMPRESSOR = zstandard.ZstdDecompressor()


class VaultError(Exception):
    """A stored value that its campaign's key does not open: damaged, or of another message."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What MAIL said: reverse-path, RFC 3461's RET and ENVID, and what the content needs of a peer.

    notice: written or passed on by the daemon itself, and so unsigned where there is no key for it. Without a sender it
    leaves with the null reverse-path.
    """

    sender: str = field(repr=False)
    ret: str = ""
    envid: str = ""
    smtputf8: bool = False
    eight_bit: bool = False
    notice: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """What RCPT said: forward-path and RFC 3461's NOTIFY (comma separated, empty: not given) and ORCPT."""

    address: str = field(repr=False)
    notify: str = ""
    orcpt: str = field(default="", repr=False)

    @property
    def domain(self) -> str:
        """The recipient's domain, as given."""
        return self.address.rpartition("@")[2]


class CampaignKey:
    """Seals and opens what belongs to one campaign."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    @staticmethod
    def generate() -> bytes:
        """A new 32-byte key."""
        return AESGCM.generate_key(256)

    def seal_content(self, message_id: int, raw: bytes) -> bytes:
        """Compress and encrypt a message."""
        return self._seal(_COMPRESSOR.compress(raw), b"c%d" % message_id)

    def open_content(self, message_id: int, sealed: bytes) -> bytes:
        """The message as it was submitted."""
        return _DECOMPRESSOR.decompress(self._open(sealed, b"c%d" % message_id))

    def seal_envelope(self, message_id: int, envelope: Envelope) -> bytes:
        """Encrypt what MAIL said."""
        fields = (envelope.sender, envelope.ret, envelope.envid, envelope.smtputf8, envelope.eight_bit,
                  envelope.notice)  # fmt: skip
        return self._seal(orjson.dumps(fields), b"e%d" % message_id)

    def open_envelope(self, message_id: int, sealed: bytes) -> Envelope:
        """What MAIL said."""
        return Envelope(*orjson.loads(self._open(sealed, b"e%d" % message_id)))

    def seal_address(self, message_id: int, ordinal: int, address: Address) -> bytes:
        """Encrypt what RCPT said."""
        fields = (address.address, address.notify, address.orcpt)
        return self._seal(orjson.dumps(fields), b"r%d/%d" % (message_id, ordinal))

    def open_address(self, message_id: int, ordinal: int, sealed: bytes) -> Address:
        """What RCPT said."""
        return Address(*orjson.loads(self._open(sealed, b"r%d/%d" % (message_id, ordinal))))

    def _seal(self, plain: bytes, bound_to: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, bound_to)

    def _open(self, sealed: bytes, bound_to: bytes) -> bytes:
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to)
        except (InvalidTag, ValueError):
            raise VaultError("a stored value can't be opened with its campaign's key") from None
