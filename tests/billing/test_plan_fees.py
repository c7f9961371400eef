"""What plans come to in a month, by what is stored: fees by the second, and calls beyond the included ones."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from gateway.billing.invoices.lines import lines_of, organizations_of
from gateway.billing.invoices.month import Month
from gateway.billing.plan_fees import fees_of, organizations
from gateway.billing.quotas import KIND
from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.plans import load_plans
from tests.support.world import World

NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
PLANS = load_plans()


async def had(
    connection: Connection, organization_id: UUID, name: str, begins: str, ends: str | None, **own: Any
) -> None:
    """Let an organization have had a plan, with terms of its own."""
    plan = PLANS.named(name)
    assert plan is not None
    terms = {
        "display_name": plan.display_name, "price_monthly": plan.price_monthly, "included_calls": plan.included_calls,
        "overage_price": plan.overage_price, **own,
    }  # fmt: skip
    bounds = [None if one is None else datetime.fromisoformat(f"{one}+00:00") for one in (begins, ends)]
    await connection.execute(
        "INSERT INTO identity.organization_plan (id, organization_id, plan_id, terms, started_at, ends_at)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        uuid7(), organization_id, plan.id, terms, *bounds,
    )  # fmt: skip


async def called(connection: Connection, organization_id: UUID, calls: int) -> None:
    """Let an organization have made calls in November."""
    await connection.execute(
        "INSERT INTO ledger.counter (scope, subject, kind, period, value) VALUES ($1, $1, $2, $3, $4)",
        organization_id, KIND, NOVEMBER.date(), calls,
    )  # fmt: skip


@pytest_asyncio.fixture
async def organization(world: World) -> UUID:
    return (await world.agent()).organization_id


async def amounts(connection: Connection, organization: UUID) -> list[tuple[str, int]]:
    fees = await fees_of(connection, organization, NOVEMBER)
    assert (organization in await organizations(connection, NOVEMBER)) == bool(fees)
    assert fees == await fees_of(connection, organization, datetime(2026, 11, 30, 23, tzinfo=UTC))
    return [(fee.kind, fee.amount) for fee in fees]


async def test_who_has_chosen_nothing_owes_nothing(connection: Connection, organization: UUID) -> None:
    assert await amounts(connection, organization) == []


async def test_each_time_with_a_plan_is_a_line_and_they_sum_to_the_month(
    connection: Connection, organization: UUID
) -> None:
    await had(connection, organization, "starter", "2026-10-05T00:00:00", "2026-11-11T07:30:01")
    await had(connection, organization, "pro", "2026-11-11T07:30:01", "2026-11-21T00:00:00", price_monthly="20")
    await had(connection, organization, "starter", "2026-11-21T00:00:00", None)
    found = await amounts(connection, organization)
    assert [kind for kind, _ in found] == ["plan"] * 3
    assert sum(amount for _, amount in found) == 20_000_000
    first, *_ = await fees_of(connection, organization, NOVEMBER)
    assert first.description == "Plan Starter, November 2026, 2026-11-01 00:00 to 2026-11-11 07:30 UTC"


async def test_a_change_in_the_month_is_paid_by_both_plans(connection: Connection, organization: UUID) -> None:
    await had(connection, organization, "starter", "2026-10-05T00:00:00", "2026-11-21T00:00:00")
    await had(connection, organization, "pro", "2026-11-21T00:00:00", None)
    assert await amounts(connection, organization) == [("plan", 13_333_333), ("plan", 33_333_334)]
    bought = await lines_of(connection, organization, Month(2026, 11), 10_000)
    assert [(line.line_type, line.amount, line.paid) for line in bought.lines] == [
        ("plan", 13_333_333, False), ("plan", 33_333_334, False), ("rounding", -6_667, False),
    ]  # fmt: skip
    assert organization in await organizations_of(connection, Month(2026, 11))


async def test_what_begins_later_or_has_ended_before_owes_nothing(connection: Connection, organization: UUID) -> None:
    await had(connection, organization, "pro", "2026-10-01T00:00:00", "2026-11-01T00:00:00")
    await had(connection, organization, "free", "2026-11-01T00:00:00", "2026-12-01T00:00:00")
    await had(connection, organization, "pro", "2026-12-01T00:00:00", None)
    assert await amounts(connection, organization) == []


@pytest.mark.parametrize(
    ("calls", "terms", "due"),
    [
        (250_000, {}, []),
        (250_001, {}, [("overage", 200)]),
        (1_250_000, {}, [("overage", 200_000_000)]),
        (10, {"included_calls": 3, "overage_price": "0.000001"}, [("overage", 1)]),
        (1_250_000, {"overage_price": None}, []),
        (1_250_000, {"included_calls": None, "overage_price": None}, []),
    ],
)
async def test_calls_beyond_the_included_ones(
    connection: Connection, organization: UUID, calls: int, terms: dict[str, Any], due: list[tuple[str, int]]
) -> None:
    await had(connection, organization, "starter", "2026-11-01T00:00:00", None, **terms)
    await called(connection, organization, calls)
    assert await amounts(connection, organization) == [("plan", 20_000_000), *due]


@pytest.mark.parametrize(
    ("times", "calls", "due"),
    [
        # Half a month of each: 125,000 and 1,000,000 included, $0.20 and $0.10.
        ([("starter", 16, {}), ("pro", None, {})], 2_000_500, 131_325_000),
        ([("starter", 16, {}), ("pro", None, {})], 1_125_000, None),
        # The last second of the month is worth a second.
        ([("starter", "30T23:59:59", {}), ("pro", None, {})], 2_000_000, 349_999_933),
        ([("starter", "30T23:59:59", {}), ("enterprise", None, {})], 2_000_000, 350_000_000),
        # What was free stays free, also of a plan that the organization had for a day; and a day's calls are no gift.
        ([("free", 30, {}), ("starter", None, {})], 10_000, None),
        ([("free", 30, {}), ("starter", None, {})], 1_018_000, 200_000_000),
        ([("starter", 30, {}), ("free", None, {"included_calls": 300_000})], 300_000, None),
        # The same plan with other words or a new contract is one plan.
        ([("starter", "07T11:22:33", {}), ("starter", None, {"price_monthly": "30"})], 250_001, 200),
    ],
)
async def test_each_plan_includes_calls_for_its_part_of_the_month(
    connection: Connection,
    organization: UUID,
    times: list[tuple[str, Any, dict[str, Any]]],
    calls: int,
    due: int | None,
) -> None:
    begins = "2026-11-01T00:00:00"
    for name, until, own in times:
        day = until if isinstance(until, str) else f"{until}T00:00:00"
        ends = None if until is None else f"2026-11-{day}"
        await had(connection, organization, name, begins, ends, **own)
        begins = ends or ""
    await called(connection, organization, calls)
    fees = [fee.amount for fee in await fees_of(connection, organization, NOVEMBER) if fee.kind == "overage"]
    assert fees == ([] if due is None else [due])


async def test_overage_alone_is_owed_too(connection: Connection, organization: UUID) -> None:
    await had(connection, organization, "starter", "2026-11-01T00:00:00", None, price_monthly="0", included_calls=1)
    await called(connection, organization, 2)
    assert await amounts(connection, organization) == [("overage", 200)]
