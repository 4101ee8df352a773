"""What is shipped beside the code: the man page and the systemd unit are ones that their readers accept."""

import base64
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from mta.cli import application
from mta.manual import manual
from mta.webhooks import signed_headers

ROOT = Path(__file__).parents[2]


def test_the_man_page_has_every_command() -> None:
    page = manual(typer.main.get_command(application()), "1.0")
    for command in ("run", "webhook add", "events replay", "report", "check\\-domain", "doctor", "suppress add"):
        assert f".SS heed {command}" in page
    assert not re.search(r"^[.'](?!TH|SH|SS|TP|I |B |BR |RI )", page, re.MULTILINE)


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_groff_has_nothing_to_say_about_the_man_page() -> None:
    page = manual(typer.main.get_command(application()), "1.0")
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


def test_the_client_of_the_documentation_checks_signatures() -> None:
    page = (ROOT / "docs" / "webhooks.md").read_text("utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102  # what a reader of the page copies
    headers = signed_headers(b"k" * 32, "1-e1-e2", int(time.time()), b'{"events": []}')
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
    assert names["verify"](secret, headers, b'{"events": []}') == {"events": []}
    with pytest.raises(ValueError, match="not signed"):
        names["verify"](secret, headers, b'{"events": [1]}')
