"""Signing up: an account comes into being by the link of a letter, once, and nobody learns who has one."""

from __future__ import annotations

import asyncio

import pytest

from gateway.identity import people
from tests.admin_api.conftest import PUBLIC_URL, Api
from tests.people.conftest import PASSWORD, Street


async def test_a_person_has_what_an_agent_has_but_a_key(street: Street, api: Api) -> None:
    person = await street.person(name="Ada Lovelace")
    me = (await api.call("GET", "/auth/me", person.access, expect=200)).json()["data"]
    assert (me["email"], me["name"], me["status"]) == (person.email, "Ada Lovelace", "active")
    (home,) = (await api.call("GET", "/organizations", person.access, expect=200)).json()["data"]
    assert (home["is_personal"], home["created_by"], home["id"]) == (True, me["id"], me["default_organization_id"])
    balance = (await api.call("GET", "/wallet/balance", person.access, expect=200)).json()["data"]
    assert balance["funded_balance_atomic"] == 0
    keys = (await api.call("GET", "/organizations/default/api-keys", person.access, expect=200)).json()["data"]
    assert keys == []
    made = await street.post("/organizations/default/api-keys", person.access, expect=201, name="mine")
    await api.call("GET", "/auth/me", made.json()["data"]["api_key"], expect=200)


async def test_there_is_no_account_before_the_link_is_used(street: Street) -> None:
    email = street.address()
    await street.post("/auth/signup", expect=201, email=email, password=PASSWORD)
    await street.post("/auth/login", expect=401, email=email, password=PASSWORD)
    token = await street.token_for(email)
    await street.post("/auth/verify-email", expect=200, token=token)
    await street.login(email)
    problem = (await street.post("/auth/verify-email", expect=400, token=token)).json()
    assert token not in str(problem)


