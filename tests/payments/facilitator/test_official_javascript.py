"""The official JavaScript server and client, with us as the facilitator: they understand each other and us."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from gateway.payments.evm.encoding import show_address
from tests.payments.facilitator.conftest import PRICE, payee, payer
from tests.payments.facilitator.test_official_server import official
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, free_port
from tests.support.javascript import installed, node
from tests.support.world import Agent

HERE = Path(__file__).parent


@pytest.mark.slow
async def test_express_and_fetch_pay_through_our_facilitator(
    gateway: RunningGateway, chain: Chain, seller: Agent
) -> None:
    await asyncio.to_thread(installed)
    port, to, account = free_port(), payee(), await payer(chain)
    server = node(
        HERE / "express_server.mjs", FACILITATOR=f"{gateway.url}/payments", KEY=seller.key, PAYEE=show_address(to),
        PORT=str(port),
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}/weather"
    try:
        assert server.stdout is not None
        assert await asyncio.to_thread(server.stdout.readline) == b"ready\n"
        async with httpx.AsyncClient() as plain:
            assert (await plain.get(url)).status_code == 402
        client = node(HERE / "fetch_client.mjs", URL=url, PRIVATE_KEY="0x" + account.key.hex().removeprefix("0x"))
        said = json.loads((await asyncio.to_thread(client.communicate))[0])
        assert (said["status"], said["body"]) == (200, {"weather": "fine", "served": 1})
        assert (said["settled"]["success"], said["settled"]["payer"]) == (True, account.address)
        assert await chain.usdc_of(to) == PRICE
        async with official(account) as buyer:  # and the Python client at the JavaScript server
            assert (await buyer.get(url)).json() == {"weather": "fine", "served": 2}
        assert await chain.usdc_of(to) == 2 * PRICE
    finally:
        server.terminate()
        await asyncio.to_thread(server.communicate)
