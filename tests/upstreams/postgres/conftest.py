"""Tollway's connections to the publisher's database of tests/support/market.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest_asyncio

from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.postgres.pool import DatabasePool
from tests.support.market import Market


@pytest_asyncio.fixture
async def pool(market: Market) -> AsyncIterator[DatabasePool]:
    """Tollway's connections to it."""
    opened = DatabasePool(market.address, EgressGuard([ip_network("127.0.0.0/8")]), size=4)
    yield opened
    opened.close()
