"""A gateway that takes cards from Stripe's stand-in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from gateway.database.pool import Connection
from tests.payments.stripe.stage import PRICE, Stage
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.stripe_server import KEY, SIGNING, StripeServer
from tests.support.world import World

OLD_SIGNING = "_".join(("whsec", "seededOneThatIsBeingReplaced77"))


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str, stripe: StripeServer) -> AsyncIterator[RunningGateway]:
    """A gateway that takes cards, with two secrets as while one is replaced."""
    running = await start_gateway(
        services, database_url, STRIPE_SECRET_KEY=KEY, STRIPE_WEBHOOK_SECRETS=f"{SIGNING},{OLD_SIGNING}",
        STRIPE_API_BASE=stripe.url, STRIPE_RECHECK="1",
    )  # fmt: skip
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module")
async def stage(gateway: RunningGateway, stripe: StripeServer, connection: Connection, world: World) -> Stage:
    """Where deposits are made, and a shop to spend them in."""
    return Stage(gateway, stripe, connection, world, await world.publisher(PRICE))
