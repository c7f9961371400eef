"""Amounts are exact in both directions, refused where they are not, and shared without loss."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.money import (
    MAX_ATOMIC,
    PPM,
    MoneyError,
    fee_of,
    format_amount,
    format_usd,
    parse_amount,
    parse_ratio,
    percent_to_ppm,
    round_up,
)

decimals = st.integers(0, 18)


@given(st.integers(0, MAX_ATOMIC), decimals)
def test_every_amount_survives_the_round_trip(atomic: int, places: int) -> None:
    assert parse_amount(format_amount(atomic, places), places) == atomic


@given(st.integers(0, MAX_ATOMIC), decimals, st.integers(0, 30))
def test_trailing_zeros_change_nothing(atomic: int, places: int, zeros: int) -> None:
    text = format_amount(atomic, places)
    text = text if "." in text else f"{text}.0"
    if len(text.split(".")[1]) + zeros <= 30:
        assert parse_amount(text + "0" * zeros, places) == atomic


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "+1",
        "-1",
        "1e3",
        "1E3",
        ".5",
        "5.",
        "1,000",
        "0x1",
        "NaN",
        "Infinity",
        "01",
        "1_0",
        "١",
        "1.2.3",
        "\n1",
    ],
)
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(MoneyError):
        parse_amount(text, 6)


def test_more_digits_than_the_asset_has_are_refused_not_rounded() -> None:
    with pytest.raises(MoneyError, match="more than 6 digits"):
        parse_amount("1.0000001", 6)
    assert parse_amount("1.0000001", 18) == 1_000_000_100_000_000_000


def test_the_largest_amount_is_exact_and_one_above_is_refused() -> None:
    assert parse_amount(format_amount(MAX_ATOMIC, 6), 6) == MAX_ATOMIC
    with pytest.raises(MoneyError, match="largest supported"):
        parse_amount(format_amount(MAX_ATOMIC + 1, 6), 6)


@given(st.integers(0, MAX_ATOMIC), st.integers(0, PPM))
def test_fee_and_rest_sum_to_the_whole_and_the_fee_is_never_rounded_up(amount: int, ppm: int) -> None:
    fee = fee_of(amount, ppm)
    assert 0 <= fee <= amount
    assert fee * PPM <= amount * ppm < (fee + 1) * PPM


@given(st.integers(0, 10**40), st.integers(1, 10**20))
def test_prices_round_up_by_less_than_one_unit(numerator: int, denominator: int) -> None:
    rounded = round_up(numerator, denominator)
    assert 0 <= rounded * denominator - numerator < denominator


@pytest.mark.parametrize(
    ("atomic", "text"),
    [
        (0, "$0.00"),
        (50_000, "$0.05"),
        (1, "$0.000001"),
        (1_000_000, "$1.00"),
        (-1_500_000, "-$1.50"),
        (1_234_567, "$1.234567"),
    ],
)
def test_dollar_strings(atomic: int, text: str) -> None:
    assert format_usd(atomic) == text


def test_percentages_are_exact() -> None:
    assert percent_to_ppm(parse_ratio("2.5", places=4, maximum=100)) == 25_000
    assert percent_to_ppm(Decimal("0.0001")) == 1
    for wrong in ("100.1", "2.50001", "-1", "1e1"):
        with pytest.raises(MoneyError):
            parse_ratio(wrong, places=4, maximum=100)
