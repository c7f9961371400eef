"""`pay_per_use`, and every price that is known after the call: the most is held before it, what is due captured after.

    before the call    hold the reserve; a balance below it: 402, nothing moves, the upstream is never touched
    after the call     capture what is due, release the rest

The refund rule is that of every paid call (prepaid_credits.settle): where it gives back, nothing is captured. Where it
keeps, the tariff says what is due for what was read of the answer (pricing/tariffs).
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.billing import prepaid_credits
from gateway.billing.prepaid_credits import NOTHING, Ending
from pricing.quote import FREE, Quote


@dataclass(frozen=True, slots=True)
class Settlement:
    """What to capture of a hold. `reason` goes into the ledger."""

    due: Quote
    reason: str


def settle(
    ending: Ending,
    status: int | None,
    *,
    answered: bool,
    due: Quote,
    refunded: frozenset[int] = NOTHING,
    judged: str | None = None,
) -> Settlement:
    """Decide a hold's end. `due` is the price of what was read by now; the rest as for prepaid calls."""
    rule = prepaid_credits.settle(ending, status, answered=answered, refunded=refunded, judged=judged)
    return Settlement(due if rule.action == "keep" else FREE, rule.reason)
