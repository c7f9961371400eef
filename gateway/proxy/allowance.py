"""What the budget of the caller's API key allows: asked before a call is paid, told with its answer.

A refusal is 403 and not 402, which would have x402 clients pay from another wallet. The limits are those that the key
was resolved with; what is spent is counted in the statement that takes the money (billing/budgets.py).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, date, datetime

from gateway.billing.budgets import DAY, MONTH, OtherAsset, Overrun, beyond, decide, left
from gateway.billing.spending import Spent, spent_of
from gateway.catalog.assets import Asset
from gateway.database.pool import Database
from gateway.errors import BudgetExceeded, Unavailable
from gateway.identity.budgets import KeyBudget
from gateway.identity.principals import Principal
from gateway.ledger.counters import Counter
from gateway.ledger.exchanges import ChargeVerdict, HoldVerdict
from gateway.proxy.exchange import HeaderPairs
from pricing.money import format_amount

WORDS = {"call": "per call", "day": "per day", "month": "per month"}


@dataclass(slots=True)
class Allowance:
    """The budget of the key of one call, on the UTC day on which it is paid. Amounts are atomic units of `asset`."""

    budget: KeyBudget
    asset: Asset
    day: date
    spent: Spent | None = None

    def counters(self, amount: int) -> tuple[Counter, ...]:
        """Return what goes with a charge or hold of an amount. Raises BudgetExceeded for one that can never be."""
        allowed = decide(self.budget, self.asset.ledger_asset_id, amount, self.day)
        match allowed:
            case OtherAsset():
                raise BudgetExceeded(
                    f"This API key has a budget in another asset, so it pays nothing in {self.asset.symbol}; you were "
                    "not charged.",
                    budget="asset",
                    asset=self.asset.symbol,
                )
            case Overrun():
                raise self._exceeded(allowed, amount)
            case _:
                return allowed

    def at_most(self, wanted: int, least: int) -> int:
        """Return as much of an amount as the limits alone allow. Raises BudgetExceeded where `least` is above one."""
        self.counters(least)
        limits = self.budget.limits
        return min(one for one in (wanted, limits.per_call, limits.per_day, limits.per_month) if one is not None)

    def room(self, verdict: ChargeVerdict | HoldVerdict) -> int | None:
        """Return what the budget has left, where the ledger says that it is in the way of a charge or hold."""
        overrun = self._overrun(verdict)
        return None if overrun is None else left(overrun.limit, overrun.spent or 0)

    def check(self, verdict: ChargeVerdict | HoldVerdict, amount: int) -> None:
        """Raise BudgetExceeded when the ledger says that the budget was in the way of an amount."""
        overrun = self._overrun(verdict)
        if overrun is not None:
            raise self._exceeded(overrun, amount)

    async def look(self, database: Database) -> None:
        """Look up what is spent, this call included, for `fields`. Without it nothing is told, which harms nobody."""
        if not self.budget.limits.counted:
            return
        with contextlib.suppress(Unavailable):
            self.spent = await database.read(lambda connection: spent_of(connection, [self.budget], self.day))

    def fields(self, given_back: int = 0) -> HeaderPairs:
        """Return what an answer tells of the budget: what is left of the day's and the month's, where one is set."""
        limits, spent = self.budget.limits, self.spent
        if spent is None:
            return []
        parts = [
            f"{period}={format_amount(rest, self.asset.decimals)}"
            for period, kind, limit in (("day", DAY, limits.per_day), ("month", MONTH, limits.per_month))
            if (rest := left(limit, spent.get((self.budget.scope, kind), 0) - given_back)) is not None
        ]
        return [(b"x-budget-left", ", ".join(parts).encode())] if parts else []

    def _overrun(self, verdict: ChargeVerdict | HoldVerdict) -> Overrun | None:
        if verdict.verdict != "beyond":
            return None
        return beyond(self.budget, verdict.kind, verdict.counted, self.day)

    def _exceeded(self, overrun: Overrun, amount: int) -> BudgetExceeded:
        def text(atomic: int) -> str:
            return format_amount(atomic, self.asset.decimals)

        limit, required, symbol = text(overrun.limit), text(amount), self.asset.symbol
        said = f"This API key may spend {limit} {symbol} {WORDS[overrun.period]}"
        problem = BudgetExceeded(
            f"{said}; this call may cost {required}. You were not charged.",
            budget=overrun.period,
            limit=limit,
            required=required,
            asset=symbol,
        )
        if overrun.spent is not None and overrun.renews_at is not None:
            spent, renews = text(overrun.spent), f"{overrun.renews_at:%Y-%m-%dT%H:%M:%SZ}"
            problem.detail = (
                f"{said}, of which {spent} is spent or held until {renews}; this call may cost {required}. "
                "You were not charged."
            )
            problem.fields |= {"spent": spent, "renews_at": renews}
        return problem


def allowance_of(principal: Principal | None, asset: Asset) -> Allowance | None:
    """Return what the key of a caller may spend of an asset today; None for who has no budget."""
    if principal is None or principal.budget is None:
        return None
    return Allowance(principal.budget, asset, datetime.now(UTC).date())
