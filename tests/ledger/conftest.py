"""Fixtures of the ledger's own tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest_asyncio

from gateway.database.pool import connect
from gateway.settings import DatabaseSettings
from tests.conftest import TEMPLATE
from tests.ledger.past import Past
from tests.support.databases import replaced
from tests.support.services import Services


@pytest_asyncio.fixture
async def past(services: Services, template: str) -> AsyncIterator[Past]:
    admin = await asyncpg.connect(services.database_url)
    name = f"tw_past_{uuid4().hex[:8]}"
    await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')
    url = replaced(services.database_url, name)
    connection = await connect(DatabaseSettings(url=url))
    made = Past(url, connection)
    await made.begin()
    yield made
    await connection.close()
    await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await admin.close()
