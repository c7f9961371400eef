"""Plans through the admin API: the catalogue, choosing one, taking that back, and what is used of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from gateway.audit.origin import Origin, acting
from gateway.billing import plan_changes
from gateway.billing.plan_changes import assign
from gateway.billing.quotas import KIND
from gateway.identity import organization_plans
from gateway.identity.organization_plans import PlanBook
from gateway.jobs.alerts import Alerts
from gateway.settings import PlansSettings
from pricing.proration import month_end
from tests.admin_api.conftest import Api, Clerk, Member, close_api, open_api, settings_for


@pytest_asyncio.fixture(scope="module")
async def api(database_url: str) -> AsyncIterator[Api]:
    """An admin API that enforces plans."""
    opened, _ = await open_api(settings_for(database_url, plans=PlansSettings(enforced=True)))
    yield opened
    await close_api(opened)


@pytest.fixture(scope="module")
def clerk(api: Api) -> Clerk:
    return Clerk(api)


def plan(api: Api, name: str) -> str:
    found = api.services.plans.plans.named(name)
    assert found is not None
    return str(found.id)


async def assigned(api: Api, member: Member, name: str, **terms: Any) -> None:
    """Give an organization a plan as the operator does."""
    book = api.services.plans
    target = book.plans.named(name)
    assert target is not None
    async with api.services.database.transaction() as connection:
        with acting(Origin("operator")):
            await assign(connection, book, member.organization_id, target, terms)


async def current(api: Api, member: Member) -> dict[str, Any]:
    answer = await api.call("GET", f"/organizations/{member.organization_id}/plan", member.key, expect=200)
    return answer.json()["data"]


async def choose(api: Api, member: Member, name: str, expect: int = 200, **more: Any) -> dict[str, Any]:
    body = {"plan_id": plan(api, name), **more}
    path = f"/organizations/{member.organization_id}/plan"
    answer = await api.call("POST", path, member.key, json=body, expect=expect)
    return answer.json()["data"] if expect == 200 else answer.json()


async def test_everybody_sees_the_plans_in_order(api: Api) -> None:
    listed = (await api.call("GET", "/plans", expect=200)).json()["data"]
    assert [(one["name"], one["price_monthly"], one["self_service"]) for one in listed] == [
        ("free", "0", True), ("starter", "20", True), ("pro", "100", True), ("enterprise", "0", False),
    ]  # fmt: skip
    starter = (await api.call("GET", f"/plans/{listed[1]['id']}", expect=200)).json()["data"]
    assert starter == listed[1]
    assert (starter["included_calls"], starter["overage_price"]) == (250_000, "0.20")
    await api.call("GET", f"/plans/{uuid4()}", expect=404)
    await api.call("GET", "/plans/free", expect=400)


async def test_who_has_chosen_nothing_has_the_default_plan(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    has = await current(api, agent)
    again = await current(api, agent)
    assert has == again
    assert has["plan"]["name"] == "free"
    assert has["organization_plan"]["plan_id"] == has["plan"]["id"]
    assert has["organization_plan"]["ends_at"] is None
    used = (await api.call("GET", f"/organizations/{agent.organization_id}/quota", agent.key, expect=200)).json()[
        "data"
    ]
    assert used["calls"] == {"used": 0, "limit": 10_000, "percent": 0.0}
    assert used["api_keys"] == {"used": 1, "limit": 10, "percent": 10.0}
    assert used["members"] == {"used": 1, "limit": 3, "percent": 33.33}
    assert (used["current_projects"], used["is_over_projects_quota"], used["is_over_calls_quota"]) == (0, False, False)
    assert used["resets_at"] == f"{month_end(datetime.now(UTC)):%Y-%m-%dT%H:%M:%S.%f}Z"


@pytest.mark.parametrize(
    ("name", "field", "words"),
    [
        ("starter", "stripe_payment_method_id", "costs $20 a month"),
        ("enterprise", "plan_id", "by contract"),
        (None, "plan_id", "no such plan"),
    ],
)
async def test_what_cannot_be_chosen_is_told_by_field(
    api: Api, clerk: Clerk, name: str | None, field: str, words: str
) -> None:
    agent = await clerk.agent()
    body = {"plan_id": str(uuid4()) if name is None else plan(api, name)}
    path = f"/organizations/{agent.organization_id}/plan"
    refused = (await api.call("POST", path, agent.key, json=body, expect=400)).json()
    assert refused["errors"][0]["field"] == field
    assert words in refused["detail"]
    assert (await current(api, agent))["plan"]["name"] == "free"


async def test_the_plan_that_one_has_is_a_conflict(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    assert "already" in (await choose(api, agent, "free", 409))["detail"]


async def test_down_begins_with_the_next_month_and_can_be_taken_back(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    await assigned(api, agent, "pro")
    began = await current(api, agent)
    assert began["plan"]["name"] == "pro"
    planned = await choose(api, agent, "free")
    ends = f"{month_end(datetime.now(UTC)):%Y-%m-%dT%H:%M:%S.%f}Z"
    assert planned["plan"]["name"] == "pro"
    assert (planned["organization_plan"]["ends_at"], planned["organization_plan"]["next_plan_id"]) == (
        ends, plan(api, "free"),
    )  # fmt: skip
    assert planned["organization_plan"]["cancelled_by"] == str(agent.id)
    assert "chosen already" in (await choose(api, agent, "free", 409))["detail"]
    back = await choose(api, agent, "pro")
    assert (back["organization_plan"]["ends_at"], back["organization_plan"]["next_plan_id"]) == (None, None)
    assert back["organization_plan"]["cancelled_at"] is None
    assert back["organization_plan"]["id"] == began["organization_plan"]["id"]


async def test_a_change_is_in_the_audit_log_and_told(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    await assigned(api, agent, "pro")
    hook = {"name": "ops", "url": "https://example.com/hook", "events": ["plan.changed"]}
    await api.call("POST", f"/organizations/{agent.organization_id}/webhooks", agent.key, json=hook, expect=201)
    await choose(api, agent, "free")
    async with api.services.database.acquire() as connection:
        entries = await connection.fetch(
            "SELECT actor_type, metadata FROM audit.entry WHERE chain = $1 AND action = 'plan.change' ORDER BY seq",
            agent.organization_id,
        )
        told = await connection.fetchval(
            "SELECT data FROM webhook.event WHERE organization_id = $1 AND type = 'plan.changed'", agent.organization_id
        )
    assert [(entry["actor_type"], entry["metadata"]["from"], entry["metadata"]["to"]) for entry in entries] == [
        ("operator", "free", "pro"), ("agent", "pro", "free"),
    ]  # fmt: skip
    assert (told["from"], told["to"], told["begins_at"]) == (
        "pro", "free", f"{month_end(datetime.now(UTC)):%Y-%m-%dT%H:%M:%SZ}",
    )  # fmt: skip


async def test_a_quota_that_is_nearly_used_up_is_told_once_and_again_when_it_is(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    hook = {"name": "ops", "url": "https://example.com/hook", "events": ["quota.reached"]}
    await api.call("POST", f"/organizations/{agent.organization_id}/webhooks", agent.key, json=hook, expect=201)
    database, month = api.services.database, datetime.now(UTC).date().replace(day=1)
    alerts = Alerts(database, 0, api.services.plans.plans)

    async def told(calls: int) -> list[tuple[int, int, int]]:
        async with database.acquire() as connection:
            await connection.execute(
                "INSERT INTO ledger.counter (scope, subject, kind, period, value) VALUES ($1, $1, $2, $3, $4)"
                " ON CONFLICT (scope, subject, kind, period) DO UPDATE SET value = $4",
                agent.organization_id, KIND, month, calls,
            )  # fmt: skip
        for _ in range(2):
            await alerts.run()
        async with database.acquire() as connection:
            rows = await connection.fetch(
                "SELECT data FROM webhook.event WHERE organization_id = $1 AND type = 'quota.reached' ORDER BY id",
                agent.organization_id,
            )
        return [(row["data"]["percent"], row["data"]["used"], row["data"]["included"]) for row in rows]

    assert await told(7_999) == []
    assert await told(8_000) == [(80, 8_000, 10_000)]
    assert await told(9_999) == [(80, 8_000, 10_000)]
    await assigned(api, agent, "free", included_calls=20_000)
    assert await told(10_000) == [(80, 8_000, 10_000)]
    assert await told(20_001) == [(80, 8_000, 10_000), (100, 20_001, 20_000)]


async def test_of_two_that_choose_at_once_one_is_told_so(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    await assigned(api, agent, "pro")
    path, body = f"/organizations/{agent.organization_id}/plan", {"plan_id": plan(api, "free")}
    answers = await asyncio.gather(*(api.call("POST", path, agent.key, json=body) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409, 409]
    async with api.services.database.acquire() as connection:
        rows = await connection.fetchval(
            "SELECT count(*) FROM identity.organization_plan WHERE organization_id = $1", agent.organization_id
        )
    assert rows == 3, "the default plan until then, the one that the operator gave, and the next one"


async def test_a_change_at_the_turn_of_the_month_is_of_one_moment(
    api: Api, clerk: Clerk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock passes the end of the present plan while a change is decided: what was decided is written."""
    agent = await clerk.agent()
    await assigned(api, agent, "starter")
    turn = month_end(datetime.now(UTC))
    async with api.services.database.transaction() as connection:
        await connection.execute(
            "UPDATE identity.organization_plan SET ends_at = $2 WHERE organization_id = $1 AND ends_at IS NULL",
            agent.organization_id, turn,
        )  # fmt: skip
        await connection.execute(
            "INSERT INTO identity.organization_plan (id, organization_id, plan_id, terms, started_at)"
            " SELECT $2, $1, $3, '{}', $4", agent.organization_id, uuid4(), UUID(plan(api, "free")), turn,
        )  # fmt: skip
    moments = [turn - timedelta(milliseconds=1), turn + timedelta(milliseconds=1)]

    class Clock:
        async def one(self, _connection: object) -> datetime:
            return moments.pop(0)

    for module in (organization_plans, plan_changes):
        monkeypatch.setattr(module, "NOW", Clock(), raising=False)
    await assigned(api, agent, "pro")
    async with api.services.database.acquire() as connection:
        rows = await connection.fetch(
            "SELECT plan_id::text, started_at, ends_at FROM identity.organization_plan WHERE organization_id = $1"
            " ORDER BY started_at", agent.organization_id,
        )  # fmt: skip
    assert [row["plan_id"] for row in rows] == [plan(api, name) for name in ("free", "starter", "pro")]
    assert [row["ends_at"] for row in rows] == [*(row["started_at"] for row in rows[1:]), None]


