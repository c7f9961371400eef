"""One policy for every request body of ours: a field that nobody knows is refused by name, with the nearest known one.

What is not ours to be strict about: bodies that are forwarded, and those of protocols (x402, JSON-RPC).
"""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.routing import APIRoute

from admin_api.app import build
from gateway.app import build_services
from gateway.ids import uuid7
from gateway.settings import SecretSettings
from tests.admin_api.conftest import Api, Clerk, close_api, open_api, settings_for

OPERATOR = "operator-token-of-forty-letters-and-more"
FORWARDED = {"/publishers/{slug:slug}"}


def operations() -> list[tuple[str, str]]:
    """Return every operation that takes a JSON body: a new one is asked as well."""
    app = build(build_services(settings_for("postgresql://nobody@127.0.0.1:1/none")))
    return sorted(
        (method, route.path_format)
        for route in app.state.routes
        if isinstance(route, APIRoute) and route.body_field is not None and route.path not in FORWARDED
        for method in route.methods
    )


OPERATIONS = operations()
# Ids that need not exist: the body is read first.
BESIDE = ("charge_id", "endpoint_id", "member_id", "provider_id", "role_id", "webhook_id")


def test_the_list_is_not_empty() -> None:
    assert ("POST", "/organizations/{organization_id}/publishers") in OPERATIONS
    assert len(OPERATIONS) > 15


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_an_unknown_field_is_refused_everywhere(
    api: Api, clerk: Clerk, database_url: str, method: str, path: str
) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    named = {
        "{organization_id}": str(owner.organization_id),
        "{publisher_id}": made["id"],
        "{slug:slug}": made["slug"],
        "{slug}": made["slug"],
        "{key_id}": str(uuid7()),
        "{exchange_id}": str(uuid7()),
        "{wallet}": f"agent:{uuid7()}",
        "{request_id}": str(uuid7()),
        "{id}": str(uuid7()),
        **{f"{{{name}}}": str(uuid7()) for name in BESIDE},
    }
    if "{project_id}" in path:
        order = {"name": "P", "region": "local"}
        project = await api.call("POST", "/projects", owner.key, json=order, expect=201)
        named["{project_id}"] = project.json()["data"]["id"]
    for name, value in named.items():
        path = path.replace(name, value)
    assert "{" not in path, "say here what the new variable is"
    key, asked = owner.key, api
    if path.startswith(("/operator", "/billing/invoices")):
        secrets = SecretSettings(keys=api.services.settings.secrets.keys, operator_token=OPERATOR)
        asked, _ = await open_api(settings_for(database_url, secrets=secrets))
        key = OPERATOR
    answer = await asked.call(method, path, key, json={"no_such_field": 1})
    if asked is not api:
        await close_api(asked)
    assert answer.status_code == 400, answer.text
    assert answer.json()["type"] == "/problems/invalid-request"
    assert {"field": "no_such_field", "message": "no such field"} in answer.json()["errors"]


@pytest.mark.parametrize(
    ("changes", "field", "nearest"),
    [
        ({"price_per_call": ..., "price_per_cal": "0.05"}, "price_per_cal", "price_per_call"),
        ({"price_per_call": ..., "zzz": "0.05"}, "zzz", None),
        ({"endpoints": [{"method": "GET", "path": "/a", "prize": "1"}]}, "endpoints.0.prize", "price"),
        (
            {"endpoints": [{"method": "GET", "path": "/a", "query_params": [{"name": "q", "requird": True}]}]},
            "endpoints.0.query_params.0.requird",
            "required",
        ),
    ],
)
async def test_a_misspelt_field_is_told_what_it_may_have_been(
    api: Api, clerk: Clerk, changes: dict[str, Any], field: str, nearest: str | None
) -> None:
    owner = await clerk.agent()
    path = f"/organizations/{owner.organization_id}/publishers"
    problem = (await api.call("POST", path, owner.key, json=clerk.order(**changes), expect=400)).json()
    hint = f"; did you mean {nearest}?" if nearest else ""
    assert problem["errors"] == [{"field": field, "message": f"no such field{hint}"}]
    listed = (await api.call("GET", path, owner.key, expect=200)).json()["data"]
    assert listed == [], "nothing is for sale, least of all for nothing"
