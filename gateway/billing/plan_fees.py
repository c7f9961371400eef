"""What an organization's plans come to in a month: a fee for each time that it had one, and the calls beyond its plan.

Everything is read from what is stored: the terms that the organization had (organization_plans.py) and the count of the
ledger (quotas.py). So a past month comes to the same whatever the file of plans says by now. The calls are held
against the plan at the end of the month: an upgrade is good for all of it. Nothing is booked here; these become lines
of the invoice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from gateway.billing.quotas import KIND, used
from gateway.database.pool import Connection
from gateway.database.statement import Statement
from gateway.plans import DECIMALS
from pricing.money import parse_amount
from pricing.proration import month_end, month_start, overage, part_of_month


@dataclass(frozen=True, slots=True)
class Fee:
    """One part of what a month comes to. `amount` is atomic units of the default asset, before tax."""

    kind: Literal["plan", "overage"]
    description: str
    quantity: int
    amount: int
    reference: str


@dataclass(frozen=True, slots=True)
class _Time:
    """A time with a plan, as far as it lies in the month."""

    id: UUID
    terms: dict[str, Any]
    begins: datetime
    ends: datetime


TIMES = Statement(
    """
    SELECT id, terms, greatest(started_at, $2) AS begins, least(ends_at, $3) AS ends
      FROM identity.organization_plan
     WHERE organization_id = $1 AND started_at < $3 AND (ends_at IS NULL OR ends_at > $2) ORDER BY started_at
    """,
    _Time,
)
# Terms are checked when they are stored; prices are plain decimals there.
OWING = Statement(
    """
    SELECT p.organization_id::text
      FROM identity.organization_plan p
      LEFT JOIN ledger.counter c ON (c.scope, c.subject, c.kind, c.period)
                                  = (p.organization_id, p.organization_id, $3, ($1 AT TIME ZONE 'UTC')::date)
     WHERE p.started_at < $2 AND (p.ends_at IS NULL OR p.ends_at > $1)
       AND ((p.terms->>'price_monthly')::numeric > 0
            OR ((p.ends_at IS NULL OR p.ends_at >= $2) AND (p.terms->>'overage_price')::numeric > 0
                AND c.value > (p.terms->>'included_calls')::numeric))
     GROUP BY p.organization_id
    """,
    UUID,
    scalar=True,
)


async def fees_of(connection: Connection, organization_id: UUID, month: datetime) -> list[Fee]:
    """Return what the UTC month of a moment comes to for an organization; nothing for who has the default plan."""
    first, beyond = month_start(month), month_end(month)
    times = await TIMES.all(connection, organization_id, first, beyond)
    fees = [fee for time in times if (fee := _fee(time, first)).amount]
    if times and times[-1].ends == beyond:
        fees += _beyond(times[-1], await used(connection, organization_id, first.date()))
    return fees


async def organizations(connection: Connection, month: datetime) -> set[UUID]:
    """Return the organizations that owe a fee for the UTC month of a moment."""
    return set(await OWING.all(connection, month_start(month), month_end(month), KIND))


def _fee(time: _Time, month: datetime) -> Fee:
    price = parse_amount(time.terms["price_monthly"], DECIMALS)
    amount = part_of_month(price, month, time.begins, time.ends)
    whole = amount == price
    days = "" if whole else f", {time.begins:%Y-%m-%d %H:%M} to {time.ends:%Y-%m-%d %H:%M} UTC"
    return Fee("plan", f"Plan {time.terms['display_name']}, {month:%B %Y}{days}", 1, amount, str(time.id))


def _beyond(time: _Time, calls: int) -> list[Fee]:
    """Return the fee of the calls beyond those that the plan includes."""
    included, price = time.terms["included_calls"], time.terms["overage_price"]
    if included is None or price is None or calls <= included:
        return []
    amount = overage(calls, included, parse_amount(price, DECIMALS))
    name = time.terms["display_name"]
    text = f"{calls - included:,} calls beyond the {included:,} of the plan {name}, ${price} per 1,000"
    return [Fee("overage", text, calls - included, amount, str(time.id))]
