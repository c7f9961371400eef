"""What was spent of budgets, as the ledger has counted it. What may be spent: budgets.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from gateway.billing.budgets import counters
from gateway.database.pool import Connection
from gateway.database.statement import Statement
from gateway.identity.budgets import KeyBudget

Spent = Mapping[tuple[UUID, str], int]
"""What is spent, or held, by a budget's scope and a counter's kind; atomic units. What is not there is nothing."""


@dataclass(frozen=True, slots=True)
class _Stand:
    scope: UUID
    kind: str
    value: int


FIND_SPENT = Statement(
    """
    SELECT c.scope, c.kind, c.value FROM ledger.counter c
      JOIN unnest($1::uuid[], $2::uuid[], $3::text[], $4::date[]) AS u (scope, subject, kind, period)
     USING (scope, subject, kind, period)
    """,
    _Stand,
)


async def spent_of(connection: Connection, budgets: Iterable[KeyBudget], day: date) -> Spent:
    """Return what was spent of budgets on a UTC day and in its month."""
    wanted = [counter for budget in budgets for counter in counters(budget, day)]
    if not wanted:
        return {}
    found = await FIND_SPENT.all(
        connection,
        [one.scope for one in wanted],
        [one.subject for one in wanted],
        [one.kind for one in wanted],
        [one.period for one in wanted],
    )
    return {(one.scope, one.kind): int(one.value) for one in found}
