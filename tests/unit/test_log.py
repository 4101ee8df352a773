"""Events go to standard error, and what others would say does not."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from config.log import LOG, configure
from tests.support.daemon import ROOT


@pytest.fixture(autouse=True)
def _afterwards_as_before() -> Iterator[None]:
    yield
    configure("warning", "console")


def test_an_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    LOG.debug("not shown")
    LOG.warning("it rains", millimetres=3)
    written = capsys.readouterr()
    assert written.out == ""
    said = json.loads(written.err)
    assert said.pop("timestamp").endswith("Z")
    assert said == {"event": "it rains", "level": "warning", "millimetres": 3}


def test_what_foreign_libraries_say_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    script = (
        "import logging; from config.log import quieten; quieten()\n"
        "logging.getLogger('asyncpg').warning('not anna@example.net')\n"
        "logging.getLogger('mail.log').error('nor bob@example.net')"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    assert capfd.readouterr().err == '{"level": "WARNING", "logger": "asyncpg"}\n'
