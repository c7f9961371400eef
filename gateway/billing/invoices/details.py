"""Who an organization is to a bookkeeper: what stands on its invoices. An issued invoice keeps what was true then."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.audit.entries import record
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.identity.permissions import Member, Permission, locked


@dataclass(frozen=True, slots=True)
class Details:
    """The buyer. `address` has several lines, `country` is ISO 3166."""

    legal_name: str
    address: str
    country: str
    tax_id: str | None
    updated_at: datetime | None = None


FIND = Statement(
    "SELECT legal_name, address, country, tax_id, updated_at FROM invoice.details WHERE organization_id = $1", Details
)
PUT = Command(
    """
    INSERT INTO invoice.details (organization_id, legal_name, address, country, tax_id) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (organization_id) DO UPDATE
        SET legal_name = $2, address = $3, country = $4, tax_id = $5, updated_at = now()
    """
)


async def find(connection: Connection, organization_id: UUID) -> Details | None:
    """Return an organization's details, or None while it has given none."""
    return await FIND.first(connection, organization_id)


async def put(connection: Connection, member: Member, given: Details) -> Details:
    """Replace the details. Raises Forbidden."""
    actor = await locked(connection, member, Permission.BILLING_MANAGE)
    organization_id = actor.organization_id
    before = await find(connection, organization_id)
    await PUT.run(connection, organization_id, given.legal_name, given.address, given.country, given.tax_id)
    after = await FIND.one(connection, organization_id)
    await record(
        connection, "billing_details.update", organization_id, organization_id, before=before, after=after
    )  # fmt: skip
    return after
