"""What is wrong with a value is said in plain words, and where the right one is to be found."""

from __future__ import annotations

import re

import pytest

from gateway.ids import uuid7
from gateway.settings import SecretSettings
from tests.admin_api.conftest import Api, Clerk, close_api, open_api, settings_for
from tests.support.reference import DOCUMENT

OPERATOR = "operator-token-of-forty-letters-and-more"


def ids_in_paths() -> list[tuple[str, str, str]]:
    """Return an operation for every UUID in the API's paths. Beside that of a payment there are other paths: 404."""
    found: dict[str, tuple[str, str, str]] = {}
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path" and parameter["schema"].get("format") == "uuid":
                    found.setdefault(parameter["name"], (method.upper(), path, parameter["name"]))
    del found["payment_id"]
    return list(found.values())


@pytest.mark.parametrize(("method", "path", "name"), ids_in_paths())
async def test_a_malformed_id_is_400_and_says_where_to_find_the_id(
    api: Api, clerk: Clerk, database_url: str, method: str, path: str, name: str
) -> None:
    member = await clerk.agent()
    order = {"name": "P", "region": "local"}
    project = (await api.call("POST", "/projects", member.key, json=order, expect=201)).json()["data"]["id"]
    ids = {"organization_id": str(member.organization_id), "project_id": project, name: "no-such-id"}
    if "/billing/publishers/{slug}" in path:
        ids["slug"] = (await clerk.publisher(member))["slug"]
    target = re.sub(r"\{(\w+)\}", lambda found: ids.get(found[1], str(uuid7())), path)
    key, asked = member.key, api
    if target.startswith("/operator"):
        secrets = SecretSettings(keys=api.services.settings.secrets.keys, operator_token=OPERATOR)
        asked, _ = await open_api(settings_for(database_url, secrets=secrets))
        key = OPERATOR
    answer = await asked.call(method, target, key, json={} if method in ("POST", "PUT", "PATCH") else None)
    if asked is not api:
        await close_api(asked)
    assert answer.status_code == 400, answer.text
    (said,) = (error["message"] for error in answer.json()["errors"] if error["field"] == name)
    assert "a UUID" in said
    assert "GET /" in said or "GET …/" in said or "X-Request-Id" in said
    assert "found `" not in said


@pytest.mark.parametrize(
    ("method", "path", "body", "detail"),
    [
        ("GET", "/publishers?limit=ten", None, "limit: must be a whole number"),
        ("GET", "/publishers?limit=0", None, "limit: must be at least 1"),
        ("GET", "/publishers?limit=101", None, "limit: must be at most 100"),
        ("GET", "/publishers?is_verified=perhaps", None, "is_verified: must be true or false"),
        ("GET", "/publishers/suggest?query=", None, "query: must not be empty"),
        ("GET", "/payments?network=x&payer=0x1&nonce=0x" + "0" * 64, None, "payer: must be an address: 0x and 40"),
        ("POST", "/auth/agent", {"name": 1}, "name: must be a string"),
        ("POST", "/auth/agent", {"name": "x" * 300}, "name: must have at most 256 characters"),
    ],
)
async def test_a_wrong_value_is_told_in_plain_words(
    api: Api, method: str, path: str, body: dict[str, object] | None, detail: str
) -> None:
    answer = await api.call(method, path, json=body, expect=400)
    assert answer.json()["detail"].startswith(detail)


async def test_an_id_in_a_body_is_told_likewise(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    body = {"accepted_asset_ids": ["USDC"]}
    answer = await api.call(
        "POST", f"/organizations/{owner.organization_id}/publishers", owner.key, json=body, expect=400
    )
    said = {error["field"]: error["message"] for error in answer.json()["errors"]}
    assert said["accepted_asset_ids.0"] == "must be assets' ids, UUIDs: a publisher's `accepted_assets` name theirs"
