"""scripts/bootstrap: which Python it takes, and what it says when there is none. The installation itself is CI's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.dev import ROOT

# A Python without ensurepip, as Debian's without python3-venv: it runs everything but that import.
WITHOUT_VENV = '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; *executable*) echo "$0" ;; esac\n'
BROKEN_SHIM = "#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n"
TOOLS = ("sh", "dirname", "cksum", "cat", "id", "rm")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a space in its name, nothing but the script and empty lock files, and a PATH of few tools."""
    root = tmp_path / "my checkout"
    (root / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "bootstrap", root / "scripts" / "bootstrap")
    for lock in ("requirements.lock", "requirements-services.lock", "requirements-dev.lock"):
        (root / lock).write_text("")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name) or "/missing")
    return root


def bootstrap(checkout: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run it."""
    path = str(checkout.parent / "tools")
    command = ["scripts/bootstrap", *arguments]
    return subprocess.run(
        command, cwd=checkout, env={"PATH": path, **env}, capture_output=True, text=True, check=False, timeout=120
    )


def program(checkout: Path, name: str, text: str) -> Path:
    """Put a program on the PATH."""
    file = checkout.parent / "tools" / name
    file.write_text(text)
    file.chmod(0o755)
    return file


def test_a_python_that_does_not_run_is_no_python(checkout: Path) -> None:
    shim = program(checkout, "python3.13", BROKEN_SHIM)
    refused = bootstrap(checkout, TOLLWAY_PYTHON=str(shim))
    assert refused.returncode == 1
    assert refused.stderr == "bootstrap: no Python from 3.11 to 3.13 found: install one, or name it by TOLLWAY_PYTHON\n"
    assert not (checkout / ".venv").exists()


def test_a_python_without_venv_is_named_with_the_fix(checkout: Path) -> None:
    bare = program(checkout, "python3.12", WITHOUT_VENV)
    refused = bootstrap(checkout, TOLLWAY_PYTHON=str(bare))
    assert refused.returncode == 1
    last = refused.stderr.splitlines()[-1]
    assert last == f"bootstrap: {bare} lacks the venv module: install it (Debian: apt-get install python3-venv)"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may install packages")
def test_root_on_debian_installs_the_venv_module(checkout: Path) -> None:
    bare = program(checkout, "python3.12", WITHOUT_VENV)
    asked = checkout / "asked"
    program(checkout, "apt-get", f'#!/bin/sh\necho "$@" >> "{asked}"\n')
    assert bootstrap(checkout, TOLLWAY_PYTHON=str(bare)).returncode == 1
    assert asked.read_text().splitlines() == ["install -y -q python3-venv"]


def test_an_environment_with_the_stamp_of_the_lock_is_taken_as_it_is(checkout: Path) -> None:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    python = checkout / ".venv" / "bin" / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    sums = subprocess.run(["cksum"], input="", capture_output=True, text=True, check=True).stdout.strip()
    stamp = checkout / ".venv" / ".tollway-lock"
    stamp.write_text(f"requirements.lock requirements-services.lock {sums} {checkout}\n")
    assert bootstrap(checkout).returncode == 0, "its Python can make nothing"
    # The dev environment holds more: the stamp of the run lock is not enough for it.
    assert bootstrap(checkout, "dev", TOLLWAY_PYTHON="/nowhere").returncode == 1


def test_an_unknown_argument_is_refused(checkout: Path) -> None:
    refused = bootstrap(checkout, "everything")
    assert refused.returncode == 1
    assert "unknown argument 'everything'" in refused.stderr
