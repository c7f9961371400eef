"""Everything that changes an organization, its roles, invitations and members is in its audit log, in order."""

from __future__ import annotations

from typing import Any

from tests.admin_api.conftest import Api, Clerk, Member


async def did(api: Api, who: Member, method: str, path: str, **body: Any) -> dict[str, Any]:
    answer = await api.call(method, path, who.key, **({"json": body} if body else {}))
    assert answer.status_code < 300, answer.text
    return answer.json().get("data", {}) if answer.content else {}


async def test_the_life_of_an_organization_is_in_its_log(api: Api, clerk: Clerk) -> None:
    owner, friend = await clerk.agent(), await clerk.agent()
    made = await did(api, owner, "POST", "/organizations", name="Weather Ltd")
    base = f"/organizations/{made['id']}"
    await did(api, owner, "PATCH", base, name="Weather and Tides Ltd")
    role = await did(api, owner, "POST", f"{base}/roles", name="reader", permissions=["org.read"])
    await did(api, owner, "PATCH", f"{base}/roles/{role['id']}", permissions=["org.read", "publishers.read"])
    await did(api, owner, "DELETE", f"{base}/roles/{role['id']}")
    invited = await did(api, owner, "POST", f"{base}/invites", email="friend@example.com")
    await did(api, owner, "DELETE", f"{base}/invites/{invited['id']}")
    for answer in ("decline", "accept"):
        invited = await did(api, owner, "POST", f"{base}/invites", email="friend@example.com")
        await did(api, friend, "POST", f"/invitations/{answer}", invitation=invited["token"])
    await did(api, friend, "POST", f"{base}/leave")
    await did(api, owner, "DELETE", base)
    rows = await api.services.database.read(
        lambda connection: connection.fetch(
            "SELECT action FROM audit.entry WHERE chain::text = $1 ORDER BY seq", made["id"]
        )
    )
    assert [row["action"] for row in rows] == [
        "organization.create", "organization.update", "role.create", "role.update", "role.delete",
        "invitation.create", "invitation.revoke", "invitation.create", "invitation.decline",
        "invitation.create", "invitation.accept", "member.add", "member.leave", "organization.delete",
    ]  # fmt: skip
