"""What a database publisher puts on sale: its configuration, and the tables that its role was found to read.

The tables are read from the publisher's database when the configuration is stored (upstreams/postgres/onboarding.py)
and again by a job; calls and the store only read what is written here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Annotated, Any, Protocol
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError

from gateway.catalog.delivery import DeliveryPolicy
from gateway.catalog.refusals import refused
from gateway.database.statement import Command, Statement
from pricing.sql.catalogue import OnSale, Relation

FIELD = "database_config"
Names = Annotated[tuple[Annotated[StrictStr, Field(min_length=1, max_length=200)], ...], Field(max_length=2_000)]


class DatabaseConfig(BaseModel):
    """`database_config` of a PostgreSQL publisher. An empty list means "all that the role may read"."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connection_string: StrictStr = Field(repr=False)
    schemas: Names = ()
    tables: Names = ()
    columns: Names = ()
    tls: StrictStr | None = None
    ca: StrictStr | None = Field(default=None, repr=False, max_length=65_536)
    sample: StrictBool = True
    """Whether the store shows three rows of each table."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found in a publisher's database. JSON-ready: `tables` as in Sale, `samples` by "schema.table"."""

    tables: list[dict[str, Any]]
    samples: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    findings: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


class Inspector(Protocol):
    """Looks into a publisher's database (it belongs to an upper step)."""

    async def __call__(self, config: DatabaseConfig) -> Inspection:
        """Return what is on sale. Raises InvalidRequest: not reachable, a role that may do too much, nothing there."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Sale:
    """What the hot path needs of a database publisher. `version` changes with every part of it."""

    config: DatabaseConfig
    on_sale: OnSale
    delivery: DeliveryPolicy
    version: str


@dataclass(frozen=True, slots=True)
class SaleRow:
    """One row of catalog.sale."""

    publisher_id: UUID
    tables: list[dict[str, Any]]
    samples: dict[str, list[Any]]
    findings: list[dict[str, Any]]
    checked_at: datetime


PUT_SALE = Command(
    """
    INSERT INTO catalog.sale (publisher_id, tables, samples, findings) VALUES ($1, $2, $3, $4)
    ON CONFLICT (publisher_id) DO UPDATE
       SET tables = excluded.tables, samples = excluded.samples, findings = excluded.findings, checked_at = now()
    """
)
DELETE_SALE = Command("DELETE FROM catalog.sale WHERE publisher_id = $1")
FIND_SALE = Statement(
    "SELECT publisher_id, tables, samples, findings, checked_at FROM catalog.sale WHERE publisher_id = $1", SaleRow
)
# One worker looks at a time; an attempt counts even if it fails, so that a dead database is not asked again at once.
CLAIM_STALE = Statement(
    """
    UPDATE catalog.sale SET checked_at = now() WHERE publisher_id = (
        SELECT s.publisher_id FROM catalog.sale s JOIN catalog.publisher p ON p.id = s.publisher_id
         WHERE s.checked_at < now() - $1::interval AND p.is_active AND NOT p.suspended
           AND p.deleted_at IS NULL
         ORDER BY s.checked_at LIMIT 1 FOR UPDATE OF s SKIP LOCKED)
    RETURNING publisher_id, tables, samples, findings, checked_at
    """,
    SaleRow,
)
REPLACE_SALE = Command(
    """
    UPDATE catalog.sale SET tables = $2, samples = $3, findings = $4
     WHERE publisher_id = $1 AND (tables, samples, findings) IS DISTINCT FROM ($2::jsonb, $3::jsonb, $4::jsonb)
    """
)


def is_postgres(category: str, config: object) -> bool:
    """Return whether a publisher sells queries to a PostgreSQL that is named by a connection string."""
    return category == "database" and isinstance(config, Mapping) and "connection_string" in config


def read_config(config: object) -> DatabaseConfig:
    """Return the configuration. Raises InvalidRequest naming the part that is wrong, never its value."""
    try:
        return DatabaseConfig.model_validate(config)
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        place = ".".join([FIELD, *map(str, fault["loc"])])
        raise refused(place, fault["msg"].removeprefix("Value error, ")) from None


def compile_sale(config: object, tables: Sequence[Mapping[str, Any]], delivery: DeliveryPolicy) -> Sale:
    """Return the hot path's form of stored configuration and tables."""
    read = read_config(config)
    relations = [
        Relation(
            table["schema"],
            table["name"],
            tuple(column["name"] for column in table["columns"]),
            table["whole"],
            table["rows"],
        )
        for table in tables
    ]
    text = orjson.dumps([read.model_dump(), [asdict(one) for one in relations], asdict(delivery)], default=sorted)
    return Sale(read, OnSale.of(relations), delivery, hashlib.sha256(text).hexdigest())


def schema_view(row: SaleRow, *, owner: bool) -> dict[str, Any]:
    """Return `database_schema` as answers show it; what is wrong with the role is its owner's business alone."""
    tables = [
        {
            **{name: table[name] for name in ("schema", "name", "kind", "rows", "columns")},
            "sample": row.samples.get(f"{table['schema']}.{table['name']}", []),
        }
        for table in row.tables
    ]
    return {"tables": tables, "checked_at": row.checked_at, "findings": row.findings if owner else []}
