"""`tollway audit`, as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import subprocess

from gateway.audit.entries import record
from gateway.database.pool import Connection
from gateway.ids import uuid7
from tests.support.dev import tollway


async def run(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(tollway, "audit", *arguments, TOLLWAY_DATABASE_URL=database_url)


async def test_a_kept_head_vouches_for_the_log(database_url: str, connection: Connection) -> None:
    assert (await run(database_url, "head")).stdout.strip() == "nothing is logged yet"
    organization = uuid7()
    for _ in range(3):
        async with connection.transaction():
            await record(connection, "publisher.create", organization)
    head = (await run(database_url, "head")).stdout.strip()
    sound = await run(database_url, "verify", "--head", head)
    assert sound.returncode == 0, sound.stderr
    assert sound.stdout.splitlines() == [
        "3 entries in 1 chains, 1 checkpoints", f"head {head}", "the audit log is whole",
    ]  # fmt: skip
    await connection.execute("ALTER TABLE audit.entry DISABLE TRIGGER USER")
    await connection.execute("UPDATE audit.entry SET actor_type = 'nobody' WHERE seq = 2")
    broken = await run(database_url, "verify", "--json")
    assert broken.returncode == 1
    document = json.loads(broken.stdout)
    assert document["sound"] is False
    assert len(document["findings"]) == 1
    assert "entry 2" in document["findings"][0]
    wrong = await run(database_url, "verify", "--head", "soon")
    assert wrong.returncode == 2
