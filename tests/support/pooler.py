"""Debian's PgBouncer in front of a test's database, in transaction mode: each transaction may go to another server."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.support.proxy import proxied

PGBOUNCER: Final = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed (Debian: pgbouncer)")
_START_SECONDS: Final = 10.0


@asynccontextmanager
async def pooled(url: str, *, servers: int = 3) -> AsyncIterator[str]:
    """The URL by which the database of a URL is reached through a pooler that has so many connections to it."""
    assert PGBOUNCER is not None
    # it does not run as root, and nobody else may use the server's socket
    as_user = ["setpriv", "--reuid", "nobody", "--clear-groups"] if os.geteuid() == 0 else []
    async with proxied(url) as proxy:
        server = urlsplit(proxy.url)
        database = server.path.lstrip("/")
        with tempfile.TemporaryDirectory(prefix="heed-pooler-") as name:
            directory, settings = Path(name), Path(name) / "pgbouncer.ini"
            settings.write_text(
                f"[databases]\n{database} = host={server.hostname} port={server.port} user=heed\n"
                f"[pgbouncer]\npool_mode = transaction\ndefault_pool_size = {servers}\nauth_type = any\n"
                f"unix_socket_dir = {directory}\nlisten_addr =\nlisten_port = 6432\n"
            )
            if as_user:
                shutil.chown(directory, "nobody")
            process = await asyncio.create_subprocess_exec(
                *as_user, PGBOUNCER, "-q", str(settings), stderr=subprocess.DEVNULL
            )
            try:
                async with asyncio.timeout(_START_SECONDS):
                    while not (directory / ".s.PGSQL.6432").exists():  # noqa: ASYNC110  # it is another's
                        await asyncio.sleep(0.02)
                yield f"postgresql://heed@/{database}?host={directory}&port=6432"
            finally:
                process.terminate()
                await process.wait()
