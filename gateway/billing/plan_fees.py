"""What an organization's plans come to in a month: a fee for each time that it had one, and the calls beyond them.

Everything is read from what is stored: the terms that the organization had (organization_plans.py) and the count of the
ledger (quotas.py). So a past month comes to the same whatever the file of plans says by now. Each plan counts for the
part of the month that it lasted, with its fee, its included calls and its price for more: who changed in the last
second, for a plan that includes more, has a second's worth of it. Nothing is booked here; these become lines of the
invoice.
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
from pricing.proration import SECOND, month_end, month_start, overage, part_of_month


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
            OR ((p.terms->>'overage_price')::numeric > 0 AND c.value > 0))
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
    return fees + _beyond(times, first, await used(connection, organization_id, first.date()))


async def organizations(connection: Connection, month: datetime) -> set[UUID]:
    """Return the organizations that may owe a fee for the UTC month of a moment."""
    return set(await OWING.all(connection, month_start(month), month_end(month), KIND))


def _fee(time: _Time, month: datetime) -> Fee:
    price = parse_amount(time.terms["price_monthly"], DECIMALS)
    amount = part_of_month(price, month, time.begins, time.ends)
    whole = amount == price
    days = "" if whole else f", {time.begins:%Y-%m-%d %H:%M} to {time.ends:%Y-%m-%d %H:%M} UTC"
    return Fee("plan", f"Plan {time.terms['display_name']}, {month:%B %Y}{days}", 1, amount, str(time.id))


def _beyond(times: list[_Time], month: datetime, calls: int) -> list[Fee]:
    """Return the fee of the calls beyond those that the plans included, each for its part of the month."""
    priced = [time for time in times if time.terms["overage_price"] is not None and _seconds(time, month)]
    included = _included(times, month, calls)
    if not priced or calls <= included:
        return []
    prices = [(parse_amount(time.terms["overage_price"], DECIMALS), _seconds(time, month)) for time in priced]
    amount = overage(calls, included, prices)
    is_one = len({price for price, _ in prices}) == 1
    words = f"${priced[-1].terms['overage_price']} per 1,000" if is_one else "at the average of the plans' prices"
    text = f"{calls - included:,} calls beyond the {included:,} included, {words}"
    return [Fee("overage", text, calls - included, amount, str(priced[-1].id))] if amount else []


def _included(times: list[_Time], month: datetime, calls: int) -> int:
    """Return how many calls the plans of a month included. What a plan that costs nothing has allowed stays free."""
    found, free = 0, 0
    for time in times:
        some: int | None = time.terms["included_calls"]
        found += part_of_month(calls if some is None else some, month, time.begins, time.ends)
        costs = time.terms["overage_price"] is not None or parse_amount(time.terms["price_monthly"], DECIMALS)
        free = max(free, 0 if costs else some or 0)
    return max(found, free)


def _seconds(time: _Time, month: datetime) -> int:
    """Return how long a time with a plan was, as its fee counts it."""
    return part_of_month((month_end(month) - month) // SECOND, month, time.begins, time.ends)
