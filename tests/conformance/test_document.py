"""The OpenAPI document itself: valid, complete, and with examples that work and give nothing away."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from admin_api.examples import PUBLISHER, REQUESTS
from admin_api.kit.problems import SCHEMA
from gateway.errors import every_problem
from tests.conformance.fuzz import OPERATOR_TOKEN, Known
from tests.conformance.shapes import METHODS
from tests.support.gateway import RunningGateway
from tests.support.reference import DOCUMENT
from tests.support.world import Agent

OPERATIONS = {
    f"{method.upper()} {path}": item[method]
    for path, item in DOCUMENT["paths"].items()
    for method in METHODS
    if method in item
}
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
# Statuses whose body is not a problem: x402's own, and what readiness found.
OWN_BODY = {("health_live", "503"), ("health_ready", "503")} | {
    (operation["operationId"], "402") for operation in OPERATIONS.values() if "402" in operation["responses"]
}


def test_it_is_valid_openapi_3_1() -> None:
    assert [str(error) for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []
    assert DOCUMENT["openapi"].startswith("3.1.")


async def test_the_gateway_serves_it(gateway: RunningGateway) -> None:
    served = (await gateway.client.get("/openapi.json")).json()
    assert served == DOCUMENT


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_says_what_it_is(name: str) -> None:
    operation = OPERATIONS[name]
    assert re.fullmatch(r"[a-z][a-z0-9_]*", operation["operationId"])
    assert operation["summary"].strip()
    assert operation["description"].strip()
    assert len(operation["tags"]) == 1
    assert "security" in operation


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", OPERATIONS)
def test_refusals_are_declared_as_problems(name: str) -> None:
    operation = OPERATIONS[name]
    known = {str(kind.status) for kind in every_problem()}
    refusals = {status for status in operation["responses"] if status[0] in "45"}
    for status in refusals:
        if (operation["operationId"], status) not in OWN_BODY:
            assert status in known
            assert operation["responses"][status]["content"] == PROBLEM, status
    assert {"500", "503"} <= refusals
    if operation["security"] and {} not in operation["security"]:
        assert "401" in refusals
    if (
        "application/json" in operation.get("requestBody", {}).get("content", {})
        and "default" not in operation["responses"]
    ):
        assert {"400", "413", "415"} <= refusals


def test_the_problem_schema_is_what_problems_are() -> None:
    assert DOCUMENT["components"]["schemas"]["Problem"] == SCHEMA
    sample = every_problem()[0]("detail").document("id")
    assert set(SCHEMA["required"]) <= sample.keys() <= SCHEMA["properties"].keys()


def shown(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf below a key that shows values rather than describes them, with the name of its field."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from shown(value, f"{name}.{key}")
    elif isinstance(node, list):
        for value in node:
            yield from shown(value, name)
    elif re.search(r"\.(example|examples|default|const)\b", name):
        yield name, node


SECRET_VALUES = re.compile(
    r"seren_[0-9a-f]{16}_|\b(?:sk|rk|pk|whsec|ghp)_\w{8,}|\beyJ[\w-]{10,}\.|-----BEGIN|\b(?:0x)?[0-9a-fA-F]{64}\b"
)
SECRET_FIELDS = re.compile(r"(?:api_key|secret|password|token|credential)\b(?<!max_tokens)", re.I)

PLACEHOLDER = re.compile(r"<[a-z' ]+>")  # says in words what belongs there


def secrets_shown(node: Any) -> list[str]:
    return [
        f"{name}: {value}"
        for name, value in shown(node)
        if isinstance(value, str)
        and not PLACEHOLDER.fullmatch(value)
        and (SECRET_VALUES.search(value) or SECRET_FIELDS.search(name.rpartition(".")[2]))
    ]


def test_examples_show_no_secret() -> None:
    assert list(shown(DOCUMENT))
    assert secrets_shown(DOCUMENT) == []


@pytest.mark.parametrize(
    "value",
    [
        {"example": {"upstream_api_key": "abc"}},
        {"examples": ["Bearer seren_0123456789abcdef_x"]},
        {"default": "0x" + "ab" * 32},
        {"example": {"password": "hunter2 <not>"}},
        {"example": [{"note": "-----BEGIN PRIVATE KEY-----"}]},
    ],
)
def test_a_secret_would_be_found(value: Any) -> None:
    assert len(secrets_shown(value)) == 1


def test_every_json_body_has_an_example() -> None:
    with_body = {
        operation["operationId"]
        for operation in OPERATIONS.values()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }
    assert with_body == REQUESTS.keys()


# What an example cannot reach here: rails that do not exist yet, and codes and ids that are nobody's.
EXPECTED = {
    "create_deposit": 501,
    "add_payment_method": 501,
    "onchain_deposit": 501,
    "create_org_publisher_payout": 501,
    "create_payout": 501,
    "change_organization_plan": 400,
    "facilitator_verify": 501,
    "facilitator_settle": 501,
    "apply_referral_code": 400,
    "wallet_recover": 401,
    "verify_email": 400,
    "login": 401,
    "refresh": 401,
    "change_password": 400,
    "reset_password": 404,
    "update_webhook": 404,
    "replay_webhook": 404,
    "add_ip_to_allow_list": 409,  # it would shut out who asks from here
    "reset_ip_allow_list": 409,
    "resolve_exchange": 404,
    "suspend": 404,
    "refund_call": 404,
    "correct_wallet": 404,
    "decline_request": 404,
    "restore": 404,
    "void_invoice": 404,
    "create_charge": 403,  # no operator has named the publisher
    "refund_charge": 404,
    "slash_charge": 404,
    "look_at_invitation": 404,
    "accept_invitation": 404,
    "decline_invitation": 404,
    "assign_role": 404,
    "update_org_oauth_provider": 404,
    "change_publisher_endpoint": 404,
}


@pytest.mark.parametrize("name", [name for name, one in OPERATIONS.items() if one["operationId"] in REQUESTS])
async def test_an_example_is_accepted(name: str, gateway: RunningGateway, agent: Agent, known: Known) -> None:
    operation = OPERATIONS[name]["operationId"]
    answer = await sent(gateway, name, agent, known, fitted(REQUESTS[operation], known))
    success = next(int(status) for status in OPERATIONS[name]["responses"] if status.startswith("2"))
    assert answer.status_code == EXPECTED.get(operation, success), answer.text


def fitted(example: dict[str, Any], known: Known) -> dict[str, Any]:
    """Put the id of a publisher that exists into an example."""
    return {field: known.publisher if value == PUBLISHER else value for field, value in example.items()}


async def sent(gateway: RunningGateway, name: str, agent: Agent, known: Known, body: dict[str, Any]) -> httpx.Response:
    method, path = name.split(" ")
    other_key = await made_key(gateway, agent) if "{key_id}" in path else ""
    role = await made_role(gateway, agent) if "{role_id}" in path else ""
    target = path.format(
        organization_id=known.organization,
        publisher_id=known.publisher,
        slug=known.slug,
        exchange_id=uuid4(),
        wallet=f"agent:{uuid4()}",
        request_id=uuid4(),
        id=uuid4(),
        charge_id=uuid4(),
        provider_id=uuid4(),
        webhook_id=uuid4(),
        project_id=known.project,
        endpoint_id=uuid4(),
        key_id=other_key,
        role_id=role,
        member_id=uuid4(),
    )
    token = OPERATOR_TOKEN if path.startswith(("/operator", "/billing/invoices")) else agent.key
    return await gateway.client.request(method, target, headers={"Authorization": f"Bearer {token}"}, json=body)


async def made_key(gateway: RunningGateway, agent: Agent) -> str:
    """Return the id of a new key: none may set its own budget."""
    made = await gateway.client.post(
        "/organizations/default/api-keys", headers=agent.headers, json={"name": "to be limited"}
    )
    return made.json()["data"]["id"]


async def made_role(gateway: RunningGateway, agent: Agent) -> str:
    """Return the id of a new custom role: those that are built in cannot be changed."""
    body = {"name": "to be changed", "permissions": []}
    path = f"/organizations/{agent.organization_id}/roles"
    return (await gateway.client.post(path, headers=agent.headers, json=body)).json()["data"]["id"]


def test_the_logo_in_the_example_is_a_picture() -> None:
    assert base64.b64decode(REQUESTS["upload_publisher_logo"]["logo"]).startswith(b"\x89PNG")
