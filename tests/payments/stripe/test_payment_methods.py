"""Stored cards: they are Stripe's customers', known here by their last digits; the bonus is there once per card."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from gateway.billing.payment_methods import MOST
from gateway.database.pool import connect
from gateway.plans import load_plans
from gateway.settings import DatabaseSettings
from tests.payments.stripe.stage import Stage
from tests.support.world import Agent

PATH = "/billing/payment-methods"
PLANS = {plan.name: str(plan.id) for plan in load_plans().plans}


async def add(stage: Stage, agent: Agent, name: str, *, default: bool = False) -> httpx.Response:
    return await stage.post(agent, PATH, {"stripe_payment_method_id": name, "set_as_default": default})


async def stored(stage: Stage, agent: Agent) -> list[Any]:
    return await stage.get(agent, PATH)


async def remove(stage: Stage, agent: Agent, name: str) -> int:
    return (await stage.gateway.client.delete(f"{PATH}/{name}", headers=agent.headers)).status_code


async def choose(stage: Stage, agent: Agent, plan: str, **more: str) -> httpx.Response:
    return await stage.post(agent, f"/organizations/{agent.organization_id}/plan", {"plan_id": PLANS[plan], **more})


async def plan_of(stage: Stage, agent: Agent) -> str:
    return (await stage.get(agent, f"/organizations/{agent.organization_id}/plan"))["plan"]["name"]


async def test_the_first_is_the_default_and_the_oldest_takes_its_place(stage: Stage) -> None:
    agent = await stage.agent()
    for brand in ("pm_card_visa", "pm_card_mastercard", "pm_card_visa"):
        assert (await add(stage, agent, stage.stripe.method(brand))).status_code == 200
    assert [(one["card_brand"], one["is_default"]) for one in await stored(stage, agent)] == [
        ("visa", True), ("mastercard", False), ("visa", False),
    ]  # fmt: skip
    first = (await stored(stage, agent))[0]
    assert (first["type_"], first["card_last4"], first["card_exp_month"], first["bank_last4"]) == (
        "card",
        "4242",
        12,
        None,
    )
    assert await remove(stage, agent, first["id"]) == 204
    assert [(one["card_brand"], one["is_default"]) for one in await stored(stage, agent)] == [
        ("mastercard", True), ("visa", False),
    ]  # fmt: skip
    assert await remove(stage, agent, first["id"]) == 404
    gone = await stage.connection.fetchval("SELECT stripe_id FROM card.payment_method WHERE id::text = $1", first["id"])
    assert stage.stripe.store[gone]["customer"] is None


async def test_one_organization_is_one_customer_and_the_same_card_is_stored_once(stage: Stage) -> None:
    agent, name, before = await stage.agent(), stage.stripe.method(), len(stage.stripe.made("customer"))
    answers = await asyncio.gather(*(add(stage, agent, name, default=True) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["data"]["id"] for answer in answers}) == 1
    assert len(await stored(stage, agent)) == 1
    assert len(stage.stripe.made("customer")) == before + 1


async def test_what_stripe_does_not_take_is_told(stage: Stage) -> None:
    agent, other = await stage.agent(), await stage.agent()
    taken = stage.stripe.method()
    assert (await add(stage, other, taken)).status_code == 200
    for name in ("pm_nothing", stage.stripe.method(declines=True), taken):
        answer = await add(stage, agent, name)
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["field"] == "stripe_payment_method_id"
    for body in ({}, {"stripe_payment_method_id": "4242424242424242", "set_as_default": True}):
        assert (await stage.post(agent, PATH, body)).status_code == 400
    assert await stored(stage, agent) == []


async def test_others_do_not_see_or_remove_it(stage: Stage) -> None:
    agent, other = await stage.agent(), await stage.agent()
    made = (await add(stage, agent, stage.stripe.method())).json()["data"]["id"]
    assert await stored(stage, other) == []
    assert await remove(stage, other, made) == 404
    assert len(await stored(stage, agent)) == 1


async def test_a_silent_stripe_is_asked_again_to_let_go(stage: Stage) -> None:
    agent, name = await stage.agent(), stage.stripe.method()
    made = (await add(stage, agent, name)).json()["data"]["id"]
    stage.stripe.down = True
    assert await remove(stage, agent, made) == 204
    stage.stripe.down = False
    assert stage.stripe.store[name]["customer"] is not None
    again = await add(stage, agent, name)
    assert (again.status_code, await stored(stage, agent)) == (409, [])
    # Whoever removes another one asks for all that are to go.
    second = (await add(stage, agent, stage.stripe.method(number="again"))).json()["data"]["id"]
    assert await remove(stage, agent, second) == 204
    assert stage.stripe.store[name]["customer"] is None


async def test_the_bonus_is_there_once_per_account_and_once_per_card(stage: Stage) -> None:
    agent, other = await stage.agent(), await stage.agent()
    answer = await stage.post(agent, "/wallet/bonus/payment-method", None)
    assert (answer.status_code, answer.json()["missing"]) == (409, "payment_method")
    await add(stage, agent, stage.stripe.method(number="bonus"))
    claims = [stage.post(agent, "/wallet/bonus/payment-method", None) for _ in range(8)]
    assert sorted(answer.status_code for answer in await asyncio.gather(*claims)) == [200] + [409] * 7
    assert (await stage.balance(agent))["promotional_balance_atomic"] == 5_000_000
    await add(stage, other, stage.stripe.method(number="bonus"))
    assert (await stage.post(other, "/wallet/bonus/payment-method", None)).status_code == 409
    await add(stage, other, stage.stripe.method(number="another"))
    assert (await stage.post(other, "/wallet/bonus/payment-method", None)).status_code == 200


async def test_of_two_accounts_with_one_card_at_once_one_has_the_bonus(stage: Stage, database_url: str) -> None:
    """The other is held up between looking at the card and claiming it."""
    first, second = await stage.agent(), await stage.agent()
    await add(stage, second, stage.stripe.method(number="shared"))
    rival = await connect(DatabaseSettings(url=database_url))
    async with rival.transaction():
        claimed = "INSERT INTO card.bonus (fingerprint, account_id) SELECT fingerprint, $1 FROM card.payment_method"
        await rival.execute(claimed + " WHERE organization_id = $2", first.id, second.organization_id)
        claiming = asyncio.create_task(stage.post(second, "/wallet/bonus/payment-method", None))
        async with asyncio.timeout(60):
            while not await rival.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not claiming.done()
                await asyncio.sleep(0.02)
    await rival.close()
    assert (await claiming).status_code == 409
    assert (await stage.balance(second))["promotional_balance_atomic"] == 0


async def test_an_organization_stores_so_many_and_no_more(stage: Stage) -> None:
    agent = await stage.agent()
    await add(stage, agent, stage.stripe.method())
    await stage.connection.execute(
        "INSERT INTO card.payment_method (id, organization_id, stripe_id, kind, is_default, added_by)"
        " SELECT gen_random_uuid(), $1, 'pm_' || gen_random_uuid(), 'card', false, $2 FROM generate_series(2, $3)",
        agent.organization_id, agent.id, MOST - 1,
    )  # fmt: skip
    assert (await add(stage, agent, stage.stripe.method())).status_code == 200
    assert (await add(stage, agent, stage.stripe.method())).status_code == 409
    assert len(await stored(stage, agent)) == MOST


async def test_what_is_done_is_in_the_log(stage: Stage) -> None:
    agent = await stage.agent()
    made = (await add(stage, agent, stage.stripe.method(number="log"))).json()["data"]["id"]
    await stage.post(agent, "/wallet/bonus/payment-method", None)
    await remove(stage, agent, made)
    rows = await stage.connection.fetch(
        "SELECT action FROM audit.entry WHERE chain = $1 ORDER BY seq", agent.organization_id
    )
    assert [row["action"] for row in rows] == [
        "payment_method.add", "wallet.claim_payment_method_bonus", "payment_method.remove",
    ]  # fmt: skip


@pytest.mark.parametrize("role", ["viewer", "editor"])
async def test_members_who_only_look_store_nothing(stage: Stage, role: str) -> None:
    agent = await stage.agent()
    await stage.connection.execute("UPDATE identity.membership SET role = $2 WHERE account_id = $1", agent.id, role)
    assert (await add(stage, agent, stage.stripe.method())).status_code == 403


async def test_a_plan_that_costs_something_is_chosen_by_who_has_a_card(stage: Stage) -> None:
    agent = await stage.agent()
    refused = await choose(stage, agent, "starter")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "stripe_payment_method_id")
    assert "POST /billing/payment-methods" in refused.json()["detail"]
    await add(stage, agent, stage.stripe.method())
    assert (await choose(stage, agent, "starter")).status_code == 200
    assert await plan_of(stage, agent) == "starter"
    # One that comes along is what is charged from then on; sent again, it is the same card.
    other = stage.stripe.method("pm_card_mastercard")
    assert (await choose(stage, agent, "pro", stripe_payment_method_id=other)).status_code == 200
    assert await plan_of(stage, agent) == "pro"
    assert (await choose(stage, agent, "starter", stripe_payment_method_id=other)).status_code == 200
    assert [(one["card_brand"], one["is_default"]) for one in await stored(stage, agent)] == [
        ("mastercard", True), ("visa", False),
    ]  # fmt: skip


async def test_a_card_that_comes_with_a_plan_is_stripes_to_take(stage: Stage) -> None:
    agent, other = await stage.agent(), await stage.agent()
    taken = stage.stripe.method()
    await add(stage, other, taken)
    for name in ("pm_nothing", stage.stripe.method(declines=True), taken, "4242424242424242"):
        answer = await choose(stage, agent, "starter", stripe_payment_method_id=name)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "stripe_payment_method_id")
    # A plan that is refused, or costs nothing, stores nothing.
    good = stage.stripe.method()
    assert (await choose(stage, agent, "free", stripe_payment_method_id=good)).status_code == 409
    assert (await choose(stage, agent, "enterprise", stripe_payment_method_id=good)).status_code == 400
    stage.stripe.down = True
    assert (await choose(stage, agent, "starter", stripe_payment_method_id=good)).status_code == 503
    stage.stripe.down = False
    assert (await stored(stage, agent), await plan_of(stage, agent)) == ([], "free")


async def test_the_last_card_stays_while_it_pays_for_a_plan(stage: Stage) -> None:
    agent = await stage.agent()
    first = (await add(stage, agent, stage.stripe.method())).json()["data"]["id"]
    second = (await add(stage, agent, stage.stripe.method())).json()["data"]["id"]
    await choose(stage, agent, "starter")
    assert await remove(stage, agent, first) == 204
    refused = await stage.gateway.client.delete(f"{PATH}/{second}", headers=agent.headers)
    assert (refused.status_code, refused.json()["plan"]) == (409, "starter")
    assert "Store another one first" in refused.json()["detail"]
    # What ends with the month is paid for until then.
    assert (await choose(stage, agent, "free")).status_code == 200
    assert await remove(stage, agent, second) == 409
    await stage.connection.execute(
        """
        UPDATE identity.organization_plan SET started_at = started_at - interval '40 days',
               ends_at = ends_at - interval '40 days' WHERE organization_id = $1
        """,
        agent.organization_id,
    )
    assert await plan_of(stage, agent) == "free"
    assert await remove(stage, agent, second) == 204
    assert await stored(stage, agent) == []


async def test_of_a_plan_and_the_last_card_s_removal_at_once_one_is_refused(stage: Stage) -> None:
    for _ in range(4):
        agent = await stage.agent()
        made = (await add(stage, agent, stage.stripe.method())).json()["data"]["id"]
        chosen, removed = await asyncio.gather(choose(stage, agent, "starter"), remove(stage, agent, made))
        assert (chosen.status_code, removed) in {(200, 409), (400, 204)}
