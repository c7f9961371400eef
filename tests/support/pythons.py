"""The Pythons that we say we support, and where this machine has them.

`python -m tests.support.pythons` prints a line for each, `3.12=/where/it/is`, with nothing after the sign where it lacks.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def supported() -> tuple[str, ...]:
    """Return the versions that pyproject.toml lists, oldest first: "3.11", "3.12"."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    versions = (re.fullmatch(r"Programming Language :: Python :: (3\.[0-9]+)", line) for line in listed)
    return tuple(version[1] for version in versions if version)


SUPPORTED = supported()


@functools.cache
def interpreter(version: str) -> Path | None:
    """Return an interpreter of a version that runs and can make environments, or None.

    The usual name is looked for, and where there is pyenv the versions that it keeps.
    """
    candidates = [shutil.which(f"python{version}")]
    if shutil.which("pyenv"):
        kept = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False).stdout.strip()
        candidates += sorted(str(path) for path in Path(kept).glob(f"versions/{version}.*/bin/python{version}"))
    for candidate in filter(None, candidates):
        shown = subprocess.run(
            [candidate, "-c", "import ensurepip, sys, venv; print(sys.executable)"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if shown.returncode == 0:
            return Path(shown.stdout.strip())
    return None


if __name__ == "__main__":
    for supported_version in SUPPORTED:
        print(f"{supported_version}={interpreter(supported_version) or ''}")
