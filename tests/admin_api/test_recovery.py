"""Recovery: a code shown once, used once, even by two at the same moment."""

from __future__ import annotations

import asyncio
import re

import pytest

from gateway.identity import codes, recovery
from tests.admin_api.conftest import Api, Clerk


async def code_of(api: Api, key: str) -> str:
    return (await api.call("POST", "/wallet/recovery", key, json={}, expect=200)).json()["data"]["recovery_code"]


async def test_a_code_is_shown_once(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    first = (await api.call("POST", "/wallet/recovery", agent.key, json={}, expect=200)).json()["data"]
    assert re.fullmatch(r"[A-HJKMNP-TV-Z2-9]{4}(-[A-HJKMNP-TV-Z2-9]{4}){5}", first["recovery_code"])
    assert (first["has_recovery"], first["has_recovery_email"]) == (True, False)
    body = {"email": "owner@example.com"}
    second = (await api.call("POST", "/wallet/recovery", agent.key, json=body, expect=200)).json()["data"]
    assert (second["recovery_code"], second["has_recovery_email"]) == (None, True)
    third = (await api.call("POST", "/wallet/recovery", agent.key, json={}, expect=200)).json()["data"]
    assert third["has_recovery_email"] is True
    fourth = (await api.call("POST", "/wallet/recovery", agent.key, json={"email": None}, expect=200)).json()["data"]
    assert fourth["has_recovery_email"] is False
    balance = (await api.call("GET", "/wallet/balance", agent.key)).json()["data"]
    assert (balance["has_recovery"], balance["recovery_warning"]) == (True, None)


@pytest.mark.parametrize("email", ["x", "a@b", "a b@example.com", "a@example.com\r\nBcc: c@d.e", 5, "a@" + "x" * 300])
async def test_an_unusable_email_is_named(api: Api, clerk: Clerk, email: object) -> None:
    agent = await clerk.agent()
    problem = (await api.call("POST", "/wallet/recovery", agent.key, json={"email": email}, expect=400)).json()
    assert problem["errors"][0]["field"] == "email"


async def test_setting_up_at_once_shows_one_code(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    answers = await asyncio.gather(*(api.call("POST", "/wallet/recovery", agent.key, json={}) for _ in range(10)))
    shown = [answer.json()["data"]["recovery_code"] for answer in answers]
    assert len([code for code in shown if code]) == 1


async def test_recovering_kills_every_key_and_rotates_the_code(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    body = {"name": "second"}
    second = (await api.call("POST", "/organizations/default/api-keys", agent.key, json=body, expect=201)).json()
    code = await code_of(api, agent.key)
    sloppy = f" {code.lower().replace('-', '  ')} "
    data = (await api.call("POST", "/wallet/recover", json={"recovery_code": sloppy}, expect=200)).json()["data"]
    assert data["agent"]["id"] == str(agent.id)
    assert data["new_recovery_code"] != code
    for dead in (agent.key, second["data"]["api_key"]):
        await api.call("GET", "/auth/me", dead, expect=401)
    await api.call("GET", "/auth/me", data["agent"]["api_key"], expect=200)
    await api.call("POST", "/wallet/recover", json={"recovery_code": code}, expect=401)
    await api.call("POST", "/wallet/recover", json={"recovery_code": data["new_recovery_code"]}, expect=200)


async def test_of_two_recoveries_at_once_one_wins(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    body = {"recovery_code": await code_of(api, agent.key)}
    answers = await asyncio.gather(*(api.call("POST", "/wallet/recover", json=body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7
    winner = next(answer for answer in answers if answer.status_code == 200).json()["data"]
    key = winner["agent"]["api_key"]
    keys = (await api.call("GET", "/organizations/default/api-keys", key, expect=200)).json()["data"]
    assert len([one for one in keys if one["revoked_at"] is None]) == 1


@pytest.mark.parametrize("code", ["", "short", "A" * 23, "A" * 25, "0" * 24, "Ä" * 24, 5, None, "A" * 500])
async def test_what_cannot_be_a_code_is_400(api: Api, code: object) -> None:
    problem = (await api.call("POST", "/wallet/recover", json={"recovery_code": code}, expect=400)).json()
    assert problem["errors"][0]["field"] == "recovery_code"


async def test_a_wrong_code_is_401_and_not_repeated(api: Api) -> None:
    code = "ABCD-EFGH-JKMN-PQRS-TVWX-2345"
    answer = await api.call("POST", "/wallet/recover", json={"recovery_code": code}, expect=401)
    assert code not in answer.text


async def test_no_key_survives_a_recovery_because_it_was_made_meanwhile(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    digest, fresh = codes.recovery_hash(await code_of(api, agent.key)), codes.recovery_hash(codes.new_recovery_code())
    async with api.services.database.transaction() as connection:  # what a recovery does, before it commits
        assert await recovery.USE_CODE.first(connection, digest, fresh) == agent.id
        await recovery.REVOKE_ALL_KEYS.run(connection, agent.id)
        body = {"name": "of the thief"}
        making = asyncio.ensure_future(api.call("POST", "/organizations/default/api-keys", agent.key, json=body))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
        while not (making.done() or await connection.fetchval(waiting)):
            await asyncio.sleep(0.01)
    assert (await making).status_code == 401
    async with api.services.database.acquire() as connection:
        live = "SELECT count(*) FROM identity.api_key WHERE account_id = $1 AND revoked_at IS NULL"
        assert await connection.fetchval(live, agent.id) == 0
