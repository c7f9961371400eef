"""One development gateway, as `make run` starts it, for everything that the documents let a reader type."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest_asyncio

from gateway.devservices.datadir import read_dev_json
from gateway.devservices.processes import free_port
from tests.docs.markdown import ROOT
from tests.support.dev import environment
from tests.support.services import Services


@dataclass
class Demo:
    """A running development gateway: what it printed, its dev.json, and an environment in which to type."""

    printed: list[str]
    document: dict[str, Any]
    env: dict[str, str]
    directory: Path

    def shell(self, script: str) -> str:
        """Run a script as a reader would and return what it printed; it must succeed."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.directory, env=self.env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest_asyncio.fixture(scope="package")
async def demo(services: Services, tmp_path_factory: Any) -> AsyncIterator[Demo]:
    """`tollway dev` with the suite's stores, and `tollway` and a Python with clients on the path."""
    directory: Path = tmp_path_factory.mktemp("docs")
    command = directory / "bin" / "tollway"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m gateway.cli.main "$@"\n')
    command.chmod(0o755)
    python = command.parent / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (command.parent / "psql").symlink_to(services.postgres.place.binaries / "psql")
    database = await fresh_database(services)
    env = environment(
        TOLLWAY_DATA=str(directory / "data"), TOLLWAY_PORT=str(free_port()), TOLLWAY_DATABASE_URL=database,
        TOLLWAY_REDIS_URL=services.redis_url, NO_PROXY="*", PATH=f"{command.parent}:{os.environ['PATH']}",
    )  # fmt: skip
    process = subprocess.Popen([str(command), "dev"], env=env, cwd=directory, stdout=subprocess.PIPE, text=True)
    try:
        printed = read_until_told_what_next(process)
        yield Demo(printed, dict(read_dev_json(directory / "data")), shell_environment(env, printed), directory)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
        assert process.stdout is not None
        process.stdout.close()


async def fresh_database(services: Services) -> str:
    import asyncpg

    connection = await asyncpg.connect(services.database_url)
    await connection.execute("DROP DATABASE IF EXISTS tw_docs WITH (FORCE)")
    await connection.execute("CREATE DATABASE tw_docs")
    await connection.close()
    return f"{services.database_url.rsplit('/', 1)[0]}/tw_docs"


def read_until_told_what_next(process: subprocess.Popen[str]) -> list[str]:
    """Return the lines up to the third suggested command."""
    assert process.stdout is not None
    lines: list[str] = []
    while sum(line.startswith("curl ") for line in lines) < 3:
        line = process.stdout.readline()
        assert line, f"`tollway dev` ended early: {lines}"
        lines.append(line.rstrip("\n"))
    return lines


def shell_environment(env: dict[str, str], printed: list[str]) -> dict[str, str]:
    """Return what a reader's shell has: where the gateway is, and nothing of its configuration."""
    (url,) = re.findall(r"^ready (\S+)$", "\n".join(printed), re.M)
    kept = {name: value for name, value in env.items() if not re.match("TOLLWAY_(PORT|DATABASE|REDIS)", name)}
    return {**kept, "TOLLWAY": url, "PYTHONPATH": str(ROOT)}
