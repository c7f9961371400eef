"""Looking into a publisher's database before anything is sold from it: what there is, and what its role may do.

Everything is read over one connection to a checked address, read-only and within a few seconds.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import asdict
from typing import Any

import asyncpg
import orjson

from gateway.catalog.refusals import refused
from gateway.catalog.sales import FIELD, DatabaseConfig, Inspection
from gateway.errors import InvalidRequest
from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.postgres import queries
from gateway.upstreams.postgres.address import Address, BadConnectionString, read_address, tls_context
from gateway.upstreams.postgres.errors import LOST, DatabaseError
from gateway.upstreams.postgres.inspection import Selection, Table, findings, quoted, tables_on_sale
from gateway.upstreams.postgres.pool import DatabasePool, Session
from gateway.upstreams.postgres.queries import Bounds
from pricing.sql.catalogue import OnSale

BOUNDS = Bounds(statement=5.0, total=15.0)
SAMPLE_BOUNDS = Bounds(statement=0.5, total=5.0)
SAMPLE_ROWS = 3
SAMPLE_BYTES = 2_048
"""A wider row is left out of the sample."""
SAMPLED_TABLES = 50


class DatabaseInspector:
    """Inspects databases through the egress guard."""

    def __init__(self, guard: EgressGuard) -> None:
        self._guard = guard

    async def __call__(self, config: DatabaseConfig) -> Inspection:
        """Return what is on sale. Raises InvalidRequest: not reachable, a role that may do too much, nothing there."""
        found = await self.look(config)
        fatal = [finding for finding in found.findings if finding["fatal"]]
        if fatal:
            raise too_much(fatal)
        if not found.tables:
            raise refused(FIELD, "puts nothing on sale: the role can read none of the tables that are named")
        return found

    async def look(self, config: DatabaseConfig) -> Inspection:
        """Return what there is, faults of the role included. Raises InvalidRequest when there is no answer."""
        try:
            address = read_address(config.connection_string, tls=config.tls, ca=config.ca)
        except BadConnectionString as error:
            raise refused(f"{FIELD}.connection_string", str(error)) from None
        self._check_tls(address)
        pool = DatabasePool(address, self._guard, size=1)
        try:
            return await self._look(pool, config)
        except DatabaseError as error:
            raise refused(f"{FIELD}.connection_string", str(error)) from None
        finally:
            pool.close()

    def _check_tls(self, address: Address) -> None:
        """Passwords and rows go over the network: without TLS only where development allows it."""
        try:
            tls_context(address)
        except ssl.SSLError:
            raise refused(f"{FIELD}.ca", "is no PEM certificate") from None
        if address.tls == "disable" and not self._guard.is_exempt(address.host):
            raise refused(f"{FIELD}.tls", 'must not be "disable": use verify-full, or require')

    async def _look(self, pool: DatabasePool, config: DatabaseConfig) -> Inspection:
        selection = Selection(config.schemas, config.tables, config.columns)
        async with pool.lease() as session:
            async with queries.sandbox(session, (), BOUNDS):
                tables = await tables_on_sale(session, selection)
                wrong = await findings(session, OnSale.of(table.relation() for table in tables))
            samples = await _samples(session, tables) if config.sample else {}
        return Inspection([_document(table) for table in tables], samples, [asdict(one) for one in wrong])


async def look(address: Address, guard: EgressGuard, selection: Selection) -> list[Table]:
    """Return what a selection would put on sale. Raises DatabaseError."""
    pool = DatabasePool(address, guard, size=1)
    try:
        async with pool.lease() as session, queries.sandbox(session, (), BOUNDS):
            return await tables_on_sale(session, selection)
    finally:
        pool.close()


def too_much(fatal: list[dict[str, Any]]) -> InvalidRequest:
    """Return the refusal of a role: each fault with the SQL that puts it right."""
    return InvalidRequest(
        f"{FIELD}: the database role may do more than read what is on sale. Run each `fix` as the owner of the "
        "database, or make a new role with the SQL of `tollway publisher sandbox-sql`.",
        errors=[{"field": FIELD, "message": one["problem"], "fix": one["fix"]} for one in fatal],
    )


def _document(table: Table) -> dict[str, Any]:
    return asdict(table) | {"columns": [asdict(column) for column in table.columns]}


async def _samples(session: Session, tables: list[Table]) -> dict[str, list[Any]]:
    """Return a few rows of each table, by "schema.table"; a table that does not answer at once has none."""
    found: dict[str, list[Any]] = {}
    try:
        async with asyncio.timeout(SAMPLE_BOUNDS.total):
            await session.execute("ROLLBACK")  # of the inspection
            for table in tables[:SAMPLED_TABLES]:
                rows = await _sample(session, table)
                found[f"{table.schema}.{table.name}"] = [
                    orjson.loads(text) for text in rows if len(text.encode()) <= SAMPLE_BYTES
                ]
    except (*LOST, asyncpg.PostgresError):
        return {}
    return found


async def _sample(session: Session, table: Table) -> list[str]:
    columns = ", ".join(quoted(column.name) for column in table.columns)
    relation = f"{quoted(table.schema)}.{quoted(table.name)}"
    try:
        async with session.transaction(readonly=True):
            await session.execute(f"SET LOCAL statement_timeout = {int(SAMPLE_BOUNDS.statement * 1000)}")
            rows = await session.fetch(
                f"SELECT row_to_json(q)::text FROM (SELECT {columns} FROM {relation} LIMIT {SAMPLE_ROWS}) AS q"  # noqa: S608
            )
    except (*LOST, asyncpg.PostgresError):
        return []
    return [row[0] for row in rows]
