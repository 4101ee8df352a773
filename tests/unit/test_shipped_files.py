"""What is shipped beside the code: the man page and the systemd unit are ones that their readers accept."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from mta.cli import app
from mta.manual import manual

ROOT = Path(__file__).parents[2]


def test_the_man_page_has_every_command() -> None:
    page = manual(typer.main.get_command(app), "1.0")
    for command in ("run", "webhook add", "events replay", "report", "check\\-domain", "doctor", "suppress add"):
        assert f".SS heed {command}" in page
    assert not re.search(r"^[.'](?!TH|SH|SS|TP|I |B |BR |RI )", page, re.MULTILINE)


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_groff_has_nothing_to_say_about_the_man_page() -> None:
    page = manual(typer.main.get_command(app), "1.0")
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww"], input=page, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "Keep a copy." in done.stdout


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "heed.service"
    # the program need not be installed on the machine that tests
    unit.write_text((ROOT / "config" / "heed.service").read_text("utf-8").replace("/opt/heed/bin/heed", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    score = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", unit], capture_output=True, check=False
    )
    assert score.returncode == 0  # an exposure of 2.5 or less
