"""Invitations: they bring whom they are for into what was promised, once, while it can still be given."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.ids import uuid7
from tests.admin_api.conftest import Api, Clerk, Member
from tests.admin_api.test_organizations import shared


async def invite(api: Api, by: Member, base: str, email: str = "friend@example.com", **body: str) -> dict[str, Any]:
    answer = await api.call("POST", f"{base}/invites", by.key, json={"email": email, **body}, expect=201)
    return answer.json()["data"]


async def accept(api: Api, who: Member, token: str, expect: int) -> dict[str, Any]:
    answer = await api.call("POST", "/invitations/accept", who.key, json={"invitation": token}, expect=expect)
    return answer.json()


async def address(api: Api, member: Member, email: str) -> None:
    """Make a person of an account, with a proven address."""
    async with api.services.database.acquire() as connection:
        await connection.execute(
            "UPDATE identity.account SET kind = 'human', email = $2 WHERE id = $1", member.id, email
        )


async def test_an_invitation_brings_its_role_once(api: Api, clerk: Clerk) -> None:
    owner, friend, other = await clerk.agent(), await clerk.agent(), await clerk.agent()
    base = await shared(api, owner)
    made = await invite(api, owner, base, " Friend@Example.com", role="editor")
    assert (made["email"], made["role"], made["status"]) == ("friend@example.com", "editor", "pending")
    joined = await accept(api, friend, made["token"], 200)
    assert base.endswith(joined["data"]["id"])
    members = (await api.call("GET", f"{base}/members", friend.key, expect=200)).json()["data"]
    assert {one["user_id"]: one["role"] for one in members} == {str(owner.id): "owner", str(friend.id): "editor"}
    await accept(api, other, made["token"], 404)
    listed = await api.call("GET", f"{base}/invites", owner.key, expect=200)
    assert made["token"] not in listed.text
    assert [one["status"] for one in listed.json()["data"]] == ["accepted"]
    await api.call("DELETE", f"{base}/invites/{made['id']}", owner.key, expect=409)
    await api.call("GET", f"{base}/invites", friend.key, expect=403)


async def test_without_a_role_one_is_invited_to_view(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    base = await shared(api, owner)
    assert (await invite(api, owner, base))["role"] == "viewer"
    assert (await invite(api, owner, base, "another@example.com", role="member"))["role"] == "viewer"


async def test_a_person_needs_the_invited_address(api: Api, clerk: Clerk) -> None:
    owner, right, wrong = await clerk.agent(), await clerk.agent(), await clerk.agent()
    base = await shared(api, owner)
    await address(api, right, "right@example.com")
    await address(api, wrong, "wrong@example.com")
    token = (await invite(api, owner, base, "right@example.com"))["token"]
    await accept(api, wrong, token, 404)
    await api.call("POST", "/invitations/decline", wrong.key, json={"invitation": token}, expect=404)
    await accept(api, right, token, 200)
    # Who is a member needs no other invitation.
    again = await api.call("POST", f"{base}/invites", owner.key, json={"email": "right@example.com"}, expect=409)
    assert again.json()["field"] == "email"


async def test_an_invitation_ends_in_one_way(api: Api, clerk: Clerk) -> None:
    owner, friend = await clerk.agent(), await clerk.agent()
    base = await shared(api, owner)
    declined = await invite(api, owner, base)
    await api.call("POST", f"{base}/invites", owner.key, json={"email": "friend@example.com"}, expect=409)
    await api.call("POST", "/invitations/decline", friend.key, json={"invitation": declined["token"]}, expect=204)
    revoked = await invite(api, owner, base)
    for _ in range(2):
        await api.call("DELETE", f"{base}/invites/{revoked['id']}", owner.key, expect=204)
    expired = await invite(api, owner, base)
    async with api.services.database.acquire() as connection:
        await connection.execute("UPDATE identity.invitation SET expires_at = now() WHERE id = $1", uuid(expired))
    listed = (await api.call("GET", f"{base}/invites", owner.key)).json()["data"]
    assert [one["status"] for one in listed] == ["expired", "revoked", "declined"]
    told = [await accept(api, friend, one["token"], 404) for one in (declined, revoked, expired)]
    told += [await accept(api, friend, token, 404) for token in ("seren_invite_" + "A" * 43, "?")]
    assert len({str({**one, "instance": ""}) for one in told}) == 1
    await invite(api, owner, base)
    await api.call("DELETE", f"{base}/invites/{uuid7()}", owner.key, expect=404)


def uuid(made: dict[str, Any]) -> str:
    return made["id"]


async def test_an_invitation_is_worth_what_its_maker_could_give_by_then(api: Api, clerk: Clerk) -> None:
    owner, admin, friend = await clerk.agent(), await clerk.agent(), await clerk.agent()
    base = await shared(api, owner)
    organization_id = (await api.call("GET", base, owner.key)).json()["data"]["id"]
    await clerk.join(admin, organization_id, "admin")
    token = (await invite(api, admin, base, role="admin"))["token"]
    await clerk.join(admin, organization_id, "editor")
    await accept(api, friend, token, 404)
    await clerk.join(admin, organization_id, "admin")
    await api.call("DELETE", f"{base}/members/{admin.id}", owner.key, expect=204)
    await accept(api, friend, token, 404)
    await clerk.join(admin, organization_id, "admin")
    await accept(api, friend, token, 200)


async def test_of_many_who_accept_at_once_one_joins(api: Api, clerk: Clerk) -> None:
    owner, *friends = [await clerk.agent() for _ in range(5)]
    base = await shared(api, owner)
    token = (await invite(api, owner, base))["token"]
    answers = await asyncio.gather(
        *(api.call("POST", "/invitations/accept", one.key, json={"invitation": token}) for one in friends)
    )
    assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404]
    assert len((await api.call("GET", f"{base}/members", owner.key)).json()["data"]) == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "email"),
        ({"email": "nobody"}, "email"),
        ({"email": "a@b.example\nBcc: c@d.example"}, "email"),
        ({"email": "a@example.com", "role": "made up"}, "role"),
    ],
)
async def test_whom_and_as_what_has_to_be_clear(api: Api, clerk: Clerk, body: dict[str, str], field: str) -> None:
    owner = await clerk.agent()
    path = f"/organizations/{owner.organization_id}/invites"
    problem = (await api.call("POST", path, owner.key, json=body, expect=400)).json()
    assert problem["errors"][0]["field"] == field


async def test_a_member_is_not_invited_again(api: Api, clerk: Clerk) -> None:
    owner, friend = await clerk.agent(), await clerk.agent()
    base = await shared(api, owner)
    first = await invite(api, owner, base, "one@example.com")
    second = await invite(api, owner, base, "two@example.com", role="admin")
    await accept(api, friend, first["token"], 200)
    await accept(api, friend, second["token"], 409)
    assert (await api.call("GET", f"{base}/members", owner.key)).json()["data"][1]["role"] == "viewer"
