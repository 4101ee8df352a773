"""Where the processes of a node share their metrics. Imports nothing that imports prometheus_client.

prometheus_client decides at its import, by an environment variable, whether its values are shared between processes;
so the supervisor calls share_metrics() before it imports anything else of ours, and the workers inherit the variable.
"""

import os
import shutil
from pathlib import Path


def share_metrics(data_dir: Path) -> None:
    """Start with an empty directory; raises OSError."""
    directory = data_dir.absolute() / "metrics"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700, parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
