"""What is captured of a hold: the tariff's price where the refund rule keeps, nothing where it gives back."""

from __future__ import annotations

from typing import get_args

import pytest

from gateway.billing import pay_per_use, prepaid_credits
from gateway.billing.prepaid_credits import Ending
from pricing.quote import FREE, Quote

DUE = Quote(1_100, 100, "usage")


@pytest.mark.parametrize("ending", get_args(Ending))
@pytest.mark.parametrize("status", [None, 200, 404, 500])
@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("judged", [None, "refund_rule_empty"])
def test_it_captures_exactly_where_a_fixed_price_would_be_kept(
    ending: Ending, status: int | None, answered: bool, judged: str | None
) -> None:
    refunded = frozenset({404})
    rule = prepaid_credits.settle(ending, status, answered=answered, refunded=refunded, judged=judged)
    settlement = pay_per_use.settle(ending, status, answered=answered, due=DUE, refunded=refunded, judged=judged)
    assert settlement == pay_per_use.Settlement(DUE if rule.action == "keep" else FREE, rule.reason)
