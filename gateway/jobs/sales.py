"""Reads again what publishers' database roles can see: schemas change, and so may what a role may do.

A role that by now may do too much takes its publisher out of service until it is put right. A database that does not
answer changes nothing: what was on sale stays so, and its calls say that it cannot be reached.
"""

from __future__ import annotations

import logging
from datetime import timedelta

import orjson

from gateway.catalog.records import FIND_ACTIVE
from gateway.catalog.sales import CLAIM_STALE, REPLACE_SALE, Inspection, SaleRow, is_postgres, read_config
from gateway.database.pool import Database
from gateway.errors import InvalidRequest
from gateway.upstreams.credentials import CredentialBox
from gateway.upstreams.postgres.onboarding import DatabaseInspector

log = logging.getLogger(__name__)
AT_ONCE = 20


class SaleRefresher:
    """Periodic job; any number of workers may run it."""

    def __init__(self, database: Database, box: CredentialBox, inspect: DatabaseInspector, every: timedelta) -> None:
        self._database, self._box, self._inspect, self._every = database, box, inspect, every

    async def run(self) -> int:
        """Look at what was not looked at for `every`, a few at a time, and return how many."""
        for done in range(AT_ONCE):
            async with self._database.acquire() as connection:
                stale = await CLAIM_STALE.first(connection, self._every)
            if stale is None:
                return done
            await self._refresh(stale)
        return AT_ONCE

    async def _refresh(self, stale: SaleRow) -> None:
        async with self._database.acquire() as connection:
            record = await FIND_ACTIVE.first(connection, stale.publisher_id)
        if record is None or record.credentials is None:
            return
        config = orjson.loads(self._box.open(record.credentials, record.id.bytes)).get("database_config")
        if not is_postgres(record.category, config):
            return
        try:
            found: Inspection = await self._inspect.look(read_config(config))
        except InvalidRequest as error:
            log.warning("what %s sells could not be read again: %s", record.slug, error.detail)
            return
        async with self._database.acquire() as connection:
            await REPLACE_SALE.run(connection, record.id, found.tables, found.samples, found.findings)
