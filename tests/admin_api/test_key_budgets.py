"""Budgets of API keys: who sets them, how they change, what is shown, and that no key loosens its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from tests.admin_api.conftest import Api, Clerk, Member

KEYS = "/organizations/default/api-keys"
NOTHING = {"per_call": None, "per_day": None, "per_month": None}
BUDGET = {"per_call": "0.05", "per_day": "1", "per_month": "20.5"}


@dataclass
class Key:
    """A key that was made."""

    id: str
    text: str
    budget: dict[str, Any] | None


async def key_of(api: Api, member: Member, budget: dict[str, Any] | None = None, base: str = KEYS) -> Key:
    made = await api.call("POST", base, member.key, json={"name": "a job", "budget": budget}, expect=201)
    data = made.json()["data"]
    return Key(data["id"], data["api_key"], data["budget"])


async def listed(api: Api, member: Member, key: Key) -> dict[str, Any] | None:
    keys = (await api.call("GET", KEYS, member.key, expect=200)).json()["data"]
    return next(one["budget"] for one in keys if one["id"] == key.id)


def limits(budget: dict[str, Any] | None) -> dict[str, Any]:
    assert budget is not None
    return {name: budget[name] for name in NOTHING}


async def test_a_budget_is_set_with_the_key_and_shown_to_its_owner_and_to_the_key(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    key = await key_of(api, owner, {"per_call": "0.050", "per_day": "1.00", "per_month": "20.5"})
    shown = await listed(api, owner, key)
    assert shown is not None
    assert shown == key.budget
    assert limits(shown) == BUDGET
    assert (shown["asset_symbol"], shown["spent_today"], shown["spent_this_month"]) == ("USDC", "0", "0")
    assert (shown["left_today"], shown["left_this_month"]) == ("1", "20.5")
    assert shown["day_renews_at"].endswith("T00:00:00.000000Z")
    assert shown["month_renews_at"].endswith("-01T00:00:00.000000Z")
    own = (await api.call("GET", "/wallet/budget", key.text, expect=200)).json()["data"]
    assert key.text.startswith(f"seren_{own['key_id']}_")
    assert own["budget"] == shown


@pytest.mark.parametrize("budget", [None, {}, NOTHING])
async def test_a_key_without_limits_has_no_budget(api: Api, clerk: Clerk, budget: dict[str, Any] | None) -> None:
    owner = await clerk.agent()
    key = await key_of(api, owner, budget)
    assert key.budget is None
    assert await listed(api, owner, key) is None
    assert (await api.call("GET", "/wallet/budget", key.text)).json()["data"]["budget"] is None
    await key_of(api, Member(owner.id, owner.organization_id, "", key.text))


async def test_where_only_calls_are_limited_nothing_is_counted(api: Api, clerk: Clerk) -> None:
    budget = (await key_of(api, await clerk.agent(), {"per_call": "0.01"})).budget
    assert budget is not None
    counted = ("spent_today", "spent_this_month", "left_today", "left_this_month")
    assert [budget[name] for name in counted] == [None] * 4


@pytest.mark.parametrize(
    ("change", "after"),
    [
        ({"per_day": "2"}, {**BUDGET, "per_day": "2"}),
        ({"per_day": None}, {**BUDGET, "per_day": None}),
        ({"per_call": "0", "per_month": "0.000001"}, {"per_call": "0", "per_day": "1", "per_month": "0.000001"}),
        ({}, BUDGET),
        (None, None),
        (NOTHING, None),
    ],
)
async def test_a_change_leaves_what_it_does_not_name(
    api: Api, clerk: Clerk, change: dict[str, Any] | None, after: dict[str, Any] | None
) -> None:
    owner = await clerk.agent()
    key = await key_of(api, owner, BUDGET)
    answer = await api.call("PATCH", f"{KEYS}/{key.id}", owner.key, json={"budget": change}, expect=200)
    shown = answer.json()["data"]["budget"]
    assert shown == await listed(api, owner, key)
    assert (shown if shown is None else limits(shown)) == after


@pytest.mark.parametrize("field", ["per_call", "per_day", "per_month"])
@pytest.mark.parametrize("amount", ["-1", "1e3", "0.0000001", "", "1,5", "1" + "0" * 40, " 1", 1, 0.5, True])
async def test_an_amount_that_is_none_is_named(api: Api, clerk: Clerk, field: str, amount: object) -> None:
    owner = await clerk.agent()
    body = {"name": "a job", "budget": {field: amount}}
    problem = (await api.call("POST", KEYS, owner.key, json=body, expect=400)).json()
    assert problem["errors"][0]["field"] == f"budget.{field}"
    key = await key_of(api, owner, BUDGET)
    await api.call("PATCH", f"{KEYS}/{key.id}", owner.key, json={"budget": {field: amount}}, expect=400)
    assert limits(await listed(api, owner, key)) == BUDGET


@pytest.mark.parametrize("body", [{}, {"budget": {"per_week": "1"}}, {"budget": "1"}, {"budget": None, "name": "x"}])
async def test_other_changes_are_refused(api: Api, clerk: Clerk, body: dict[str, Any]) -> None:
    owner = await clerk.agent()
    key = await key_of(api, owner)
    await api.call("PATCH", f"{KEYS}/{key.id}", owner.key, json=body, expect=400)


async def test_a_key_with_a_budget_cannot_get_around_it(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    free, key = await key_of(api, owner), await key_of(api, owner, {"per_month": "1000"})
    for method, path, body in (
        ("POST", KEYS, {"name": "more"}),
        ("POST", KEYS, {"name": "less", "budget": {"per_day": "0"}}),
        ("PATCH", f"{KEYS}/{key.id}", {"budget": None}),
        ("PATCH", f"{KEYS}/{free.id}", {"budget": {"per_day": "0"}}),
        ("DELETE", f"{KEYS}/{free.id}", None),
        ("POST", "/wallet/recovery", {"email": "thief@example.com"}),
        ("POST", f"/organizations/{owner.organization_id}/api-keys", {"name": "more"}),
        ("PATCH", f"/organizations/{owner.organization_id}/api-keys/{key.id}", {"budget": None}),
    ):
        options = {} if body is None else {"json": body}
        problem = (await api.call(method, path, key.text, expect=403, **options)).json()
        assert problem["type"] == "/problems/budget-locked", (method, path)
    await api.call("DELETE", f"{KEYS}/{key.id}", key.text, expect=200)
    await api.call("GET", "/auth/me", free.text, expect=200)


async def test_no_key_sets_its_own_budget(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    (own,) = (await api.call("GET", KEYS, owner.key)).json()["data"]
    body = {"budget": {"per_day": "1"}}
    problem = (await api.call("PATCH", f"{KEYS}/{own['id']}", owner.key, json=body, expect=403)).json()
    assert problem["type"] == "/problems/budget-locked"


async def test_of_keys_that_limit_each_other_at_once_one_keeps_its_freedom(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    keys = [await key_of(api, owner) for _ in range(4)]
    limit = {"json": {"budget": {"per_day": "1"}}}
    answers = await asyncio.gather(
        *(
            api.call("PATCH", f"{KEYS}/{other.id}", key.text, **limit)
            for key in keys
            for other in keys
            if other is not key
        )
    )
    assert {answer.status_code for answer in answers} == {200, 403}
    free = [key for key in keys if await listed(api, owner, key) is None]
    assert len(free) == 1


async def test_a_key_that_is_limited_meanwhile_makes_none(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    key = await key_of(api, owner)
    async with api.services.database.transaction() as connection:  # what a PATCH does, before it commits
        await connection.execute(
            "UPDATE identity.api_key SET budget_scope = id, budget_asset = $2, budget_per_day = 1 WHERE id = $1",
            key.id, api.services.catalog.default_asset.id,
        )  # fmt: skip
        making = asyncio.ensure_future(api.call("POST", KEYS, key.text, json={"name": "a way out"}))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
        while not (making.done() or await connection.fetchval(waiting)):
            await asyncio.sleep(0.01)
    assert (await making).json()["type"] == "/problems/budget-locked"


async def test_who_may_set_budgets_in_an_organization(api: Api, clerk: Clerk) -> None:
    owner, editor, admin = await clerk.agent(), await clerk.agent(), await clerk.agent()
    await clerk.join(editor, owner.organization_id, "editor")
    await clerk.join(admin, owner.organization_id, "admin")
    base = f"/organizations/{owner.organization_id}/api-keys"
    own, others = await key_of(api, editor, base=base), await key_of(api, owner, base=base)
    body = {"budget": {"per_day": "1"}}
    await api.call("PATCH", f"{base}/{own.id}", editor.key, json=body, expect=200)
    problem = (await api.call("PATCH", f"{base}/{others.id}", editor.key, json=body, expect=403)).json()
    assert problem["type"] == "/problems/forbidden"
    for key in (own, others):
        await api.call("PATCH", f"{base}/{key.id}", admin.key, json=body, expect=200)


async def recovered(api: Api, code: str) -> Member:
    data = (await api.call("POST", "/wallet/recover", json={"recovery_code": code}, expect=200)).json()["data"]
    agent = data["agent"]
    return Member(agent["id"], agent["organization_id"], agent["name"], agent["api_key"])


async def code_of(api: Api, member: Member) -> str:
    return (await api.call("POST", "/wallet/recovery", member.key, json={}, expect=200)).json()["data"]["recovery_code"]


async def test_a_recovery_is_as_free_as_the_freest_key_that_lived(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    await key_of(api, owner, BUDGET)
    back = await recovered(api, await code_of(api, owner))
    assert (await api.call("GET", "/wallet/budget", back.key)).json()["data"]["budget"] is None


@pytest.mark.parametrize("revoked", [False, True])
async def test_a_recovery_loosens_no_budget(api: Api, clerk: Clerk, revoked: bool) -> None:
    owner = await clerk.agent()
    code = await code_of(api, owner)
    key = await key_of(api, owner, BUDGET)
    await key_of(api, owner, {"per_day": "7"})
    (first,) = [
        one for one in (await api.call("GET", KEYS, owner.key)).json()["data"] if one["key_prefix"] in owner.key
    ]
    await api.call("DELETE", f"{KEYS}/{first['id']}", owner.key, expect=200)
    if revoked:  # all that live; the last one that died speaks for the account
        for one in (await api.call("GET", KEYS, key.text)).json()["data"]:
            other = one["revoked_at"] is None and one["id"] != key.id
            if other:
                async with api.services.database.acquire() as connection:
                    await connection.execute("UPDATE identity.api_key SET revoked_at = now() WHERE id = $1", one["id"])
        await api.call("DELETE", f"{KEYS}/{key.id}", key.text, expect=200)
    back = await recovered(api, code)
    budget = (await api.call("GET", "/wallet/budget", back.key)).json()["data"]["budget"]
    assert limits(budget) == BUDGET
    await api.call("POST", KEYS, back.key, json={"name": "more"}, expect=403)
