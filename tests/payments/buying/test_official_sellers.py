"""Servers that sell with the official middleware, unchanged, are bought from: version 2, and version 1."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from gateway.payments.evm.encoding import parse_address, show_address
from tests.payments.buying.conftest import CAP, Reselling, ended, left
from tests.payments.facilitator.conftest import on_chain
from tests.payments.facilitator.test_official_server import third_party
from tests.payments.onchain.test_official_clients import V1_PYTHON, fetched
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, free_port, start_gateway
from tests.support.seller import PRICE
from tests.support.services import Services
from tests.support.world import Agent, World

SCRIPT = Path(__file__).parent / "sellers" / "v1.py"


@pytest_asyncio.fixture(scope="module")
async def facilitator(services: Services, database_url: str, chain: Chain) -> AsyncIterator[RunningGateway]:
    """Who settles for the sellers."""
    running = await start_gateway(services, database_url, **on_chain(chain), FACILITATOR_ACCESS="open")
    yield running
    await running.stop()


async def bought(
    gateway: RunningGateway, reselling: Reselling, agent: Agent, world: World, chain: Chain, connection: Connection,
    url: str, payee: bytes,
) -> None:  # fmt: skip
    """Calls through the gateway are answered, paid on the chain, and charged."""
    shop = await reselling(api_url=url, wallet_address=show_address(payee))
    before = await chain.usdc_of(payee)
    for count in (1, 2):
        answer = await gateway.client.get(f"/publishers/{shop.slug}/weather", headers=agent.headers)
        assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.01"), answer.text
        assert answer.json() == {"weather": "fine"}
        assert await chain.usdc_of(payee) == before + count * PRICE
    await left(world, agent, 10 * CAP - 2 * PRICE)
    assert (await ended(connection, chain))[-2:] == [("bought", True)] * 2
    states = await connection.fetch("SELECT transaction FROM chain.purchase WHERE publisher_id = $1", shop.id)
    assert all(len(row["transaction"]) == 66 for row in states)


async def test_a_server_of_version_2(
    facilitator: RunningGateway, gateway: RunningGateway, reselling: Reselling, agent: Agent, world: World,
    chain: Chain, connection: Connection,
) -> None:  # fmt: skip
    async with third_party(facilitator, chain, agent.headers) as shop:
        await bought(gateway, reselling, agent, world, chain, connection, shop.url, shop.payee)
        assert shop.served == 2


@pytest.mark.slow
async def test_a_server_of_version_1(
    facilitator: RunningGateway, gateway: RunningGateway, reselling: Reselling, agent: Agent, world: World,
    chain: Chain, connection: Connection, tmp_path: Path,
) -> None:  # fmt: skip
    named = os.environ.get("TOLLWAY_TEST_CLIENTS")
    place = Path(named) / "seller-v1-py" if named else tmp_path
    python, installed = place / "venv" / "bin" / "python", place / "installed"
    fetched(place, [sys.executable, "-m", "venv", "venv"], python)
    fetched(place, [str(python), "-m", "pip", "install", "-q", V1_PYTHON, "uvicorn"], installed)
    installed.touch()
    port, payee = free_port(), show_address(os.urandom(20))
    environment = {
        **os.environ, "PORT": str(port), "PAYEE": payee, "FACILITATOR": f"{facilitator.url}/payments",
        "SECONDS": str(60 + chain.ahead),
    }  # fmt: skip
    server = subprocess.Popen([str(python), str(SCRIPT)], env=environment)
    try:
        await answering(f"http://127.0.0.1:{port}/weather", server)
        await bought(
            gateway, reselling, agent, world, chain, connection, f"http://127.0.0.1:{port}", parse_address(payee)
        )
    finally:
        server.terminate()
        await asyncio.to_thread(server.wait, 10)


async def answering(url: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers 402."""
    async with httpx.AsyncClient() as client:
        for _ in range(900):
            assert server.poll() is None, "the server has ended"
            try:
                assert (await client.get(url)).status_code == 402
            except httpx.TransportError:
                await asyncio.sleep(0.1)
            else:
                return
    raise AssertionError("the server does not answer")
