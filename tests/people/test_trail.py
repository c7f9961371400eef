"""What people do with their account is in the audit log of their organization, with who, by what and from where."""

from __future__ import annotations

from typing import Any

from tests.admin_api.conftest import Api
from tests.people.conftest import PASSWORD, Login, Street

NEW = "an orchard behind the mill"


async def log_of(api: Api, login: Login) -> list[dict[str, Any]]:
    me = (await api.call("GET", "/auth/me", login.access, expect=200)).json()["data"]
    path = f"/organizations/{me['default_organization_id']}/audit-logs"
    return (await api.call("GET", path, login.access, expect=200)).json()["data"]["data"]


async def session_of(api: Api, login: Login) -> str:
    (found,) = [
        one["id"] for one in (await api.call("GET", "/sessions", login.access)).json() if one["is_current"]
    ]  # fmt: skip
    return found


async def test_what_people_do_is_in_the_log(street: Street, api: Api) -> None:
    first = await street.person()
    second = await street.login(first.email)
    await street.post("/auth/logout", second.access, expect=200)
    third = await street.login(first.email)
    ended = await session_of(api, third)
    await api.call("DELETE", f"/sessions/{ended}", first.access, expect=200)
    kept = await session_of(api, first)
    await street.post(f"/sessions/{kept}/revoke-others", first.access, expect=200)
    body = {"current_password": PASSWORD, "new_password": NEW}
    await street.post("/auth/password", first.access, expect=200, **body)
    fourth = await street.login(first.email, NEW)
    await street.post("/sessions/revoke-all", fourth.access, expect=200)
    await street.post("/auth/forgot-password", expect=200, email=first.email)
    token = await street.token_for(first.email)
    await street.post("/auth/reset-password", expect=200, token=token, new_password=PASSWORD)
    last = await street.login(first.email)
    entries = (await log_of(api, last))[::-1]
    assert [entry["action"] for entry in entries] == [
        "account.register", "session.create", "session.revoke", "session.create", "session.revoke",
        "session.revoke_others", "account.change_password", "session.create", "session.revoke_all",
        "account.reset_password", "session.create",
    ]  # fmt: skip
    assert {(entry["actor_id"], entry["ip_address"]) for entry in entries} == {(first.id, "203.0.113.7")}
    assert all(entry["request_id"] for entry in entries)
    assert entries[2]["metadata"]["credential"]["type"] == "session"
    assert entries[4]["resource_id"] == ended
    text = str(entries)
    assert not any(secret in text for secret in (PASSWORD, NEW, token, last.access, last.refresh))


async def test_a_stolen_refresh_token_is_in_the_log(street: Street, api: Api) -> None:
    person = await street.person()
    other = await street.login(person.email)
    session = await session_of(api, person)
    await street.post("/auth/refresh", expect=200, refresh_token=person.refresh)
    await street.post("/auth/refresh", expect=401, refresh_token=person.refresh)
    entry = (await log_of(api, other))[0]
    assert (entry["action"], entry["resource_id"], entry["metadata"]["by"]) == ("session.revoke", session, "reuse")
