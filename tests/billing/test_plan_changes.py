"""When a chosen plan begins (a dearer one, or one as dear, at once; a cheaper one with the next month), and what fits it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from gateway.billing.plan_changes import Excess, decide, excess
from gateway.identity.organization_plans import Held, Occupied, Period
from gateway.plans import Plan, load_plans

NOW = datetime(2026, 11, 30, tzinfo=UTC)
SOME = next(plan for plan in load_plans().plans if plan.self_service and plan.price)


def priced(cents: int) -> Plan:
    return Plan.model_validate(
        {**SOME.model_dump(), "id": uuid4(), "price_monthly": f"{cents // 100}.{cents % 100:02}"}
    )


@pytest.mark.parametrize(("cents", "begins"), [(1901, "now"), (1900, "now"), (1899, "month_end"), (0, "month_end")])
def test_only_a_cheaper_plan_waits(cents: int, begins: str) -> None:
    had = priced(1900)
    period = Period(uuid4(), uuid4(), had.id, {}, NOW, None, None, None, None, NOW, NOW)
    assert decide(Held(NOW, had, period, chosen=True), priced(cents)) == begins


def test_one_too_many_does_not_fit() -> None:
    plan = Plan.model_validate({**SOME.model_dump(), "max_members": 3})
    assert excess(Occupied(publishers=0, api_keys=0, members=3, projects=0), plan) == []
    assert excess(Occupied(publishers=0, api_keys=0, members=4, projects=0), plan) == [Excess("members", 4, 3)]
