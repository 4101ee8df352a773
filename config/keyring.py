"""The master keys of an installation, and what is derived from them.

Owns the key file (mode 0600, one `id hex` line a key). The highest id is the current key: new seals and tokens use it,
older ids stay readable for ever. Digests are derived from the lowest id and never change, because suppressions must
outlive a rotation. Raises KeyringError, whose text holds no key material.
"""

import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from config.failure import Failed, file_trouble

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
MAX_KEY_ID: Final = 31  # five bits of a token


class KeyringError(Failed):
    """A key file that can't be used, or a sealed value that none of the keys opens."""


class Keyring:
    """Master keys by id (1 to 31), each 32 bytes."""

    def __init__(self, masters: Mapping[int, bytes]) -> None:
        if not masters:
            raise KeyringError("the key file holds no key")
        for key_id, master in masters.items():
            if not 1 <= key_id <= MAX_KEY_ID or len(master) != KEY_BYTES:
                raise KeyringError(f"key {key_id}: an id is 1 to {MAX_KEY_ID} and a key {KEY_BYTES} bytes in hex")
        self._masters = dict(masters)
        self.current_id = max(masters)
        self.digest_key = self._derive(min(masters), "digest")
        self._token_keys = {key_id: self._derive(key_id, "token") for key_id in masters}
        self._ciphers: dict[tuple[int, str], AESGCM] = {}

    def __repr__(self) -> str:
        return f"Keyring(ids={sorted(self._masters)})"

    @classmethod
    def generate(cls) -> "Keyring":
        """A new keyring with one random key."""
        return cls({1: secrets.token_bytes(KEY_BYTES)})

    @classmethod
    def load(cls, path: Path) -> "Keyring":
        """Read a key file; raises KeyringError that names the file and the line."""
        masters: dict[int, bytes] = {}
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError as error:
            raise KeyringError(file_trouble(error)) from None
        except UnicodeDecodeError:
            raise KeyringError(f"{path}: can't be read as a key file: it is no ASCII text") from None
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            try:
                key_id, key = line.split()
                given = int(key_id), bytes.fromhex(key)
            except ValueError:
                raise KeyringError(f"{path}:{number}: a line is a key's id and 64 hex digits") from None
            if given[0] in masters:
                raise KeyringError(f"{path}:{number}: key {given[0]} is there already: an id never gets another key")
            masters[given[0]] = given[1]
        try:
            return cls(masters)
        except KeyringError as error:
            raise KeyringError(f"{path}: {error}") from None

    @classmethod
    def load_or_create(cls, path: Path) -> "Keyring":
        """The keyring at path; where there is none, a new one is written first. Two processes may do it at once."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            cls.generate().save(path)
        return cls.load(path)

    def save(self, path: Path) -> None:
        """Write the key file, durably, never over one that is there."""
        text = "".join(f"{key_id} {key.hex()}\n" for key_id, key in sorted(self._masters.items()))
        # a name of its own: one that a crash left behind must not be in the way, and process ids come again
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write("# Heed's master keys: without this file nothing that is stored can be read. Keep a copy.\n")
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        _sync_directory(path.parent)

    def token_key(self, key_id: int) -> bytes:
        """The 32-byte key of tokens issued under key_id; KeyError when there is none."""
        return self._token_keys[key_id]

    @property
    def check_value(self) -> bytes:
        """16 bytes that tell whether two nodes hold the same digest key, and nothing about it."""
        return self._derive(min(self._masters), "check")[:16]

    @property
    def head_seed(self) -> bytes:
        """The 32-byte seed of the key that signs the heads of the suppression log; it never changes."""
        return self._derive(min(self._masters), "head")

    def seal(self, purpose: str, plain: bytes) -> bytes:
        """Encrypt with the current key: key id (1 byte), nonce (12), AES-256-GCM ciphertext and tag."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = self._cipher(self.current_id, purpose).encrypt(nonce, plain, purpose.encode())
        return bytes([self.current_id]) + nonce + sealed

    def open(self, purpose: str, sealed: bytes) -> bytes:
        """The plain bytes of a sealed value; raises KeyringError for a foreign, damaged or misplaced one."""
        if not sealed or sealed[0] not in self._masters:
            raise KeyringError(f"{purpose}: sealed with a key that is not in the key file")
        nonce, ciphertext = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        try:
            return self._cipher(sealed[0], purpose).decrypt(nonce, ciphertext, purpose.encode())
        except (InvalidTag, ValueError):
            raise KeyringError(f"{purpose}: damaged, or sealed for another purpose") from None

    def _cipher(self, key_id: int, purpose: str) -> AESGCM:
        cipher = self._ciphers.get((key_id, purpose))
        if cipher is None:
            cipher = self._ciphers[key_id, purpose] = AESGCM(self._derive(key_id, f"seal {purpose}"))
        return cipher

    def _derive(self, key_id: int, purpose: str) -> bytes:
        return _derive(self._masters[key_id], purpose)


def _sync_directory(directory: Path) -> None:
    """The file's name must survive a power cut too, or what is sealed after it can never be read."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _derive(master: bytes, purpose: str) -> bytes:
    """HKDF-SHA256 (RFC 5869) of a master key for one purpose."""
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"heed {purpose}".encode()).derive(master)
