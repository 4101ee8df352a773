"""A test MX: takes everything, or defers and refuses a share of it, counts it, and may keep it in a Maildir.

It stands in for the recipients' mail exchangers in the sandbox and in tests, so it is fast rather than complete, and
never relays. What it answered 250 is stored first (see mta/maildir.py for what that survives). `run_sink` is a whole
process; `Sink` is the same inside another one. Recipients are refused by a keyed digest, so that a refused one stays
refused, and deferred at random, so that a retry gets through.
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import signal
import ssl
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from mta.maildir import Maildir
from mta.sink_dialogue import Dialogue


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a sink departs from taking everything at once. Shares are of recipients, from 0 to 1."""

    defer_share: float = 0.0
    refuse_share: float = 0.0
    delay_seconds: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.defer_share <= 1 and 0 <= self.refuse_share <= 1 and self.delay_seconds >= 0):
            raise ValueError("shares are from 0 to 1, and a delay is not negative")


@dataclass(slots=True)
class Counts:
    """What a sink has seen. `recipients` are the accepted ones of accepted messages."""

    connections: int = 0
    messages: int = 0
    recipients: int = 0
    octets: int = 0
    deferred: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One accepted message, as the sink's owner in the same process sees it."""

    sender: bytes
    recipients: tuple[bytes, ...]
    content: bytes


class Sink:
    """A sink on a port. `received` keeps the newest `keep` messages in memory, for tests."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        maildir: Path | None = None,
        behaviour: Behaviour | None = None,
        tls: ssl.SSLContext | None = None,
        keep: int = 0,
    ) -> None:
        self.host, self.port, self.tls = host, port, tls
        self.counts = Counts()
        self.delay_seconds = 0.0 if behaviour is None else behaviour.delay_seconds
        self.received: deque[Delivery] = deque(maxlen=keep)
        self._dialogues: set[Dialogue] = set()
        self.behaviour = behaviour or Behaviour()
        self._maildir = None if maildir is None else Maildir(maildir)
        self._random = random.Random(self.behaviour.seed)  # noqa: S311 – which test mail is deferred is no secret
        self._digest_key = self.behaviour.seed.to_bytes(16, "big", signed=True)
        self._server: asyncio.Server | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; `port` is then known. OSError when the address is taken or the Maildir can't be made."""
        if self._maildir is not None:
            self._maildir.open()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Dialogue(self), self.host, self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and close what is open; nothing that was answered 250 is lost by it."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._dialogues):
            connection.say_goodbye()
        await self._server.wait_closed()
        self._server = None

    async def messages(self, count: int) -> None:
        """Until so many messages have been accepted in all."""
        if self.counts.messages >= count:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((count, future))
        await future

    def opened(self, dialogue: Dialogue) -> None:
        """A client has connected. Called by the dialogue."""
        self.counts.connections += 1
        self._dialogues.add(dialogue)

    def closed(self, dialogue: Dialogue) -> None:
        """A client has gone. Called by the dialogue."""
        self._dialogues.discard(dialogue)

    def verdict(self, recipient: bytes) -> bytes | None:
        """The reply that turns this recipient away, or None."""
        if self.behaviour.refuse_share and self._place(recipient) < self.behaviour.refuse_share:
            self.counts.refused += 1
            return b"550 5.1.1 user unknown\r\n"
        if self.behaviour.defer_share and self._random.random() < self.behaviour.defer_share:
            self.counts.deferred += 1
            return b"450 4.2.1 mailbox busy, try again\r\n"
        return None

    def take(self, sender: bytes, recipients: tuple[bytes, ...], content: bytearray) -> bytes:
        """Keep one message; the reply to its final dot."""
        if not content.count(b"\r\n") == content.count(b"\n") == content.count(b"\r"):
            self.counts.refused += len(recipients)
            return b"554 5.6.0 bare CR or LF in the message\r\n"
        if self._maildir is not None:
            try:
                self._maildir.store(sender, recipients, content)
            except OSError:
                self.counts.deferred += len(recipients)
                return b"452 4.3.1 no room for the message\r\n"
        self._count(recipients, len(content))
        if self.received.maxlen:
            self.received.append(Delivery(sender, recipients, bytes(content)))
        return b"250 2.0.0 ok\r\n"

    def _count(self, recipients: Sequence[bytes], octets: int) -> None:
        self.counts.messages += 1
        self.counts.recipients += len(recipients)
        self.counts.octets += octets
        for wanted, future in self._waiters:
            if self.counts.messages >= wanted and not future.done():
                future.set_result(None)

    def _place(self, recipient: bytes) -> float:
        """Where between 0 and 1 the recipient stands: the same for each attempt."""
        digest = hashlib.blake2b(recipient.lower(), digest_size=8, key=self._digest_key).digest()
        return int.from_bytes(digest, "big") / 2**64


async def run_sink(
    *,
    host: str,
    port: int,
    maildir: Path | None = None,
    behaviour: Behaviour | None = None,
    tls: ssl.SSLContext | None = None,
    ready: Callable[[str, int], None] | None = None,
    until_stdin_closes: bool = False,
) -> Counts:
    """Run a sink until SIGTERM or SIGINT; with `until_stdin_closes` also until the parent that holds the other end of
    standard input has gone. `ready` is called with the address when the sink listens. OSError when it can't."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), _stop_at_end_of_input, stop)
    async with Sink(host=host, port=port, maildir=maildir, behaviour=behaviour, tls=tls) as sink:
        if ready is not None:
            ready(sink.host, sink.port)
        await stop.wait()
    return sink.counts


def _stop_at_end_of_input(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 65536):
        stop.set()


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m mta.sink`: prints one line when it listens and one line of JSON with its counts when it ends."""
    options = _parser().parse_args(arguments)
    host, _, port = options.listen.rpartition(":")
    try:
        behaviour = Behaviour(options.defer, options.refuse, options.delay, options.seed)
        counts = asyncio.run(
            run_sink(
                host=host.strip("[]"),
                port=int(port),
                maildir=options.maildir,
                behaviour=behaviour,
                tls=_context(options.tls_certificate, options.tls_key),
                ready=lambda host, port: _say(f"sink listens on {host}:{port}"),
                until_stdin_closes=options.until_stdin_closes,
            )
        )
    except (OSError, ValueError) as error:
        sys.stderr.write(f"sink on {options.listen}: {error}\n")
        return 1
    _say(json.dumps(asdict(counts)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mta.sink", description="A test MX that takes everything.")
    parser.add_argument("--listen", default="127.0.0.1:2500", metavar="HOST:PORT")
    parser.add_argument("--maildir", type=Path, help="keep the messages here; without it they are only counted")
    parser.add_argument("--defer", type=float, default=0.0, metavar="SHARE", help="of recipients, at random")
    parser.add_argument("--refuse", type=float, default=0.0, metavar="SHARE", help="of recipients, always the same")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS", help="before the reply to a message")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tls-certificate", type=Path, metavar="PEM", help="offer STARTTLS")
    parser.add_argument("--tls-key", type=Path, metavar="PEM")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the parent process")
    return parser


def _context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
