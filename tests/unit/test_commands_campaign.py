"""Orders come before the mail that they are about."""

import os
import subprocess
import sys

import pytest

from mta.commands_campaign import come_first

_SHOW = "import os, mta.commands_campaign as c; c.come_first(); print(os.getpriority(os.PRIO_PROCESS, 0))"


def _may() -> bool:
    trial = "import os; os.setpriority(os.PRIO_PROCESS, 0, -1)"
    return subprocess.run([sys.executable, "-c", trial], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _may(), reason="the system allows no process here to run before others")
def test_an_order_runs_before_the_daemon() -> None:
    done = subprocess.run([sys.executable, "-c", _SHOW], capture_output=True, text=True, check=True)
    assert int(done.stdout) < os.getpriority(os.PRIO_PROCESS, 0)


def test_who_may_not_run_before_others_gives_orders_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refused)
    come_first()
