"""The list of logins: seen and ended by their owner, and by nobody else."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

from tests.admin_api.conftest import Api, Clerk
from tests.people.conftest import PASSWORD, Login, Street


async def listed(api: Api, token: str) -> list[dict[str, Any]]:
    return (await api.call("GET", "/sessions", token, expect=200)).json()


async def current(api: Api, token: str) -> str:
    (found,) = [one["id"] for one in await listed(api, token) if one["is_current"]]
    return found


async def three(street: Street) -> tuple[Login, Login, Login]:
    first = await street.person()
    return first, await street.login(first.email), await street.login(first.email)


async def test_the_list_shows_logins_that_have_not_ended(street: Street, api: Api) -> None:
    first, second, third = await three(street)
    await street.post("/auth/logout", second.access, expect=200)
    async with api.services.database.acquire() as connection:
        await connection.execute(
            "UPDATE identity.session SET expires_at = now() WHERE id = $1::text::uuid", await current(api, first.access)
        )
    (only,) = await listed(api, third.access)
    assert only.keys() == {
        "id", "created_at", "last_active_at", "expires_at", "ip_address", "user_agent", "is_current",
    }  # fmt: skip
    assert (only["is_current"], only["ip_address"]) == (True, "203.0.113.7")
    assert only["user_agent"].startswith("python-httpx")


async def test_newest_first_and_one_is_current(street: Street, api: Api) -> None:
    first, second, third = await three(street)
    seen = await listed(api, second.access)
    assert [one["is_current"] for one in seen] == [False, True, False]
    assert [one["id"] for one in seen] == [await current(api, one.access) for one in (third, second, first)]


async def test_a_login_is_ended_by_another_one(street: Street, api: Api) -> None:
    first, second, _ = await three(street)
    target = await current(api, second.access)
    data = (await api.call("DELETE", f"/sessions/{target}", first.access, expect=200)).json()["data"]
    assert data["revoked_count"] == 1
    assert not await street.works(second.access)
    await street.post("/auth/refresh", expect=401, refresh_token=second.refresh)
    await api.call("DELETE", f"/sessions/{target}", first.access, expect=404)
    await api.call("DELETE", f"/sessions/{await current(api, first.access)}", first.access, expect=200)
    assert not await street.works(first.access)


async def test_all_but_one_and_all(street: Street, api: Api) -> None:
    first, second, third = await three(street)
    kept = await current(api, second.access)
    data = (await street.post(f"/sessions/{kept}/revoke-others", first.access, expect=200)).json()["data"]
    assert data["revoked_count"] == 2
    assert [await street.works(one.access) for one in (first, second, third)] == [False, True, False]
    again = await street.login(first.email)
    key = (await street.post("/organizations/default/api-keys", again.access, expect=201, name="k")).json()["data"]
    data = (await street.post("/sessions/revoke-all", again.access, expect=200)).json()["data"]
    assert data["revoked_count"] == 2
    assert [await street.works(one.access) for one in (second, again)] == [False, False]
    assert await street.works(key["api_key"])


async def test_what_is_somebody_elses_is_unknown(street: Street, api: Api) -> None:
    person, other = await street.person(), await street.person()
    theirs = await current(api, other.access)
    answers = []
    for session in (theirs, str(uuid4())):
        for method, path in (("DELETE", f"/sessions/{session}"), ("POST", f"/sessions/{session}/revoke-others")):
            answers.append(await api.call(method, path, person.access, expect=404))
    assert len({str({**answer.json(), "instance": ""}) for answer in answers}) == 1
    assert await street.works(other.access)
    assert len(await listed(api, person.access)) == 1


async def test_an_api_key_is_no_login(street: Street, api: Api, clerk: Clerk) -> None:
    """One that leaked tells nobody where its owner is, and throws nobody out."""
    person = await street.person()
    made = await street.post("/organizations/default/api-keys", person.access, expect=201, name="k")
    for key in (made.json()["data"]["api_key"], (await clerk.agent()).key):
        assert await listed(api, key) == []
        assert (await street.post("/sessions/revoke-all", key, expect=200)).json()["data"]["revoked_count"] == 0
        session = await current(api, person.access)
        await api.call("DELETE", f"/sessions/{session}", key, expect=404)
        await street.post(f"/sessions/{session}/revoke-others", key, expect=404)
        await street.post("/auth/logout", key, expect=400)
        body = {"current_password": PASSWORD, "new_password": "another password"}
        await street.post("/auth/password", key, expect=400, **body)
    assert await street.works(person.access)


async def test_no_key_outlives_the_session_that_made_it_meanwhile(street: Street, api: Api) -> None:
    person = await street.person()
    session = await current(api, person.access)
    async with api.services.database.transaction() as connection:
        await connection.execute(
            "UPDATE identity.session SET ended_at = now(), ended_by = 'revoked' WHERE id = $1::text::uuid", session
        )
        making = asyncio.ensure_future(
            street.post("/organizations/default/api-keys", person.access, name="of the thief")
        )
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
        while not (making.done() or await connection.fetchval(waiting)):
            await asyncio.sleep(0.01)
    assert (await making).status_code == 401


async def test_using_a_login_shows(street: Street, api: Api) -> None:
    person = await street.person()
    async with api.services.database.acquire() as connection:
        await connection.execute(
            "UPDATE identity.session SET last_active_at = now() - interval '1 hour' WHERE account_id = $1::text::uuid",
            person.id,
        )
    (before,) = await listed(api, person.access)
    (after,) = await listed(api, person.access)
    assert after["last_active_at"] > after["created_at"]
    assert after["last_active_at"] == before["last_active_at"]
