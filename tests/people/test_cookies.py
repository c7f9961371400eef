"""Logins by cookie: no script reads them, no other site makes use of them or sets them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.settings import ServerSettings
from tests.admin_api.conftest import PUBLIC_URL, Api, close_api, open_api
from tests.people.conftest import PASSWORD, Street, people_settings
from tests.support.mailbox import Mailbox

SAME = {"Sec-Fetch-Site": "same-origin"}
FOREIGN: dict[str, dict[str, str]] = {
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "another host of this site": {"Sec-Fetch-Site": "same-site"},
    "typed by hand": {"Sec-Fetch-Site": "none"},
    "another origin": {"Origin": "https://evil.example"},
    "no origin": {"Origin": "null"},
    "a longer host": {"Origin": f"{PUBLIC_URL}.evil.example"},
    "the other scheme": {"Origin": PUBLIC_URL.replace("http:", "https:")},
    "says one thing and means another": {"Sec-Fetch-Site": "cross-site", "Origin": PUBLIC_URL},
    "says nothing": {},
    "names our host": {"Host": "evil.example", "Origin": "http://evil.example"},
}


def cookies_of(answer: httpx.Response) -> SimpleCookie:
    jar: SimpleCookie = SimpleCookie()
    for line in answer.headers.get_list("set-cookie"):
        jar.load(line)
    return jar


async def by_cookie(street: Street, **headers: str) -> dict[str, str]:
    """Log a new person in by cookie and return what a browser would send."""
    person = await street.person()
    body = {"email": person.email, "password": PASSWORD, "cookies": True}
    answer = await street.api.call("POST", "/auth/login", json=body, headers=headers or SAME, expect=200)
    assert (answer.json()["data"]["access_token"], answer.json()["data"]["refresh_token"]) == (None, None)
    street.api.http.cookies.clear()
    return {name: one.value for name, one in cookies_of(answer).items()}


def sent(jar: dict[str, str]) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in jar.items())}


@pytest_asyncio.fixture(scope="module")
async def https(database_url: str, mailbox: Mailbox) -> AsyncIterator[Api]:
    """The same API behind https."""
    server = ServerSettings(public_url="https://tollway.test")
    opened, _ = await open_api(people_settings(database_url, mailbox, server=server))
    yield opened
    await close_api(opened)
    opened.services.passwords.stop()
    opened.services.mail.stop()


async def test_behind_https_cookies_are_secure_and_of_this_host(https: Api, mailbox: Mailbox) -> None:
    street = Street(https, mailbox)
    person = await street.person()
    body = {"email": person.email, "password": PASSWORD, "cookies": True}
    answer = await https.call("POST", "/auth/login", json=body, headers=SAME, expect=200)
    https.http.cookies.clear()
    jar = cookies_of(answer)
    assert jar.keys() == {"__Host-tollway_access", "__Secure-tollway_refresh"}
    for one, path, site in zip(jar.values(), ("/", "/auth"), ("lax", "strict"), strict=True):
        assert (one["secure"], one["httponly"], one["path"], one["samesite"], one["domain"]) == (
            True,
            True,
            path,
            site,
            "",
        )
    plain = {name.rpartition("-")[2]: one.value for name, one in jar.items()}
    await https.call("GET", "/auth/me", headers=sent(plain), expect=401)
    await https.call("GET", "/auth/me", headers=sent({name: one.value for name, one in jar.items()}), expect=200)


async def test_a_browser_works_by_cookie_and_logs_out(street: Street, api: Api) -> None:
    jar = await by_cookie(street)
    assert jar.keys() == {"tollway_access", "tollway_refresh"}
    await api.call("GET", "/auth/me", headers=sent(jar), expect=200)
    await api.call("GET", "/auth/me", headers={**sent(jar), "Sec-Fetch-Site": "cross-site"}, expect=200)
    body = {"name": "mine"}
    await api.call("POST", "/organizations/default/api-keys", json=body, headers={**sent(jar), **SAME}, expect=201)
    answer = await api.call("POST", "/auth/logout", headers={**sent(jar), "Origin": PUBLIC_URL}, expect=200)
    assert {one["max-age"] for one in cookies_of(answer).values()} == {"0"}
    await api.call("GET", "/auth/me", headers=sent(jar), expect=401)


async def test_cookies_are_refreshed_by_cookie(street: Street, api: Api) -> None:
    jar = await by_cookie(street)
    answer = await api.call("POST", "/auth/refresh", json={}, headers={**sent(jar), **SAME}, expect=200)
    api.http.cookies.clear()
    assert answer.json()["data"]["refresh_token"] is None
    fresh = {name: one.value for name, one in cookies_of(answer).items()}
    assert set(fresh.values()).isdisjoint(jar.values())
    await api.call("GET", "/auth/me", headers=sent(fresh), expect=200)
    await api.call("POST", "/auth/refresh", json={}, headers=SAME, expect=400)


@pytest.mark.parametrize("who", FOREIGN)
async def test_another_site_changes_nothing_by_cookie(street: Street, api: Api, who: str) -> None:
    jar = await by_cookie(street)
    headers = {**sent(jar), **FOREIGN[who]}
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/auth/logout", None), ("POST", "/sessions/revoke-all", None), ("POST", "/auth/refresh", {}),
        ("POST", "/organizations/default/api-keys", {"name": "x"}), ("POST", "/wallet/bonus/signup", None),
        ("POST", "/auth/password", {"current_password": PASSWORD, "new_password": "another password"}),
    ]  # fmt: skip
    for method, path, body in calls:
        await api.call(method, path, headers=headers, json=body, expect=403)
    api.http.cookies.clear()
    await api.call(
        "POST", "/organizations/default/api-keys", headers={**sent(jar), **SAME}, json={"name": "x"}, expect=201
    )


@pytest.mark.parametrize("who", FOREIGN)
async def test_another_site_logs_nobody_in(street: Street, api: Api, who: str) -> None:
    """Login CSRF: whoever is logged in to an account of the attacker's would work for the attacker."""
    person = await street.person()
    body = {"email": person.email, "password": PASSWORD, "cookies": True}
    answer = await api.call("POST", "/auth/login", json=body, headers=FOREIGN[who], expect=403)
    again = {"refresh_token": person.refresh, "cookies": True}
    second = await api.call("POST", "/auth/refresh", json=again, headers=FOREIGN[who], expect=403)
    assert [one.headers.get_list("set-cookie") for one in (answer, second)] == [[], []]
    await street.post("/auth/refresh", expect=200, refresh_token=person.refresh)


