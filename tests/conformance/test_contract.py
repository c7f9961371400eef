"""The served operations against the contract's, from our own copy of what the contract says of them (contract.json)."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.compare import shortfalls
from tests.conformance.derive import FIXTURE, SERVED
from tests.conformance.shapes import operations
from tests.support.reference import DOCUMENT

CONTRACT: dict[str, Any] = json.loads(FIXTURE.read_text())


@pytest.fixture(scope="module")
def served() -> dict[str, Any]:
    return DOCUMENT


def test_every_operation_is_exact(served: dict[str, Any]) -> None:
    assert shortfalls(CONTRACT, operations(served)) == []


def test_the_copy_holds_all_that_is_served() -> None:
    tags = [operation["tag"] for operation in CONTRACT.values()]
    assert {tag: tags.count(tag) for tag in tags} == {
        "agent": 1, "agent-wallet": 12, "publishers": 8, "Organizations": 14, "RBAC": 9, "Auth": 11, "Sessions": 4,
        "payments": 6,
        "Audit Logs": 2, "Webhooks": 8, "webhooks": 1,
        "publisher-payments": 7,
        "Plans": 5,
        "OAuth": 8, "oauth-providers": 5, "Projects": 7, "IP Allow Lists": 4,
        "Agent Analytics": 3, "billing": 8,
    }  # fmt: skip
    assert {operation["id"] for operation in CONTRACT.values()} >= SERVED


def test_what_is_not_in_the_contract_says_so(served: dict[str, Any]) -> None:
    for name in operations(served).keys() - CONTRACT.keys():
        method, path = name.split(" ")
        assert served["paths"][path][method.lower()].get("x-extension") is True, name


def schema(document: dict[str, Any], name: str) -> dict[str, Any]:
    return document["components"]["schemas"][name]


SPOILS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "an operation is gone": (
        lambda d: d["paths"].pop("/wallet/balance"),
        "GET /wallet/balance: is not served",
    ),
    "an answer lacks a member": (
        lambda d: schema(d, "AgentInfo")["properties"].pop("api_key"),
        "POST /auth/agent: 201 $.data.agent.api_key is missing",
    ),
    "a member may be left out": (
        lambda d: schema(d, "AgentInfo")["required"].remove("status"),
        "POST /auth/agent: 201 $.data.agent.status is always there in the contract, not here",
    ),
    "a number became text": (
        lambda d: schema(d, "BonusClaimResponse")["properties"].update(amount_atomic={"type": "string"}),
        "POST /wallet/bonus/signup: 200 $.data.amount_atomic sends string, contract integer",
    ),
    "a member may be null": (
        lambda d: schema(d, "UserMe")["properties"].update(name={"anyOf": [{"type": "string"}, {"type": "null"}]}),
        "GET /auth/me: 200 $.data.name sends null|string, contract string",
    ),
    "an allowed value is gone": (
        lambda d: schema(d, "UserStatus")["enum"].remove("paused"),
        "GET /auth/me: 200 $.data.status does not declare the contract's values",
    ),
    "a member of the body became required": (
        lambda d: schema(d, "AgentRegisterRequest").update(required=["name"]),
        "POST /auth/agent: request $.name is required here, optional in the contract",
    ),
    "an unknown member of the body is required": (
        lambda d: schema(d, "AgentRegisterRequest").update(properties={"name": {}, "x": {}}, required=["x"]),
        "POST /auth/agent: request $.x is required here, unknown to the contract",
    ),
    "the body takes fewer values": (
        lambda d: schema(d, "HttpMethod")["enum"].remove("PATCH"),
        "POST /organizations/{organization_id}/publishers: request $.endpoints[].method"
        " takes fewer values than the contract",
    ),
    "a parameter is gone": (
        lambda d: d["paths"]["/publishers"]["get"]["parameters"].pop(0),
        "GET /publishers: parameter query is_verified is missing",
    ),
    "a status is not declared": (
        lambda d: d["paths"]["/wallet/bonus/signup"]["post"]["responses"].pop("409"),
        "POST /wallet/bonus/signup: status 409 is not declared",
    ),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_deviation_is_told(served: dict[str, Any], spoil: str) -> None:
    change, told = SPOILS[spoil]
    spoilt = copy.deepcopy(served)
    change(spoilt)
    assert told in shortfalls(CONTRACT, operations(spoilt))
