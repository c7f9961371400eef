"""How often somebody may guess, and have letters sent: per account and per address, before anything is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from admin_api.app import build
from gateway.settings import LimitSettings, ServerSettings
from tests.admin_api.conftest import PUBLIC_URL, Api, close_api, open_api
from tests.people.conftest import PASSWORD, WIDE, Street, people_settings
from tests.support.mailbox import Mailbox


@pytest_asyncio.fixture
async def narrow(database_url: str, mailbox: Mailbox, request: pytest.FixtureRequest) -> AsyncIterator[Street]:
    """An API with the limits that the test names; addresses are what a trusted proxy says."""
    limits = LimitSettings(**{**WIDE.model_dump(), **request.param})
    server = ServerSettings(public_url=PUBLIC_URL, trusted_proxies=("203.0.113.0/24",))
    opened, _ = await open_api(people_settings(database_url, mailbox, limits=limits, server=server))
    yield Street(opened, mailbox)
    await close_api(opened)
    opened.services.passwords.stop()
    opened.services.mail.stop()


def limits(**changed: int) -> Any:
    return pytest.mark.parametrize("narrow", [changed], indirect=True)


async def tried(street: Street, email: str, password: str, address: str) -> int:
    body = {"email": email, "password": password}
    answer = await street.api.call("POST", "/auth/login", json=body, headers={"X-Forwarded-For": address})
    if answer.status_code == 429:
        assert int(answer.headers["retry-after"]) >= 1
    return answer.status_code


@limits(logins=3)
async def test_an_account_takes_few_tries_from_one_address(narrow: Street) -> None:
    person, other = await narrow.person(), await narrow.person()
    assert [await tried(narrow, person.email, "wrong", "198.51.100.1") for _ in range(4)] == [401, 401, 401, 429]
    assert await tried(narrow, person.email.upper(), PASSWORD, "198.51.100.1") == 429
    assert await tried(narrow, person.email, PASSWORD, "198.51.100.2") == 200
    assert await tried(narrow, other.email, PASSWORD, "198.51.100.1") == 200
    nobody = narrow.address()
    assert [await tried(narrow, nobody, "wrong", "198.51.100.1") for _ in range(4)] == [401, 401, 401, 429]


@limits(logins=3)
async def test_many_tries_at_once_are_no_more(narrow: Street) -> None:
    person = await narrow.person()
    found = await asyncio.gather(*(tried(narrow, person.email, f"wrong {n}", "198.51.100.3") for n in range(20)))
    assert sorted(found) == [401] * 3 + [429] * 17


@limits(logins_per_account=4)
async def test_an_account_takes_few_tries_from_everywhere(narrow: Street) -> None:
    person = await narrow.person()
    found = [await tried(narrow, person.email, "wrong", f"198.51.100.{n}") for n in range(10, 16)]
    assert found == [401] * 4 + [429] * 2


@limits(logins_per_address=4)
async def test_an_address_tries_few_accounts(narrow: Street) -> None:
    found = [await tried(narrow, narrow.address(), PASSWORD, "198.51.100.20") for _ in range(6)]
    assert found == [401] * 4 + [429] * 2
    assert await tried(narrow, narrow.address(), PASSWORD, "198.51.100.21") == 401


@limits(logins=3)
async def test_guessing_the_old_password_of_a_login_counts_too(narrow: Street) -> None:
    person = await narrow.person()
    body = {"current_password": "wrong", "new_password": "another password"}
    found = [(await narrow.post("/auth/password", person.access, **body)).status_code for _ in range(4)]
    assert found == [403, 403, 403, 429]


@limits(guesses=3)
async def test_tokens_are_not_tried_out(narrow: Street) -> None:
    """One count for all kinds: of keys, of letters, and of logins."""
    guess = "a" * 43
    calls = [
        ("/auth/reset-password", {"token": f"seren_reset_{guess}", "new_password": "another password"}, 404),
        ("/auth/verify-email", {"token": f"seren_verify_{guess}"}, 400),
        ("/auth/refresh", {"refresh_token": f"seren_refresh_{guess}"}, 401),
    ]
    for path, body, expect in calls:
        await narrow.post(path, expect=expect, **body)
    for path, body, _ in calls:
        await narrow.post(path, expect=429, **body)
    answer = await narrow.api.call("GET", "/auth/me", f"seren_access_{guess}", expect=429)
    assert answer.headers["retry-after"]
    await narrow.api.call("GET", "/auth/me", headers={"Cookie": f"tollway_access=seren_access_{guess}"}, expect=429)


@limits(letters=2)
async def test_a_mailbox_is_not_flooded_and_nobody_is_told(narrow: Street) -> None:
    person = await narrow.person()  # one letter
    before = len(narrow.mailbox.to(person.email))
    said = [(await narrow.post("/auth/forgot-password", expect=200, email=person.email)).json() for _ in range(4)]
    again = {"email": person.email, "password": "another password"}
    assert (await narrow.post("/auth/signup", expect=201, **again)).json() == said[0]
    assert all(one == said[0] for one in said)
    await narrow.postman.run()
    assert len(narrow.mailbox.to(person.email)) == before + 1


@limits(registrations=2)
async def test_signing_up_counts_as_registering(narrow: Street) -> None:
    found = [
        (await narrow.post("/auth/signup", email=narrow.address(), password=PASSWORD)).status_code for _ in range(3)
    ]
    assert found == [201, 201, 429]


async def test_no_operation_of_people_goes_uncounted(api: Api) -> None:
    """Everything that takes no credential counts its address."""
    from admin_api.kit.access import caller, public, registration

    routes = [
        route for route in build(api.services).state.routes
        if getattr(route, "path", "").startswith(("/auth/", "/sessions", "/account/"))
    ]  # fmt: skip
    assert len(routes) > 14

    def calls(dependant: Any) -> set[Any]:
        return {dependant.call}.union(*(calls(one) for one in dependant.dependencies))

    for route in routes:
        assert calls(route.dependant) & {caller, public, registration}, route.path
