"""Starting `tollway dev` and `tollway serve` as a user does, and looking at which processes are left."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.devservices.processes import free_port, start_time
from tests.support import forking

ROOT = Path(__file__).resolve().parents[2]
TRIVIAL_APP = "tests.support.slow_app:application"


def environment(**changes: str) -> dict[str, str]:
    """Return an environment for our programs in which no setting of the caller's is left."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOLLWAY_")}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def tollway(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return forking.run(*arguments, env=environment(**env))


@dataclass
class Program:
    """A running `tollway` command in a session of its own."""

    process: subprocess.Popen[str]
    port: int
    data: Path

    def line(self, start: str, seconds: float = 90.0) -> str:
        """Read output up to a line that begins so, and return it."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        seen = []
        while time.monotonic() < deadline:
            text = self.process.stdout.readline()
            seen.append(text)
            if text.startswith(start):
                return text.strip()
            if not text:
                self.process.wait(60)  # the end of its output
                break
        raise AssertionError(f"no line {start!r} in {seen}; status {self.process.poll()}")

    def document(self) -> dict[str, Any]:
        """Return dev.json."""
        return json.loads((self.data / "dev.json").read_text())

    def get(self, path: str, timeout: float = 60.0) -> tuple[int, bytes]:
        """Make one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def call(self, path: str) -> Future[tuple[int, bytes]]:
        """Begin a request to the trivial application, and return when it has come there."""
        mark = self.data / f"begun-{secrets.token_hex(4)}"
        pool = ThreadPoolExecutor(1)
        answer = pool.submit(self.get, f"{path}?{mark}", 90)
        pool.shutdown(wait=False)
        deadline = time.monotonic() + 60
        while not mark.exists():
            assert not answer.done(), answer.result()
            assert time.monotonic() < deadline, "it never came"
            time.sleep(0.01)
        return answer

    def wait_listening(self, seconds: float = 90.0) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.process.communicate()
            try:
                self.get("/")
                return
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
        raise AssertionError("it does not listen")

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 90.0) -> int:
        """Send a signal, wait, and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()


def start_program(
    command: str, data: Path, prefix: tuple[str, ...] = (), port: int = 0, arguments: tuple[str, ...] = (), **env: str
) -> Program:
    """Start `tollway dev` or `tollway serve` with the trivial application."""
    port = port or free_port()
    settings = {"TOLLWAY_DATA": str(data), "TOLLWAY_PORT": str(port), "TOLLWAY_DEV_APP": TRIVIAL_APP, **env}
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "gateway.cli.main", command, *arguments],
        env=environment(**settings),
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    return Program(process, port, data)


def still_running(pids: list[int], seconds: float = 60.0) -> list[int]:
    """Return those of the processes that have not ended in time."""
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in pids if start_time(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def in_sessions(leaders: list[int], seconds: float = 60.0) -> list[str]:
    """Return every process that stays in the sessions that these processes lead or led (Linux).

    multiprocessing's resource tracker ends a moment after the process it served.
    """
    deadline = time.monotonic() + seconds
    while (left := _in_sessions(leaders)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _in_sessions(leaders: list[int]) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) in leaders and fields[0] not in "ZX":
            found.append(entry.parent.name)
    return found
