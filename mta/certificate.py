"""The listeners' certificate: a self-signed one for an installation that has no other, and what is wrong with another.

One that is there is never written over.
"""

import datetime
import ipaddress
import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from config.failure import file_trouble

_VALID_DAYS = 3_650


def ensure_certificate(directory: Path, hostname: str) -> None:
    """Write certificate.pem and key.pem into a directory unless they are there; raises OSError."""
    certificate_path, key_path = directory / "certificate.pem", directory / "key.pem"
    if certificate_path.exists() and key_path.exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    # a common name has 64 characters at most; what counts is the alternative name below
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(hostname), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(key_path, pem)
    _write(certificate_path, certificate.public_bytes(serialization.Encoding.PEM))


def chain_trouble(certificate: Path, key: Path) -> str:
    """Why listeners could not use these files; empty when they can."""
    for path in (certificate, key):
        try:
            path.open("rb").close()
        except OSError as error:
            return file_trouble(error)
    try:
        # an empty password: nobody is there to be asked for one
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, "")
    except (ssl.SSLError, ValueError):
        return "they are a PEM chain and its own private key, without a password"
    return ""


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)
