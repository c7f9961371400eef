"""Which settlement policy and which exposure cap hold for a request, from what owner and operator chose."""

from __future__ import annotations

from uuid import UUID

import pytest

from gateway.catalog.assets import Asset
from gateway.catalog.endpoints import Endpoint
from gateway.catalog.settlement import OnchainPolicy, compile_settlement
from gateway.settings import X402Settings

SOME = UUID(int=1)


def asset(decimals: int) -> Asset:
    return Asset(SOME, "eip155:1", "One", "T", "Token", decimals, "0x0", False, True, SOME, True)


def endpoint(settlement: str | None) -> Endpoint:
    return Endpoint("GET", "/x", None, settlement=settlement)


@pytest.mark.parametrize(
    ("own", "candidates", "expected"),
    [
        (None, (None,), "before_response"),
        ("deferred", (None,), "deferred"),
        ("deferred", (endpoint(None),), "deferred"),
        ("deferred", (endpoint("settle_first"),), "settle_first"),
        ("settle_first", (endpoint("deferred"),), "deferred"),
        ("deferred", (endpoint(None), endpoint("before_response")), "before_response"),
        ("deferred", (endpoint("before_response"), None, endpoint("settle_first")), "settle_first"),
        ("deferred", (), "deferred"),
    ],
)
def test_an_endpoint_goes_before_its_publisher_and_the_strictest_reading_holds(own, candidates, expected) -> None:
    assert OnchainPolicy(own).settlement_for(candidates, "before_response") == expected


@pytest.mark.parametrize(
    ("exposure", "decimals", "expected"),
    [
        (None, 6, 1_000_000),
        (None, 18, 10**18),
        (None, 2, 100),
        ("0.25", 6, 250_000),
        ("0", 6, 0),
        ("2", 18, 2 * 10**18),
    ],
)
def test_the_cap_is_in_units_of_the_asset(exposure, decimals, expected) -> None:
    assert OnchainPolicy(None, exposure).exposure_in(asset(decimals), X402Settings()) == expected


def test_a_stored_publisher_without_a_choice_has_none() -> None:
    assert compile_settlement({}) == OnchainPolicy()
    assert compile_settlement({"x402_settlement": "deferred", "x402_exposure": "1"}) == OnchainPolicy("deferred", "1")
