"""The price of use and of bytes: the formulas in tables, and what holds for any prices and any answers."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.reported import Reading
from pricing.tariffs.pay_per_use import UsageRate
from pricing.tariffs.per_byte import ByteRate

PROMPT, ANSWER = "usage.prompt_tokens", "usage.completion_tokens"

COSTS = [
    # cost in the asset, fee in parts per million, markup, minimum, charge, fee
    ("0.0125", 0, "1", 0, 12_500, 0),
    ("0.0125", 100_000, "1", 0, 13_750, 1_250),
    ("0.0125", 100_000, "2", 0, 27_500, 2_500),
    ("0.0000001", 100_000, "1", 0, 1, 0),
    ("0", 100_000, "1", 0, 0, 0),
    ("0", 100_000, "1", 500, 500, 45),
    ("7", 100_000, "1", 0, 100_000, 9_090),
    (None, 100_000, "1", 0, 20_000, 1_818),
    (None, 0, "3", 0, 20_000, 0),
]


@pytest.mark.parametrize(("cost", "fee_ppm", "markup", "minimum", "charge", "fee"), COSTS)
def test_a_cost_is_charged_with_the_fee_on_top(
    cost: str | None, fee_ppm: int, markup: str, minimum: int, charge: int, fee: int
) -> None:
    rate = UsageRate(100_000, 20_000, 6, "usage.cost", markup=Fraction(markup), minimum=minimum, fee_ppm=fee_ppm)
    quote = rate.quote(Reading({} if cost is None else {"usage.cost": Decimal(cost)}))
    assert (quote.amount, quote.fee) == (charge, fee)


@pytest.mark.parametrize(
    ("counts", "charge"),
    [
        ({PROMPT: 1_000, ANSWER: 500}, 450),
        ({PROMPT: 1_000}, 150),
        ({PROMPT: 1}, 1),
        ({PROMPT: 0, ANSWER: 0}, 0),
        ({"other": 5}, 20_000),
    ],
)
def test_counts_are_priced_by_the_million(counts: dict[str, int], charge: int) -> None:
    rate = UsageRate(100_000, 20_000, 6, unit_prices=((PROMPT, 150_000), (ANSWER, 600_000)))
    assert rate.quote(Reading({path: Decimal(count) for path, count in counts.items()})).amount == charge


def test_a_header_names_a_cost_as_well() -> None:
    assert UsageRate(100_000, 20_000, 6).quote(Reading(header=Decimal("0.0042"))).amount == 4_200


@pytest.mark.parametrize(
    ("size", "charge"), [(0, 0), (1, 1), (1 << 20, 1_000), ((1 << 20) + 1, 1_001), (1 << 40, 50_000)]
)
def test_bytes_are_priced_by_the_mebibyte(size: int, charge: int) -> None:
    assert ByteRate(50_000, 1_000).quote(Reading(size=size)).amount == charge


@st.composite
def rates(draw: st.DrawFn) -> UsageRate:
    minimum = draw(st.integers(0, 10**7))
    return UsageRate(
        draw(st.integers(max(minimum, 1), 10**12)),
        draw(st.integers(0, 10**12)),
        draw(st.sampled_from([0, 6, 18])),
        "cost",
        markup=Fraction(draw(st.integers(1, 10**12)), 1_000_000),
        minimum=minimum,
        fee_ppm=draw(st.integers(0, 1_000_000)),
    )


COST = st.decimals(0, 10**12, allow_nan=False, allow_infinity=False)


@given(rates(), COST, COST)
def test_more_use_never_costs_less(rate: UsageRate, one: Decimal, other: Decimal) -> None:
    less, more = sorted((one, other))
    assert rate.quote(Reading({"cost": less})).amount <= rate.quote(Reading({"cost": more})).amount


@given(rates(), st.none() | COST)
def test_a_charge_is_within_its_bounds_and_its_parts_are_the_whole(rate: UsageRate, cost: Decimal | None) -> None:
    quote = rate.quote(Reading({} if cost is None else {"cost": cost}))
    assert rate.minimum <= quote.amount <= rate.reserve == rate.most.amount
    assert 0 <= quote.fee <= quote.amount
    # The fee is on top of what the publisher gets, and never more than its share.
    assert quote.fee * 1_000_000 <= quote.publisher_part * rate.fee_ppm


SIZE = st.integers(0, 10**12)


@given(st.integers(0, 10**7), st.integers(0, 10**9), st.integers(0, 1_000_000), SIZE, SIZE)
def test_more_bytes_never_cost_less_nor_more_than_was_held(
    minimum: int, per_mib: int, fee_ppm: int, one: int, other: int
) -> None:
    rate = ByteRate(max(minimum, 10**6), per_mib, minimum=minimum, fee_ppm=fee_ppm)
    less, more = (rate.quote(Reading(size=size)) for size in sorted((one, other)))
    assert minimum <= less.amount <= more.amount <= rate.reserve == rate.most.amount
    # The fee is a part of the price here, rounded down.
    assert 0 <= more.fee == more.amount * fee_ppm // 1_000_000
    assert more.publisher_part + more.fee == more.amount
