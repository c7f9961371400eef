"""Prepares the directory through which workers share their metrics.

Apart from metrics.py because order matters: prometheus_client decides between single and multi-process mode when it is
*imported*. The parent calls `prepare` before it starts workers; the workers inherit the environment and import metrics
afterwards.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def prepare(directory: Path) -> None:
    """Make the directory, empty it of an earlier run's numbers, and name it in the environment."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for stale in directory.glob("*.db"):
        stale.unlink()
    os.environ[VARIABLE] = str(directory)
