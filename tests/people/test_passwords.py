"""Another password: by a link that works once, or by the old one; whatever stood on the old one ends."""

from __future__ import annotations

import asyncio

import pytest

from gateway.identity import people
from tests.admin_api.conftest import Api
from tests.people.conftest import PASSWORD, Street

NEW = "an orchard behind the mill"


async def reset_token(street: Street, email: str) -> str:
    await street.post("/auth/forgot-password", expect=200, email=email)
    return await street.token_for(email)


async def test_a_link_sets_a_password_once_and_ends_every_login(street: Street) -> None:
    person = await street.person()
    other = await street.login(person.email)
    key = (await street.post("/organizations/default/api-keys", person.access, expect=201, name="k")).json()["data"]
    token = await reset_token(street, person.email)
    await street.post("/auth/reset-password", expect=200, token=token, new_password=NEW)
    assert [await street.works(one.access) for one in (person, other)] == [False, False]
    await street.post("/auth/refresh", expect=401, refresh_token=other.refresh)
    await street.post("/auth/login", expect=401, email=person.email, password=PASSWORD)
    await street.login(person.email, NEW)
    assert await street.works(key["api_key"])
    problem = (await street.post("/auth/reset-password", expect=400, token=token, new_password=PASSWORD)).json()
    assert token not in str(problem)
    await street.login(person.email, NEW)


async def test_of_many_uses_at_once_one_wins(street: Street) -> None:
    person = await street.person()
    token = await reset_token(street, person.email)
    answers = await asyncio.gather(
        *(street.post("/auth/reset-password", token=token, new_password=f"{NEW} {n}") for n in range(4))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]


async def test_a_new_password_makes_other_links_void(street: Street) -> None:
    person = await street.person()
    first, second = await reset_token(street, person.email), await reset_token(street, person.email)
    await street.post("/auth/reset-password", expect=200, token=second, new_password=NEW)
    await street.post("/auth/reset-password", expect=400, token=first, new_password=PASSWORD)


async def test_unknown_is_404_and_too_old_is_400(street: Street, api: Api) -> None:
    person = await street.person()
    token = await reset_token(street, person.email)
    for unknown in (f"seren_reset_{'a' * 43}", "x", token[:-1], token.swapcase()):
        await street.post("/auth/reset-password", expect=404, token=unknown, new_password=NEW)
    async with api.services.database.acquire() as connection:
        await connection.execute("UPDATE identity.mail_token SET expires_at = now() - interval '1 second'")
    await people.forget_old(api.services.database)
    await street.post("/auth/reset-password", expect=400, token=token, new_password=NEW)
    async with api.services.database.acquire() as connection:
        await connection.execute("UPDATE identity.mail_token SET expires_at = now() - interval '8 days'")
    await people.forget_old(api.services.database)
    await street.post("/auth/reset-password", expect=404, token=token, new_password=NEW)
    await street.login(person.email)


async def test_asking_tells_nothing_and_writes_to_nobody_without_an_account(street: Street) -> None:
    person, nobody = await street.person(), street.address()
    said = [await street.post("/auth/forgot-password", expect=200, email=one) for one in (person.email, nobody)]
    assert said[0].json() == said[1].json()
    await street.postman.run()
    assert street.mailbox.to(nobody) == []
    assert street.mailbox.to(person.email)[-1].message["Subject"] == "Choose a new password"


async def test_the_link_goes_to_the_address_as_it_is_stored(street: Street) -> None:
    person = await street.person()
    await street.post("/auth/forgot-password", expect=200, email=person.email.upper())
    await street.postman.run()
    assert street.mailbox.posts[-1].recipients == [person.email]


async def test_the_owner_is_told_of_another_password(street: Street) -> None:
    person = await street.person()
    token = await reset_token(street, person.email)
    await street.post("/auth/reset-password", expect=200, token=token, new_password=NEW)
    await street.postman.run()
    assert street.mailbox.to(person.email)[-1].message["Subject"] == "Your password was changed"


async def test_a_refused_password_leaves_the_link_good(street: Street) -> None:
    person = await street.person()
    token = await reset_token(street, person.email)
    problem = (await street.post("/auth/reset-password", expect=400, token=token, new_password="short")).json()
    assert problem["errors"][0]["field"] == "new_password"
    await street.post("/auth/reset-password", expect=200, token=token, new_password=NEW)


async def test_changing_it_takes_the_old_one_and_rotates_this_login(street: Street) -> None:
    person = await street.person()
    other = await street.login(person.email)
    wrong = {"current_password": NEW, "new_password": NEW}
    await street.post("/auth/password", person.access, expect=403, **wrong)
    body = {"current_password": PASSWORD, "new_password": NEW}
    data = (await street.post("/auth/password", person.access, expect=200, **body)).json()["data"]
    assert [await street.works(one.access) for one in (person, other)] == [False, False]
    assert await street.works(data["access_token"])
    await street.post("/auth/refresh", expect=200, refresh_token=data["refresh_token"])
    await street.login(person.email, NEW)


@pytest.mark.parametrize("first", ["login", "reset"])
async def test_no_login_by_an_old_password_survives_a_new_one(street: Street, api: Api, first: str) -> None:
    """Whichever of the two commits first: the login finds the other password, or the reset finds the login."""
    person = await street.person()
    token = await reset_token(street, person.email)
    async with api.services.database.transaction() as connection:
        lock = "FOR SHARE" if first == "login" else "FOR UPDATE"
        await connection.execute(f"SELECT FROM identity.account WHERE email = $1 {lock}", person.email)
        login = asyncio.ensure_future(street.post("/auth/login", email=person.email, password=PASSWORD))
        reset = asyncio.ensure_future(street.post("/auth/reset-password", token=token, new_password=NEW))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
        while await connection.fetchval(waiting) < (1 if first == "login" else 2):
            await asyncio.sleep(0.01)
    assert (await reset).status_code == 200
    answer = await login
    if answer.status_code == 200:
        assert not await street.works(answer.json()["data"]["access_token"])
    else:
        assert answer.status_code == 401
    await street.login(person.email, NEW)
