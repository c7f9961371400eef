"""Idempotency-Key: every operation that moves money, or leads to it, runs once per key, however often and at once.

An operation that writes and is in neither list below fails `test_every_operation_that_writes_is_listed`: it gets a
`Once` and a scene, or is told not to move money.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio

from gateway.billing.invoices.month import month_of
from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.jobs.expire import expire_stored_answers
from gateway.ledger.entries import Charge, Settlement, post
from gateway.plans import load_plans
from gateway.settings import IdempotencySettings, InvoiceSettings, PayoutSettings, SecretSettings, StripeSettings
from tests.admin_api.conftest import WALLET, Api, Clerk, Member, close_api, open_api, settings_for
from tests.support.reference import DOCUMENT
from tests.support.stripe_server import KEY, SIGNING, StripeServer
from tests.support.world import Agent, World

pytestmark = pytest.mark.usefixtures("sound_books")

OPERATOR = "operator-token-of-forty-letters-and-more"
SECRETS = SecretSettings(keys="k1:" + base64.b64encode(bytes(32)).decode(), operator_token=OPERATOR)
SELLER = InvoiceSettings(seller_name="Tollway", seller_address="1 Road")
LAST = month_of(datetime.now(UTC).date().replace(day=1) - timedelta(days=1))
DOLLAR = 1_000_000
FIELD = "Idempotency-Key"

# By what they need, and by name where others who need the same do move money.
NOT_MONEY = {
    *("api_keys.create", "api_keys.update", "org.update", "org.delete", "org.manage_members", "org.manage_roles"),
    *("webhooks.manage", "projects.write, in the organization that gets it", "projects.write", "ip_allow.manage"),
    *("publishers.write", "oauth_providers.manage", "member and account.manage"),
}
NOT_MONEY_BY_NAME = {
    *("agent_register", "wallet_recover", "set_recovery"),  # keys and codes, shown once
    *("signup", "verify_email", "resend_verification_email", "forgot_password", "reset_password", "login", "refresh"),
    *("logout", "change_password", "revoke_all_sessions", "revoke_session", "revoke_other_sessions"),
    *("create_organization", "look_at_invitation", "accept_invitation", "decline_invitation"),
    *("revoke_connection_by_id", "revoke_connection", "update_billing_details", "estimate_query", "facilitator_verify"),
    *("suspend", "restore", "decline_request"),
    "handle_stripe_webhook",  # the event's id is its key
}
# Those that have kept keys in ways of their own, with the tests of each.
ELSEWHERE = {
    "create_charge": "tests/admin_api/test_charges.py",
    "refund_charge": "tests/admin_api/test_charges.py",
    "slash_charge": "tests/admin_api/test_charges.py",
    "approve_request": "tests/operators/test_four_eyes.py",
    "facilitator_settle": "tests/payments/facilitator/test_settle.py",
    "onchain_deposit": "tests/payments/facilitator/test_deposits.py",
    "publisher_root_handler": "tests/journeys/test_exactly_once.py",
    "proxy_to_publisher_post": "tests/journeys/test_exactly_once.py",
}


@dataclass
class Stage:
    """An admin API with cards, invoices and a chain that nothing is sent on."""

    api: Api
    clerk: Clerk
    world: World
    stripe: StripeServer
    connection: Connection
    settled: list[UUID] = field(default_factory=list)

    async def post(self, path: str, token: str, body: Any = None, expect: int = 200) -> Any:
        options = {} if body is None else {"json": body}
        answer = await self.api.call("POST", path, token, expect=expect, **options)
        return answer.json() if answer.content else None

    async def method(self, token: str) -> str:
        body = {"stripe_payment_method_id": self.stripe.method(number=str(uuid4())), "set_as_default": True}
        return (await self.post("/billing/payment-methods", token, body))["data"]["id"]

    async def sold(self, publisher_id: str, *, ends: bool = True) -> UUID:
        """Sell for ten dollars, and return the call."""
        buyer, exchange = await self.world.agent(10 * DOLLAR), uuid7()
        account = await self.connection.fetchval(
            "SELECT ledger.earnings_account($1, a.ledger_asset_id) FROM catalog.publisher p"
            " JOIN catalog.asset a ON a.id = p.primary_asset_id WHERE p.id = $1",
            UUID(publisher_id),
        )
        charge = Charge(exchange, buyer.wallet_id, UUID(publisher_id), account, 10 * DOLLAR, 0)
        end = Settlement(exchange, "delivered", 200, 0, 0)
        assert [one.verdict for one in await post(self.connection, [charge], None, [end] if ends else [])] == ["posted"]
        return exchange

    async def seller(self) -> tuple[Member, dict[str, Any]]:
        owner = await self.clerk.agent()
        made = await self.clerk.publisher(owner)
        await self.sold(made["id"])
        return owner, made

    async def payout(self) -> tuple[Member, str, str]:
        """Ask for a payout that waits for a second member, and return the owner, its path and the other member."""
        owner, made = await self.seller()
        path = f"/organizations/{owner.organization_id}/publishers/{made['id']}/payouts"
        asked = {"asset_id": made["accepted_assets"][0]["id"], "amount_atomic": 9 * DOLLAR}
        payout = (await self.post(path, owner.key, asked, 201))["data"]
        second = await self.clerk.agent()
        await self.clerk.join(second, owner.organization_id, "admin")
        return owner, f"{path}/{payout['id']}", second.key

    async def invoice(self, *, issued: bool) -> tuple[Agent, str]:
        agent, plan = await self.world.agent(), load_plans().named("pro")
        assert plan is not None
        terms = {"display_name": "Pro", "price_monthly": "100", "included_calls": None, "overage_price": None}
        await self.connection.execute(
            "INSERT INTO identity.organization_plan (id, organization_id, plan_id, terms, started_at)"
            " VALUES ($1, $2, $3, $4, $5)",
            uuid7(), agent.organization_id, plan.id, terms, LAST.start,
        )  # fmt: skip
        await self.post("/billing/invoices/generate", OPERATOR, {"month": LAST.month, "year": LAST.year})
        made = await self.connection.fetchval(
            "SELECT id FROM invoice.invoice WHERE organization_id = $1", agent.organization_id
        )
        if issued:
            await self.post(f"/billing/invoices/{made}/issue", OPERATOR)
        return agent, f"/billing/invoices/{made}"


@dataclass
class Scene:
    """One request that an operation takes, another one of the same operation, and how often its effect is there."""

    path: str
    token: str
    body: Any = None
    other: Any = None
    method: str = "POST"
    effects: Callable[[], Awaitable[int]] | None = None

    async def send(self, api: Api, key: str, *, other: bool = False) -> httpx.Response:
        body = self.other if other else self.body
        path = f"{self.path}?other=1" if other and self.other is None else self.path
        options = {} if body is None else {"json": body}
        return await api.call(self.method, path, self.token, headers={FIELD: key}, **options)


@pytest_asyncio.fixture(scope="module")
async def api(database_url: str, stripe: StripeServer) -> AsyncIterator[Api]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOLLWAY_CHAIN_84532_RPC", "http://127.0.0.1:9")
        patch.setenv("TOLLWAY_CHAIN_SIGNER_KEY", "0x" + secrets.token_hex(32))
        settings = settings_for(
            database_url, secrets=SECRETS, invoices=SELLER,
            payouts=PayoutSettings(holdback=0, minimum=DOLLAR, approval_above=5 * DOLLAR),
            stripe=StripeSettings(secret_key=KEY, webhook_secrets=(SIGNING,), api_base=stripe.url),
        )  # fmt: skip
        opened, _ = await open_api(settings)
    yield opened
    await opened.services.stripe.aclose()
    await close_api(opened)


@pytest.fixture(scope="module")
def stage(api: Api, clerk: Clerk, world: World, stripe: StripeServer, connection: Connection) -> Stage:
    return Stage(api, clerk, world, stripe, connection)


async def signup_bonus(stage: Stage) -> Scene:
    return Scene("/wallet/bonus/signup", (await stage.clerk.agent()).key)


async def daily(stage: Stage) -> Scene:
    return Scene("/wallet/daily/claim", (await stage.clerk.agent()).key)


async def card_bonus(stage: Stage) -> Scene:
    agent = await stage.clerk.agent()
    await stage.method(agent.key)
    return Scene("/wallet/bonus/payment-method", agent.key)


async def card_deposit(stage: Stage) -> Scene:
    agent = await stage.clerk.agent()

    async def pages() -> int:
        made = await stage.connection.fetchval(
            "SELECT count(*) FROM card.deposit WHERE organization_id = $1", agent.organization_id
        )
        opened = [one for one in stage.stripe.made("checkout.session") if one["metadata"]["tollway_deposit"]]
        return made if len({one["client_reference_id"] for one in opened}) == len(opened) else -1

    return Scene("/wallet/deposit", agent.key, {"amount_cents": 2_500}, {"amount_cents": 2_600}, effects=pages)


async def referral(stage: Stage) -> Scene:
    agent, other = await stage.clerk.agent(), await stage.clerk.agent()
    answer = await stage.api.call("GET", "/wallet/referral", other.key, expect=200)
    code = answer.json()["data"]["referral_code"]
    return Scene("/wallet/referral/apply", agent.key, {"referral_code": code}, {"referral_code": "REF-OTHER"})


async def plan(stage: Stage) -> Scene:
    agent, plans = await stage.clerk.agent(), {one.name: str(one.id) for one in load_plans().plans}
    await stage.method(agent.key)
    path = f"/organizations/{agent.organization_id}/plan"
    return Scene(path, agent.key, {"plan_id": plans["pro"]}, {"plan_id": plans["free"]})


async def card(stage: Stage) -> Scene:
    body = {"stripe_payment_method_id": stage.stripe.method(number=str(uuid4())), "set_as_default": True}
    agent = await stage.clerk.agent()
    return Scene("/billing/payment-methods", agent.key, body, {**body, "set_as_default": False})


async def forgotten_card(stage: Stage) -> Scene:
    agent = await stage.clerk.agent()
    return Scene(f"/billing/payment-methods/{await stage.method(agent.key)}", agent.key, method="DELETE")


async def invoices(stage: Stage) -> Scene:
    period = {"month": LAST.month, "year": LAST.year}
    return Scene("/billing/invoices/generate", OPERATOR, period, {**period, "year": LAST.year - 1})


async def issued(stage: Stage) -> Scene:
    _, path = await stage.invoice(issued=False)
    return Scene(f"{path}/issue", OPERATOR)


async def voided(stage: Stage) -> Scene:
    _, path = await stage.invoice(issued=True)
    return Scene(f"{path}/void", OPERATOR, {"reason": "wrong"}, {"reason": "other"})


async def paid(stage: Stage) -> Scene:
    agent, path = await stage.invoice(issued=True)
    return Scene(f"{path}/pay", agent.key)


async def organization_payout(stage: Stage) -> Scene:
    owner, made = await stage.seller()
    path, asset = f"/organizations/{owner.organization_id}/publishers/{made['id']}/payouts", made["accepted_assets"][0]

    async def payouts() -> int:
        listed = await stage.api.call("GET", path, owner.key, expect=200)
        return listed.json()["pagination"]["total"]

    one = {"asset_id": asset["id"], "amount_atomic": DOLLAR}
    return Scene(path, owner.key, one, {**one, "amount_atomic": 2 * DOLLAR}, effects=payouts)


async def slug_payout(stage: Stage) -> Scene:
    owner, made = await stage.seller()
    body = {"amount_atomic": DOLLAR, "destination_wallet": WALLET, "description": "October"}

    async def payouts() -> int:
        path = f"/organizations/{owner.organization_id}/publishers/{made['id']}/payouts"
        return (await stage.api.call("GET", path, owner.key, expect=200)).json()["pagination"]["total"]

    path = f"/billing/publishers/{made['slug']}/payouts"
    return Scene(path, owner.key, body, {**body, "description": "November"}, effects=payouts)


async def approved(stage: Stage) -> Scene:
    _, path, second = await stage.payout()
    return Scene(f"{path}/approve", second)


async def cancelled(stage: Stage) -> Scene:
    owner, path, _ = await stage.payout()
    return Scene(f"{path}/cancel", owner.key)


async def refunded_call(stage: Stage) -> Scene:
    _, made = await stage.seller()
    call = await stage.sold(made["id"])
    return Scene(f"/operator/calls/{call}/refund", OPERATOR, {"reason": "broken"}, {"reason": "other"})


async def corrected(stage: Stage) -> Scene:
    agent = await stage.world.agent()
    body = {"direction": "credit", "amount_atomic": "250000", "reference": str(uuid4()), "reason": "doubled"}
    return Scene(f"/operator/wallets/agent:{agent.id}/corrections", OPERATOR, body, {**body, "amount_atomic": "1"})


async def resolved(stage: Stage) -> Scene:
    _, made = await stage.seller()
    call = await stage.sold(made["id"], ends=False)
    return Scene(f"/operator/exchanges/{call}/resolve", OPERATOR, {"decision": "refund"}, {"decision": "keep"})


SCENES: dict[str, Callable[[Stage], Awaitable[Scene]]] = {
    "claim_signup_bonus": signup_bonus,
    "claim_payment_method_bonus": card_bonus,
    "claim_daily": daily,
    "create_deposit": card_deposit,
    "apply_referral_code": referral,
    "change_organization_plan": plan,
    "add_payment_method": card,
    "delete_payment_method": forgotten_card,
    "generate_invoices": invoices,
    "issue_invoice": issued,
    "void_invoice": voided,
    "create_payment_intent": paid,
    "create_org_publisher_payout": organization_payout,
    "create_payout": slug_payout,
    "approve_publisher_payout": approved,
    "cancel_publisher_payout": cancelled,
    "refund_call": refunded_call,
    "resolve_exchange": resolved,
    "correct_wallet": corrected,
}


def test_every_operation_that_writes_is_listed() -> None:
    writing = {
        operation["operationId"]: operation
        for item in DOCUMENT["paths"].values()
        for method, operation in item.items()
        if method != "get" and operation["x-permission"] not in NOT_MONEY
    }
    assert writing.keys() - NOT_MONEY_BY_NAME == SCENES.keys() | ELSEWHERE.keys()
    for name in SCENES.keys() | ELSEWHERE.keys():
        shown = [one["name"] for one in writing[name]["parameters"] if one["in"] == "header"]
        assert FIELD in shown, name
        assert {"409", "422"} <= writing[name]["responses"].keys(), name


@pytest.mark.parametrize("name", SCENES)
async def test_a_key_is_one_effect_and_one_answer(stage: Stage, name: str) -> None:
    scene, key = await SCENES[name](stage), str(uuid4())
    twins = await asyncio.gather(*(scene.send(stage.api, key) for _ in range(5)))
    answers = [one for one in twins if one.status_code < 300]
    assert answers, [one.text for one in twins]
    running = [one for one in twins if one.status_code >= 300]
    assert {one.json()["type"] for one in running} <= {"/problems/call-running"}
    assert all(int(one.headers["retry-after"]) >= 1 for one in running)
    again = await scene.send(stage.api, key)
    assert again.headers["idempotency-replayed"] == "true"
    assert {(one.status_code, one.content) for one in [*answers, again]} == {(again.status_code, again.content)}
    assert sum("idempotency-replayed" not in one.headers for one in answers) == 1
    assert again.headers.get("content-type") == answers[0].headers.get("content-type")
    other = await scene.send(stage.api, key, other=True)
    assert (other.status_code, other.json()["type"]) == (422, "/problems/key-reused")
    if scene.effects is not None:
        assert await scene.effects() == 1


async def test_a_key_is_its_owners_and_its_operations(stage: Stage) -> None:
    key, first, second = str(uuid4()), await stage.clerk.agent(), await stage.clerk.agent()
    for agent in (first, second):
        for path in ("/wallet/bonus/signup", "/wallet/daily/claim"):
            answer = await stage.api.call("POST", path, agent.key, headers={FIELD: key}, expect=200)
            assert "idempotency-replayed" not in answer.headers
    await stage.api.call("POST", "/wallet/bonus/signup", headers={FIELD: key}, expect=401)


async def test_what_was_refused_has_used_no_key_up(stage: Stage) -> None:
    agent, key = await stage.clerk.agent(), str(uuid4())
    for body, status in (({"amount_cents": 1}, 400), ({"amount_cents": "x"}, 400), ({"amount_cents": 2_500}, 200)):
        await stage.api.call("POST", "/wallet/deposit", agent.key, json=body, headers={FIELD: key}, expect=status)


async def test_what_is_in_doubt_runs_again_and_makes_the_same(stage: Stage) -> None:
    scene, key = await card_deposit(stage), str(uuid4())
    stage.stripe.down = True
    try:
        assert (await scene.send(stage.api, key)).status_code == 503
    finally:
        stage.stripe.down = False
    assert (await scene.send(stage.api, key, other=True)).status_code == 422
    assert (await scene.send(stage.api, key)).status_code == 200
    assert scene.effects is not None
    assert await scene.effects() == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "schlüssel".encode()])
async def test_a_key_that_is_none_is_refused(stage: Stage, key: str | bytes) -> None:
    agent = await stage.clerk.agent()
    await stage.api.call("POST", "/wallet/daily/claim", agent.key, headers={FIELD: key}, expect=400)
    await stage.api.call("POST", "/wallet/daily/claim", agent.key, expect=200)


async def test_the_head_and_the_body_of_a_payout_name_the_same_key(stage: Stage) -> None:
    scene, key = await slug_payout(stage), str(uuid4())
    in_body = {**scene.body, "idempotency_key": key}
    first = await stage.post(scene.path, scene.token, in_body)
    options: dict[str, Any] = {"json": scene.body, "headers": {FIELD: key.upper()}}
    second = await stage.api.call("POST", scene.path, scene.token, expect=200, **options)
    assert second.json() == first
    both = await stage.api.call("POST", scene.path, scene.token, json=in_body, headers={FIELD: key}, expect=200)
    assert both.json() == first
    for differs in (str(uuid4()), "no-uuid"):
        options = {"json": in_body, "headers": {FIELD: differs}}
        await stage.api.call("POST", scene.path, scene.token, expect=400, **options)
    assert scene.effects is not None
    assert await scene.effects() == 1


async def test_what_is_stored_shows_no_recovery_code(stage: Stage) -> None:
    agent, key = await stage.clerk.agent(), str(uuid4())
    options: dict[str, Any] = {"json": {"amount_cents": 2_500}, "headers": {FIELD: key}}
    first = await stage.api.call("POST", "/wallet/deposit", agent.key, expect=200, **options)
    code = first.json()["data"]["recovery_code"]
    stored = await stage.connection.fetchrow("SELECT * FROM ledger.operation_key WHERE key = $1", key)
    assert stored is not None
    assert code
    assert code.encode() not in stored["answer"]
    again = await stage.api.call("POST", "/wallet/deposit", agent.key, expect=200, **options)
    assert again.json()["data"]["recovery_code"] == code


async def test_a_key_is_forgotten_after_its_lifetime(stage: Stage, database_url: str, stripe: StripeServer) -> None:
    agent, key = await stage.clerk.agent(), str(uuid4())
    cards = StripeSettings(secret_key=KEY, webhook_secrets=(SIGNING,), api_base=stripe.url)
    brief, _ = await open_api(
        settings_for(
            database_url, secrets=SECRETS, stripe=cards, idempotency=IdempotencySettings(lifetime=0.001, keep=1_024)
        )
    )
    options: dict[str, Any] = {"json": {"amount_cents": 2_500}, "headers": {FIELD: key}}
    try:
        ids = set[str]()
        for _ in range(2):
            answer = await brief.call("POST", "/wallet/deposit", agent.key, expect=200, **options)
            ids.add(answer.json()["data"]["deposit_id"])
            await asyncio.sleep(0.01)
        assert len(ids) == 2
        await expire_stored_answers(brief.services.database)
        left = await stage.connection.fetchval("SELECT count(*) FROM ledger.operation_key WHERE key = $1", key)
        assert left == 0
    finally:
        await brief.services.stripe.aclose()
        await close_api(brief)


async def test_without_a_secret_key_a_repeat_is_told_that_it_was_done(stage: Stage, database_url: str) -> None:
    agent, key = await stage.clerk.agent(), str(uuid4())
    bare, _ = await open_api(settings_for(database_url, secrets=SecretSettings()))
    try:
        await bare.call("POST", "/wallet/bonus/signup", agent.key, headers={FIELD: key}, expect=200)
        told = await bare.call("POST", "/wallet/bonus/signup", agent.key, headers={FIELD: key}, expect=410)
        assert told.json()["type"] == "/problems/answer-not-kept"
    finally:
        await close_api(bare)
