"""What an organization bought in a month, as line items: the sum of small sources.

A source says which organizations it has something for, and its lines for one of them. It is asked again when an invoice
is issued and must then say the same of the same past month. What is `paid` is shown and not due; what is not is booked
when the invoice is issued, and nowhere before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from uuid import UUID

from gateway.billing.invoices import plan_lines, prepaid
from gateway.billing.invoices.line import Line, OtherAsset
from gateway.billing.invoices.month import Month
from gateway.database.pool import Connection


@dataclass(frozen=True, slots=True)
class Source:
    """One source: the lines of an organization's month, and the organizations that have any."""

    of: Callable[[Connection, UUID, Month], Awaitable[list[Line]]]
    whose: Callable[[Connection, Month], Awaitable[set[UUID]]]


SOURCES: tuple[Source, ...] = (
    Source(of=plan_lines.lines_of, whose=plan_lines.organizations),
    Source(of=prepaid.lines_of, whose=prepaid.organizations),
)


@dataclass(frozen=True, slots=True)
class Bought:
    """A month of one organization. `others` is what it spent in assets that are not counted in dollars."""

    lines: list[Line]
    others: list[OtherAsset] = field(default_factory=list[OtherAsset])

    @property
    def subtotal(self) -> int:
        """Return the sum of all lines."""
        return sum(line.amount for line in self.lines)

    @property
    def due(self) -> int:
        """Return the sum of what is not paid yet."""
        return sum(line.amount for line in self.lines if not line.paid)


async def lines_of(connection: Connection, organization_id: UUID, month: Month, cent: int) -> Bought:
    """Return what an organization bought in a month; what is due comes to whole cents."""
    lines = [line for source in SOURCES for line in await source.of(connection, organization_id, month)]
    others = await prepaid.others_of(connection, organization_id, month)
    return Bought([*lines, *rounding(lines, cent)], others)


async def organizations_of(connection: Connection, month: Month) -> list[UUID]:
    """Return whoever bought something in a month, in order of their ids."""
    found: set[UUID] = set()
    for source in SOURCES:
        found |= await source.whose(connection, month)
    return sorted(found)


def rounding(lines: list[Line], cent: int) -> list[Line]:
    """Return the line that takes what is due down to whole cents, if that needs one: cards pay nothing smaller."""
    rest = sum(line.amount for line in lines if not line.paid) % cent
    return [Line("rounding", "Rounding down to whole cents", Decimal(1), -rest, paid=False)] if rest else []
