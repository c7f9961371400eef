"""A streaming replica of the session's PostgreSQL, made by a base backup: it follows the primary and only reads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from gateway.database.pool import LOST, Connection
from gateway.devservices import postgres
from gateway.devservices.datadir import held, prepare
from tests.support.services import Services


@dataclass(frozen=True)
class Replica:
    """What runs."""

    server: postgres.Postgres

    def url(self, database_url: str) -> str:
        """Return the URL of a database of the primary, on the replica."""
        parts = urlsplit(database_url)
        return parts._replace(netloc=f"{parts.username}:{parts.password}@{parts.hostname}:{self.server.port}").geturl()

    async def caught_up(self, primary: Connection, reader: Connection) -> None:
        """Wait until everything that is committed on the primary by now can be read."""
        end = await primary.fetchval("SELECT pg_current_wal_lsn()::text")
        async with asyncio.timeout(60):
            while not await reader.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", end):
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def replica_of(services: Services) -> AsyncGenerator[Replica]:
    """Run a replica on a fresh directory that is removed at the end. Called from the main thread, like the primary."""
    directory = Path(tempfile.mkdtemp(prefix="tw-replica-", dir="/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        data = prepare(directory)
        stack.enter_context(held(data))
        place = postgres.find_place(data)
        stack.callback(shutil.rmtree, place.home, ignore_errors=True)
        password = data / "postgres.password"  # its roles are the primary's
        password.write_text(services.postgres.password)
        password.chmod(0o600)
        place.cluster.mkdir(mode=0o700)
        if place.account is not None:
            os.chown(place.cluster, place.account.uid, place.account.gid)
        postgres.run(
            place, "pg_basebackup", "-d", services.admin_url, "-D", place.cluster, "--write-recovery-conf",
            "--checkpoint=fast", "--no-sync",
        )  # fmt: skip
        server = postgres.launch(data, durable=False)
        stack.callback(server.stop)
        async with asyncio.timeout(60):
            while True:  # it takes connections as soon as what it has is consistent
                with contextlib.suppress(*LOST):
                    await (await asyncpg.connect(server.url)).close()
                    break
                await asyncio.sleep(0.05)
        yield Replica(server)
