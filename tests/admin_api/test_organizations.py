"""Shared organizations: making and ending them, their members, and that each keeps an owner."""

from __future__ import annotations

import asyncio

from gateway.ids import uuid7
from tests.admin_api.conftest import Api, Clerk, Member


async def shared(api: Api, owner: Member, name: str = "Weather Ltd") -> str:
    """Make an organization and return its path."""
    made = (await api.call("POST", "/organizations", owner.key, json={"name": name}, expect=201)).json()["data"]
    return f"/organizations/{made['id']}"


async def test_an_organization_is_made_named_and_ended(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    base = await shared(api, owner, "Tides & Winds")
    made = (await api.call("GET", base, owner.key, expect=200)).json()["data"]
    assert (made["name"], made["slug"], made["is_personal"], made["created_by"]) == (
        "Tides & Winds", "tides-winds", False, str(owner.id),
    )  # fmt: skip
    other = (await api.call("GET", await shared(api, owner, "Tides & Winds"), owner.key)).json()["data"]
    assert other["slug"].startswith("tides-winds-")
    renamed = (await api.call("PATCH", base, owner.key, json={"name": " Tides "}, expect=200)).json()["data"]
    assert (renamed["name"], renamed["slug"]) == ("Tides", "tides-winds")
    listed = (await api.call("GET", "/organizations", owner.key)).json()["data"]
    assert [one["id"] for one in listed] == [str(owner.organization_id), made["id"], other["id"]]
    key = (await api.call("POST", f"{base}/api-keys", owner.key, json={"name": "ci"}, expect=201)).json()["data"]
    await api.call("GET", "/auth/me", key["api_key"], expect=200)
    await api.call("DELETE", base, owner.key, expect=204)
    await api.call("GET", "/auth/me", key["api_key"], expect=401)
    gone = [await api.call("GET", path, owner.key, expect=403) for path in (base, f"/organizations/{uuid7()}")]
    first, second = ({**answer.json(), "instance": ""} for answer in gone)
    assert first == second


async def test_what_others_depend_on_is_not_ended(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    await api.call("DELETE", f"/organizations/{owner.organization_id}", owner.key, expect=409)
    base = await shared(api, owner)
    made = await api.call("POST", f"{base}/publishers", owner.key, json=clerk.order(), expect=201)
    await api.call("DELETE", base, owner.key, expect=409)
    await api.call("DELETE", f"{base}/publishers/{made.json()['data']['id']}", owner.key, expect=200)
    await api.call("DELETE", base, owner.key, expect=204)


async def test_who_goes_loses_the_keys_that_he_made_there_for_good(api: Api, clerk: Clerk) -> None:
    owner, first, second = await clerk.agent(), await clerk.agent(), await clerk.agent()
    base = await shared(api, owner)
    organization_id = (await api.call("GET", base, owner.key)).json()["data"]["id"]
    keys: list[str] = []
    for member in (first, second):
        await clerk.join(member, organization_id, "editor")
        made = await api.call("POST", f"{base}/api-keys", member.key, json={"name": "mine"}, expect=201)
        keys.append(made.json()["data"]["api_key"])
        await api.call("GET", f"{base}/members", keys[-1], expect=200)
    await api.call("POST", f"{base}/leave", first.key, expect=204)
    await api.call("DELETE", f"{base}/members/{second.id}", owner.key, expect=204)
    for member, key in zip((first, second), keys, strict=True):
        await api.call("GET", "/auth/me", key, expect=401)
        await api.call("GET", base, member.key, expect=403)
        await clerk.join(member, organization_id, "editor")
        await api.call("GET", "/auth/me", key, expect=401)
        await api.call("GET", base, member.key, expect=200)
    await api.call("DELETE", f"{base}/members/{uuid7()}", owner.key, expect=404)


async def test_the_last_owner_stays(api: Api, clerk: Clerk) -> None:
    owner, disabled = await clerk.agent(), await clerk.agent()
    base = await shared(api, owner)
    organization_id = (await api.call("GET", base, owner.key)).json()["data"]["id"]
    await clerk.join(disabled, organization_id, "owner")
    async with api.services.database.acquire() as connection:
        await connection.execute("UPDATE identity.account SET status = 'disabled' WHERE id = $1", disabled.id)
    await api.call("POST", f"{base}/leave", owner.key, expect=409)
    await api.call("DELETE", f"{base}/members/{owner.id}", owner.key, expect=409)
    await api.call("PUT", f"{base}/members/{owner.id}/role", owner.key, json={"role_name": "admin"}, expect=409)
    await api.call("PUT", f"{base}/members/{owner.id}/role", owner.key, json={"role_name": "owner"}, expect=200)


async def test_of_owners_who_turn_on_each_other_one_stays(api: Api, clerk: Clerk) -> None:
    owners = [await clerk.agent() for _ in range(3)]
    base = await shared(api, owners[0])
    organization_id = (await api.call("GET", base, owners[0].key)).json()["data"]["id"]
    for one in owners[1:]:
        await clerk.join(one, organization_id, "owner")
    following = [*owners[1:], owners[0]]
    answers = await asyncio.gather(
        *(api.call("DELETE", f"{base}/members/{victim.id}", by.key) for by, victim in zip(owners, following, strict=True)),
        *(api.call("POST", f"{base}/leave", one.key) for one in owners),
        *(
            api.call("PUT", f"{base}/members/{one.id}/role", one.key, json={"role_name": "viewer"})
            for one in owners
        ),
    )  # fmt: skip
    assert {answer.status_code for answer in answers} <= {200, 204, 403, 404, 409}
    async with api.services.database.acquire() as connection:
        left = await connection.fetchval(
            "SELECT count(*) FROM identity.membership WHERE organization_id = $1 AND role = 'owner'", organization_id
        )
    assert left >= 1


async def test_an_account_stays_the_owner_of_its_own_organization(api: Api, clerk: Clerk) -> None:
    owner, second = await clerk.agent(), await clerk.agent()
    base = f"/organizations/{owner.organization_id}"
    await clerk.join(second, owner.organization_id, "owner")
    await api.call("DELETE", f"{base}/members/{owner.id}", second.key, expect=409)
    await api.call("PUT", f"{base}/members/{owner.id}/role", second.key, json={"role_name": "viewer"}, expect=409)
    await api.call("POST", f"{base}/leave", owner.key, expect=409)
    await api.call("DELETE", f"{base}/members/{second.id}", owner.key, expect=204)


async def test_changes_of_members_are_in_the_audit_log(api: Api, clerk: Clerk) -> None:
    owner, member = await clerk.agent(), await clerk.agent()
    base = await shared(api, owner)
    organization_id = (await api.call("GET", base, owner.key)).json()["data"]["id"]
    await clerk.join(member, organization_id, "viewer")
    path = f"{base}/members/{member.id}"
    await api.call("PUT", f"{path}/role", owner.key, json={"role_name": "editor"}, expect=200)
    await api.call("DELETE", path, owner.key, expect=204)
    async with api.services.database.acquire() as connection:
        rows = await connection.fetch(
            "SELECT action, actor_id, resource_id FROM audit.entry WHERE chain = $1 ORDER BY seq", organization_id
        )
    assert [(row["action"], row["actor_id"]) for row in rows] == [
        ("organization.create", owner.id), ("member.assign_role", owner.id), ("member.remove", owner.id),
    ]  # fmt: skip
    assert {row["resource_id"] for row in rows[1:]} == {member.id}
