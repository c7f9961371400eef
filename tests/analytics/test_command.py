"""`tollway analytics`: exit status 1 while a sum is wrong, and 0 once the sums are made anew."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys

from gateway.database.pool import Connection
from tests.analytics.test_rollups import Books
from tests.support.world import World


async def tollway(database_url: str, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli.main", "analytics", *arguments,
        env={**os.environ, "TOLLWAY_DATABASE_URL": database_url}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_a_wrong_sum_is_told_by_the_exit_status_until_the_sums_are_made_anew(
    connection: Connection, world: World, database_url: str
) -> None:
    books = Books(connection, [await world.agent(10_000)], [await world.publisher()], random.Random(5))
    await books.charge()
    await books.roll_up()
    assert await tollway(database_url, "verify") == (0, "the sums agree\n")
    await connection.execute("UPDATE analytics.agent_day SET spent = spent + 1")
    status, said = await tollway(database_url, "verify", "--json")
    assert status == 1
    assert json.loads(said)["sound"] is False
    assert len(json.loads(said)["differences"]) == 3  # the ledger, the day and the agent say otherwise
    assert (await tollway(database_url, "rebuild"))[0] == 0
    assert (await tollway(database_url, "verify"))[0] == 0
