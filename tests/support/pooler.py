"""A PgBouncer in transaction mode where the machine has one: what stands between many gateways and one PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from gateway.devservices.reach import unprivileged_account
from tests.support.gateway import free_port

BINARY = os.environ.get("TEST_PGBOUNCER") or shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Pooler:
    """One pgbouncer process in front of the server of a database URL. `size` is how many sessions each database gets."""

    def __init__(self, server_url: str, size: int) -> None:
        self.size = size
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="tw-pooler-", dir="/tmp"))
        self._folder.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None
        server = urlsplit(server_url)
        self._configuration = self._folder / "pgbouncer.ini"
        self._configuration.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port} user={server.username} password={server.password}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = transaction\ndefault_pool_size = {size}\nmax_prepared_statements = 200\n"
            "query_wait_timeout = 30\nignore_startup_parameters = statement_timeout\n"
        )

    def url(self, database_url: str) -> str:
        """Return the URL of a database through the pooler."""
        return f"postgresql://tollway@127.0.0.1:{self.port}/{database_url.rsplit('/', 1)[1]}"

    def start(self) -> None:
        """Start it, on the same port as before, and wait until it listens."""
        account = unprivileged_account()
        command = [str(BINARY), "-q", *(["-u", account.name] if account else []), str(self._configuration)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, start_new_session=True, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise AssertionError(f"pgbouncer did not start: {(self._folder / 'log').read_text()}")

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def remove(self) -> None:
        """End it for good."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
