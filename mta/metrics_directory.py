"""Where the processes of a node share their metrics. Imports nothing that imports prometheus_client.

prometheus_client decides at its import, by an environment variable, whether its values are shared between processes;
so `heed run` calls share_metrics() before it imports anything else of ours, and the workers inherit the variable. Each
run has a directory of its own: a second `heed run`, which is going to be refused, must not touch those of the first.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX: Final = "metrics-"


def share_metrics(data_dir: Path) -> None:
    """Make an empty directory for this run; raises OSError."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ[VARIABLE] = tempfile.mkdtemp(prefix=_PREFIX, dir=data_dir.absolute())


def forget_metrics() -> None:
    """Remove this run's directory."""
    shutil.rmtree(os.environ.get(VARIABLE, ""), ignore_errors=True)


def forget_earlier_metrics(data_dir: Path) -> None:
    """Remove those of runs that were killed; the caller holds the lock of the data directory."""
    for directory in data_dir.glob(f"{_PREFIX}*"):
        if str(directory) != os.environ.get(VARIABLE):
            shutil.rmtree(directory, ignore_errors=True)
