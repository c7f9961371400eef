"""Counters: what somebody has used of something in a period, bounded in the statement that moves the money.

A charge or a hold may carry counters. All of them are counted and its money is taken, or nothing of it: the verdict is
`beyond` when one would leave its bounds. What is given back is uncounted in the same transaction, and what is captured
of a hold is what it counts for in the end. What does not live here: what is counted, and why (tiers: proxy/tiers.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from gateway.database.statement import Statement


@dataclass(frozen=True, slots=True)
class Counter:
    """What one exchange adds to one counter. An exchange may not name a counter twice.

    `scope` is who uses (an account, an API key), `subject` what (a publisher, an asset), `period` the day or the first
    day of the month in UTC. Without an `amount` it counts the money: what is charged or held, and in the end what was
    taken. With one it counts that, whatever the price; or nothing, if nothing was taken in the end.

    Before, the counter must stand at `least` at least; afterwards at `most` at most (None: no bound).
    """

    scope: UUID
    subject: UUID
    kind: str
    period: date
    amount: int | None = None
    least: int = 0
    most: int | None = None


def month_of(day: date) -> date:
    """Return the period of a month: its first day."""
    return day.replace(day=1)


READ_COUNTER = Statement(
    """
    SELECT coalesce((SELECT value FROM ledger.counter
                      WHERE scope = $1 AND subject = $2 AND kind = $3 AND period = $4), 0)
    """,
    int,
    scalar=True,
)


def counter_columns(items: Sequence[tuple[int, Sequence[Counter]]]) -> tuple[list[Any], ...]:
    """Return counters as the arrays that ledger.post_charges and ledger.place_holds take.

    Of each exchange, in order: the atomic units that are charged or held, and its counters.
    """
    rows = [(number, money, one) for number, (money, own) in enumerate(items, 1) for one in own]
    return (
        [number for number, _, _ in rows],
        [one.scope for _, _, one in rows],
        [one.subject for _, _, one in rows],
        [one.kind for _, _, one in rows],
        [one.period for _, _, one in rows],
        [str(money if one.amount is None else one.amount) for _, money, one in rows],
        [one.amount is None for _, _, one in rows],
        [str(one.least) for _, _, one in rows],
        [None if one.most is None else str(one.most) for _, _, one in rows],
    )
