"""Another seller's server, built with the official middleware, has us settle what official clients pay it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from x402 import x402Client, x402ClientSync
from x402.http import AuthHeaders, FacilitatorConfig, HTTPFacilitatorClient
from x402.http.clients.httpx import x402HttpxClient
from x402.http.middleware.fastapi import PaymentMiddlewareASGI
from x402.http.utils import (
    decode_payment_required_header,
    decode_payment_response_header,
    encode_payment_signature_header,
)
from x402.mechanisms.evm.exact import ExactEvmScheme, ExactEvmServerScheme
from x402.server import x402ResourceServer

from gateway.payments.evm.encoding import show_address
from tests.payments.facilitator.conftest import PRICE, payee, payer
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, free_port
from tests.support.world import Agent


@dataclass
class Credentials:
    """The seller's API key here, as the official client wants it."""

    headers: dict[str, str]

    def get_auth_headers(self) -> AuthHeaders:
        return AuthHeaders(verify=self.headers, settle=self.headers, supported=self.headers)


@dataclass
class ThirdParty:
    """The seller's server. `served` counts how often its handler ran."""

    url: str
    payee: bytes
    served: int = 0


@asynccontextmanager
async def third_party(facilitator: RunningGateway, chain: Chain, key: dict[str, str]) -> AsyncIterator[ThirdParty]:
    shop = ThirdParty(f"http://127.0.0.1:{free_port()}", payee())
    client = HTTPFacilitatorClient(
        FacilitatorConfig(url=f"{facilitator.url}/payments", auth_provider=Credentials(key), timeout=30)
    )
    resource_server = x402ResourceServer(client)
    resource_server.register("eip155:*", ExactEvmServerScheme())
    price = {
        "scheme": "exact", "payTo": show_address(shop.payee), "price": "$0.01", "network": chain.network,
        "maxTimeoutSeconds": 300 + chain.ahead,
    }  # fmt: skip
    app = FastAPI()
    routes: Any = {"GET /weather": {"accepts": price}}
    app.add_middleware(PaymentMiddlewareASGI, routes=routes, server=resource_server)

    @app.get("/weather")
    async def weather() -> dict[str, str]:
        shop.served += 1
        return {"weather": "fine"}

    config = uvicorn.Config(app, port=int(shop.url.rsplit(":", 1)[1]), log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:
        assert not task.done(), task
        await asyncio.sleep(0.02)
    try:
        yield shop
    finally:
        server.should_exit = True
        await task
        await client.aclose()


def official(account: Any) -> x402HttpxClient:
    client = x402Client()
    client.register("eip155:*", ExactEvmScheme(account))
    return x402HttpxClient(client, timeout=30)


async def test_an_official_client_buys_from_an_official_server(
    gateway: RunningGateway, chain: Chain, seller: Agent
) -> None:
    async with third_party(gateway, chain, seller.headers) as shop, httpx.AsyncClient() as plain:
        assert (await plain.get(f"{shop.url}/weather")).status_code == 402
        account = await payer(chain)
        async with official(account) as buyer:
            for count in (1, 2):
                answer = await buyer.get(f"{shop.url}/weather")
                assert (answer.status_code, answer.json()) == (200, {"weather": "fine"})
                settled = decode_payment_response_header(answer.headers["payment-response"])
                assert settled.success
                assert settled.payer == account.address
                assert shop.served == count
                assert await chain.usdc_of(shop.payee) == count * PRICE


async def test_one_payment_presented_ten_times_to_an_official_server_is_answered_once(
    gateway: RunningGateway, chain: Chain, seller: Agent
) -> None:
    """Its handler may run more often than once: it verifies first, and settles afterwards. One of them is delivered."""
    async with third_party(gateway, chain, seller.headers) as shop, httpx.AsyncClient(timeout=30) as plain:
        account = await payer(chain)
        copied = (await plain.get(f"{shop.url}/weather")).headers["payment-required"]
        payment = signed(account, copied)
        answers = await asyncio.gather(
            *(plain.get(f"{shop.url}/weather", headers={"PAYMENT-SIGNATURE": payment}) for _ in range(10))
        )
        assert sorted(answer.status_code for answer in answers) == [200] + [402] * 9
        assert await chain.usdc_of(shop.payee) == PRICE


def signed(account: Any, required_header: str) -> str:
    """The header by which the official client pays what it was asked for."""
    client = x402ClientSync()
    client.register("eip155:*", ExactEvmScheme(account))
    required: Any = decode_payment_required_header(required_header)
    return encode_payment_signature_header(client.create_payment_payload(required))
