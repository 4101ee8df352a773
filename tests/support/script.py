"""What a scripted peer does: rules that name a stage of the dialogue and the actions to take there.

    Script().on("RCPT", reply("450 4.2.2 full"), when="reader-7@", times=1).on("DOT", proceed(), close(), nth=3)

Stages are GREETING, CONTENT (between 354 and the first octet read), DOT, and every verb (EHLO, MAIL, RCPT, …); OTHER is
any verb that the peer doesn't know. An action is any `async def action(connection)`, so a test's own hook is one too.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from tests.support.peer import Connection

Action = Callable[["Connection"], Awaitable[None]]
"""What a script does at a stage."""


@dataclass(slots=True)
class _Rule:
    stage: str
    actions: tuple[Action, ...]
    nth: int | None
    times: int | None
    connection: int | None
    when: str

    def applies(self, connection: "Connection", stage: str, count: int, line: str) -> bool:
        return (
            self.stage in (stage, "ANY")
            and self.nth in (None, count)
            and self.connection in (None, connection.number)
            and self.times != 0
            and self.when.lower() in line.lower()
        )


class Script:
    """What the peer does otherwise than a correct one. The first rule that applies wins."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []

    def on(
        self,
        stage: str,
        *actions: Action,
        nth: int | None = None,
        times: int | None = None,
        connection: int | None = None,
        when: str = "",
    ) -> Self:
        """Do `actions` at `stage`: only at its nth time on a connection (from 1), only so many times in all, only on
        the connection of that number (from 1), only when the command line contains `when`. Stage ANY is all of them.
        """
        self._rules.append(_Rule(stage, actions, nth, times, connection, when))
        return self

    def pick(self, connection: "Connection", stage: str, count: int, line: str) -> tuple[Action, ...]:
        for rule in self._rules:
            if rule.applies(connection, stage, count, line):
                if rule.times is not None:
                    rule.times -= 1
                return rule.actions
        return (proceed(),)


def proceed() -> Action:
    """What a correct peer does at this stage."""
    return lambda connection: connection.proceed()


def reply(text: str) -> Action:
    """A reply of one line or, with newlines, several: `reply("250-a\\n250 b")`. A 2xx has the usual effect."""
    return lambda connection: connection.reply(text)


def raw(octets: bytes) -> Action:
    """Exactly these octets, with no effect on the transaction: garbage, half a reply, replies in the wrong order."""
    return lambda connection: connection.send(octets)


def close() -> Action:
    """End the connection in order (FIN)."""
    return lambda connection: connection.close()


def reset() -> Action:
    """Break the connection (RST)."""
    return lambda connection: connection.reset()


def ignore() -> Action:
    """No reply; go on reading."""

    async def nothing(connection: "Connection") -> None:
        return None

    return nothing


def hold(event: asyncio.Event) -> Action:
    """Neither read nor answer until the event is set. At CONTENT this is a peer that does not read (a slow reader)."""

    async def wait(connection: "Connection") -> None:
        await event.wait()

    return wait


def take(octets: int) -> Action:
    """Read this much of what comes and throw it away: at CONTENT, with close() or reset() after it, half a message."""

    async def read(connection: "Connection") -> None:
        await connection.take(octets)

    return read
