"""Automatic refunds as publishers promise them: what can be promised, and that buyers read it before they pay."""

from __future__ import annotations

from typing import Any

import pytest

from tests.admin_api.conftest import Api, Clerk

RULES = {
    "empty_result": "results",
    "error_at": "error",
    "later_than_ms": 2_000,
    "schema": {"type": "object", "required": ["results"]},
}


async def test_a_promise_is_shown_wherever_somebody_decides_to_buy(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, refund_rules=RULES, endpoints=[{"method": "GET", "path": "/a"}])
    assert made["refund_rules"] == RULES
    stored = (await api.call("GET", f"/publishers/{made['slug']}", expect=200)).json()["data"]
    assert stored["refund_rules"] == RULES
    document = (await api.call("GET", f"/publishers/{made['slug']}/openapi.json", expect=200)).json()
    assert document["info"]["x-refund-rules"] == RULES
    words = "its `results` is empty, or it is not of the promised form. Only JSON answers with 2xx are looked into,"
    assert words in document["info"]["description"]
    page = await api.call("GET", f"/store/{made['slug']}", expect=200)
    for words in (
        "it begins later than 2000 ms after the request",
        "at most 1 MiB and whole within 10 s; others are paid",
    ):
        assert words in page.text
    listed = (await api.call("GET", "/llms.txt", expect=200)).text
    (line,) = (line for line in listed.splitlines() if f"[{made['slug']}]" in line)
    assert line.endswith("; promises refunds")


async def test_a_promise_of_time_alone_says_nothing_of_what_is_looked_into(api: Api, clerk: Clerk) -> None:
    made = await clerk.publisher(await clerk.agent(), refund_rules={"later_than_ms": 2_000})
    document = (await api.call("GET", f"/publishers/{made['slug']}/openapi.json", expect=200)).json()
    words = "An answer costs nothing when it begins later than 2000 ms after the request."
    assert document["info"]["description"].endswith(words)


async def test_null_takes_it_back_and_false_promises_nothing(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, refund_rules=RULES)
    path = f"/organizations/{owner.organization_id}/publishers/{made['id']}"
    for value, kept in (({"empty_result": False, "later_than_ms": 5}, {"later_than_ms": 5}), ({}, None), (None, None)):
        changed = (await api.call("PUT", path, owner.key, json={"refund_rules": value}, expect=200)).json()["data"]
        assert changed["refund_rules"] == kept
    compiled = api.services.catalog.find(made["slug"])
    assert compiled is not None
    assert compiled.delivery.refunds.rules is None


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([], "must be an object"),
        ("yes", "must be an object"),
        ({"empty": True}, "has no rule 'empty'"),
        ({"empty_result": "a..b"}, "empty_result"),
        ({"empty_result": 1}, "empty_result"),
        ({"error_at": "$"}, "error_at"),
        ({"error_at": True}, "error_at"),
        ({"later_than_ms": 0}, "later_than_ms"),
        ({"later_than_ms": 1.5}, "later_than_ms"),
        ({"later_than_ms": 600_001}, "later_than_ms"),
        ({"schema": {"$ref": "https://example.com/x"}}, "the keyword '$ref'"),
        ({"schema": {"description": "x" * 17_000}}, "more than 16384 bytes"),
        ({"schema": {"minLength": 2**64}}, "more than 64 bits"),
        ({"schema": {"enum": [-(10**400)]}}, "more than 64 bits"),
    ],
)
async def test_what_cannot_be_promised_is_refused(api: Api, clerk: Clerk, rules: Any, words: str) -> None:
    owner = await clerk.agent()
    path = f"/organizations/{owner.organization_id}/publishers"
    problem = (await api.call("POST", path, owner.key, json=clerk.order(refund_rules=rules), expect=400)).json()
    assert problem["errors"][0]["field"] == "refund_rules"
    assert words in problem["errors"][0]["message"]


@pytest.mark.parametrize(
    "kind",
    [
        {"integration_type": "mcp", "api_url": ..., "mcp_endpoint": "https://mcp.example.com"},
        {"billing_model": "x402_passthrough", "price_per_call": ...},
    ],
)
async def test_only_http_apis_that_are_paid_here_have_rules(api: Api, clerk: Clerk, kind: dict[str, Any]) -> None:
    owner = await clerk.agent()
    path = f"/organizations/{owner.organization_id}/publishers"
    order = clerk.order(refund_rules={"empty_result": True}, **kind)
    problem = (await api.call("POST", path, owner.key, json=order, expect=400)).json()
    assert problem["errors"][0]["field"] == "refund_rules"
