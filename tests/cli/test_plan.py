"""`tollway plan`, run as an operator runs it."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

import pytest

from gateway.database.pool import Connection
from gateway.ids import uuid7
from tests.support.dev import tollway
from tests.support.world import World


async def run(database_url: str, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(tollway, "plan", *arguments, TOLLWAY_DATABASE_URL=database_url, **settings)


async def test_an_organization_is_given_a_plan_with_terms_of_its_own(
    database_url: str, world: World, connection: Connection
) -> None:
    organization = str((await world.agent()).organization_id)
    options = ("--price-monthly", "250", "--included-calls", "none", "--max-members", "40")
    done = await run(database_url, "set", organization, "enterprise", *options)
    assert (done.returncode, "$250 a month  any number of calls" in done.stdout) == (0, True), done.stderr
    assert "max_members: 40" in done.stdout
    assert (await run(database_url, "show", organization)).stdout == done.stdout
    listed = (await run(database_url, "list")).stdout.splitlines()
    assert [line.split()[1] for line in listed] == ["free", "starter", "pro", "enterprise"]
    assert listed[1].endswith("$20 a month  250,000 calls, then $0.20 per 1,000")
    entries = await connection.fetch(
        "SELECT actor_type, credential_type, metadata FROM audit.entry WHERE chain::text = $1", organization
    )
    assert [(one["actor_type"], one["credential_type"], one["metadata"]["to"]) for one in entries] == [
        ("operator", "command_line", "enterprise")
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("set", "{known}", "pro", "--included-calls", "many"), "--included-calls"),
        (("set", "{unknown}", "pro"), "there is no organization"),
        (("set", "{known}", "pro", "--included-calls", "none"), "overage_price"),
    ],
)
async def test_what_is_wrong_is_told_and_nothing_changed(
    database_url: str, world: World, connection: Connection, arguments: tuple[str, ...], words: str
) -> None:
    ids = {"known": (await world.agent()).organization_id, "unknown": uuid7()}
    refused = await run(database_url, *(one.format(**ids) for one in arguments))
    assert refused.returncode != 0
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (
        await connection.fetchval(
            "SELECT count(*) FROM identity.organization_plan WHERE organization_id = $1", ids["known"]
        )
        == 0
    )
