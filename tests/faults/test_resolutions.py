"""Operators see what has no end, from the CLI and over HTTP, end it, and leave an audit line."""

import asyncio
import subprocess
import sys
from uuid import uuid4

import httpx
import pytest

from gateway.database.pool import Connection
from tests.support.gateway import ROOT, RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.world import Agent, World

pytestmark = pytest.mark.usefixtures("sound_books")
TOKEN = "an-operator-token-of-length"


async def stuck(services: Services, database_url: str, world: World) -> tuple[Agent, str]:
    """Leave one charged call behind a killed gateway and return its exchange id."""
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    doomed = await start_gateway(services, database_url, MONEY_DEAD_AFTER="600")
    call = asyncio.create_task(
        httpx.AsyncClient(timeout=30).get(f"{doomed.url}/publishers/{shop.slug}/hang", headers=agent.headers)
    )
    while await world.balance(agent) == 1_000_000:
        await asyncio.sleep(0.05)
    await doomed.kill()
    await asyncio.gather(call, return_exceptions=True)
    connection = world.connection
    exchange = await connection.fetchval(
        "SELECT cause_id FROM ledger.transfer WHERE wallet_id = $1 AND kind = 'charge'", agent.wallet_id
    )
    return agent, str(exchange)


def tollway(gateway: RunningGateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli.main", *arguments],
        cwd=ROOT, env=gateway.environment, capture_output=True, text=True,
    )  # fmt: skip


async def test_an_operator_resolves_by_command_and_over_http(
    services: Services, database_url: str, world: World, connection: Connection
) -> None:
    first, one = await stuck(services, database_url, world)
    second, two = await stuck(services, database_url, world)
    gateway = await start_gateway(services, database_url, MONEY_DEAD_AFTER="600", SECRETS_OPERATOR_TOKEN=TOKEN)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        printed = tollway(gateway, "exchanges", "list")
        listed = printed.stdout
        assert printed.returncode == 0, printed.stderr
        assert one in listed
        assert two in listed
        done = tollway(gateway, "exchanges", "resolve", one, "refund", "--note", "upstream never saw it")
        assert done.stdout.strip() == "refunded"
        assert await world.balance(first) == 1_000_000
        open_now = (await gateway.client.get("/operator/exchanges", headers=headers)).json()["data"]
        assert [row["exchange_id"] for row in open_now] == [two]
        kept = await gateway.client.post(
            f"/operator/exchanges/{two}/resolve", headers=headers, json={"decision": "keep"}
        )
        assert kept.json()["data"]["verdict"] == "settled"
        assert await world.balance(second) == 990_000
        again = await gateway.client.post(
            f"/operator/exchanges/{two}/resolve", headers=headers, json={"decision": "refund"}
        )
        assert again.status_code == 404
        lines = await connection.fetch(
            "SELECT exchange_id, decision, actor, note FROM ledger.resolution ORDER BY decided_at"
        )
        assert [(str(line["exchange_id"]), line["decision"]) for line in lines] == [(one, "refund"), (two, "keep")]
        assert lines[0]["actor"].startswith("cli:")
        assert lines[0]["note"] == "upstream never saw it"
        entries = await connection.fetch("SELECT * FROM audit.entry WHERE action = 'exchange.resolve' ORDER BY seq")
        assert [(str(entry["resource_id"]), entry["actor_type"], entry["credential_type"]) for entry in entries] == [
            (one, "operator", "command_line"), (two, "operator", "operator_token"),
        ]  # fmt: skip
        assert entries[1]["request_id"] == kept.headers["x-request-id"]
    finally:
        await gateway.stop()


async def test_the_operator_api_is_closed_to_everybody_else(
    services: Services, database_url: str, world: World
) -> None:
    agent = await world.agent()
    guarded = await start_gateway(services, database_url, SECRETS_OPERATOR_TOKEN=TOKEN)
    unset = await start_gateway(services, database_url)
    try:
        path = f"/operator/exchanges/{uuid4()}/resolve"
        for headers in ({}, agent.headers, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            assert (await guarded.client.get("/operator/exchanges", headers=headers)).status_code == 401
            assert (await guarded.client.post(path, headers=headers, json={"decision": "keep"})).status_code == 401
        answer = await unset.client.get("/operator/exchanges", headers={"Authorization": "Bearer x"})
        assert (answer.status_code, answer.json()["type"]) == (501, "/problems/not-configured")
    finally:
        await guarded.stop()
        await unset.stop()
