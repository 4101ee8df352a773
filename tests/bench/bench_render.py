"""Microseconds per rendered and signed recipient, and per prepared message, beside the RSA signature alone.

    python -m tests.bench.bench_render [--json]

Every figure is the median of several rounds of the same process, in which the subject and its primitive alternate, so
that a machine that is busy or changes its clock slows both alike.
"""

import argparse
import hashlib
import json
import random
import statistics
import string
import time
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dkim.canonicalization import Relaxed

from config.keyring import Keyring
from mta.message import parse, refuse
from mta.render import Identity, Renderer
from mta.signing import ED25519_SHA256, RSA_SHA256, canonical_body, generate
from suppression.digest import MessageClass
from suppression.tokens import Purpose, Token, Tokens

SIZES = (10_000, 50_000)
ROUNDS = 15


def sample(size: int, *, ragged: bool = False) -> bytes:
    """A campaign message of about that size. `ragged`: tabs, runs of blanks and blanks at line ends in its body."""
    chance = random.Random(size)
    words = ["".join(chance.choices(string.ascii_lowercase, k=chance.randint(2, 9))) for _ in range(400)]
    head = (
        b"From: The Shop <news@example.com>\r\nTo: Someone <someone@example.org>\r\n"
        b"Subject: What is new this spring, and what\r\n is not\r\nDate: Mon, 01 Jan 2024 00:00:00 +0000\r\n"
        b"Message-ID: <20240101000000.1@example.com>\r\nMIME-Version: 1.0\r\nReply-To: help@example.com\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
        b"List-Id: The news <news.example.com>\r\nX-Campaign: spring\r\nX-Mailer: bench\r\n"
        b"Received: from app.example.com by out.example.com; Mon, 01 Jan 2024 00:00:00 +0000\r\n\r\n"
    )
    lines: list[str] = []
    length = 0
    while length < size - len(head):
        separator = chance.choice([" ", "  ", "\t", " \t "]) if ragged else " "
        line = separator.join(chance.choices(words, k=11)) + (" " if ragged and chance.random() < 0.2 else "")
        lines.append(line)
        length += len(line) + 2
    return head + "\r\n".join(lines).encode() + b"\r\n"


def medians(subjects: dict[str, Callable[[], object]], calls: int, rounds: int) -> dict[str, float]:
    """Microseconds a call of each subject: the median of rounds in which the subjects take turns."""
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, subject in subjects.items():
            started = time.perf_counter()
            for _ in range(calls):
                subject()
            found[name].append((time.perf_counter() - started) / calls * 1e6)
    return {name: statistics.median(times) for name, times in found.items()}


def measure(size: int, rounds: int) -> dict[str, float]:
    """Every figure at one size, in microseconds."""
    rsa, edwards = generate("example.com", "r1", RSA_SHA256), generate("example.com", "e1", ED25519_SHA256)
    tokens = Tokens(Keyring.generate())
    identity = Identity("mx.example.net", "mail.example.net", "https://u.example.net", "heed")
    renderer = Renderer(identity, tokens, time.time, strip=frozenset((b"x-campaign",)))
    raw, ragged = sample(size), sample(size, ragged=True)
    body, ragged_body, digest = parse(raw).body, parse(ragged).body, hashlib.sha256(raw).digest()
    token = Token(Purpose.ONE_CLICK, 1, 2, 3, -(2**62), 2**62)

    def prepare(content: bytes, keys: Sequence[object]) -> object:
        return renderer.prepare(
            content,
            tenant_id=1,
            tenant_name="acme",
            list_id=2,
            list_name="news.example.com",
            campaign_id=3,
            campaign_name="spring",
            message_class=MessageClass.CAMPAIGN,
            message_id=2**62,
            queue_id="01ABCDEFGHJKM",
            received_at=1_750_000_000.0,
            keys=keys,  # type: ignore[arg-type]
        )

    unsigned, signed, both = prepare(raw, ()), prepare(raw, (rsa,)), prepare(raw, (rsa, edwards))
    assert isinstance(edwards.private_key, Ed25519PrivateKey)
    render: Callable[[object], object] = lambda template: renderer.render(template, -(2**62))  # type: ignore[arg-type]  # noqa: E731
    figures = medians(
        {
            "RSA-2048 signature alone": lambda: rsa.sign(digest),
            "Ed25519 signature alone": lambda: edwards.sign(digest),
            "render, RSA": lambda: render(signed),
            "render, RSA and Ed25519": lambda: render(both),
            "render, unsigned": lambda: render(unsigned),
            "one token": lambda: tokens.issue(token),
            "prepare": lambda: prepare(raw, (rsa,)),
            "prepare, ragged body": lambda: prepare(ragged, (rsa,)),
            "parse": lambda: parse(raw),
            "refuse, parse included": lambda: refuse(
                raw, smtputf8=False, eight_bit=True, message_class=MessageClass.CAMPAIGN
            ),
            "relaxed body": lambda: canonical_body(body),
            "relaxed body, ragged": lambda: canonical_body(ragged_body),
            "relaxed body, dkimpy": lambda: Relaxed.canonicalize_body(body),
            "SHA-256 of the body": lambda: hashlib.sha256(body).digest(),
        },
        100,
        rounds,
    )
    figures["render, RSA: beyond the signature"] = figures["render, RSA"] - figures["RSA-2048 signature alone"]
    return figures


def main() -> None:
    """Print a table, or JSON."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", action="store_true")
    options.add_argument("--rounds", type=int, default=ROUNDS)
    given = options.parse_args()
    results = {size: measure(size, given.rounds) for size in SIZES}
    if given.json:
        print(json.dumps({"unit": "microseconds", "octets": results}, indent=2))
        return
    print(f"{'microseconds':40}" + "".join(f"{size:>12,} B" for size in SIZES))
    for name in results[SIZES[0]]:
        print(f"{name:40}" + "".join(f"{results[size][name]:14.1f}" for size in SIZES))


if __name__ == "__main__":
    main()
