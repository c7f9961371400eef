"""What a benchmark needs beside our own environment, made on demand and kept in the user's cache by its content.

The load generator is compiled from load.c; the peers' packages come from npm and pip, pinned by the files in peers/.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
EXPRESS = HERE / "peers" / "express"
LITELLM = HERE / "peers" / "litellm" / "requirements.txt"
SPY = HERE / "peers" / "py-spy.txt"
FETCH_SECONDS = 900


class MissingTool(RuntimeError):
    """A program that has to be installed by hand. The message says how."""


def generator() -> Path:
    """Return the compiled load generator."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise MissingTool("the load generator is a C program: install a compiler (Debian: apt-get install gcc)")
    source = HERE / "load.c"

    def make(place: Path) -> None:
        _run([compiler, "-std=c11", "-O2", "-Wall", "-o", place / "load", source, "-lm"])

    return _kept("load", source.read_bytes(), make) / "load"


def express() -> Path:
    """Return a directory in which Express and its proxy can be imported."""
    npm = shutil.which("npm")
    if npm is None:
        raise MissingTool("Express needs Node.js and npm")
    files = [EXPRESS / name for name in ("package.json", "package-lock.json", "proxy.mjs")]

    def make(place: Path) -> None:
        for file in files:
            shutil.copy(file, place)
        _run([npm, "ci", "--ignore-scripts", "--no-fund", "--no-audit", "--silent"], place)

    return _kept("express", b"".join(file.read_bytes() for file in files), make)


def litellm() -> Path:
    """Return LiteLLM's command."""
    return environment("litellm", LITELLM) / "litellm"


def spy() -> Path:
    """Return the py-spy command."""
    found = shutil.which("py-spy")
    return Path(found) if found else environment("py-spy", SPY) / "py-spy"


def environment(name: str, requirements: Path) -> Path:
    """Return the directory of commands of a virtual environment of its own with these packages."""

    def make(place: Path) -> None:
        _run([sys.executable, "-m", "venv", place])
        pip = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--no-deps", "--only-binary", ":all:", "-r", requirements])

    return _kept(name, requirements.read_bytes() + sys.version.encode(), make, moves=False) / "bin"


def _kept(name: str, content: bytes, make: Callable[[Path], None], *, moves: bool = True) -> Path:
    """Return the directory that `make` fills, once for a content. A half-made one is never used.

    `moves`: it may be made elsewhere and renamed. A virtual environment may not; there a mark says that it is whole.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollway"
    home = cache / f"bench-{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    mark = home / ".whole"
    if mark.exists():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    if not moves:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        make(home)
        mark.touch()
        return home
    with tempfile.TemporaryDirectory(dir=cache, prefix=".bench-") as work:
        fresh = Path(work) / "fresh"
        fresh.mkdir()
        make(fresh)
        (fresh / mark.name).touch()
        try:
            fresh.rename(home)
        except OSError:  # somebody else was quicker
            if not mark.exists():
                raise
    return home


def _run(command: list[str | Path], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
        raise MissingTool(f"{Path(command[0]).name} failed: {said[0]}")
