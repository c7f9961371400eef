"""The tariff `per_request`: precedence, bounds, free endpoints, and parts that sum."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.quote import FREE
from pricing.tariffs.per_request import quote
from pricing.usage import PriceList, Usage

amounts = st.integers(0, 10**24)
optional = st.none() | amounts


@pytest.mark.parametrize(
    ("per_call", "per_get", "endpoint", "expected", "basis"),
    [
        (10, None, None, 10, "call"),
        (10, 20, None, 20, "method"),
        (10, 20, 30, 30, "endpoint"),
        (None, 20, None, 20, "method"),
        (10, 0, None, 0, "free"),
        (10, 20, 0, 0, "free"),
        (None, None, None, 0, "free"),
    ],
)
def test_endpoint_before_method_before_call(per_call, per_get, endpoint, expected, basis) -> None:
    prices = PriceList(per_call=per_call, per_method=(("GET", per_get),) if per_get is not None else ())
    offer = quote(prices, Usage("GET"), endpoint)
    assert (offer.amount, offer.basis) == (expected, basis)


def test_head_is_sold_as_get_and_other_methods_at_the_call_price() -> None:
    prices = PriceList(per_call=5, per_method=(("GET", 7),))
    assert quote(prices, Usage("HEAD")).amount == 7
    assert quote(prices, Usage("PURGE")).amount == 5


def test_the_minimum_lifts_and_the_maximum_caps_but_free_stays_free() -> None:
    prices = PriceList(per_call=5, minimum=10, maximum=20)
    assert quote(prices, Usage()).amount == 10
    assert quote(prices, Usage(), 25).amount == 20
    assert quote(prices, Usage(), 0) is FREE


def test_a_minimum_applies_where_no_price_is_set() -> None:
    assert quote(PriceList(minimum=3), Usage()).amount == 3


@given(optional, optional, optional, amounts, optional, st.integers(0, 10**6))
def test_bounds_and_parts(per_call, per_get, endpoint, minimum, maximum, fee_ppm) -> None:
    if maximum is not None:
        maximum = max(maximum, minimum)
    prices = PriceList(per_call, (("GET", per_get),) if per_get is not None else (), minimum, maximum, fee_ppm)
    offer = quote(prices, Usage("GET"), endpoint)
    assert offer.amount == 0 or offer.amount >= minimum
    assert maximum is None or offer.amount <= maximum
    assert offer.fee >= 0
    assert offer.publisher_part >= 0
    assert offer.fee + offer.publisher_part == offer.amount


@given(amounts, amounts, amounts, optional)
def test_a_higher_price_never_costs_less(low, extra, minimum, maximum) -> None:
    if maximum is not None:
        maximum = max(maximum, minimum)
    prices = PriceList(minimum=minimum, maximum=maximum)
    assert quote(prices, Usage(), low).amount <= max(quote(prices, Usage(), low + extra).amount, 0)


def test_where_some_methods_have_a_price_the_others_are_not_sold_without_one() -> None:
    by_method = (("GET", 7), ("POST", 0))
    assert [PriceList(per_method=by_method).sells(method) for method in ("GET", "HEAD", "POST", "PUT")] == [
        True
    ] * 3 + [False]
    assert PriceList(per_call=5, per_method=by_method).sells("PUT")
    assert PriceList(minimum=5, per_method=by_method).sells("PUT")
    assert PriceList().sells("PUT")
