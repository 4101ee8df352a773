"""What the supervisor makes of what its children say, of their silence, and of files that it can't read."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from config.settings import Settings
from metrics.history import read
from mta.metrics_directory import VARIABLE
from mta.supervisor import Child, Supervisor
from tests.support.node import until

READY = '{"ready": true, "listening": true, "fresh": true}'


@asynccontextmanager
async def speaking(program: str) -> AsyncIterator[Child]:
    """A worker's process that runs this Python, and is listened to."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-c", program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    child = Child("worker 7", process, 7)
    listening = asyncio.create_task(child.listen())
    try:
        yield child
    finally:
        if process.returncode is None:
            process.kill()
        await listening
        await process.wait()


def supervisor_of(*children: Child) -> Supervisor:
    supervisor = Supervisor(Settings(workers=len(children)))
    supervisor._children.update(children)
    return supervisor


async def test_a_line_without_an_end_is_no_reason_to_stop_listening() -> None:
    program = f"""
import sys
sys.stdout.write("x" * 3_000_000 + "\\n")
print("{{no json")
print('{READY}')
sys.stdin.read()
"""
    async with speaking(program) as child:
        await until(lambda: child.state)
        assert child.ready


async def test_a_silent_worker_is_not_ready_and_killed_in_the_end() -> None:
    program = f"""
import sys
for _ in sys.stdin:
    print('{READY}')
"""
    async with speaking(program) as child:
        supervisor = supervisor_of(child)

        async def speak() -> None:
            assert child.process.stdin is not None
            child.process.stdin.write(b"speak\n")
            await until(lambda: child.ready)

        await speak()
        for _ in range(5):
            supervisor.watch()
        shown = await supervisor._readiness()
        assert not shown["ready"]
        assert shown["workers"] == {"ready": 0, "expected": 1}
        assert shown["reasons"] == ["worker 7 has said nothing for 5 s"]
        await speak()
        assert (await supervisor._readiness())["ready"]
        for _ in range(59):
            supervisor.watch()
        assert child.process.returncode is None
        supervisor.watch()
        async with asyncio.timeout(10):
            assert await child.process.wait() == -9


async def test_metrics_that_can_not_be_read_are_read_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed between making a file of metrics and giving it a length leaves an empty one."""
    empty = tmp_path / "counter_4711.db"
    empty.touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr("mta.supervisor.SAMPLE_SECONDS", 0.01)
    failures: list[Exception] = []
    monkeypatch.setattr("mta.supervisor.read", noting(read, failures))
    supervisor = supervisor_of()
    supervisor._parts = SimpleNamespace(now=time.time)  # type: ignore[assignment]
    sampling = asyncio.create_task(supervisor._sample_for_ever())
    await until(lambda: failures)
    empty.unlink()
    await until(lambda: sampling.done() or supervisor._history.values("x"))
    assert not sampling.done()
    sampling.cancel()


def noting(work: Callable[[str], dict[str, float]], failures: list[Exception]) -> Callable[[str], dict[str, float]]:
    """What it does, with its failures remembered."""

    def noted(directory: str) -> dict[str, float]:
        try:
            return work(directory)
        except Exception as error:
            failures.append(error)
            raise

    return noted
