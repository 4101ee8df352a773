"""The canary: unsubscribes nobody through the public URL, again and again, and holds campaign mail when that fails.

Mail whose way out is broken must not go out. One worker of a node probes (whoever has the lock of the status file) and
writes what it found; all workers of the node read that, and hold or release their gates. A probe is a real one-click
POST with a real token of a person that does not exist; it has worked when the answer is 200 and the entry is in force
in this worker's index, and is then lifted again. Raises nothing: what fails is the probe.
"""

import asyncio
import fcntl
import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.database import DatabaseUnavailable
from config.log import LOG
from suppression.digest import Digest, Kind, MessageClass, Scope
from suppression.entry import Action, Channel
from suppression.gate import Gate
from suppression.index import Index
from suppression.log import SuppressionLog
from suppression.plan import Lift
from suppression.tokens import Purpose, Token, Tokens

CANARY_TENANT_ID: Final = 2**31 - 1
"""A tenant that there never is: ids are given from 1 up."""

HOLD: Final = "canary"
FAILURES_TO_HOLD: Final = 2
LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Probe:
    """The result of one probe: seconds until the entry was in force, or why it wasn't."""

    seconds: float
    failure: str = ""


class Canary:
    """Probes, or reads what the node's other worker found."""

    def __init__(
        self,
        status_path: Path,
        log: SuppressionLog,
        index: Index,
        gate: Gate,
        digest: Digest,
        tokens: Tokens,
        post: Callable[[str], Awaitable[int]],
        *,
        every_seconds: float = 60.0,
        within_seconds: float = 5.0,
        on_probe: Callable[[Probe], None] | None = None,
    ) -> None:
        """`post` sends a one-click POST for a token to the public URL and returns the status."""
        self._status_path = status_path
        self._suppression_log = log
        self._index = index
        self._gate = gate
        self._digest = digest
        self._tokens = tokens
        self._post = post
        self._every_seconds = every_seconds
        self._within_seconds = within_seconds
        self._on_probe = on_probe
        self._failures = 0
        self._lock: int | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(self._go_on(), name="suppression canary")

    async def stop(self) -> None:
        """End, and leave probing to another worker."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def turn(self) -> None:
        """Probe if that is this worker's task; then hold or release the gate by what is known."""
        if self._mine():
            probe = await self.probe()
            self._failures = self._failures + 1 if probe.failure else 0
            self._write(probe)
            if self._on_probe is not None:
                self._on_probe(probe)
        self._obey()

    async def probe(self) -> Probe:
        """One unsubscribe through the public URL."""
        token = Token(Purpose.ONE_CLICK, CANARY_TENANT_ID, 0, 0, secrets.randbits(63), 0)
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._within_seconds):
                status = await self._post(self._tokens.issue(token))
                if status != 200:
                    return Probe(0.0, f"the public URL answers {status}")
                await self._in_force(self._digest.keys(token.person, token.tenant_id, 0))
        except TimeoutError:
            return Probe(0.0, f"not in force within {self._within_seconds:g} s")
        except Exception as error:
            return Probe(0.0, f"the public URL can't be reached: {type(error).__name__}")
        seconds = time.monotonic() - begun
        await self._lift(token)
        return Probe(seconds)

    async def _in_force(self, keys: tuple[int, ...]) -> None:
        while not self._index.blocks(keys, MessageClass.CAMPAIGN):  # noqa: ASYNC110  # the index has no events, it is fast
            await asyncio.sleep(LOOK_SECONDS)

    async def _lift(self, token: Token) -> None:
        """An entry that stays costs a few bytes and stops nobody."""
        lift = Lift(
            token.person, Scope.TENANT, frozenset({Kind.UNSUBSCRIBE}), token.tenant_id, 0, Channel.CANARY, "canary",
            "probe",
        )  # fmt: skip
        with suppress(DatabaseUnavailable):
            async with self._suppression_log.appending() as appending:
                await appending.lift([lift], Action.LIFT_BY_OPERATOR)

    async def _go_on(self) -> None:
        while True:
            try:
                await self.turn()
            except OSError as error:
                LOG.error("suppression canary has no status file", reason=type(error).__name__)
            await asyncio.sleep(self._every_seconds)

    def _mine(self) -> bool:
        if self._lock is None:
            path = self._status_path.with_name(self._status_path.name + ".lock")
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._lock = descriptor
        return True

    def _write(self, probe: Probe) -> None:
        held = self._failures >= FAILURES_TO_HOLD
        if probe.failure:
            LOG.error("suppression canary failed", reason=probe.failure, in_a_row=self._failures, held=held)
        temporary = self._status_path.with_name(self._status_path.name + ".new")
        temporary.write_text(json.dumps({"held": held, "failure": probe.failure}))
        temporary.replace(self._status_path)

    def _obey(self) -> None:
        try:
            held = json.loads(self._status_path.read_text()).get("held") is True
        except (FileNotFoundError, ValueError, AttributeError):
            held = False
        if held:
            self._gate.hold(HOLD, campaigns_only=True)
        else:
            self._gate.release(HOLD)
