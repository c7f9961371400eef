"""A gateway on the local chain as the facilitator of other sellers' servers, and payers with official clients."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest_asyncio
from eth_account import Account
from eth_account.signers.local import LocalAccount
from x402 import x402ClientSync
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.mechanisms.evm.upto import UptoEvmScheme
from x402.schemas import PaymentRequired

from gateway.database.pool import Connection, connect
from gateway.payments.evm.encoding import show_address
from gateway.settings import DatabaseSettings
from tests.support.chain import Chain
from tests.support.databases import copied_database
from tests.support.gateway import RunningGateway, hear, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, World

PRICE = 10_000
NETWORK = "eip155:84532"


def on_chain(chain: Chain) -> dict[str, str]:
    """Settings that put a gateway on the chain."""
    return {f"CHAIN_{chain.chain_id}_RPC": chain.url, "CHAIN_SIGNER_KEY": chain.signer_key}


# One database and one gateway for all of this folder: every test has wallets, payees and publishers of its own.
@pytest_asyncio.fixture(scope="package")
async def database_url(services: Services, template: str) -> AsyncIterator[str]:
    async with copied_database(services.database_url, template, f"tw_facilitator_{secrets.token_hex(4)}") as url:
        yield url


@pytest_asyncio.fixture(scope="package")
async def connection(database_url: str) -> AsyncIterator[Connection]:
    opened = await connect(DatabaseSettings(url=database_url))
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="package")
async def upstream() -> AsyncIterator[RecordingUpstream]:
    server = RecordingUpstream()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="package")
async def world(database_url: str, connection: Connection, upstream: RecordingUpstream) -> World:
    return World(connection, upstream.url, partial(hear, database_url))


@pytest_asyncio.fixture(scope="package")
async def gateway(services: Services, database_url: str, chain: Chain) -> AsyncIterator[RunningGateway]:
    running = await start_gateway(services, database_url, **on_chain(chain), FACILITATOR_PER_MINUTE="100000")
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="package")
async def seller(world: World, gateway: RunningGateway) -> Agent:
    """An organization here that runs a server elsewhere."""
    return await world.agent()


def payee() -> bytes:
    """An address that nobody has used."""
    return secrets.token_bytes(20)


async def payer(chain: Chain, usdc: int = 1_000_000) -> LocalAccount:
    """A wallet with so much, for the official clients."""
    account = Account.create()
    await chain.give(bytes.fromhex(account.address[2:]), usdc)
    return account


def required(chain: Chain, to: bytes, amount: int = PRICE, **changes: Any) -> dict[str, Any]:
    """What another seller asks for, as its server says it."""
    return {
        "scheme": "exact", "network": chain.network, "asset": show_address(chain.usdc), "amount": str(amount),
        "payTo": show_address(to), "maxTimeoutSeconds": 300, "extra": {"name": "USDC", "version": "2"}, **changes,
    }  # fmt: skip


def paid(account: LocalAccount, requirements: dict[str, Any]) -> dict[str, Any]:
    """The request that an official server sends its facilitator, with what an official client signed."""
    client = x402ClientSync()
    client.register("eip155:*", ExactEvmScheme(account))
    client.register("eip155:*", UptoEvmScheme(account))
    asked = {"x402Version": 2, "resource": {"url": "https://seller.example/x"}, "accepts": [requirements]}
    payment = client.create_payment_payload(PaymentRequired.model_validate(asked))
    return {
        "x402Version": 2,
        "paymentPayload": payment.model_dump(by_alias=True, exclude_none=True),
        "paymentRequirements": requirements,
    }


async def ask(gateway: RunningGateway, what: str, body: Any, who: Agent | None, **headers: str) -> dict[str, Any]:
    """Ask the facilitator and return its answer."""
    credentials = who.headers if who is not None else {}
    answer = await gateway.client.post(f"/payments/{what}", json=body, headers={**credentials, **headers})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def measured(gateway: RunningGateway, name: str) -> float:
    """The sum of a metric."""
    text = (await gateway.client.get("/metrics")).text
    return sum(float(value) for value in re.findall(rf"^tollway_{name}(?:{{.*}})? (\S+)$", text, re.M))


async def booked(connection: Connection) -> int:
    """How many transfers the ledger has."""
    return int(await connection.fetchval("SELECT count(*) FROM ledger.transfer"))


def soon(seconds: int = 300) -> int:
    """A moment a little ahead."""
    return int(time.time()) + seconds
