"""Publishers as the database has them: rows, the statements that read and write them, and assembling a whole one.

What does not live here: what may be written (requests.py, drafts.py) and who may (identity/permissions.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.catalog.assets import LIST_ASSETS, Asset
from gateway.catalog.prices import Pricing, list_pricing
from gateway.catalog.usage import Usage, usage_of
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.suspensions import Suspension


@dataclass(frozen=True, slots=True)
class Record:
    """One row of catalog.publisher with its accepted assets."""

    id: UUID
    organization_id: UUID
    created_by: UUID
    slug: str
    name: str
    description: str | None
    category: str
    wallet_address: str
    wallet_network_id: str
    is_active: bool
    is_verified: bool
    document: dict[str, Any]
    credentials: bytes | None
    primary_asset_id: UUID
    created_at: datetime
    updated_at: datetime
    asset_ids: list[UUID]
    has_logo: bool
    suspended: bool
    suspension: dict[str, str] | None
    """What its owner is told while it is suspended."""

    def demand_not_suspended(self) -> None:
        """Raise Suspended for a publisher that only an operator puts back into the store."""
        found = Suspension.read(self.suspension)
        if found is not None:
            raise found.refusal()


@dataclass(frozen=True, slots=True)
class Publisher:
    """A publisher with its prices and usage; assets and prices in one order, the primary asset first."""

    record: Record
    assets: list[Asset]
    pricing: list[Pricing]
    usage: Usage


_COLUMNS = """
    SELECT p.id, p.organization_id, p.created_by, p.slug, p.name, p.description, p.category, p.wallet_address,
           p.wallet_network_id, p.is_active, p.is_verified, p.document, p.credentials, p.primary_asset_id, p.created_at,
           p.updated_at,
           ARRAY(SELECT a.asset_id FROM catalog.publisher_asset a WHERE a.publisher_id = p.id
                  ORDER BY a.asset_id <> p.primary_asset_id, a.asset_id) AS asset_ids,
           EXISTS (SELECT FROM catalog.logo l WHERE l.publisher_id = p.id) AS has_logo,
           p.suspended,
           CASE WHEN p.suspended THEN identity.suspension_of_publisher(p.id, p.organization_id) END AS suspension
      FROM catalog.publisher p
