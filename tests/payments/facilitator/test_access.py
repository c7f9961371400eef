"""Settling costs our gas: who may ask for it is the operator's choice, and how often is limited."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.payments.evm.conftest import until
from tests.payments.facilitator.conftest import on_chain, paid, payee, payer, required
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.world import Agent, World

Starting = Callable[..., AbstractAsyncContextManager[RunningGateway]]


@pytest.fixture
def starting(services: Services, database_url: str) -> Starting:
    @asynccontextmanager
    async def start(**settings: str) -> AsyncIterator[RunningGateway]:
        running = await start_gateway(services, database_url, **settings)
        try:
            yield running
        finally:
            await running.stop()

    return start


async def asked(gateway: RunningGateway, body: Any, who: Agent | None) -> tuple[int, int, Any]:
    """The statuses of verify and settle, and what settle said."""
    credentials = who.headers if who is not None else {}
    both = [
        await gateway.client.post(f"/payments/{what}", json=body, headers=credentials) for what in ("verify", "settle")
    ]
    return both[0].status_code, both[1].status_code, both[1].json()


async def test_a_key_is_needed_unless_the_operator_opens_it(starting: Starting, chain: Chain, seller: Agent) -> None:
    to = payee()
    body = paid(await payer(chain), required(chain, to))
    async with starting(**on_chain(chain)) as gateway:
        assert (await asked(gateway, body, None))[:2] == (401, 401)
        wrong = {"Authorization": "Bearer seren_0000000000000000_" + "x" * 43}
        assert (await gateway.client.post("/payments/settle", json=body, headers=wrong)).status_code == 401
    assert await chain.usdc_of(to) == 0
    async with starting(**on_chain(chain), FACILITATOR_ACCESS="open", FACILITATOR_PER_MINUTE="2") as gateway:
        assert (await gateway.client.post("/payments/settle", json=body, headers=wrong)).status_code == 401
        verified, settled, said = await asked(gateway, body, None)
        assert (verified, settled, said["success"]) == (200, 200, True)
        assert (await asked(gateway, body, None))[1] == 200
        limited = await gateway.client.post("/payments/settle", json=body)
        assert (limited.status_code, limited.json()["type"]) == (429, "/problems/rate-limited")
        assert int(limited.headers["retry-after"]) > 0
    assert await chain.usdc_of(to) == 10_000


@pytest.mark.slow
async def test_only_listed_organizations_where_the_operator_lists_them(
    starting: Starting, chain: Chain, seller: Agent, world: World
) -> None:
    other = await world.agent()
    to = payee()
    body = paid(await payer(chain), required(chain, to))
    settings = {"FACILITATOR_ACCESS": "listed", "FACILITATOR_ORGANIZATIONS": str(seller.organization_id)}
    async with starting(**on_chain(chain), **settings) as gateway:
        assert (await asked(gateway, body, other))[:2] == (403, 403)
        assert await chain.usdc_of(to) == 0
        assert (await asked(gateway, body, seller))[2]["success"]


@pytest.mark.slow
async def test_without_a_chain_or_switched_off_nothing_is_settled(
    starting: Starting, chain: Chain, seller: Agent
) -> None:
    body = paid(await payer(chain), required(chain, payee()))
    async with starting() as gateway:
        assert (await gateway.client.get("/payments/supported")).json() == {
            "kinds": [], "extensions": [], "signers": {"eip155:*": []},
        }  # fmt: skip
        verified, settled, said = await asked(gateway, body, seller)
        assert (verified, settled, said["type"]) == (501, 501, "/problems/rail-not-available")
    async with starting(**on_chain(chain), FACILITATOR_ACCESS="off") as gateway:
        assert (await asked(gateway, body, seller))[:2] == (501, 501)


@pytest.mark.slow
async def test_settlements_are_limited_per_organization(starting: Starting, chain: Chain, seller: Agent) -> None:
    body = paid(await payer(chain), required(chain, payee()))
    async with starting(**on_chain(chain), FACILITATOR_PER_MINUTE="3") as gateway:
        sent = [gateway.client.post("/payments/settle", json=body, headers=seller.headers) for _ in range(8)]
        statuses = sorted(answer.status_code for answer in await asyncio.gather(*sent))
        assert statuses == [200] * 3 + [429] * 5


@pytest.mark.slow
@pytest.mark.parametrize("point", ["chain.reserved", "chain.submitted"])
async def test_a_gateway_that_dies_while_it_settles_leaves_one_transfer_that_can_be_asked_for(
    starting: Starting, chain: Chain, seller: Agent, point: str
) -> None:
    to = payee()
    body = paid(await payer(chain), required(chain, to))
    async with starting(**on_chain(chain), FAULT=f"{point}:kill") as dying:
        with contextlib.suppress(httpx.TransportError):
            answer = await dying.client.post("/payments/settle", json=body, headers=seller.headers)
            assert answer.status_code >= 500
    async with starting(**on_chain(chain), MONEY_DEAD_AFTER="2", FACILITATOR_PER_MINUTE="100000") as gateway:

        async def settled() -> bool:
            answer = await gateway.client.post("/payments/settle", json=body, headers=seller.headers)
            return answer.json()["success"]

        await until(settled)
        assert await chain.usdc_of(to) == 10_000
        assert not await settled()
