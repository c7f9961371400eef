"""Asking for payouts: what is available, who may, where it may go, and that no money is taken twice.

The chain is a dead port here: nothing is sent. What happens on a chain is tests/payments/evm/test_payouts.py.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.jobs.bookkeeping import HEALTH
from gateway.ledger import exchanges
from gateway.ledger.entries import Charge, post
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.payouts import COUNTS, PAYABLE
from gateway.settings import PayoutSettings
from tests.admin_api.conftest import WALLET, Api, Clerk, Member, close_api, open_api, settings_for
from tests.admin_api.first_party import Service, payer, terms
from tests.support.world import World

pytestmark = pytest.mark.usefixtures("sound_books")

USDC_CONTRACT = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
OTHER = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
BUYER = "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb"
DOLLAR = 1_000_000
HOLDBACK = 3_600


@pytest_asyncio.fixture(scope="module")
async def api(database_url: str) -> AsyncIterator[Api]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOLLWAY_CHAIN_84532_RPC", "http://127.0.0.1:9")
        patch.setenv("TOLLWAY_CHAIN_SIGNER_KEY", "0x" + secrets.token_hex(32))
        patch.setenv("TOLLWAY_CHAIN_BUYER_ADDRESS", BUYER)
        rules = PayoutSettings(holdback=HOLDBACK, minimum=DOLLAR, approval_above=1_000 * DOLLAR)
        opened, _ = await open_api(settings_for(database_url, payouts=rules))
    yield opened
    await close_api(opened)


@dataclass
class Seller:
    """A publisher with its owner, that sells to one agent."""

    api: Api
    connection: Connection
    world: World
    owner: Member
    id: str
    slug: str
    asset: str
    account: int
    wallet: int

    @property
    def path(self) -> str:
        return f"/organizations/{self.owner.organization_id}/publishers/{self.id}"

    async def sells(self, amount: int, *, old: bool = True) -> UUID:
        """Earn an amount, before the holdback or just now; return the call."""
        exchange = uuid7()
        charged = Charge(exchange, self.wallet, UUID(self.id), self.account, amount, 0)
        assert [one.verdict for one in await post(self.connection, [charged], None, [])] == ["posted"]
        if old:
            await self.ages(exchange)
        return exchange

    async def ages(self, cause: UUID) -> None:
        """Let a booking be older than the holdback: nobody can do so but a test."""
        async with self.connection.transaction():
            await self.connection.execute("ALTER TABLE ledger.transfer DISABLE TRIGGER transfer_immutable")
            await self.connection.execute(
                "UPDATE ledger.transfer SET created_at = created_at - interval '2 hours' WHERE cause_id = $1", cause
            )
            await self.connection.execute("ALTER TABLE ledger.transfer ENABLE TRIGGER transfer_immutable")

    async def refunds(self, exchange: UUID) -> None:
        await exchanges.refund(
            self.connection, exchange, reason="test", status=503, grace=timedelta(days=7), only_open=False
        )

    async def asks(self, amount: int | None = None, key: str = "", **more: Any) -> httpx.Response:
        body = {"asset_id": self.asset, "amount_atomic": amount, **more}
        return await self.api.call("POST", f"{self.path}/payouts", key or self.owner.key, json=body)

    async def asks_by_slug(self, amount_atomic: int, **more: Any) -> httpx.Response:
        body = {"amount_atomic": amount_atomic, "destination_wallet": WALLET, "description": "October", **more}
        return await self.api.call("POST", f"/billing/publishers/{self.slug}/payouts", self.owner.key, json=body)

    async def earnings(self) -> dict[str, Any]:
        found = (await self.api.call("GET", f"{self.path}/earnings", self.owner.key, expect=200)).json()["data"]
        return found[0]

    async def does(self, what: str, payout: str, key: str = "") -> httpx.Response:
        return await self.api.call("POST", f"{self.path}/payouts/{payout}/{what}", key or self.owner.key)


@pytest_asyncio.fixture
async def seller(api: Api, clerk: Clerk, world: World, connection: Connection) -> Seller:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    asset = made["accepted_assets"][0]["id"]
    account = await connection.fetchval(
        "SELECT ledger.earnings_account($1, ledger_asset_id) FROM catalog.asset WHERE id = $2", UUID(made["id"]),
        UUID(asset),
    )  # fmt: skip
    buyer = await world.agent(1_000_000 * DOLLAR)
    return Seller(api, connection, world, owner, made["id"], made["slug"], asset, account, buyer.wallet_id)


async def test_without_an_amount_everything_goes_to_the_publishers_wallet(seller: Seller) -> None:
    await seller.sells(5 * DOLLAR)
    made = await seller.asks()
    assert made.status_code == 201, made.text
    payout = made.json()["data"]
    assert (payout["amount_atomic"], payout["amount"], payout["status"]) == (5 * DOLLAR, 5.0, "queued")
    assert (payout["destination_wallet"], payout["asset"]["network_id"]) == (WALLET, "eip155:84532")
    earned = await seller.earnings()
    shown = [earned[name] for name in ("total_revenue_atomic", "available_atomic", "pending_payout_atomic")]
    assert shown == [5 * DOLLAR, 0, 5 * DOLLAR]
    listed = (await seller.api.call("GET", f"{seller.path}/payouts", seller.owner.key, expect=200)).json()
    assert (listed["data"], listed["pagination"]["total"]) == ([payout], 1)
    bare = f"/billing/publishers/{seller.slug}/payouts/{payout['id']}"
    assert (await seller.api.call("GET", bare, seller.owner.key, expect=200)).json() == {
        "id": payout["id"], "amount_atomic": 5 * DOLLAR, "destination_wallet": WALLET, "status": "queued",
        "tx_hash": None, "error_message": None,
    }  # fmt: skip


async def test_what_is_asked_for_too_much_is_told_what_there_is(seller: Seller) -> None:
    await seller.sells(3 * DOLLAR)
    for asked in (3 * DOLLAR + 1, 10**30):
        problem = (await seller.asks(asked)).json()
        assert (problem["status"], problem["type"]) == (400, "/problems/earnings-short")
        assert (problem["available"], problem["held_back"], problem["deficit"]) == ("3", "0", "0")
    problem = (await seller.asks(DOLLAR - 1)).json()
    assert (problem["type"], problem["minimum"]) == ("/problems/earnings-short", "1")
    assert (await seller.asks(0)).status_code == 400
    await seller.asks()
    assert (await seller.asks()).json()["available"] == "0"


async def test_what_may_still_be_refunded_is_held_back_and_says_until_when(seller: Seller) -> None:
    await seller.sells(2 * DOLLAR)
    young, later = await seller.sells(3 * DOLLAR, old=False), await seller.sells(DOLLAR, old=False)
    await seller.refunds(later)
    problem = (await seller.asks(4 * DOLLAR)).json()
    assert (problem["available"], problem["held_back"], problem["requested"]) == ("2", "3", "4")
    assert problem["frees_at"] == problem["all_free_at"]
    earned = await seller.earnings()
    assert (earned["available_atomic"], earned["held_back_atomic"]) == (2 * DOLLAR, 3 * DOLLAR)
    assert earned["frees_at"][:19] == problem["frees_at"][:19]
    await seller.ages(young)
    assert (await seller.asks(5 * DOLLAR)).status_code == 201


async def test_a_refund_after_the_payout_is_made_up_for_by_later_earnings(seller: Seller) -> None:
    call = await seller.sells(4 * DOLLAR)
    await seller.sells(DOLLAR)
    assert (await seller.asks()).status_code == 201
    await seller.refunds(call)
    assert (await seller.earnings())["deficit_atomic"] == 4 * DOLLAR
    await seller.sells(6 * DOLLAR)
    problem = (await seller.asks(3 * DOLLAR)).json()
    assert (problem["available"], problem["deficit"]) == ("2", "0")
    assert (await seller.asks(2 * DOLLAR)).status_code == 201


async def test_penalties_are_paid_out_when_the_earnings_are_used_up_and_go_back_where_they_were(
    seller: Seller, clerk: Clerk, connection: Connection
) -> None:
    await terms(seller.api, seller.id, 10 * DOLLAR, 20 * DOLLAR)
    agent = await payer(seller.api, clerk, 20 * DOLLAR)
    service = Service(seller.api, seller.owner, seller.id, seller.slug)
    charge = await service.charge(agent, 6 * DOLLAR)
    assert (await service.slash(charge, 4 * DOLLAR)).status_code == 204
    held = await seller.earnings()
    assert (held["available_atomic"], held["held_back_atomic"]) == (0, held["total_revenue_atomic"])
    for cause in await connection.fetch("SELECT id FROM ledger.penalty WHERE charge_id = $1", UUID(charge["id"])):
        await seller.ages(cause["id"])
    await seller.ages(UUID(charge["id"]))
    for ending in ("cancel", "keep"):
        payout = (await seller.asks()).json()["data"]
        assert payout["amount_atomic"] == held["total_revenue_atomic"]
        assert await service.has("penalties") == await service.has("earnings") == 0
        if ending == "cancel":
            await seller.does("cancel", payout["id"])
            assert await service.has("penalties") == 4 * DOLLAR


async def test_requests_at_the_same_time_cannot_take_the_same_money(seller: Seller) -> None:
    await seller.sells(10 * DOLLAR)
    answers = await asyncio.gather(*(seller.asks(4 * DOLLAR) for _ in range(6)))
    assert sorted(one.status_code for one in answers) == [201, 201, 400, 400, 400, 400]
    assert (await seller.earnings())["available_atomic"] == 2 * DOLLAR


async def test_a_refund_at_the_same_time_leaves_a_deficit_or_less_to_pay_out(seller: Seller) -> None:
    for _ in range(5):
        call = await seller.sells(4 * DOLLAR)
        before = (await seller.earnings())["pending_payout_atomic"]
        answer, _ = await asyncio.gather(seller.asks(), seller.refunds(call))
        after = await seller.earnings()
        assert answer.status_code in (201, 400)
        paid = after["pending_payout_atomic"] - before
        assert after["deficit_atomic"] == paid
        await seller.sells(paid + 1)
        assert (await seller.earnings())["available_atomic"] in (1, 0)
        await seller.sells(DOLLAR)
        assert (await seller.asks()).status_code == 201


async def test_a_key_makes_one_payout_however_often_it_is_sent(seller: Seller) -> None:
    await seller.sells(9 * DOLLAR)
    key = str(uuid4())
    answers = await asyncio.gather(*(seller.asks_by_slug(2 * DOLLAR, idempotency_key=key) for _ in range(4)))
    assert {one.status_code for one in answers} == {200}, answers[0].text
    assert len({one.json()["id"] for one in answers}) == 1
    for other in ({"amount_atomic": 3 * DOLLAR}, {"description": "November"}, {"destination_wallet": OTHER}):
        body: dict[str, Any] = {"amount_atomic": 2 * DOLLAR, "idempotency_key": key, **other}
        refusal = await seller.asks_by_slug(**body)
        assert (refusal.status_code, refusal.json()["payout_id"]) == (409, answers[0].json()["id"])
    assert (await seller.earnings())["pending_payout_atomic"] == 2 * DOLLAR


async def test_a_changed_address_gets_nothing_for_a_while(seller: Seller, connection: Connection) -> None:
    await seller.sells(9 * DOLLAR)
    moved = {"wallet_address": OTHER, "wallet_network_id": "eip155:84532"}
    await seller.api.call("PUT", seller.path, seller.owner.key, json=moved, expect=200)
    for refused in (await seller.asks(), await seller.asks(destination_wallet=OTHER.lower())):
        assert refused.status_code == 409, refused.text
        assert refused.json()["frees_at"].endswith("Z")
    assert (await seller.asks(DOLLAR, destination_wallet=WALLET)).status_code == 201
    await seller.api.call("PUT", seller.path, seller.owner.key, json={"name": "Renamed"}, expect=200)
    await connection.execute(
        "UPDATE catalog.publisher SET wallet_changed_at = now() - interval '1 day' WHERE id = $1", UUID(seller.id)
    )
    assert (await seller.asks()).json()["data"]["destination_wallet"] == OTHER


async def test_money_is_not_sent_where_it_would_be_lost(seller: Seller) -> None:
    await seller.sells(9 * DOLLAR)
    chain = seller.api.services.settlements.chains["eip155:84532"]
    ours = (USDC_CONTRACT, show_address(chain.treasury), BUYER)
    lost = ("0x" + "0" * 40, *ours, WALLET.swapcase().replace("0X", "0x"), "0x12")
    for address in lost:
        problem = (await seller.asks(destination_wallet=address)).json()
        assert (problem["status"], problem["errors"][0]["field"]) == (400, "destination_wallet"), address
    assert (await seller.earnings())["pending_payout_atomic"] == 0


async def test_only_owners_and_admins_send_it_elsewhere_and_not_at_once(
    seller: Seller, clerk: Clerk, connection: Connection
) -> None:
    await seller.sells(9 * DOLLAR)
    base = f"/organizations/{seller.owner.organization_id}"
    role = {"name": "cashier", "permissions": ["org.read", "payouts.create"]}
    await seller.api.call("POST", f"{base}/roles", seller.owner.key, json=role, expect=201)
    cashier = await clerk.agent()
    await clerk.join(cashier, seller.owner.organization_id, "viewer")
    path = f"{base}/members/{cashier.id}/role"
    await seller.api.call("PUT", path, seller.owner.key, json={"role_name": "cashier"}, expect=200)
    assert (await seller.asks(DOLLAR, cashier.key, destination_wallet=OTHER)).status_code == 403
    own = (await seller.asks(DOLLAR, cashier.key)).json()["data"]
    other = (await seller.asks(DOLLAR, destination_wallet=OTHER)).json()["data"]
    assert own["error_message"] is None
    assert "Cancel it until then" in other["error_message"]

    # The relayer finds the one, and the other a day later. Nobody is told that payouts wait too long.
    async def payable() -> set[str]:
        return {str(one.id) for one in await PAYABLE.all(connection, "eip155:84532", 100)}

    assert own["id"] in await payable()
    assert other["id"] not in await payable()
    counted = {one.state: one.number for one in await COUNTS.all(connection, "eip155:84532")}
    assert counted["delayed"] >= 1
    waits = "UPDATE chain.payout SET requested_at = now() - interval '2 days' WHERE id = $1"
    await connection.execute(waits, UUID(other["id"]))
    assert (await HEALTH.one(connection)).payouts < 86_400
    await connection.execute(
        "UPDATE chain.payout SET free_at = free_at - interval '1 day' WHERE id = $1", UUID(other["id"])
    )
    assert other["id"] in await payable()


async def test_much_money_needs_a_second_member_and_cannot_be_split(seller: Seller, clerk: Clerk) -> None:
    await seller.sells(5_000 * DOLLAR)
    second = await clerk.agent()
    await clerk.join(second, seller.owner.organization_id, "admin")
    assert not (await seller.asks(600 * DOLLAR)).json()["data"]["needs_approval"]
    payout = (await seller.asks(600 * DOLLAR)).json()["data"]
    assert (payout["needs_approval"], payout["status"]) == (True, "queued")
    assert "approval" in payout["error_message"]
    assert (await seller.does("approve", payout["id"])).status_code == 403
    answers = await asyncio.gather(*(seller.does("approve", payout["id"], second.key) for _ in range(3)))
    assert sorted(one.status_code for one in answers) == [200, 409, 409]
    approved = next(one.json()["data"] for one in answers if one.status_code == 200)
    assert (approved["approved_by"], approved["error_message"]) == (str(second.id), None)
    small = (await seller.asks(400 * DOLLAR)).json()["data"]
    assert not small["needs_approval"]  # what was approved does not count
    assert (await seller.does("approve", small["id"], second.key)).status_code == 409


async def test_what_is_queued_can_be_cancelled_once_and_all_of_it_is_in_the_log(
    seller: Seller, clerk: Clerk, connection: Connection
) -> None:
    await seller.sells(2_000 * DOLLAR)
    second = await clerk.agent()
    await clerk.join(second, seller.owner.organization_id, "admin")
    payout = (await seller.asks()).json()["data"]["id"]
    assert (await seller.does("approve", payout, second.key)).status_code == 200
    answers = await asyncio.gather(*(seller.does("cancel", payout) for _ in range(3)))
    assert sorted(one.status_code for one in answers) == [200, 409, 409]
    assert (await seller.earnings())["available_atomic"] == 2_000 * DOLLAR
    by_slug = (await seller.asks_by_slug(DOLLAR)).json()["id"]
    logged = await connection.fetch(
        "SELECT e.resource_id, e.action, e.actor_id FROM audit.entry e WHERE e.chain = $1 AND e.resource_type = 'payout'"
        " ORDER BY e.seq",
        seller.owner.organization_id,
    )
    assert [(str(row["resource_id"]), row["action"], row["actor_id"]) for row in logged] == [
        (payout, "payout.create", seller.owner.id),
        (payout, "payout.approve", second.id),
        (payout, "payout.cancel", seller.owner.id),
        (by_slug, "payout.create", seller.owner.id),
    ]
    assert (await seller.does("cancel", str(uuid4()))).status_code == 404


async def test_what_comes_back_of_an_old_payout_is_free_at_once(seller: Seller) -> None:
    call = await seller.sells(5 * DOLLAR)
    young = await seller.sells(3 * DOLLAR, old=False)
    payout = (await seller.asks(4 * DOLLAR)).json()["data"]["id"]
    await seller.ages(UUID(payout))
    assert (await seller.does("cancel", payout)).status_code == 200
    earned = await seller.earnings()
    assert (earned["available_atomic"], earned["held_back_atomic"]) == (5 * DOLLAR, 3 * DOLLAR)
    await seller.refunds(call)
    await seller.refunds(young)
    earned = await seller.earnings()
    assert [earned[name] for name in ("available_atomic", "held_back_atomic", "deficit_atomic")] == [0, 0, 0]


async def test_a_deleted_publisher_is_paid_what_it_has_earned(seller: Seller, clerk: Clerk, world: World) -> None:
    await seller.sells(2_000 * DOLLAR)
    second = await clerk.agent()
    await clerk.join(second, seller.owner.organization_id, "admin")
    large = (await seller.asks(1_500 * DOLLAR)).json()["data"]["id"]
    waits = (await seller.asks(100 * DOLLAR)).json()["data"]["id"]
    await seller.api.call("DELETE", seller.path, seller.owner.key, expect=200)
    assert (await seller.does("approve", large, second.key)).status_code == 200
    assert (await seller.does("cancel", waits)).status_code == 200
    assert (await seller.earnings())["available_atomic"] == 500 * DOLLAR
    assert (await seller.asks()).status_code == 201
    assert (await seller.earnings())["available_atomic"] == 0
    listed = (await seller.api.call("GET", f"{seller.path}/payouts", seller.owner.key, expect=200)).json()["data"]
    assert [one["status"] for one in listed] == ["queued", "cancelled", "queued"]
    stranger = await clerk.agent()
    path = f"/organizations/{stranger.organization_id}/publishers/{seller.id}"
    for what in ("payouts", "earnings"):
        await seller.api.call("GET", f"{path}/{what}", stranger.key, expect=404)


async def test_an_organization_is_not_deleted_while_it_is_being_paid(
    seller: Seller, clerk: Clerk, connection: Connection
) -> None:
    shared = (
        await seller.api.call("POST", "/organizations", seller.owner.key, json={"name": "Shared"}, expect=201)
    ).json()
    organization = shared["data"]["id"]
    await connection.execute(
        "UPDATE catalog.publisher SET organization_id = $2 WHERE id = $1", UUID(seller.id), UUID(organization)
    )
    await seller.sells(5 * DOLLAR)
    base = f"/organizations/{organization}"
    payout = await seller.api.call(
        "POST", f"{base}/publishers/{seller.id}/payouts", seller.owner.key, json={"asset_id": seller.asset}, expect=201
    )
    await seller.api.call("DELETE", f"{base}/publishers/{seller.id}", seller.owner.key, expect=200)
    refusal = (await seller.api.call("DELETE", base, seller.owner.key, expect=409)).json()
    assert "payouts" in refusal["detail"]
    cancel = f"{base}/publishers/{seller.id}/payouts/{payout.json()['data']['id']}/cancel"
    await seller.api.call("POST", cancel, seller.owner.key, expect=200)
    await seller.api.call("DELETE", base, seller.owner.key, expect=204)


async def test_a_network_without_a_chain_pays_nothing_out(seller: Seller, connection: Connection) -> None:
    await seller.sells(5 * DOLLAR)
    await connection.execute(
        "UPDATE catalog.publisher SET wallet_network_id = 'eip155:8453' WHERE id = $1", UUID(seller.id)
    )
    refusal = (await seller.asks()).json()
    assert (refusal["status"], refusal["type"]) == (501, "/problems/rail-not-available")
    assert (await seller.earnings())["available_atomic"] == 5 * DOLLAR


async def test_other_peoples_publishers_are_nobodys(seller: Seller, clerk: Clerk) -> None:
    await seller.sells(5 * DOLLAR)
    stranger = await clerk.agent()
    own = (await seller.asks(DOLLAR)).json()["data"]["id"]
    told = set[str]()
    for slug in (seller.slug, "no-such-shop"):
        path = f"/billing/publishers/{slug}/payouts"
        body = {"amount_atomic": DOLLAR, "destination_wallet": WALLET, "description": ""}
        told.add((await seller.api.call("POST", path, stranger.key, json=body, expect=403)).json()["detail"])
        told.add((await seller.api.call("GET", f"{path}/{own}", stranger.key, expect=403)).json()["detail"])
    assert len(told) == 1
    other = await clerk.publisher(stranger)
    path = f"/organizations/{stranger.organization_id}/publishers/{other['id']}/payouts/{own}/cancel"
    await seller.api.call("POST", path, stranger.key, expect=404)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
async def test_never_more_is_paid_than_was_earned(seller: Seller, connection: Connection, seed: int) -> None:
    """Whatever happens in whatever order: at the moment of each payout all of it had been earned and kept."""
    dice = random.Random(seed)
    sold: list[tuple[UUID, int]] = []
    open_payouts: list[str] = []
    for _ in range(40):
        what = dice.choice(("sell", "sell", "young", "refund", "ask", "ask", "all", "cancel"))
        if what in ("sell", "young"):
            amount = dice.randrange(1, 5 * DOLLAR)
            sold.append((await seller.sells(amount, old=what == "sell"), amount))
        elif what == "refund" and sold:
            await seller.refunds(sold.pop(dice.randrange(len(sold)))[0])
        elif what == "cancel" and open_payouts:
            assert (await seller.does("cancel", open_payouts.pop())).status_code == 200
        elif what in ("ask", "all"):
            before = await seller.earnings()
            amount = None if what == "all" else dice.randrange(DOLLAR, 6 * DOLLAR)
            answer = await seller.asks(amount)
            wanted = before["available_atomic"] if amount is None else amount
            fits = DOLLAR <= wanted <= before["available_atomic"]
            assert answer.status_code == (201 if fits else 400)
            if fits:
                open_payouts.append(answer.json()["data"]["id"])
                kept = sum(amount for _, amount in sold)
                assert (await seller.earnings())["pending_payout_atomic"] <= kept
        left = await seller.earnings()
        assert left["available_atomic"] == 0 or left["deficit_atomic"] == 0
        balance = left["available_atomic"] - left["deficit_atomic"] + left["held_back_atomic"]
        assert balance + left["pending_payout_atomic"] == left["total_revenue_atomic"] == sum(one for _, one in sold)
