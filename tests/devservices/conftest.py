"""Short data directories: a PostgreSQL socket path has room for about 100 bytes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def data() -> Iterator[Path]:
    """An empty directory with a short path, removed with whatever its database kept elsewhere."""
    directory = Path(tempfile.mkdtemp(prefix="tw-", dir="/tmp"))
    yield directory
    pointer = directory / "postgres.elsewhere"
    if pointer.exists():
        shutil.rmtree(pointer.read_text().strip(), ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)
