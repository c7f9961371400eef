"""Calls of an organization in a month, counted where the money is.

A paid call by one of the organization's API keys carries a counter of the organization and the UTC month. The statement
that takes the call's money counts it or, when the plan includes no more, refuses both: so calls that race pass no
quota, in whatever workers, and nothing has to be read before. What is given back is uncounted in its transaction, and a
query or a metered call that costs nothing in the end is not counted.

With an overage price nothing is refused, and the count is what the month's invoice says (plan_fees.py). Calls that are
free, that are paid on a chain, or by a wallet's signature instead of a key, do not count.
"""

from __future__ import annotations

from datetime import date
from uuid import UUID

from gateway.database.pool import Connection
from gateway.ledger.counters import READ_COUNTER, Counter, month_of
from gateway.plans import Plan

KIND = "plan_calls"


def counters(organization_id: UUID, plan: Plan | None, day: date) -> tuple[Counter, ...]:
    """Return what one paid call counts; nothing where the plan includes any number."""
    if plan is None or plan.included_calls is None:
        return ()
    most = plan.included_calls if plan.overage is None else None
    return (Counter(organization_id, organization_id, KIND, month_of(day), 1, most=most),)


async def used(connection: Connection, organization_id: UUID, day: date) -> int:
    """Return how many calls of an organization have counted in the month of a day; open ones are among them."""
    return int(await READ_COUNTER.one(connection, organization_id, organization_id, KIND, month_of(day)))
