"""A PostgreSQL and a Valkey that a test may crash, stop, suspend and start again, with their data kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gateway.devservices import postgres, valkey
from gateway.devservices.datadir import held, prepare
from gateway.devservices.processes import port_is_free
from tests.support.services import Services


class Stores:
    """Both servers. PostgreSQL is durable here: what it confirmed must survive."""

    def __init__(self, data: Path, holding: contextlib.ExitStack) -> None:
        self._data = data
        self._holding = holding
        self.postgres = postgres.launch(data)
        self.valkey = valkey.launch(data)
        self.postgres.wait_ready()
        self.valkey.wait_ready()

    @property
    def services(self) -> Services:
        """Return what tests that only use servers know."""
        return Services(
            self.postgres.url, self.postgres.admin_url, self.valkey.url, self.postgres, self.valkey, self._holding
        )

    async def crash_postgres(self) -> None:
        """End every process of it at once, as a power cut does."""
        await asyncio.to_thread(self._end, self.postgres.child, signal.SIGKILL)

    async def stop_postgres_immediately(self) -> None:
        """What `pg_ctl stop -m immediate` does: no checkpoint, recovery at the next start."""
        await asyncio.to_thread(self._end, self.postgres.child, signal.SIGQUIT)

    async def start_postgres(self) -> None:
        """Start it on its data and its port, and wait until it has recovered."""
        while not port_is_free(self.postgres.port):
            await asyncio.sleep(0.05)
        port = self.postgres.port
        self.postgres = postgres.launch(self._data)
        assert self.postgres.port == port
        await asyncio.to_thread(self.postgres.wait_ready)

    def suspend_postgres(self) -> None:
        """Let every process of it stand still: connections stay, nothing is answered."""
        _signal_all(self.postgres.child.pid, signal.SIGSTOP)

    def resume_postgres(self) -> None:
        """Let it go on."""
        _signal_all(self.postgres.child.pid, signal.SIGCONT)

    async def kill_valkey(self) -> None:
        """End it."""
        await asyncio.to_thread(self._end, self.valkey.child, signal.SIGKILL)

    async def start_valkey(self) -> None:
        """Start it again on its port."""
        while not port_is_free(self.valkey.port):
            await asyncio.sleep(0.05)
        self.valkey = valkey.launch(self._data)
        await asyncio.to_thread(self.valkey.wait_ready)

    def suspend_valkey(self) -> None:
        """Let it stand still."""
        os.kill(self.valkey.child.pid, signal.SIGSTOP)

    def resume_valkey(self) -> None:
        """Let it go on."""
        os.kill(self.valkey.child.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End both for good."""
        for child in (self.postgres.child, self.valkey.child):
            if child.alive():
                _signal_all(child.pid, signal.SIGCONT)
        self.postgres.stop()
        self.valkey.stop()

    @staticmethod
    def _end(child: postgres.Child, number: signal.Signals) -> None:
        """Signal the server and wait for it and all that it has started."""
        if number is signal.SIGKILL:
            _signal_all(child.pid, number)
        else:
            child.process.send_signal(number)
        child.process.wait(30)


def _signal_all(postmaster: int, number: signal.Signals) -> None:
    """Signal a server and its backends, each of which leads a session of its own."""
    for pid in [postmaster, *_children(postmaster)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _children(parent: int) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.parent.name))
    return found


@contextlib.contextmanager
def temporary_stores() -> Iterator[Stores]:
    """Run both on a fresh directory that is removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="tw-", dir="/tmp"))
    with contextlib.ExitStack() as holding:
        data = prepare(directory)
        holding.enter_context(held(data))
        stores = Stores(data, holding)
        try:
            yield stores
        finally:
            stores.stop()
            if stores.postgres.place.home != stores.postgres.place.data:
                shutil.rmtree(stores.postgres.place.home, ignore_errors=True)
            shutil.rmtree(directory, ignore_errors=True)
