"""Journeys run on every server that the gateway supports."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.gateway import RunningGateway, start_gateway
from tests.support.servers import EACH
from tests.support.services import Services


@pytest_asyncio.fixture(scope="module", params=EACH)
async def gateway(
    request: pytest.FixtureRequest, services: Services, database_url: str
) -> AsyncIterator[RunningGateway]:
    """A gateway process on this module's database."""
    running = await start_gateway(services, database_url, SERVER=request.param)
    yield running
    await running.stop()
