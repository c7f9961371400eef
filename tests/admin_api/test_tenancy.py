"""Who may do what: other organizations, roles, API keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.ids import uuid7
from tests.admin_api.conftest import Api, Clerk, Member

OPERATIONS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "/publishers", None),
    ("POST", "/publishers", {}),
    ("GET", "/publishers/{id}", None),
    ("PUT", "/publishers/{id}", {"name": "taken over"}),
    ("DELETE", "/publishers/{id}", None),
    ("PUT", "/publishers/{id}/pricing", {"asset_id": str(uuid7())}),
    ("GET", "/publishers/{id}/earnings", None),
    ("GET", "/publishers/{id}/payouts", None),
    ("POST", "/publishers/{id}/payouts", {"asset_id": str(uuid7())}),
    ("POST", "/publishers/{id}/logo", {"logo": "aaaa", "content_type": "image/png"}),
    ("GET", "/api-keys", None),
    ("POST", "/api-keys", {"name": "mine"}),
    ("PATCH", "/api-keys/{id}", {"budget": {"per_day": "1"}}),
    ("DELETE", "/api-keys/{id}", None),
]
WRITES = [one for one in OPERATIONS if one[0] != "GET"]


def body_of(clerk: Clerk, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    if body is None:
        return {}
    return {"json": clerk.order() if path == "/publishers" else body}


@pytest.mark.parametrize(("method", "path", "body"), OPERATIONS)
async def test_a_foreign_and_an_unknown_organization_are_denied_alike(
    api: Api, clerk: Clerk, method: str, path: str, body: dict[str, Any] | None
) -> None:
    owner, stranger = await clerk.agent(), await clerk.agent()
    made = await clerk.publisher(owner)
    rest = path.format(id=made["id"])
    answers = [
        await api.call(
            method, f"/organizations/{organization}{rest}", stranger.key, expect=403, **body_of(clerk, path, body)
        )
        for organization in (owner.organization_id, uuid7())
    ]
    documents = [answer.json() for answer in answers]
    assert [document.pop("instance") for document in documents]
    assert documents[0] == documents[1]
    kept = await api.call(
        "GET", f"/organizations/{owner.organization_id}/publishers/{made['id']}", owner.key, expect=200
    )
    assert kept.json()["data"] == made


@pytest.mark.parametrize(("method", "path", "body"), [one for one in OPERATIONS if "{id}" in one[1]])
async def test_another_organizations_object_is_not_below_ones_own(
    api: Api, clerk: Clerk, method: str, path: str, body: dict[str, Any] | None
) -> None:
    owner, stranger = await clerk.agent(), await clerk.agent()
    if "api-keys" in path:
        foreign = (await api.call("GET", f"/organizations/{owner.organization_id}/api-keys", owner.key)).json()
        object_id = foreign["data"][0]["id"]
    else:
        object_id = (await clerk.publisher(owner))["id"]
    target = f"/organizations/{stranger.organization_id}{path.format(id=object_id)}"
    await api.call(method, target, stranger.key, expect=404, **body_of(clerk, path, body))
    await api.call("GET", "/auth/me", owner.key, expect=200)


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
async def test_a_viewer_reads_and_writes_nothing(
    api: Api, clerk: Clerk, method: str, path: str, body: dict[str, Any] | None
) -> None:
    owner, viewer = await clerk.agent(), await clerk.agent()
    made = await clerk.publisher(owner)
    await clerk.join(viewer, owner.organization_id, "viewer")
    base = f"/organizations/{owner.organization_id}"
    await api.call("GET", f"{base}/publishers/{made['id']}", viewer.key, expect=200)
    keys = (await api.call("GET", f"{base}/api-keys", viewer.key, expect=200)).json()["data"]
    rest = path.format(id=keys[0]["id"] if "api-keys" in path else made["id"])
    problem = await api.call(method, f"{base}{rest}", viewer.key, expect=403, **body_of(clerk, path, body))
    assert problem.json()["type"] == "/problems/forbidden"


async def test_roles_reach_as_far_as_decided(api: Api, clerk: Clerk) -> None:
    owner, editor, admin = await clerk.agent(), await clerk.agent(), await clerk.agent()
    base = f"/organizations/{owner.organization_id}"
    await clerk.join(editor, owner.organization_id, "editor")
    await clerk.join(admin, owner.organization_id, "admin")
    made = (await api.call("POST", f"{base}/publishers", editor.key, json=clerk.order(), expect=201)).json()["data"]
    payout = {"asset_id": made["accepted_assets"][0]["id"]}
    path = f"{base}/publishers/{made['id']}/payouts"
    await api.call("POST", path, editor.key, json=payout, expect=403)
    await api.call("POST", path, admin.key, json=payout, expect=501)
    assert (await api.call("GET", path, editor.key, expect=200)).json()["data"] == []
    own = (await api.call("POST", f"{base}/api-keys", editor.key, json={"name": "mine"}, expect=201)).json()["data"]
    others = (await api.call("POST", f"{base}/api-keys", owner.key, json={"name": "owner's"}, expect=201)).json()[
        "data"
    ]
    await api.call("DELETE", f"{base}/api-keys/{others['id']}", editor.key, expect=403)
    await api.call("DELETE", f"{base}/api-keys/{own['id']}", editor.key, expect=200)
    await api.call("DELETE", f"{base}/api-keys/{others['id']}", admin.key, expect=200)
    listed = (await api.call("GET", "/organizations", editor.key)).json()["data"]
    assert {one["id"] for one in listed} == {str(editor.organization_id), str(owner.organization_id)}
    assert listed[0]["id"] == str(editor.organization_id)


async def test_a_key_is_shown_once_works_and_dies_once_revoked(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    base = "/organizations/default/api-keys"
    body = {"name": "ci", "expires_in_days": 30}
    made = (await api.call("POST", base, owner.key, json=body, expect=201)).json()["data"]
    await api.call("GET", "/auth/me", made["api_key"], expect=200)
    expires = datetime.fromisoformat(made["expires_at"])
    assert timedelta(days=29) < expires - datetime.now(UTC) <= timedelta(days=30)
    listed = await api.call("GET", base, owner.key)
    assert made["api_key"] not in listed.text
    first = listed.json()["data"][0]
    assert (first["name"], first["key_prefix"]) == ("ci", f"seren_{made['key_id']}_")
    assert made["api_key"].startswith(first["key_prefix"])
    for _ in range(2):
        assert (await api.call("DELETE", f"{base}/{made['id']}", owner.key, expect=200)).json() == {}
    await api.call("GET", "/auth/me", made["api_key"], expect=401)
    assert (await api.call("GET", base, owner.key)).json()["data"][0]["revoked_at"].endswith("Z")
    await api.call("DELETE", f"{base}/{uuid7()}", owner.key, expect=404)


async def test_a_key_may_revoke_itself(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    key = (await api.call("GET", "/organizations/default/api-keys", owner.key)).json()["data"][0]
    await api.call("DELETE", f"/organizations/default/api-keys/{key['id']}", owner.key, expect=200)
    await api.call("GET", "/auth/me", owner.key, expect=401)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": " "}, "name"),
        ({"name": "a\nb\x07"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "x", "expires_in_days": 0}, "expires_in_days"),
        ({"name": "x", "expires_in_days": -1}, "expires_in_days"),
        ({"name": "x", "expires_in_days": 3_651}, "expires_in_days"),
        ({"name": "x", "expires_in_days": "30"}, "expires_in_days"),
        ({"name": "x", "expires_in_day": 30}, "expires_in_day"),
        ({"name": "x", "expires_in_days": 1.5}, "expires_in_days"),
        ({"name": "x", "expires_in_days": True}, "expires_in_days"),
    ],
)
async def test_bad_keys_are_named(api: Api, clerk: Clerk, body: dict[str, Any], field: str) -> None:
    member: Member = await clerk.agent()
    problem = (await api.call("POST", "/organizations/default/api-keys", member.key, json=body, expect=400)).json()
    assert problem["errors"][0]["field"] == field


async def test_who_has_no_organization_has_no_default_one(api: Api, clerk: Clerk) -> None:
    host, guest = await clerk.agent(), await clerk.agent()
    await clerk.join(guest, host.organization_id, "editor")
    base = f"/organizations/{host.organization_id}/api-keys"
    key = (await api.call("POST", base, guest.key, json={"name": "x"}, expect=201)).json()["data"]["api_key"]
    async with api.services.database.acquire() as connection:
        await connection.execute("DELETE FROM identity.membership WHERE account_id = $1", guest.id)
    await api.call("GET", base, key, expect=401)
    # This key was resolved before and is remembered; what it may do is asked each time.
    await api.call("GET", base, guest.key, expect=403)
    await api.call("GET", "/organizations/default/api-keys", guest.key, expect=400)
