"""Invoices over the API: made from the ledger, numbered without gaps, seen by whoever may, paid once."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pypdfium2
import pytest
import pytest_asyncio

from gateway.billing.invoices import lines
from gateway.billing.invoices.issuing import issue
from gateway.billing.invoices.line import Line
from gateway.billing.invoices.lines import Source
from gateway.billing.invoices.month import Month, month_of
from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.ledger import proof
from gateway.settings import InvoiceSettings, SecretSettings, StripeSettings
from tests.admin_api.conftest import Api, Clerk, close_api, open_api, settings_for
from tests.support.past import moved, shift
from tests.support.stripe_server import KEY, SIGNING, StripeServer, signature
from tests.support.world import Agent, Shop, World

OPERATOR = "operator-token-of-forty-letters-and-more"
SELLER = InvoiceSettings(
    seller_name="Tollway Gateways GmbH",
    seller_address="Hauptstraße 1|10115 Berlin",
    seller_country="DE",
    seller_tax_id="DE123456789",
    tax_rates=("DE=19", "FR=20"),
    reverse_charge=("DE", "FR"),
)
LAST = month_of(datetime.now(UTC).date().replace(day=1) - timedelta(days=1))
INSIDE = LAST.start + timedelta(days=9, hours=3)
PERIOD = {"month": LAST.month, "year": LAST.year}
PLAN = 100_000_000


@pytest_asyncio.fixture(scope="module")
async def api(database_url: str, stripe: StripeServer) -> AsyncIterator[Api]:
    opened, _ = await open_api(
        settings_for(
            database_url,
            secrets=SecretSettings(operator_token=OPERATOR),
            invoices=SELLER,
            stripe=StripeSettings(secret_key=KEY, webhook_secrets=(SIGNING,), api_base=stripe.url),
        )
    )
    yield opened
    await opened.services.stripe.aclose()
    await close_api(opened)


@pytest.fixture(scope="module")
def clerk(api: Api) -> Clerk:
    return Clerk(api)


@pytest_asyncio.fixture(scope="module")
async def world(connection: Connection) -> World:
    return World(connection)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> dict[UUID, int]:
    """What organizations owe for their plan: one more source of lines."""
    owed: dict[UUID, int] = {}

    async def of(_connection: Connection, organization_id: UUID, month: Month) -> list[Line]:
        amount = owed.get(organization_id)
        return [] if amount is None else [Line("plan", f"Pro plan, {month}", Decimal(1), amount, paid=False)]

    async def whose(_connection: Connection, _month: Month) -> set[UUID]:
        return set(owed)

    monkeypatch.setattr(lines, "SOURCES", (*lines.SOURCES, Source(of=of, whose=whose)))
    return owed


async def charge(world: World, agent: Agent, shop: Shop, amount: int) -> UUID:
    exchange = uuid7()
    verdict = await world.connection.fetchval(
        "SELECT verdict FROM ledger.post_charge($1, $2, $3, $4, $5, 0, NULL)",
        exchange, agent.wallet_id, shop.id, shop.account_id, amount,
    )  # fmt: skip
    assert verdict == "posted"
    await world.connection.execute(
        "INSERT INTO ledger.settlement (exchange_id, outcome, reason) VALUES ($1, 'settled', 'delivered')", exchange
    )
    return exchange


async def refund(world: World, exchange: UUID) -> None:
    verdict = await world.connection.fetchval(
        "SELECT verdict FROM ledger.refund($1, 'tested', 200::smallint, interval '7 days', false)", exchange
    )
    assert verdict == "refunded"


async def generated(api: Api) -> dict[str, Any]:
    answer = await api.call("POST", "/billing/invoices/generate", OPERATOR, json=PERIOD, expect=200)
    return answer.json()["data"]


async def invoice_of(api: Api, agent: Agent) -> dict[str, Any]:
    path = f"/organizations/{agent.organization_id}/invoices"
    found = (await api.call("GET", path, agent.key, expect=200)).json()["data"]
    return (await api.call("GET", f"/billing/invoices/{found[0]['id']}", agent.key, expect=200)).json()["data"]


async def issued(api: Api, world: World, plans: dict[UUID, int], amount: int = PLAN) -> tuple[Agent, dict[str, Any]]:
    """Return an agent whose organization has an issued invoice for its plan."""
    agent = await world.agent()
    plans[agent.organization_id] = amount
    await generated(api)
    invoice = await invoice_of(api, agent)
    answer = await api.call("POST", f"/billing/invoices/{invoice['id']}/issue", OPERATOR, expect=200)
    assert answer.json() == {}
    return agent, await invoice_of(api, agent)


async def delivered(api: Api, stripe: StripeServer, *events: dict[str, Any]) -> None:
    for event in events or stripe.events:
        body = orjson.dumps(event)
        headers = {"Stripe-Signature": signature(body, SIGNING), "Content-Type": "application/json"}
        await api.call("POST", "/webhooks/stripe", content=body, headers=headers, expect=200)


async def sound(connection: Connection) -> None:
    report = await proof.verify(connection)
    assert report.sound, report.violations


async def test_a_month_is_listed_as_the_ledger_has_it_and_owes_nothing(api: Api, world: World) -> None:
    agent, shop, other = await world.agent(5_000_000), await world.publisher(), await world.publisher()
    calls = [await charge(world, agent, shop, amount) for amount in (10_000, 10_000, 30_001, 77)]
    await refund(world, calls[-1])
    calls += [await charge(world, agent, other, amount) for amount in (5, 900)]
    early, undone = calls[-1], await world.agent(5_000)
    calls.append(await charge(world, undone, other, 5_000))
    await refund(world, calls[-1])
    await shift(world.connection, INSIDE, only=calls)
    later = moved(early, INSIDE)
    await refund(world, later)  # this month: none of that month's business
    first = await generated(api)
    again = await asyncio.gather(*[generated(api) for _ in range(4)])
    assert all(one == first for one in again)
    assert first["count"] == len(first["invoice_ids"]) == len(set(first["invoice_ids"])) > 0
    invoice = await invoice_of(api, agent)
    assert (invoice["status"], invoice["number"]) == ("draft", None)
    assert invoice["invoice_number"].startswith("DRAFT-")
    assert (invoice["period_start"], invoice["period_end"]) == (str(LAST.first), str(LAST.last))
    items = invoice["line_items"]
    assert sorted((one["line_type"], one["quantity"], one["amount_atomic"], one["prepaid"]) for one in items) == [
        ("usage", 2.0, "905", True), ("usage", 3.0, "50001", True),
    ]  # fmt: skip
    assert (invoice["subtotal_usd"], invoice["tax_usd"], invoice["total_usd"]) == (0.050906, 0.0, 0.050906)
    assert (invoice["amount_due_usd"], invoice["prepaid_usd"]) == (0.0, 0.050906)
    await api.call("POST", f"/billing/invoices/{invoice['id']}/issue", OPERATOR, expect=200)
    paid = await invoice_of(api, agent)
    assert paid["status"] == "paid"
    assert re.fullmatch(r"INV-20[0-9]{2}-[0-9]{6}", paid["number"])
    refusal = await api.call("POST", f"/billing/invoices/{paid['id']}/issue", OPERATOR, expect=409)
    assert "is paid already" in refusal.json()["detail"]
    nothing = await api.call("GET", f"/organizations/{undone.organization_id}/invoices", undone.key, expect=200)
    assert nothing.json()["data"] == []
    await sound(world.connection)
    elsewhere = world.connection.transaction()
    await elsewhere.start()
    await world.connection.execute("ALTER TABLE ledger.transfer DISABLE TRIGGER USER")
    await world.connection.execute(
        "UPDATE ledger.transfer SET created_at = $2 WHERE cause_id = $1", later, LAST.end
    )  # fmt: skip
    rule = "the prepaid lines of an invoice are what its organization's wallets have bought in its month"
    broken = await proof.RULES[rule].all(world.connection)
    await elsewhere.rollback()
    assert [one.detail for one in broken] == [f"invoice {paid['number']}: prepaid 50906, bought 50006"]


async def test_money_that_comes_back_later_is_a_line_of_the_month_in_which_it_did(api: Api, world: World) -> None:
    agent, shop = await world.agent(5_000_000), await world.publisher()
    exchange = await charge(world, agent, shop, 4_000)
    before = (LAST.start - timedelta(days=3)).replace(hour=12)
    await shift(world.connection, before, only=[exchange])
    await refund(world, moved(exchange, before))
    await shift(world.connection, INSIDE, causes=before, only=[moved(exchange, before)])
    await generated(api)
    invoice = await invoice_of(api, agent)
    (line,) = invoice["line_items"]
    assert (line["line_type"], line["quantity"], line["amount_atomic"]) == ("refund", 1.0, "-4000")
    shown = await api.call("GET", f"/billing/invoices/{invoice['id']}/html", agent.key, expect=200)
    sums = shown.text.partition('<table class="sums">')[2]
    assert re.findall(r"<th[^>]*>([^<]*)</th><td>([^<]*)<", sums) == [
        ("Subtotal", "-0.004"), ("Tax", "0.00"), ("Total", "-0.004"), ("Given back to the prepaid balance", "0.004"),
        ("Amount due (USD)", "0.00"),
    ]  # fmt: skip


async def test_only_the_operator_makes_invoices_and_only_of_months_that_are_over(api: Api, world: World) -> None:
    owner = await world.agent()
    path = "/billing/invoices/generate"
    for key in (None, owner.key):
        await api.call("POST", path, key, json=PERIOD, expect=401)
    now = datetime.now(UTC)
    after = month_of(now.date()).following
    for wrong in (
        {"month": 0, "year": 2025}, {"month": 13, "year": 2025}, {"month": now.month, "year": now.year},
        {"month": after.month, "year": after.year}, {"month": 1, "year": 1999}, {"month": 1.5, "year": 2025}, {"month": 1},
        {"month": "1", "year": 2025}, {"month": 1, "year": 10_000},
    ):  # fmt: skip
        answer = await api.call("POST", path, OPERATOR, json=wrong, expect=400)
        assert answer.json()["errors"][0]["field"] in ("month", "year")


async def test_what_is_due_is_taxed_booked_and_numbered_without_gaps(
    api: Api, world: World, plans: dict[UUID, int]
) -> None:
    async def last() -> int:
        return await world.connection.fetchval("SELECT coalesce(max(last), 0) FROM invoice.series")

    before = await last()
    agents = [await world.agent() for _ in range(6)]
    plans.update({agent.organization_id: PLAN + number for number, agent in enumerate(agents)})
    await generated(api)
    drafts = [await invoice_of(api, agent) for agent in agents]
    abandoned = world.connection.transaction()  # one that is rolled back leaves no gap
    await abandoned.start()
    await issue(world.connection, SELLER, UUID(drafts[0]["id"]))
    await abandoned.rollback()
    answers = await asyncio.gather(
        *[api.call("POST", f"/billing/invoices/{draft['id']}/issue", OPERATOR) for draft in [*drafts, *drafts]]
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 6 + [409] * 6
    invoices = [await invoice_of(api, agent) for agent in agents]
    numbers = sorted(int(invoice["number"][-6:]) for invoice in invoices)
    assert numbers == list(range(before + 1, before + 7))
    odd = invoices[5]
    assert [line["line_type"] for line in odd["line_items"]] == ["plan", "rounding"]
    assert (odd["subtotal_usd"], odd["tax_usd"], odd["total_usd"], odd["amount_due_usd"]) == (100.0, 19.0, 119.0, 119.0)
    assert odd["tax_percent"] == "19"
    owed = await world.connection.fetchval(
        "SELECT sum(debits - credits) FROM ledger.shard s JOIN ledger.account a ON a.id = s.account_id WHERE a.rail = $1",
        f"organization:{agents[5].organization_id}",
    )
    assert owed == 119_000_000
    await sound(world.connection)


async def test_what_is_issued_never_changes_whoever_tries(api: Api, world: World, plans: dict[UUID, int]) -> None:
    agent, invoice = await issued(api, world, plans)
    plans[agent.organization_id] = 1
    assert (await generated(api))["count"] > 0
    assert (await invoice_of(api, agent))["total_usd"] == 119.0
    for change in (
        "UPDATE invoice.invoice SET tax = tax + 1 WHERE id = $1", "UPDATE invoice.invoice SET status = 'draft' WHERE id = $1",
        "UPDATE invoice.invoice SET number = 'X' WHERE id = $1", "DELETE FROM invoice.invoice WHERE id = $1",
        "UPDATE invoice.line SET amount = 1 WHERE invoice_id = $1", "DELETE FROM invoice.line WHERE invoice_id = $1",
        "INSERT INTO invoice.line VALUES ($1, 9, 'plan', 'x', 1, 1, false, '')",
        "UPDATE invoice.series SET last = last - 1 WHERE $1::uuid IS NOT NULL",
    ):  # fmt: skip
        with pytest.raises(asyncpg.PostgresError, match=r"never changes|go up by one"):
            await world.connection.execute(change, UUID(invoice["id"]))


async def test_a_void_invoice_keeps_its_number_and_makes_room_for_another(
    api: Api, world: World, plans: dict[UUID, int]
) -> None:
    agent, invoice = await issued(api, world, plans)
    path = f"/billing/invoices/{invoice['id']}"
    await api.call("POST", f"{path}/void", agent.key, json={"reason": "mine"}, expect=401)
    for blank in ("", " \n", "\u200b"):
        await api.call("POST", f"{path}/void", OPERATOR, json={"reason": blank}, expect=400)
    done = (await api.call("POST", f"{path}/void", OPERATOR, json={"reason": "Wrong plan"}, expect=200)).json()["data"]
    assert (done["status"], done["number"], done["amount_due_usd"]) == ("void", invoice["number"], 0.0)
    await api.call("POST", f"{path}/void", OPERATOR, json={"reason": "Again"}, expect=409)
    await api.call("POST", f"{path}/issue", OPERATOR, expect=409)
    plans[agent.organization_id] = 20_000_000
    await generated(api)
    listed = await api.call("GET", f"/organizations/{agent.organization_id}/invoices", agent.key, expect=200)
    assert [one["status"] for one in listed.json()["data"]] == ["draft", "void"]
    only = await api.call(
        "GET", f"/organizations/{agent.organization_id}/invoices?status=void", agent.key, expect=200
    )  # fmt: skip
    assert (only.json()["data"][0]["id"], only.json()["pagination"]["total"]) == (invoice["id"], 1)
    await sound(world.connection)


async def test_an_invoice_is_its_organizations_and_the_operators(
    api: Api, clerk: Clerk, world: World, plans: dict[UUID, int]
) -> None:
    _agent, invoice = await issued(api, world, plans)
    stranger, viewer = await clerk.agent(), await clerk.agent()
    await clerk.join(viewer, UUID(invoice["organization_id"]), "viewer")
    for rest in ("", "/html", "/pdf", "/payments"):
        own, unknown = (f"/billing/invoices/{one}{rest}" for one in (invoice["id"], uuid7()))
        await api.call("GET", own, expect=401)
        foreign = await api.call("GET", own, stranger.key, expect=404)
        nothing = await api.call("GET", unknown, stranger.key, expect=404)
        assert foreign.json()["detail"] == nothing.json()["detail"]
        await api.call("GET", own, viewer.key, expect=200)
        await api.call("GET", own, OPERATOR, expect=200)
        await api.call("GET", unknown, OPERATOR, expect=404)
    pay = f"/billing/invoices/{invoice['id']}/pay"
    await api.call("POST", pay, viewer.key, expect=403)
    await api.call("POST", pay, stranger.key, expect=404)


async def test_billing_details_stand_on_the_next_invoice_and_decide_the_tax(
    api: Api, clerk: Clerk, world: World, plans: dict[UUID, int]
) -> None:
    agent = await world.agent()
    path = f"/organizations/{agent.organization_id}/billing-details"
    assert (await api.call("GET", path, agent.key, expect=200)).json() == {"data": None}
    given = {"legal_name": "Société <b>Acme</b>", "address": "1 rue de la Paix\n75002 Paris", "country": "FR"}
    for wrong in (
        {"country": "fr"}, {"country": "UK"}, {"legal_name": " "}, {"legal_name": "\u202e\u200b"}, {"address": ""},
        {"tax_id": ""}, {"legal_name": "x" * 201},
    ):  # fmt: skip
        refusal = await api.call("PUT", path, agent.key, json={**given, **wrong}, expect=400)
        assert refusal.json()["errors"][0]["field"] == next(iter(wrong))
    stored = (await api.call("PUT", path, agent.key, json=given, expect=200)).json()["data"]
    assert {name: stored[name] for name in given} == given
    viewer = await clerk.agent()
    await clerk.join(viewer, agent.organization_id, "viewer")
    await api.call("PUT", path, viewer.key, json=given, expect=403)
    plans[agent.organization_id] = PLAN
    await generated(api)
    draft = await invoice_of(api, agent)
    assert (draft["tax_usd"], draft["tax_percent"], draft["tax_note"]) == (20.0, "20", "")
    await api.call("PUT", path, agent.key, json={**given, "tax_id": "FR40303265045"}, expect=200)
    await api.call("POST", f"/billing/invoices/{draft['id']}/issue", OPERATOR, expect=200)
    invoice = await invoice_of(api, agent)
    assert (invoice["tax_usd"], invoice["total_usd"]) == (0.0, 100.0)
    assert invoice["tax_note"].startswith("Reverse charge")


async def test_what_is_done_with_an_invoice_is_in_its_organizations_log(
    api: Api, world: World, plans: dict[UUID, int], stripe: StripeServer
) -> None:
    agent = await world.agent()
    base = f"/organizations/{agent.organization_id}"
    details = {"legal_name": "Acme", "address": "1 Road", "country": "GB"}
    await api.call("PUT", f"{base}/billing-details", agent.key, json=details, expect=200)
    plans[agent.organization_id] = PLAN
    for _ in range(2):
        await generated(api)
        path = f"/billing/invoices/{(await invoice_of(api, agent))['id']}"
        await api.call("POST", f"{path}/issue", OPERATOR, expect=200)
        intent = (await api.call("POST", f"{path}/pay", agent.key, expect=200)).json()["data"]["payment_intent_id"]
        if _ == 0:
            await api.call("POST", f"{path}/void", OPERATOR, json={"reason": "Wrong"}, expect=200)
    stripe.confirm(intent)
    await delivered(api, stripe, stripe.events[-1])
    log = (await api.call("GET", f"{base}/audit-logs", agent.key, expect=200)).json()["data"]["data"]
    assert [(entry["action"].partition(".")[2], entry["metadata"].get("actor", entry["actor_type"])) for entry in log][::-1] == [
        ("update", "agent"),
        ("generate", "operator"), ("issue", "operator"), ("begin_payment", "agent"), ("void", "operator"),
        ("generate", "operator"), ("issue", "operator"), ("begin_payment", "agent"), ("pay", "anonymous"),
    ]  # fmt: skip


async def test_the_page_escapes_runs_nothing_and_the_pdf_says_the_same_each_time(
    api: Api, world: World, plans: dict[UUID, int]
) -> None:
    agent = await world.agent()
    hostile = "<script>alert(1)</script> \u202eevil שלום 東京 🚀 مؤسسة"
    await api.call(
        "PUT", f"/organizations/{agent.organization_id}/billing-details", agent.key, expect=200,
        json={"legal_name": hostile, "address": "1 Road\n\nTown", "country": "GB"},
    )  # fmt: skip
    plans[agent.organization_id] = 10**27
    await generated(api)
    path = f"/billing/invoices/{(await invoice_of(api, agent))['id']}"
    shown = await api.call("GET", f"{path}/html", agent.key, expect=200)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; evil" in shown.text
    assert "<script" not in shown.text
    policy = shown.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    drawn = [await api.call("GET", f"{path}/pdf", agent.key, expect=200) for _ in range(2)]
    assert drawn[0].content == drawn[1].content
    assert drawn[0].headers["content-type"] == "application/pdf"
    pages = pypdfium2.PdfDocument(io.BytesIO(drawn[0].content))
    text = pages[0].get_textpage().get_text_range()
    pages.close()
    for words in ("Invoice draft", "Tollway Gateways GmbH", "東京", "DE123456789", "Page 1 of 1", "1,000,000,000"):
        assert words in text
    assert drawn[0].content.count(b"/FontFile2") >= 1, "fonts are embedded"


async def test_paying_gives_one_intent_and_its_event_pays_once_in_any_order(
    api: Api, world: World, plans: dict[UUID, int], stripe: StripeServer
) -> None:
    agent, invoice = await issued(api, world, plans)
    path = f"/billing/invoices/{invoice['id']}"
    begun = [one.json()["data"] for one in await asyncio.gather(
        *[api.call("POST", f"{path}/pay", agent.key, expect=200) for _ in range(4)])]  # fmt: skip
    begun.append((await api.call("POST", f"{path}/pay", agent.key, expect=200)).json()["data"])
    (intent,) = {one["payment_intent_id"] for one in begun}
    assert begun[0] == {
        "payment_intent_id": intent, "amount_usd": 119.0, "currency": "USD", "client_secret": f"{intent}_secret_seeded",
    }  # fmt: skip
    stripe.events.clear()
    stripe._event(
        "payment_intent.payment_failed",
        {**stripe.store[intent], "last_payment_error": {"code": "card_declined", "message": "No.", "charge": "ch_no"}},
    )
    (failed,) = stripe.events
    stripe.confirm(intent)
    paid = stripe.events[-1]
    await delivered(api, stripe, paid, failed, paid, failed, {**paid, "id": "evt_other"})
    assert (await invoice_of(api, agent))["status"] == "paid"
    history = (await api.call("GET", f"{path}/payments", agent.key, expect=200)).json()["data"]["payments"]
    assert sorted(
        (one["status"], one["failure_code"], one["failure_message"]) for one in history if one["failed_at"]
    ) == [("failed", "card_declined", "No.")]
    (good,) = [one for one in history if one["status"] == "succeeded"]
    assert (good["stripe_charge_id"], good["amount_usd"]) == (stripe.store[intent]["latest_charge"], 119.0)
    refusal = await api.call("POST", f"{path}/pay", agent.key, expect=400)
    assert "is paid" in refusal.json()["detail"]
    await api.call("POST", f"{path}/void", OPERATOR, json={"reason": "too late"}, expect=409)
    await sound(world.connection)


async def test_a_payment_whose_event_was_lost_is_seen_by_whoever_asks_again(
    api: Api, world: World, plans: dict[UUID, int], stripe: StripeServer
) -> None:
    agent, invoice = await issued(api, world, plans)
    path = f"/billing/invoices/{invoice['id']}"
    begun = (await api.call("POST", f"{path}/pay", agent.key, expect=200)).json()["data"]
    stripe.confirm(begun["payment_intent_id"])
    await api.call("POST", f"{path}/pay", agent.key, expect=400)
    assert (await invoice_of(api, agent))["status"] == "paid"
    await delivered(api, stripe, stripe.events[-1])
    await sound(world.connection)


async def test_nothing_is_paid_twice_or_for_a_void_invoice(
    api: Api, world: World, plans: dict[UUID, int], stripe: StripeServer
) -> None:
    agent, invoice = await issued(api, world, plans)
    path = f"/billing/invoices/{invoice['id']}"
    intent = (await api.call("POST", f"{path}/pay", agent.key, expect=200)).json()["data"]["payment_intent_id"]
    await api.call("POST", f"{path}/void", OPERATOR, json={"reason": "Wrong"}, expect=200)
    assert stripe.store[intent]["status"] == "canceled"
    await api.call("POST", f"{path}/pay", agent.key, expect=400)
    # Money that comes all the same, by an intent whose answer was lost, goes back.
    stray = stripe._intent(11_900, "usd", {"tollway_invoice": invoice["id"]}, None)
    stripe.confirm(stray["id"])
    event = stripe.events[-1]
    await delivered(api, stripe, event, {**event, "id": "evt_again"})
    charge_id = stripe.store[stray["id"]]["latest_charge"]
    assert stripe.store[charge_id]["amount_refunded"] == 11_900
    history = (await api.call("GET", f"{path}/payments", agent.key, expect=200)).json()["data"]["payments"]
    assert sorted(one["status"] for one in history) == ["canceled", "canceled", "refunded"]
    assert (await invoice_of(api, agent))["status"] == "void"
    await sound(world.connection)
