"""The facts that the demo sells: true where they are real, the same everywhere where they are invented."""

from __future__ import annotations

import itertools
from datetime import date

import pytest

from gateway.devservices import demo_data
from gateway.devservices.demo_data import UnknownFact

EURO = 0x20AC


@pytest.mark.parametrize("text", ["U+20AC", "u+20ac", "20AC", "€"])
def test_a_character_can_be_named_in_three_ways(text: str) -> None:
    assert demo_data.parse_code_point(text) == EURO


@pytest.mark.parametrize("text", ["", "U+", "U+110000", "-1", "0x41", "1234567", "two words", "U+-1", "１２"])
def test_what_names_no_character_is_refused(text: str) -> None:
    with pytest.raises(UnknownFact):
        demo_data.parse_code_point(text)


def test_a_character_is_described() -> None:
    facts = demo_data.character(EURO)
    assert (facts["name"], facts["category"], facts["utf8"], facts["utf16"]) == ("EURO SIGN", "Sc", "e2 82 ac", "20 ac")


@pytest.mark.parametrize("code_point", [0xD800, 0x0378, 0x10FFFF])
def test_surrogates_and_unassigned_code_points_are_no_characters(code_point: int) -> None:
    with pytest.raises(UnknownFact):
        demo_data.character(code_point)


def test_a_search_puts_whole_words_and_short_names_first() -> None:
    found = demo_data.search("snowman", 2)
    assert found["total"] == 3
    assert [result["name"] for result in found["results"]] == ["SNOWMAN", "BLACK SNOWMAN"]


def test_a_search_for_nothing_finds_nothing() -> None:
    assert demo_data.search("  ", 10)["total"] == 0


def test_prices_depend_on_symbol_and_day_alone() -> None:
    # These numbers are what the documentation shows; they may not change.
    assert demo_data.quote("ACME", date(2026, 1, 30)) == {
        "symbol": "ACME",
        "name": "Acme Industrial",
        "day": "2026-01-30",
        "currency": "USD",
        "open": 94.86,
        "high": 95.27,
        "low": 93.62,
        "close": 94.03,
        "volume": 896876,
    }


def test_one_day_opens_where_the_last_closed_and_stays_within_its_bounds() -> None:
    days = list(demo_data.history("BOLT", date(2026, 1, 1), date(2026, 3, 1), 100))
    assert len(days) == 60
    for before, after in itertools.pairwise(days):
        assert after["open"] == before["close"]
        assert after["low"] <= min(after["open"], after["close"]) <= max(after["open"], after["close"]) <= after["high"]


@pytest.mark.parametrize("text", ["2026-02-30", "yesterday", "1889-01-01", "2100-01-01"])
def test_days_without_prices_are_refused(text: str) -> None:
    with pytest.raises(UnknownFact):
        demo_data.parse_day(text)
