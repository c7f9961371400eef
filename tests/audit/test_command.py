"""`tollway audit`, as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import subprocess

from gateway.audit.entries import record
from gateway.database.pool import Connection
from gateway.ids import uuid7
from tests.support.dev import tollway
from tests.support.world import World


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


async def test_any_log_is_listed_by_filters_and_pages(database_url: str, connection: Connection, world: World) -> None:
    agent, thing = await world.agent(), uuid7()
    account, organization = agent.id, agent.organization_id
    slug = await connection.fetchval("SELECT slug FROM identity.organization WHERE id = $1", organization)
    for name in ("first", "second\nFORGED LINE", "third"):
        async with connection.transaction():
            await record(connection, "publisher.update", organization, thing, details={"reason": name})
    async with connection.transaction():
        await record(connection, "webhook.create", organization, uuid7())
        await record(connection, "credential.rotate", None, None, details={"operator": "alice"})
    mine = ("list", "--organization", slug)
    whole = await run(database_url, *mine)
    assert [line.split("  ")[1] for line in whole.stdout.splitlines()] == ["webhook.create"] + ["publisher.update"] * 3
    assert whole.stderr == ""
    assert "second\\nFORGED LINE" in whole.stdout, "a reason makes no line of its own"
    first = await run(database_url, *mine, "--action", "publisher.update", "--limit", "2")
    assert (len(first.stdout.splitlines()), "2 of 3; go on with --offset 2" in first.stderr) == (2, True)
    second = await run(database_url, *mine, "--action", "publisher.update", "--limit", "2", "--offset", "2", "--json")
    (entry,) = [json.loads(line) for line in second.stdout.splitlines()]
    assert (entry["metadata"]["reason"], entry["resource_id"]) == ("first", str(thing))
    assert (entry["organization_id"], entry["action_category"]) == (str(organization), "catalog")
    for which, number in (
        (("--resource", str(thing)), 3), (("--category", "settings"), 1), (("--status", "denied"), 0),
        (("--since", "2020-01-01"), 4), (("--until", "2020-01-01"), 0), (("--actor", str(account)), 0),
        (("--resource-type", "webhook"), 1),
    ):  # fmt: skip
        assert len((await run(database_url, *mine, *which)).stdout.splitlines()) == number, which
    ours = await run(database_url, "list", "--action", "credential.rotate")
    assert '("alice")' in ours.stdout
    for wrong in (("--action", "no.such"), ("--since", "soon"), ("--limit", "0")):
        assert (await run(database_url, *mine, *wrong)).returncode == 2
    unknown = await run(database_url, "list", "--organization", "nobody-at-all")
    assert (unknown.returncode, "no organization" in unknown.stderr) == (1, True)
