"""How owners choose when payments on a chain are settled: shown to who may see it, in force, and refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.catalog.readings import read_path
from gateway.catalog.settlement import OnchainPolicy
from tests.admin_api.conftest import Api, Clerk

ENDPOINTS = [{"method": "GET", "path": "/dear", "price": "0.5", "x402_settlement": "settle_first"}]


async def test_choices_are_shown_and_in_force_and_null_takes_them_back(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, x402_settlement="deferred", x402_exposure="0.25", endpoints=ENDPOINTS)
    path = f"/organizations/{owner.organization_id}/publishers/{made['id']}"
    stored = (await api.call("GET", f"/publishers/{made['slug']}", expect=200)).json()["data"]
    for shown in (made, stored):
        assert (shown["x402_settlement"], shown["x402_exposure"]) == ("deferred", "0.25")
        assert shown["endpoints"][0]["x402_settlement"] == "settle_first"
    compiled = api.services.catalog.find(made["slug"])
    assert compiled is not None
    assert compiled.onchain == OnchainPolicy("deferred", "0.25")
    candidates = compiled.endpoints.match("GET", read_path(b"/dear"))
    assert compiled.onchain.settlement_for(candidates, "before_response") == "settle_first"
    changes = {"x402_settlement": None, "x402_exposure": None}
    after = (await api.call("PUT", path, owner.key, json=changes, expect=200)).json()["data"]
    assert (after["x402_settlement"], after["x402_exposure"]) == (None, None)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("x402_settlement", "whenever", "must be one of settle_first, before_response, deferred"),
        ("x402_settlement", 1, "must be a string"),
        ("x402_exposure", "-1", "must be a plain decimal number"),
        ("x402_exposure", "0.0000001", "has more than 6 digits after the point"),
        ("x402_exposure", 1, "must be a string"),
        ("endpoints", [{"method": "GET", "path": "/x", "x402_settlement": ""}], "must be one of settle_first"),
    ],
)
async def test_what_is_no_choice_is_refused_by_name(api: Api, clerk: Clerk, field: str, value: Any, words: str) -> None:
    owner = await clerk.agent()
    body = clerk.order(**{field: value})
    answer = await api.call("POST", f"/organizations/{owner.organization_id}/publishers", owner.key, json=body)
    assert answer.status_code == 400
    assert words in answer.text
    assert field in answer.text