async def test_of_many_clicks_at_once_one_makes_the_account(street: Street) -> None:
    email = street.address()
    await street.post("/auth/signup", expect=201, email=email, password=PASSWORD)
    token = await street.token_for(email)
    answers = await asyncio.gather(*(street.post("/auth/verify-email", token=token) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 5


async def test_of_two_who_sign_up_with_one_address_the_one_whose_link_is_used_has_it(street: Street) -> None:
    """And whoever signed up first with somebody's address does not own what that person confirms."""
    email, theirs = street.address(), "a password of somebody else"
    await street.post("/auth/signup", expect=201, email=email, password=theirs)
    stranger = await street.token_for(email)
    await street.post("/auth/signup", expect=201, email=email.upper(), password=PASSWORD)
    own = await street.token_for(email)
    answers = await asyncio.gather(*(street.post("/auth/verify-email", token=token) for token in (own, own)))
    assert sorted(answer.status_code for answer in answers) == [200, 400]
    await street.post("/auth/verify-email", expect=400, token=stranger)
    await street.post("/auth/login", expect=401, email=email, password=theirs)
    await street.login(email)


async def test_a_race_of_two_links_for_one_address_makes_one_account(street: Street, api: Api) -> None:
    email, tokens = street.address(), []
    for number in range(2):
        await street.post("/auth/signup", expect=201, email=email, password=f"{PASSWORD} {number}")
        tokens.append(await street.token_for(email))
    answers = await asyncio.gather(*(street.post("/auth/verify-email", token=token) for token in tokens))
    assert sorted(answer.status_code for answer in answers) == [200, 400]
    async with api.services.database.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM identity.account WHERE email = $1", email) == 1


async def test_a_taken_address_is_answered_like_a_free_one_and_its_owner_is_told(street: Street) -> None:
    person = await street.person()
    free = await street.post("/auth/signup", expect=201, email=street.address(), password=PASSWORD)
    taken = await street.post("/auth/signup", expect=201, email=person.email, password="another password")
    assert taken.json() == free.json()
    assert sorted(taken.headers) == sorted(free.headers)
    await street.postman.run()
    last = street.mailbox.to(person.email)[-1]
    assert last.message["Subject"] == "You already have an account"
    assert "#" not in last.text
    await street.login(person.email)


async def test_a_letter_is_sent_again_for_a_sign_up_and_for_nothing_else(street: Street) -> None:
    email, nobody, person = street.address(), street.address(), await street.person()
    await street.post("/auth/signup", expect=201, email=email, password=PASSWORD)
    first = await street.token_for(email)
    before = len(street.mailbox.posts)
    said = [
        (await street.post("/auth/resend-verification", expect=200, email=one)).json()
        for one in (email, nobody, person.email)
    ]
    assert said[0] == said[1] == said[2]
    second = await street.token_for(email)
    assert len(street.mailbox.posts) == before + 1
    assert second != first
    await street.post("/auth/verify-email", expect=200, token=first)
    await street.post("/auth/verify-email", expect=400, token=second)


async def test_a_link_lives_for_a_day(street: Street, api: Api) -> None:
    email = street.address()
    await street.post("/auth/signup", expect=201, email=email, password=PASSWORD)
    token = await street.token_for(email)
    async with api.services.database.acquire() as connection:
        await connection.execute(
            "UPDATE identity.signup SET expires_at = now() - interval '1 second' WHERE email = $1", email
        )
    await street.post("/auth/verify-email", expect=400, token=token)
    await people.forget_old(api.services.database)
    async with api.services.database.acquire() as connection:
        assert not await connection.fetchval("SELECT count(*) FROM identity.signup WHERE email = $1", email)


@pytest.mark.parametrize(
    "email",
    [
        "", "x", "a@b", "@example.com", "a@", "a b@example.com", "a@exa mple.com", "a@example..com", ".a@example.com",
        "a..b@example.com", "a.@example.com", "a@-example.com", "a@example.com.", "a@127.0.0.1", "a@[127.0.0.1]",
        '"a b"@example.com', "a@example.com\r\nBcc: b@example.com", "a@example.com\n", "a@example.com,b@example.com",
        "Name <a@example.com>", "a" * 65 + "@example.com", "a@" + "b" * 250 + ".com", 5, None,
        "\u212aate@example.com", "m\u0131ke@example.com", "\u0430da@example.com", "a@ex\u00e4mple.com",
        "a@example\uff0ecom", "a@e\u200bxample.com", "a%00@example.com\x00",
    ],
)  # fmt: skip
async def test_what_is_no_address_of_one_spelling_is_refused(street: Street, email: object) -> None:
    """Look-alikes and letters that case folding turns into others among them; no line break reaches a field."""
    for path in ("/auth/signup", "/auth/login", "/auth/forgot-password", "/auth/resend-verification"):
        more = {"password": PASSWORD} if path in ("/auth/signup", "/auth/login") else {}
        problem = (await street.api.call("POST", path, json={"email": email, **more}, expect=400)).json()
        assert "email" in str(problem) or "NUL" in str(problem)


async def test_an_address_has_one_spelling(street: Street) -> None:
    person = await street.person("Mixed.Case+Tag@Example.COM")
    assert person.account["email"] == "mixed.case+tag@example.com"
    await street.login("mixed.case+tag@example.com")
    await street.login("MIXED.CASE+TAG@EXAMPLE.COM")


@pytest.mark.parametrize("password", ["", "short", "x" * 257, "aaaaaaaaaaaaaaaa", "abababababab", 5, None])
async def test_a_password_that_protects_nothing_is_refused_and_not_repeated(street: Street, password: object) -> None:
    body = {"email": street.address(), "password": password}
    answer = await street.api.call("POST", "/auth/signup", json=body, expect=400)
    assert answer.json()["errors"][0]["field"] == "password"
    assert not isinstance(password, str) or len(password) < 6 or password not in answer.text


async def test_the_address_is_no_password(street: Street) -> None:
    email = street.address()
    await street.post("/auth/signup", expect=400, email=email, password=email.upper())


async def test_a_letter_carries_nothing_that_a_stranger_wrote(street: Street) -> None:
    email = street.address()
    name = "Win now at https://evil.example"
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Origin": "https://evil.example"}
    body = {"email": email, "password": PASSWORD, "name": name}
    await street.api.call("POST", "/auth/signup", json=body, headers=headers, expect=201)
    await street.post("/auth/forgot-password", expect=200, email=email)
    await street.postman.run()
    (letter,) = street.mailbox.to(email)
    assert "evil" not in letter.message.as_string()
    assert letter.link[0] == f"{PUBLIC_URL}/account/verify-email"
