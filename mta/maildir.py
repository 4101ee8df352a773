"""A Maildir that the test MX writes and `heed sink show` reads.

A message is written under tmp/ and renamed into new/, so a reader never sees half of one and a killed process leaves at
most a file in tmp/. Nothing is synced: what survives is what a killed process leaves, not what a power cut leaves.
Mail is kept in clear here, with its envelope, because it is a test's mail: files are 0600, directories 0700. Contents
are the octets that came over the wire (CRLF, unstuffed), so that a signature can be verified from the file.
"""

import email.header
import email.parser
import itertools
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_ENVELOPE_COUNT = b"X-Envelope-Recipients: "
_ENVELOPE_TO = b"X-Envelope-To: "
_SUBJECT_LIMIT_CHARACTERS = 200
_HEADER_LIMIT_OCTETS = 65536


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored message, as a list shows it. The size is that of the message without its envelope fields."""

    received_at: float
    subject: str
    size_octets: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What a Maildir holds: messages, accepted recipients over all of them, how many of those differ, the newest."""

    messages: int
    recipients: int
    distinct_recipients: int
    size_octets: int
    last: tuple[Entry, ...]


class Maildir:
    """The writing end. `open` makes the directories; `store` may be called from one process at a time per instance."""

    def __init__(self, path: Path) -> None:
        self._tmp, self._new = f"{path / 'tmp'}/", f"{path / 'new'}/"
        self._path = path
        self._numbers = itertools.count(1)
        self._suffix = f"P{os.getpid()}"
        self._host = socket.gethostname().replace("/", "_").replace(":", "_")

    def open(self) -> None:
        """Make what is missing. OSError when that can't be done."""
        for directory in (self._path, *(self._path / name for name in ("tmp", "new", "cur"))):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def store(self, sender: bytes, recipients: Sequence[bytes], content: bytes | bytearray) -> str:
        """Keep one message; its file's name in return. OSError, with nothing kept, when the disk refuses."""
        micros = time.time_ns() // 1000
        name = (
            f"{micros // 1_000_000}.M{micros % 1_000_000:06}{self._suffix}Q{next(self._numbers):07}.{self._host}"
            f",S={len(content)}"
        )
        envelope = _ENVELOPE_COUNT + b"%d\r\nX-Envelope-From: <%b>\r\n" % (len(recipients), sender)
        envelope += b"".join(_ENVELOPE_TO + b"<%b>\r\n" % recipient for recipient in recipients)
        temporary = self._tmp + name
        try:
            self._write(temporary, envelope, content)
            os.rename(temporary, self._new + name)  # noqa: PTH104 – path objects would cost as much as the call
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
        return name

    @staticmethod
    def _write(path: str, *parts: bytes | bytearray) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            remaining = sum(map(len, parts)) - os.writev(descriptor, parts)
            if remaining:
                raise OSError(f"{remaining} octets did not fit")
        finally:
            os.close(descriptor)


def summary(path: Path, last: int = 10) -> Summary:
    """What the Maildir at `path` holds, with the newest `last` messages, newest first. An absent one is empty."""
    files = sorted(_files(path), key=lambda file: file.name)
    recipients = 0
    distinct: set[bytes] = set()
    size = 0
    for file in files:
        size += _size(file)
        for recipient in envelope_recipients(file):
            recipients += 1
            distinct.add(recipient.lower())
    newest = [_entry(file) for file in files[: -last - 1 : -1]] if last > 0 else []
    return Summary(len(files), recipients, len(distinct), size, tuple(newest))


def envelope_recipients(file: Path) -> list[bytes]:
    """The recipients for whom the stored message was accepted."""
    with file.open("rb") as stream:
        return [line[len(_ENVELOPE_TO) + 1 : -1] for line in _envelope(stream) if line.startswith(_ENVELOPE_TO)]


def content(file: Path) -> bytes:
    """The stored message as it came over the wire, without the envelope fields."""
    with file.open("rb") as stream:
        before = sum(len(line) + 2 for line in _envelope(stream))
        stream.seek(before)
        return stream.read()


def _envelope(stream: BinaryIO) -> Iterator[bytes]:
    """The envelope fields, by their count: fields of the same name may follow in the message itself."""
    first = stream.readline().rstrip(b"\r\n")
    count = first.removeprefix(_ENVELOPE_COUNT)
    if first.startswith(_ENVELOPE_COUNT) and count.isdigit():
        yield first
        for line in itertools.islice(stream, int(count) + 1):
            yield line.rstrip(b"\r\n")


def _files(path: Path) -> Iterator[Path]:
    for name in ("new", "cur"):
        directory = path / name
        if directory.is_dir():
            yield from directory.iterdir()


def _entry(file: Path) -> Entry:
    with file.open("rb") as stream:
        header = stream.read(_HEADER_LIMIT_OCTETS).partition(b"\r\n\r\n")[0]
    subject = email.parser.BytesHeaderParser().parsebytes(header).get("Subject", "")
    seconds, _, rest = file.name.partition(".M")
    micros = rest[:6]
    received_at = int(seconds) + int(micros) / 1e6 if seconds.isdigit() and micros.isdigit() else 0.0
    return Entry(received_at, _readable(str(subject)), _size(file))


def _size(file: Path) -> int:
    size = file.name.rpartition(",S=")[2].partition(":")[0]
    return int(size) if size.isdigit() else len(content(file))


def _readable(subject: str) -> str:
    """Decoded, on one line, and without anything that a terminal would obey."""
    try:
        decoded = str(email.header.make_header(email.header.decode_header(subject)))
    except (LookupError, ValueError):
        decoded = subject
    line = " ".join(decoded.split())
    return "".join(c if c.isprintable() else "?" for c in line)[:_SUBJECT_LIMIT_CHARACTERS]
