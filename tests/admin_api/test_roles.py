"""Roles: what is built in, what an organization makes itself, and that nobody gives or takes what he does not have."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.identity.permissions import ROLES, Permission
from gateway.ids import uuid7
from tests.admin_api.conftest import Api, Clerk, Member


async def made_role(api: Api, member: Member, base: str, *permissions: str, name: str | None = None) -> str:
    body = {"name": name or f"role {uuid7().hex[-8:]}", "permissions": list(permissions)}
    return (await api.call("POST", f"{base}/roles", member.key, json=body, expect=201)).json()["data"]["id"]


async def assign(api: Api, by: Member, base: str, member: Member, *, expect: int, **role: str) -> dict[str, Any]:
    path = f"{base}/members/{member.id}/role"
    return (await api.call("PUT", path, by.key, json=role, expect=expect)).json()


async def test_what_can_be_permitted_is_listed_with_what_it_is_for(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    listed = (await api.call("GET", "/permissions", agent.key, expect=200)).json()
    assert [one["name"] for one in listed] == [one.value for one in Permission]
    assert all(f"{one['resource_type']}.{one['action']}" == one["name"] and one["description"] for one in listed)
    assert len({one["id"] for one in listed}) == len(listed)


async def test_built_in_roles_are_everywhere_and_stay(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    base = f"/organizations/{owner.organization_id}"
    listed = (await api.call("GET", f"{base}/roles", owner.key, expect=200)).json()["data"]
    assert {one["name"]: set(one["permissions"]) for one in listed} == {
        name: {permission.value for permission in held} for name, held in ROLES.items()
    }
    for one in listed:
        assert one["is_built_in"]
        path = f"{base}/roles/{one['id']}"
        assert (await api.call("GET", path, owner.key, expect=200)).json()["data"] == one
        await api.call("PATCH", path, owner.key, json={"name": "mine"}, expect=400)
        await api.call("DELETE", path, owner.key, expect=400)


async def test_a_custom_role_holds_what_it_says_at_once(api: Api, clerk: Clerk) -> None:
    owner, clerk_ = await clerk.agent(), await clerk.agent()
    base = f"/organizations/{owner.organization_id}"
    await clerk.join(clerk_, owner.organization_id, "viewer")
    role = await made_role(api, owner, base, "org.read", "earnings.read", name="Accountant")
    await assign(api, owner, base, clerk_, role_name="accountant", expect=200)
    mine = (await api.call("GET", f"{base}/permissions/mine", clerk_.key, expect=200)).json()
    assert mine == ["earnings.read", "org.read"]
    await api.call("GET", f"{base}/publishers", clerk_.key, expect=403)
    for permission, answer in (("org.read", "true"), ("publishers.read", "false"), ("made.up", "false")):
        said = await api.call("GET", f"{base}/permissions/check/{permission}", clerk_.key, expect=200)
        assert (said.text, said.headers["content-type"].partition(";")[0]) == (answer, "text/plain")
    change = {"permissions": ["org.read", "publishers.read"], "description": "Reads."}
    changed = (await api.call("PATCH", f"{base}/roles/{role}", owner.key, json=change, expect=200)).json()["data"]
    assert (changed["name"], changed["description"], changed["permissions"]) == (
        "Accountant", "Reads.", ["org.read", "publishers.read"],
    )  # fmt: skip
    await api.call("GET", f"{base}/publishers", clerk_.key, expect=200)
    listed = (await api.call("GET", f"{base}/members", owner.key, expect=200)).json()["data"]
    assert [(one["user_id"], one["role"], one["role_id"]) for one in listed] == [
        (str(owner.id), "owner", None), (str(clerk_.id), "Accountant", role),
    ]  # fmt: skip


async def test_a_role_in_use_is_not_deleted(api: Api, clerk: Clerk) -> None:
    owner, member = await clerk.agent(), await clerk.agent()
    base = f"/organizations/{owner.organization_id}"
    await clerk.join(member, owner.organization_id, "viewer")
    role = await made_role(api, owner, base, "org.read", name="Guest")
    await assign(api, owner, base, member, role_id=role, expect=200)
    await api.call("DELETE", f"{base}/roles/{role}", owner.key, expect=409)
    await assign(api, owner, base, member, role_name="viewer", expect=200)
    body = {"email": "guest@example.com", "role": "guest"}
    invited = (await api.call("POST", f"{base}/invites", owner.key, json=body, expect=201)).json()["data"]
    await api.call("DELETE", f"{base}/roles/{role}", owner.key, expect=409)
    await api.call("DELETE", f"{base}/invites/{invited['id']}", owner.key, expect=204)
    await api.call("DELETE", f"{base}/roles/{role}", owner.key, expect=204)
    await api.call("GET", f"{base}/roles/{role}", owner.key, expect=404)
    # What has ended stays listed under the name that it had.
    kept = (await api.call("GET", f"{base}/invites", owner.key, expect=200)).json()["data"]
    assert [(one["role"], one["status"]) for one in kept] == [("Guest", "revoked")]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "x", "permissions": ["org.read", "made.up"]}, 400),
        ({"name": " ", "permissions": []}, 400),
        ({"name": "x"}, 400),
        ({"name": "Owner", "permissions": []}, 409),
        ({"name": "member", "permissions": []}, 409),
        ({"name": "TAKEN", "permissions": []}, 409),
    ],
)
async def test_a_role_that_cannot_be_is_refused(api: Api, clerk: Clerk, body: dict[str, Any], status: int) -> None:
    owner = await clerk.agent()
    base = f"/organizations/{owner.organization_id}"
    await made_role(api, owner, base, name="taken")
    await api.call("POST", f"{base}/roles", owner.key, json=body, expect=status)


async def test_nobody_gives_what_he_does_not_have(api: Api, clerk: Clerk) -> None:
    owner, admin, other = await clerk.agent(), await clerk.agent(), await clerk.agent()
    base = f"/organizations/{owner.organization_id}"
    await clerk.join(admin, owner.organization_id, "admin")
    await clerk.join(other, owner.organization_id, "viewer")
    # Not as a role of his own making, not by changing one, not by giving one away, not to himself.
    body = {"name": "hidden owner", "permissions": ["org.delete"]}
    await api.call("POST", f"{base}/roles", admin.key, json=body, expect=403)
    mild = await made_role(api, admin, base, "org.read")
    grown = {"permissions": ["org.read", "org.change_owner"]}
    await api.call("PATCH", f"{base}/roles/{mild}", admin.key, json=grown, expect=403)
    strong = await made_role(api, owner, base, "org.delete")
    await api.call("PATCH", f"{base}/roles/{strong}", admin.key, json={"permissions": []}, expect=403)
    await api.call("DELETE", f"{base}/roles/{strong}", admin.key, expect=403)
    for given in ({"role_name": "owner"}, {"role_id": strong}):
        for receiver in (other, admin):
            await assign(api, admin, base, receiver, expect=403, **given)
        await api.call(
            "POST", f"{base}/invites", admin.key, json={"email": "friend@example.com", "role": "owner"}, expect=403
        )
    # And he touches nobody who has more than he has.
    await assign(api, admin, base, owner, role_name="viewer", expect=403)
    await api.call("DELETE", f"{base}/members/{owner.id}", admin.key, expect=403)
    await assign(api, admin, base, other, role_name="admin", expect=200)


async def test_a_role_of_another_organization_does_not_exist(api: Api, clerk: Clerk) -> None:
    owner, stranger = await clerk.agent(), await clerk.agent()
    foreign = await made_role(api, stranger, f"/organizations/{stranger.organization_id}", "org.read")
    base = f"/organizations/{owner.organization_id}"
    for method, body in (("GET", {}), ("PATCH", {"json": {"name": "x"}}), ("DELETE", {})):
        answers = [await api.call(method, f"{base}/roles/{one}", owner.key, expect=404, **body) for one in
                   (foreign, uuid7())]  # fmt: skip
        first, second = ({**answer.json(), "instance": ""} for answer in answers)
        assert first == second
    await assign(api, owner, base, owner, role_id=foreign, expect=400)


@pytest.mark.parametrize(
    ("role", "field"),
    [
        ({}, "role_id"),
        ({"role_name": "made up"}, "role_name"),
        ({"role_id": str(uuid7())}, "role_id"),
        ({"role_id": "viewer", "role_name": "owner"}, "role_name"),
    ],
)
async def test_which_role_is_meant_has_to_be_clear(api: Api, clerk: Clerk, role: dict[str, str], field: str) -> None:
    owner, member = await clerk.agent(), await clerk.agent()
    base = f"/organizations/{owner.organization_id}"
    await clerk.join(member, owner.organization_id, "viewer")
    listed = (await api.call("GET", f"{base}/roles", owner.key)).json()["data"]
    ids = {one["name"]: one["id"] for one in listed}
    given = {**role, **({"role_id": ids[role["role_id"]]} if role.get("role_id") in ids else {})}
    told = await assign(api, owner, base, member, expect=400, **given)
    assert told["errors"][0]["field"] == field
