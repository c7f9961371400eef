"""A real PostgreSQL and a real Valkey for a test session, from the same wheels that `tollway dev` uses.

conftest.py calls `start_services` once for the whole session; which databases and schemas a test uses is decided there.
Call it from the main thread: the servers are told to end when the thread that started them does.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from gateway.devservices import postgres, valkey
from gateway.devservices.datadir import held, prepare


@dataclass(frozen=True)
class Services:
    """What runs. `database_url` is the gateway's own role (CREATEDB, no superuser), `admin_url` the superuser's."""

    database_url: str
    admin_url: str
    redis_url: str
    postgres: postgres.Postgres
    valkey: valkey.Valkey
    _holding: contextlib.ExitStack

    def stop(self) -> None:
        """Stop both; the data stays."""
        self._holding.close()


def start_services(directory: Path, *, durable: bool = True) -> Services:
    """Start both servers with their data under `directory` (a short path) and wait until they are ready.

    `durable=False` turns fsync and autovacuum off, for tests that measure nothing and crash nothing.
    """
    data = prepare(directory)
    with contextlib.ExitStack() as holding:
        holding.enter_context(held(data))
        database = postgres.launch(data, durable=durable)
        holding.callback(database.stop)
        cache = valkey.launch(data)
        holding.callback(cache.stop)
        database.wait_ready()
        cache.wait_ready()
        return Services(database.url, database.admin_url, cache.url, database, cache, holding.pop_all())


@contextlib.contextmanager
def temporary_services(*, durable: bool = True) -> Generator[Services]:
    """Run both servers on a fresh directory that is removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="tw-", dir="/tmp"))
    services = start_services(directory, durable=durable)
    try:
        yield services
    finally:
        services.stop()
        if services.postgres.place.home != services.postgres.place.data:
            shutil.rmtree(services.postgres.place.home, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
