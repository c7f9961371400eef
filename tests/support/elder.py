"""A PostgreSQL 15 with TLS where the machine has one: publishers' servers are older than ours, and ours speaks no TLS."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from gateway.devservices import postgres
from gateway.devservices.datadir import held, prepare
from tests.support.certificates import self_signed

BINARIES = Path(os.environ.get("TEST_POSTGRES_15", "/usr/lib/postgresql/15/bin"))
NAME = "db.seller.test"
AT_HAND = (BINARIES / "postgres").is_file()


@dataclass(frozen=True)
class Elder:
    """What runs. `ca` is the certificate of its TLS, for NAME and no other name."""

    database_url: str
    admin_url: str
    port: int
    ca: str


@contextlib.contextmanager
def elder_postgres() -> Generator[Elder]:
    """Run it on a fresh directory that is removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="tw-15-", dir="/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        data = prepare(directory)
        stack.enter_context(held(data))
        with _binaries():
            server = postgres.launch(data, durable=False)
        stack.callback(shutil.rmtree, server.place.home, ignore_errors=True)
        stack.callback(server.stop)
        server.wait_ready()
        ca = _certificate(server)
        yield Elder(server.url, server.admin_url, server.port, ca)


async def speak_tls(elder: Elder) -> None:
    """Let it speak TLS from now on."""
    admin = await asyncpg.connect(elder.admin_url)
    for name, value in {"ssl_cert_file": "tls.pem", "ssl_key_file": "tls.pem", "ssl": "on"}.items():
        await admin.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    await admin.execute("SELECT pg_reload_conf()")
    await admin.close()


@contextlib.contextmanager
def _binaries() -> Generator[None]:
    before = os.environ.get("TOLLWAY_DEV_POSTGRES_BIN")
    os.environ["TOLLWAY_DEV_POSTGRES_BIN"] = str(BINARIES)
    try:
        yield
    finally:
        os.environ.pop("TOLLWAY_DEV_POSTGRES_BIN")
        if before is not None:
            os.environ["TOLLWAY_DEV_POSTGRES_BIN"] = before


def _certificate(server: postgres.Postgres) -> str:
    path = self_signed(server.place.cluster / "tls.pem", NAME)
    if server.place.account is not None:
        os.chown(path, server.place.account.uid, server.place.account.gid)
    path.chmod(0o600)
    text = path.read_text()
    return text[text.index("-----BEGIN CERTIFICATE") :]
