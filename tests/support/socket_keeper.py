"""Who opens the gateway's listening socket and keeps it, as systemd does: starts gateways on it, one after the other."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.gateway import ROOT, gateway_environment, new_log
from tests.support.services import Services

# Descriptor 3 is the socket's by the protocol. Whatever this process has there stays out of the way of it.
START = 'exec 3<&"$0"; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
READY_SECONDS = 120


def start_on(descriptor: int, environment: dict[str, str], log: Path, *command: str) -> subprocess.Popen[bytes]:
    """Start a command with an open file as descriptor 3."""
    with log.open("ab") as output:
        return subprocess.Popen(
            ["bash", "-c", START, str(descriptor), *command], cwd=ROOT, env=environment, pass_fds=(descriptor,),
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


class SocketKeeper:
    """The socket, and the settings of the gateways that serve on it."""

    def __init__(self, services: Services, database_url: str, **settings: str) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port: int = self._listener.getsockname()[1]
        self._folder = tempfile.TemporaryDirectory(prefix="tw-keeper-")
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify = f"{self._folder.name}/notify"
        self._notices.bind(notify)
        self._notices.setblocking(False)
        # Its own port is free: a gateway that did not take the socket would be found out.
        self._environment = {
            **gateway_environment(services, database_url, self.port, **settings), "NOTIFY_SOCKET": notify
        }  # fmt: skip
        self._workers = int(settings.get("WORKERS", "1"))
        self.log = new_log()
        self._started: list[subprocess.Popen[bytes]] = []

    async def start(self) -> subprocess.Popen[bytes]:
        """Start a gateway and wait until all its workers have said that they serve."""
        command = (sys.executable, "-m", "gateway.cli.main", "serve")
        gateway = start_on(self._listener.fileno(), self._environment, self.log, *command)
        self._started.append(gateway)
        async with asyncio.timeout(READY_SECONDS):
            for _ in range(self._workers):
                assert await self._notice(gateway) == b"READY=1"
        return gateway

    async def _notice(self, gateway: subprocess.Popen[bytes]) -> bytes:
        """Return what somebody says to the service manager next."""
        while True:
            try:
                return self._notices.recv(4096)
            except BlockingIOError:
                assert gateway.poll() is None, self.output()
                await asyncio.sleep(0.02)

    async def stop(self, gateway: subprocess.Popen[bytes]) -> int:
        """Stop a gateway as a service manager does, and return its exit status."""
        gateway.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(gateway.wait, 90)

    def output(self) -> str:
        """Return what the gateways have printed."""
        return self.log.read_text(errors="replace")

    def close(self) -> None:
        """Leave nothing behind, whatever failed."""
        for gateway in self._started:
            if gateway.poll() is None:
                os.killpg(gateway.pid, signal.SIGKILL)
                gateway.wait(60)
        self._listener.close()
        self._notices.close()
        self._folder.cleanup()
