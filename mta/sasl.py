"""The SASL mechanisms of submission: what a client says to prove who it is (RFC 4954, RFC 4616, LOGIN as it is used).

Each takes the initial response, or "" for none, and a way to ask for another line; it returns user name and password.
Raises CommandError for what is no such response.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from mta.commands import CommandError

Challenge = Callable[[bytes], Awaitable[bytes]]
"""Sends a challenge and returns the decoded response."""


async def plain(initial: str, challenge: Challenge) -> tuple[str, str]:
    """RFC 4616; the authorisation identity is ignored."""
    answer = decoded(initial) if initial else await challenge(b"")
    parts = answer.split(b"\0")
    if len(parts) != 3:
        raise CommandError("501 5.5.2 Not a PLAIN response", "authentication")
    return _text(parts[1]), _text(parts[2])


async def login(initial: str, challenge: Challenge) -> tuple[str, str]:
    """User name and password, each on a line of its own."""
    username = decoded(initial) if initial else await challenge(b"Username:")
    return _text(username), _text(await challenge(b"Password:"))


MECHANISMS: Final[Mapping[str, Callable[[str, Challenge], Awaitable[tuple[str, str]]]]] = {
    "PLAIN": plain,
    "LOGIN": login,
}


def decoded(text: str) -> bytes:
    """A response in base64; "=" is an empty one (RFC 4954 §4)."""
    if text == "=":
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise CommandError("501 5.5.2 Not base64", "authentication") from None


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError("501 5.5.2 Not UTF-8", "authentication") from None
