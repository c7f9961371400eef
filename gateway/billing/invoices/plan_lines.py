"""The lines of an organization's plans, for its invoice: fees, and calls beyond the included ones. All of it is due."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from gateway.billing import plan_fees
from gateway.billing.invoices.line import Line
from gateway.billing.invoices.month import Month
from gateway.database.pool import Connection


async def lines_of(connection: Connection, organization_id: UUID, month: Month) -> list[Line]:
    """Return the lines of a month; none for who has the default plan."""
    return [
        Line(fee.kind, fee.description, Decimal(fee.quantity), fee.amount, paid=False, reference=fee.reference)
        for fee in await plan_fees.fees_of(connection, organization_id, month.start)
    ]


async def organizations(connection: Connection, month: Month) -> set[UUID]:
    """Return the organizations that owe something for their plans."""
    return await plan_fees.organizations(connection, month.start)
