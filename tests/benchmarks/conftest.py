"""What the benchmarks' tests need of the machine."""

from __future__ import annotations

import pytest

from benchmarks.tools import MissingTool, generator


@pytest.fixture(scope="session")
def load_generator() -> None:
    """The load generator is a C program: without a compiler there is none."""
    try:
        generator()
    except MissingTool as reason:
        pytest.skip(str(reason))