async def test_a_planted_cookie_is_not_what_a_login_gives(street: Street, api: Api) -> None:
    """Session fixation: neither an invented token nor one of the attacker's own becomes the victim's."""
    attacker = await street.person()
    victim = await street.person()
    for planted in (f"seren_access_{'a' * 43}", attacker.access):
        jar = {"tollway_access": planted, "tollway_refresh": attacker.refresh}
        body = {"email": victim.email, "password": PASSWORD, "cookies": True}
        answer = await api.call("POST", "/auth/login", json=body, headers={**sent(jar), **SAME}, expect=200)
        api.http.cookies.clear()
        fresh = {name: one.value for name, one in cookies_of(answer).items()}
        assert set(fresh.values()).isdisjoint(jar.values())
        me = (await api.call("GET", "/auth/me", headers=sent(fresh), expect=200)).json()["data"]
        assert me["id"] == victim.id
    assert (await api.call("GET", "/auth/me", attacker.access, expect=200)).json()["data"]["id"] == attacker.id


async def test_a_field_counts_before_a_cookie(street: Street, api: Api) -> None:
    jar, other = await by_cookie(street), await street.person()
    me = (await api.call("GET", "/auth/me", other.access, headers=sent(jar), expect=200)).json()["data"]
    assert me["id"] == other.id
    await api.call("GET", "/auth/me", f"seren_access_{'a' * 43}", headers=sent(jar), expect=401)


async def test_only_an_access_token_is_heard_in_a_cookie(street: Street, api: Api) -> None:
    person = await street.person()
    made = await street.post("/organizations/default/api-keys", person.access, expect=201, name="k")
    for text in (made.json()["data"]["api_key"], person.refresh, "x", ""):
        await api.call("GET", "/auth/me", headers=sent({"tollway_access": text}), expect=401)