"""
LIST_OF_ORGANIZATION = Statement(
    _COLUMNS + "WHERE p.organization_id = $1 AND p.deleted_at IS NULL ORDER BY p.created_at DESC, p.id DESC", Record
)
FIND_IN_ORGANIZATION = Statement(
    _COLUMNS + "WHERE p.organization_id = $1 AND p.id = $2 AND p.deleted_at IS NULL", Record
)
FIND_EVEN_DELETED = Statement(_COLUMNS + "WHERE p.organization_id = $1 AND p.id = $2", Record)
LOCK_IN_ORGANIZATION = Statement(
    _COLUMNS + "WHERE p.organization_id = $1 AND p.id = $2 AND p.deleted_at IS NULL FOR UPDATE OF p", Record
)
FIND_IN_STORE = Statement(
    _COLUMNS + "WHERE p.slug = $1 AND p.is_active AND NOT p.suspended AND p.deleted_at IS NULL", Record
)
FIND_ACTIVE = Statement(
    _COLUMNS + "WHERE p.id = $1 AND p.is_active AND NOT p.suspended AND p.deleted_at IS NULL", Record
)
FIND_BY_SLUG = Statement(_COLUMNS + "WHERE p.slug = $1 AND p.deleted_at IS NULL", Record)
FIND_MANY = Statement(_COLUMNS + "WHERE p.id = ANY ($1::uuid[])", Record)
FIND_ANY = Statement(_COLUMNS + "WHERE (p.slug = $1 OR p.id::text = $1) AND p.deleted_at IS NULL", Record)
LIST_ANY = Statement(_COLUMNS + "WHERE p.deleted_at IS NULL ORDER BY p.slug", Record)
LIST_STORE = Statement(
    _COLUMNS
    + """
     WHERE p.is_active AND NOT p.suspended AND p.deleted_at IS NULL AND ($1::boolean IS NULL OR p.is_verified = $1)
       AND ($2::text IS NULL OR p.category = $2)
       AND ($3::text IS NULL OR strpos(lower(p.name), lower($3)) > 0 OR strpos(p.slug, lower($3)) > 0)
     ORDER BY p.created_at DESC, p.id DESC LIMIT $4 OFFSET $5
    """,
    Record,
)
COUNT_STORE = Statement(
    """
    SELECT count(*) FROM catalog.publisher p
     WHERE p.is_active AND NOT p.suspended AND p.deleted_at IS NULL AND ($1::boolean IS NULL OR p.is_verified = $1)
       AND ($2::text IS NULL OR p.category = $2)
       AND ($3::text IS NULL OR strpos(lower(p.name), lower($3)) > 0 OR strpos(p.slug, lower($3)) > 0)
    """,
    int,
    scalar=True,
)
COUNT_EVER = Statement("SELECT count(*) FROM catalog.publisher WHERE organization_id = $1", int, scalar=True)
INSERT_PUBLISHER = Command(
    """
    INSERT INTO catalog.publisher (id, organization_id, created_by, slug, name, description, category, wallet_address,
                                   wallet_network_id, document, credentials, primary_asset_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    """
)
UPDATE_PUBLISHER = Command(
    """
    UPDATE catalog.publisher SET name = $2, description = $3, category = $4, wallet_address = $5,
           wallet_changed_at = CASE WHEN lower(wallet_address) = lower($5) AND wallet_network_id = $6
                                    THEN wallet_changed_at ELSE now() END,
           wallet_network_id = $6, is_active = $7, document = $8, credentials = $9,
           primary_asset_id = $10, updated_at = now()
     WHERE id = $1
    """
)
TOUCH_PUBLISHER = Command("UPDATE catalog.publisher SET updated_at = now() WHERE id = $1")
DELETE_PUBLISHER = Command(
    """
    UPDATE catalog.publisher SET deleted_at = now(), is_active = false, credentials = NULL, updated_at = now()
     WHERE id = $1 AND deleted_at IS NULL
    """
)
SET_FLAGS = Command(
    """
    UPDATE catalog.publisher SET is_active = coalesce($2, is_active), is_verified = coalesce($3, is_verified),
           updated_at = now()
     WHERE id = $1 AND deleted_at IS NULL
    """
)
ADD_ASSET = Command(
    "INSERT INTO catalog.publisher_asset (publisher_id, asset_id) VALUES ($1, $2) ON CONFLICT DO NOTHING"
)
REMOVE_ASSETS = Command("DELETE FROM catalog.publisher_asset WHERE publisher_id = $1 AND asset_id = ANY ($2::uuid[])")
NETWORK_EXISTS = Statement("SELECT EXISTS (SELECT FROM catalog.network WHERE id = $1)", bool, scalar=True)


async def all_assets(connection: Connection) -> dict[UUID, Asset]:
    """Return every known asset by id; the default one comes first."""
    return {asset.id: asset for asset in await LIST_ASSETS.all(connection)}


async def assemble(
    connection: Connection, records: list[Record], *, known: Mapping[UUID, Asset] | None = None
) -> list[Publisher]:
    """Return whole publishers for rows, in their order, with one query each for prices and usage."""
    if not records:
        return []
    ids = [record.id for record in records]
    assets = known if known is not None else await all_assets(connection)
    usage = await usage_of(connection, ids)
    rows: dict[tuple[UUID, UUID], Pricing] = {
        (row.publisher_id, row.asset_id): row for row in await list_pricing(connection, ids)
    }
    return [
        Publisher(
            record,
            [assets[asset_id] for asset_id in record.asset_ids],
            [rows[record.id, asset_id] for asset_id in record.asset_ids if (record.id, asset_id) in rows],
            usage[record.id],
        )
        for record in records
    ]