async def test_a_plan_that_is_too_small_is_refused_by_how_much(api: Api, clerk: Clerk) -> None:
    agent, joined = await clerk.agent(), [await clerk.agent() for _ in range(4)]
    await assigned(api, agent, "pro")
    for other in joined:
        await clerk.join(other, agent.organization_id, "viewer")
    refused = await choose(api, agent, "free", 409)
    assert refused["too_many"] == {"members": 2}
    assert "5 members, 2 too many" in refused["detail"]
    for other in joined[:2]:
        await api.call("DELETE", f"/organizations/{agent.organization_id}/members/{other.id}", agent.key, expect=204)
    assert (await choose(api, agent, "free"))["organization_plan"]["next_plan_id"] == plan(api, "free")


async def test_who_has_a_plan_by_contract_asks_the_operator(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    await assigned(api, agent, "enterprise", price_monthly="999", max_members=7)
    has = (await current(api, agent))["plan"]
    assert (has["price_monthly"], has["max_members"], has["included_calls"]) == ("999", 7, None)
    body = {"plan_id": plan(api, "free")}
    path = f"/organizations/{agent.organization_id}/plan"
    assert "by contract" in (await api.call("POST", path, agent.key, json=body, expect=400)).json()["detail"]


async def test_who_may_not_manage_billing_may_look(api: Api, clerk: Clerk) -> None:
    owner, viewer, stranger = [await clerk.agent() for _ in range(3)]
    await clerk.join(viewer, owner.organization_id, "viewer")
    path = f"/organizations/{owner.organization_id}"
    await api.call("GET", f"{path}/plan", viewer.key, expect=200)
    await api.call("POST", f"{path}/plan", viewer.key, json={"plan_id": plan(api, "pro")}, expect=403)
    for what in ("plan", "quota"):
        await api.call("GET", f"{path}/{what}", stranger.key, expect=403)
        await api.call("GET", f"{path}/{what}", expect=401)


async def test_no_more_keys_publishers_and_members_than_the_plan_allows(api: Api, clerk: Clerk) -> None:
    agent, base = await clerk.agent(), "/organizations/default"
    await assigned(api, agent, "free", max_api_keys=3, max_publishers=1)
    made = await asyncio.gather(
        *(api.call("POST", f"{base}/api-keys", agent.key, json={"name": f"k{n}"}) for n in range(6))
    )
    assert sorted(answer.status_code for answer in made) == [201, 201, 403, 403, 403, 403]
    refused = next(answer.json() for answer in made if answer.status_code == 403)
    assert refused["type"] == "/problems/plan-limit-reached"
    assert (refused["limit"], refused["used"], refused["of"], refused["plan"]) == (3, 3, "api_keys", "free")
    one = next(answer.json()["data"] for answer in made if answer.status_code == 201)
    await api.call("DELETE", f"{base}/api-keys/{one['id']}", agent.key, expect=200)
    await api.call("POST", f"{base}/api-keys", agent.key, json={"name": "again"}, expect=201)
    shops = await asyncio.gather(
        *(api.call("POST", f"/organizations/{agent.organization_id}/publishers", agent.key, json=clerk.order())
          for _ in range(3))
    )  # fmt: skip
    assert sorted(answer.status_code for answer in shops) == [201, 403, 403]


async def test_projects_are_counted_and_bounded(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    await assigned(api, agent, "free", max_projects=2)
    region = api.services.settings.projects.regions[0]
    made = await asyncio.gather(
        *(api.call("POST", "/projects", agent.key, json={"name": f"p{n}", "region": region}) for n in range(4))
    )
    assert sorted(answer.status_code for answer in made) == [201, 201, 403, 403]
    path = f"/organizations/{agent.organization_id}/quota"
    used = (await api.call("GET", path, agent.key, expect=200)).json()["data"]
    assert (used["current_projects"], used["projects_usage_percent"], used["is_over_projects_quota"]) == (
        2,
        100.0,
        False,
    )
    await assigned(api, agent, "free", max_projects=1)
    assert (await api.call("GET", path, agent.key, expect=200)).json()["data"]["is_over_projects_quota"] is True


async def test_what_is_chosen_for_later_bounds_growth_already(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    await assigned(api, agent, "pro")
    await choose(api, agent, "free")
    path = f"/organizations/{agent.organization_id}/publishers"
    statuses = [(await api.call("POST", path, agent.key, json=clerk.order())).status_code for _ in range(4)]
    assert statuses == [201, 201, 201, 403]


async def test_members_join_until_the_plan_is_full(api: Api, clerk: Clerk) -> None:
    owner, first, second = [await clerk.agent() for _ in range(3)]
    await assigned(api, owner, "free", max_members=2)
    path = f"/organizations/{owner.organization_id}/invites"
    tokens: list[str] = []
    for number in range(2):
        body = {"email": f"somebody-{number}@example.com", "role": "viewer"}
        made = await api.call("POST", path, owner.key, json=body, expect=201)
        tokens.append(made.json()["data"]["token"])
    answers = await asyncio.gather(
        *(api.call("POST", "/invitations/accept", who.key, json={"invitation": token})
          for who, token in zip((first, second), tokens, strict=True))
    )  # fmt: skip
    assert sorted(answer.status_code for answer in answers) == [200, 403]


async def test_a_plan_that_has_left_the_file_keeps_its_terms(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    await assigned(api, agent, "starter", included_calls=5)
    kept = tuple(one for one in api.services.plans.plans.plans if one.name != "starter")
    book = PlanBook(api.services.plans.plans.model_copy(update={"plans": kept}), enforced=True)
    async with api.services.database.acquire() as connection:
        held = await book.held(connection, agent.organization_id)
    assert (held.plan.included_calls, held.plan.price, held.plan.id) == (
        5, 20_000_000, UUID(plan(api, "starter")),
    )  # fmt: skip
