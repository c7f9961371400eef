"""Logging in, refreshing and out: tokens of one kind each, that work as long as they should and no longer."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from gateway.errors import Overloaded
from gateway.identity import passwords, sessions
from gateway.identity.passwords import MOST_WAITING, NOBODYS, Passwords
from tests.admin_api.conftest import Api
from tests.people.conftest import PASSWORD, Street


async def test_a_wrong_password_and_an_unknown_address_read_alike(street: Street) -> None:
    person = await street.person()
    tries = [
        (person.email, "another password"),
        (street.address(), PASSWORD),
        (person.email, ""),
        (person.email, "x" * 900),
    ]
    answers = [await street.post("/auth/login", expect=401, email=email, password=tried) for email, tried in tries]
    assert len({str({**answer.json(), "instance": ""}) for answer in answers}) == 1
    assert len({str(sorted(answer.headers)) for answer in answers}) == 1


async def test_an_unknown_address_costs_as_much_hashing(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    real = passwords._is
    monkeypatch.setattr(passwords, "_is", lambda stored, text: compared.append(stored) or real(stored, text))
    person = await street.person()
    for email in (person.email, street.address()):
        await street.post("/auth/login", expect=401, email=email, password="another password")
    assert len(compared) == 2
    parameters = {stored.rsplit("$", 2)[0] for stored in compared}
    assert parameters == {NOBODYS.rsplit("$", 2)[0]}


async def test_nobody_has_the_password_that_nobody_has() -> None:
    hashes = Passwords()
    assert not await hashes.matches(None, PASSWORD)
    assert not await hashes.matches(NOBODYS, "\x00" * 12)
    assert not await hashes.matches("nonsense", PASSWORD)
    assert await hashes.matches(await hashes.hash(passwords.check("pa\u017fsword of \ufb01ve")), "password of five")
    hashes.stop()


async def test_a_long_line_of_logins_is_refused_and_others_are_served(api: Api) -> None:
    """What hashes is one thread; who comes when too many wait is told to come back."""
    hashes = Passwords()
    waiting = [asyncio.ensure_future(hashes.hash(PASSWORD)) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await hashes.hash(PASSWORD)
    await api.call("GET", "/publishers", expect=200)
    assert len(set(await asyncio.gather(*waiting))) == MOST_WAITING
    hashes.stop()


async def test_a_hash_of_other_parameters_is_made_anew(street: Street, api: Api) -> None:
    person = await street.person()
    weak = passwords.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    async with api.services.database.acquire() as connection:
        await connection.execute("UPDATE identity.account SET password_hash = $2 WHERE email = $1", person.email, weak)
        await street.login(person.email)
        stored = await connection.fetchval("SELECT password_hash FROM identity.account WHERE email = $1", person.email)
    assert stored != weak
    assert not passwords.is_outdated(stored)
    await street.login(person.email)


async def test_a_refresh_token_brings_the_next_pair_once(street: Street) -> None:
    person = await street.person()
    answer = await street.post("/auth/refresh", expect=200, refresh_token=person.refresh)
    data = answer.json()["data"]
    assert data["user"]["id"] == person.id
    assert {data["access_token"], data["refresh_token"]}.isdisjoint({person.access, person.refresh})
    assert await street.works(person.access)
    assert await street.works(data["access_token"])


async def test_a_refresh_token_that_is_shown_twice_ends_the_login_for_both(street: Street, api: Api) -> None:
    """The thief's pair and the owner's die together; other logins of the owner live on."""
    person = await street.person()
    other = await street.login(person.email)
    thief = (await street.post("/auth/refresh", expect=200, refresh_token=person.refresh)).json()["data"]
    again = (await street.post("/auth/refresh", expect=200, refresh_token=thief["refresh_token"])).json()["data"]
    await street.post("/auth/refresh", expect=401, refresh_token=person.refresh)
    for token in (person.access, thief["access_token"], again["access_token"]):
        assert not await street.works(token)
    await street.post("/auth/refresh", expect=401, refresh_token=again["refresh_token"])
    assert await street.works(other.access)
    async with api.services.database.acquire() as connection:
        ends = "SELECT ended_by FROM identity.session WHERE account_id = $1::text::uuid ORDER BY created_at"
        assert [row[0] for row in await connection.fetch(ends, person.id)] == ["reuse", None]


async def test_a_refresh_token_that_two_show_at_once_is_used_twice(street: Street) -> None:
    person = await street.person()
    answers = await asyncio.gather(
        *(street.post("/auth/refresh", refresh_token=person.refresh) for _ in range(5))
    )  # fmt: skip
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 4
    winner = next(answer for answer in answers if answer.status_code == 200).json()["data"]
    assert not await street.works(winner["access_token"])


async def test_no_kind_of_token_is_taken_for_another(street: Street, api: Api) -> None:
    person = await street.person()
    key = (await street.post("/organizations/default/api-keys", person.access, expect=201, name="k")).json()["data"]
    await street.post("/auth/forgot-password", expect=200, email=person.email)
    reset = await street.token_for(person.email)
    waiting = street.address()
    await street.post("/auth/signup", expect=201, email=waiting, password=PASSWORD)
    verify = await street.token_for(waiting)
    tokens = {
        "access": person.access, "refresh": person.refresh, "reset": reset, "verify": verify, "key": key["api_key"],
    }  # fmt: skip
    spelled = {
        f"{kind} as {other}": text.replace(f"_{kind}_", f"_{other}_")
        for kind, text in tokens.items()
        for other in tokens
    }
    for name, text in {**tokens, **spelled}.items():
        if text not in (tokens["access"], tokens["key"]):
            assert not await street.works(text), name
        if text != tokens["refresh"]:
            await street.post("/auth/refresh", expect=401, refresh_token=text)
        if text != tokens["reset"]:
            await street.post("/auth/reset-password", expect=404, token=text, new_password="another password")
        if text != tokens["verify"]:
            await street.post("/auth/verify-email", expect=400, token=text)
    assert await street.works(person.access)


async def test_what_is_not_exactly_a_token_is_none(street: Street) -> None:
    person = await street.person()
    body = person.access.removeprefix("seren_access_")
    tries = [
        body, f"seren_access_{body[:-1]}", f"{person.access}a", person.access.upper(), f"seren_access_{body.swapcase()}",
        f"seren_access_{'a' * 43}", "seren_access_", f"{person.access},{person.access}", f'"{person.access}"',
        f"seren_access_{body[:-1]}%", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
    ]  # fmt: skip
    for text in tries:
        assert not await street.works(text), text
    assert await street.works(person.access)


@pytest.mark.parametrize("table", ["session", "session_token"])
async def test_what_has_expired_by_a_second_is_refused(street: Street, api: Api, table: str) -> None:
    person = await street.person()
    which = "id" if table == "session" else "session_id"
    async with api.services.database.acquire() as connection:
        await connection.execute(
            f"UPDATE identity.{table} SET expires_at = now() - interval '1 second' WHERE {which} IN"
            " (SELECT id FROM identity.session WHERE account_id = $1::text::uuid)", person.id,
        )  # fmt: skip
    assert not await street.works(person.access)
    if table == "session":
        await street.post("/auth/refresh", expect=401, refresh_token=person.refresh)
    await sessions.forget_old(api.services.database)


async def test_who_is_disabled_is_out_at_once(street: Street, api: Api) -> None:
    person = await street.person()
    async with api.services.database.acquire() as connection:
        await connection.execute("UPDATE identity.account SET status = 'disabled' WHERE email = $1", person.email)
    assert not await street.works(person.access)
    await street.post("/auth/refresh", expect=401, refresh_token=person.refresh)
    await street.post("/auth/login", expect=401, email=person.email, password=PASSWORD)
    before = len(street.mailbox.posts)
    await street.post("/auth/forgot-password", expect=200, email=person.email)
    await street.postman.run()
    assert len(street.mailbox.posts) == before


async def test_logging_out_ends_this_login_only(street: Street) -> None:
    person = await street.person()
    other = await street.login(person.email)
    await street.post("/auth/logout", person.access, expect=200)
    assert not await street.works(person.access)
    await street.post("/auth/refresh", expect=401, refresh_token=person.refresh)
    assert await street.works(other.access)
    await street.post("/auth/logout", person.access, expect=401)
    await street.post("/auth/logout", expect=401)


async def test_tokens_and_passwords_are_stored_as_hashes_only(street: Street, api: Api) -> None:
    """Every row of every table, after all that the tests before have done."""
    person = await street.person(password="only here: " + secrets.token_hex(8))
    await street.post("/auth/forgot-password", expect=200, email=person.email)
    await street.token_for(person.email)
    async with api.services.database.acquire() as connection:
        tables = await connection.fetch(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('identity', 'audit')"
        )
        assert len(tables) > 8
        for (table,) in tables:
            rows = await connection.fetch(f"SELECT t::text FROM {table} t")
            text = "\n".join(row[0] for row in rows)
            assert "seren_access" not in text, table
            assert "only here" not in text, table
            assert person.access.rsplit("_", 1)[1] not in text, table
            assert person.refresh.rsplit("_", 1)[1] not in text, table
            for post in street.mailbox.posts:
                if "#" in post.text:
                    assert post.link[1].rsplit("_", 1)[1] not in text, table
