"""A gateway that is killed after an operation's effect and before its answer is stored: a repeat has the same effect."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway.database.pool import Connection
from tests.payments.stripe.stage import Stage
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.stripe_server import KEY, SIGNING, StripeServer

pytestmark = [pytest.mark.usefixtures("sound_books"), pytest.mark.slow]


async def ended(gateway: RunningGateway, path: str, **request: Any) -> httpx.Response:
    """Ask until the dead worker's claim is taken over."""
    async with asyncio.timeout(60):
        while True:
            answer = await gateway.client.post(path, **request)
            if answer.json().get("type") != "/problems/call-running":
                return answer
            await asyncio.sleep(0.25)


async def test_a_deposit_that_was_begun_is_found_again(
    services: Services, database_url: str, stripe: StripeServer, stage: Stage, connection: Connection
) -> None:
    agent, opened = await stage.agent(), len(stripe.made("checkout.session"))
    cards = {"STRIPE_SECRET_KEY": KEY, "STRIPE_WEBHOOK_SECRETS": SIGNING, "STRIPE_API_BASE": stripe.url}
    request = {"json": {"amount_cents": 2_500}, "headers": {**agent.headers, "Idempotency-Key": str(uuid4())}}
    bonus = {"headers": {**agent.headers, "Idempotency-Key": str(uuid4())}}
    for path, sent in (("/wallet/deposit", request), ("/wallet/bonus/signup", bonus)):
        doomed = await start_gateway(services, database_url, FAULT="operation.done:kill", MONEY_DEAD_AFTER="2", **cards)
        with pytest.raises(httpx.TransportError):
            await doomed.client.post(path, **sent)
        await doomed.kill()
    begun = await connection.fetchval(
        "SELECT id::text FROM card.deposit WHERE organization_id = $1", agent.organization_id
    )
    healed = await start_gateway(services, database_url, MONEY_DEAD_AFTER="2", **cards)
    try:
        answer = await ended(healed, "/wallet/deposit", **request)
        assert answer.status_code == 200, answer.text
        assert answer.json()["data"]["deposit_id"] == begun
        again = await healed.client.post("/wallet/deposit", **request)
        assert (again.headers["idempotency-replayed"], again.content) == ("true", answer.content)
        assert len(stripe.made("checkout.session")) == opened + 1
        # What is there once by its nature says that it is there.
        told = await ended(healed, "/wallet/bonus/signup", **bonus)
        assert (told.status_code, told.json()["type"]) == (409, "/problems/conflict")
        assert (await stage.balance(agent))["promotional_balance_atomic"] == 1_000_000
    finally:
        await healed.stop()
