"""How long transactional mail takes, from the client's first word to the peer's 250, whatever else is going on.

Clients are threads with smtplib, TLS and AUTH as an application has them. The 250 names the message, and the daemon's
events say when it was delivered, by the clock of the same machine.
"""

import asyncio
import contextlib
import smtplib
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from mta.accounts import AccountError
from mta.identifiers import message_id_of
from suppression.digest import MessageClass
from tests.bench.drive import Stuck
from tests.bench.fleet import Member

_USER: Final = "bench-transactional"
_PASSWORD: Final = "a password of no value"
_PATIENCE_SECONDS: Final = 60.0


@dataclass(slots=True)
class Sent:
    """What was submitted: message id → when it was begun, and the seconds until each 250."""

    begun: dict[int, float] = field(default_factory=dict)
    answered: list[float] = field(default_factory=list)
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds, of so many messages."""

    messages: int
    refused: int
    submit_p99: float
    delivered_p50: float
    delivered_p99: float
    slowest: float


async def transactional(member: Member, seconds: float, *, per_second: float, clients: int = 4) -> Latency:
    """Submit transactional mail at a steady rate, and see when each was delivered. Raises Stuck."""
    with contextlib.suppress(AccountError):  # it has one from an earlier round
        await member.store.accounts.add_credential("sandbox", _USER, MessageClass.TRANSACTIONAL, _PASSWORD)
    until = time.monotonic() + seconds
    port, pause = member.daemon.ports.submission_tls, clients / per_second
    sent = [Sent() for _ in range(clients)]
    await asyncio.gather(*(asyncio.to_thread(_submit, port, pause, until, each) for each in sent))
    begun = {message: at for each in sent for message, at in each.begun.items()}
    delivered = sorted(at - begun[message] for message, at in (await _deliveries(member, begun)).items())
    if not delivered:
        raise Stuck("no transactional message was accepted")
    answered = sorted(each for one in sent for each in one.answered)
    return Latency(
        len(delivered), sum(each.refused for each in sent), _quantile(answered, 0.99), _quantile(delivered, 0.5),
        _quantile(delivered, 0.99), delivered[-1],
    )  # fmt: skip


async def _deliveries(member: Member, begun: dict[int, float]) -> dict[int, float]:
    """Message id → epoch seconds of its delivery, as soon as all are delivered."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        rows = await member.store.rows(
            "SELECT message_id, extract(epoch FROM at)::float8 FROM event WHERE type = 1 AND message_class = 1"
            " AND message_id = ANY ($1::bigint[])",
            list(begun),
        )
        if len(rows) >= len(begun):
            return {row[0]: row[1] for row in rows}
        if time.monotonic() > deadline:
            raise Stuck(f"{len(begun) - len(rows)} transactional messages were not delivered")
        await asyncio.sleep(0.2)


def _submit(port: int, pause: float, until: float, sent: Sent) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    stop = threading.Event()
    with smtplib.SMTP_SSL("127.0.0.1", port, context=context, timeout=_PATIENCE_SECONDS) as client:
        client.login(_USER, _PASSWORD)
        number = 0
        while time.monotonic() < until:
            started, begun = time.perf_counter(), time.time()
            reply = _message(client, f"buyer-{number}@example.net")
            number += 1
            if reply is None:
                sent.refused += 1
            else:
                sent.begun[message_id_of(reply)] = begun
                sent.answered.append(time.perf_counter() - started)
            stop.wait(max(0.0, pause - (time.perf_counter() - started)))


def _message(client: smtplib.SMTP, recipient: str) -> str | None:
    """Submit one; the queue id in its 250, or None where it was refused."""
    client.mail("shop@example.com")
    client.rcpt(recipient)
    content = f"From: shop@example.com\r\nTo: {recipient}\r\nSubject: Your order\r\n\r\n" + "Thank you.\r\n" * 100
    code, text = client.data(content)
    return text.decode().split()[-1] if code == 250 else None


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
