"""Deposits by card through the public door: what is paid arrives once, whatever events do; what goes back is taken."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner

from gateway.billing.card_deposits import MOST_OPEN
from gateway.billing.card_rows import DEBTORS, RECOVER
from gateway.cli.deposits import deposits
from gateway.database.pool import Database
from gateway.jobs.bookkeeping import Bookkeeping
from gateway.ledger import proof
from gateway.settings import DatabaseSettings
from gateway.telemetry.metrics import Metrics
from tests.payments.stripe.stage import PRICE, Stage
from tests.support.stripe_server import card_fee
from tests.support.world import USDC

CENT = 10_000


@pytest.fixture(autouse=True)
async def sound(stage: Stage) -> Any:
    """After each test the books balance, and clearing is what Stripe has, but for what is being disputed."""
    yield
    report = await proof.verify(stage.connection)
    assert report.sound, report.violations
    assert await stage.clearing() == stage.at_stripe * CENT


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(DatabaseSettings(url=database_url))
    await opened.start()
    yield opened
    await opened.stop()


async def test_money_arrives_with_the_event_and_not_before(stage: Stage) -> None:
    agent = await stage.agent()
    answer = await stage.deposit(agent, 2_500)
    assert (answer["amount_atomic"], answer["amount_usd"]) == (25_000_000, "$25.00")
    assert (answer["bonus_atomic"], answer["total_usd"]) == (0, "$25.00")
    assert answer["checkout_url"].startswith("https://checkout.stripe.com/")
    assert answer["recovery_code"]
    assert "only once" in answer["recovery_warning"]
    assert (await stage.balance(agent))["balance_atomic"] == 0
    await stage.pays(answer)
    balance = await stage.balance(agent)
    assert (balance["funded_balance_atomic"], balance["total_purchases_cents"]) == (25_000_000, 2_500)
    assert [(one["source"], one["kind"]) for one in balance["by_source"]] == [("fiat_purchase", "funded")]
    lines = (await stage.get(agent, "/wallet/transactions"))["transactions"]
    assert (lines[0]["source"], lines[0]["paid_amount_usd"]) == ("fiat_purchase", "$25.00")
    assert "receipt: https://pay.stripe.com/receipts/" in lines[0]["description"]
    assert (await stage.deposit(agent, 500))["recovery_code"] is None


@pytest.mark.parametrize("cents", [499, 0, -500, 1_000_001])
async def test_what_is_too_little_or_too_much_is_refused(stage: Stage, cents: int) -> None:
    agent, before = await stage.agent(), len(stage.stripe.made("checkout.session"))
    answer = await stage.post(agent, "/wallet/deposit", {"amount_cents": cents})
    assert answer.status_code == 400
    assert len(stage.stripe.made("checkout.session")) == before


async def test_a_balance_has_so_many_pages_that_nobody_has_paid_at(stage: Stage) -> None:
    agent = await stage.agent()
    first = await stage.deposit(agent, 500)
    asked = [stage.post(agent, "/wallet/deposit", {"amount_cents": 500}) for _ in range(25)]
    answers = [answer.status_code for answer in await asyncio.gather(*asked)]
    assert sorted(answers) == [*[200] * (MOST_OPEN - 1), *[409] * 6]
    await stage.pays(first)
    assert (await stage.deposit(agent, 500))["checkout_url"]


async def test_tiers_add_a_bonus_that_goes_with_its_money(stage: Stage) -> None:
    agent = await stage.agent()
    deposit = await stage.deposit(agent, 10_000)
    assert (deposit["bonus_atomic"], deposit["total_usd"]) == (2_000_000, "$102.00")
    intent = await stage.pays(deposit)
    assert (await stage.balance(agent))["balance_atomic"] == 102_000_000
    stage.stripe.refund(intent, 2_500)
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == 76_500_000


async def test_the_same_event_many_times_at_once_credits_once(stage: Stage) -> None:
    agent = await stage.agent()
    deposit = await stage.deposit(agent, 1_000)
    stage.stripe.pay(stage.session_of(deposit))
    event = stage.take_events("checkout.session.completed")[0]
    sent = [stage.stripe.deliver(event, stage.gateway.url) for _ in range(8)]
    assert {answer.status_code for answer in await asyncio.gather(*sent)} == {200}
    assert (await stage.balance(agent))["balance_atomic"] == 10_000_000


async def test_events_may_come_in_any_order(stage: Stage) -> None:
    agent = await stage.agent()
    deposit = await stage.deposit(agent, 1_000)
    intent = stage.stripe.pay(stage.session_of(deposit))["id"]
    stage.stripe.refund(intent, 400)
    for event in reversed(stage.take_events()):
        assert (await stage.stripe.deliver(event, stage.gateway.url)).status_code == 200
    assert (await stage.balance(agent))["balance_atomic"] == 6_000_000


async def test_a_burst_of_events_of_one_payment_is_taken_at_once(stage: Stage) -> None:
    """Each asks Stripe; whoever finds nothing new does not send the others back to ask again."""
    agent = await stage.agent()
    deposit = await stage.deposit(agent, 5_000)
    intent = stage.stripe.pay(stage.session_of(deposit))["id"]
    for _ in range(8):
        stage.stripe.refund(intent, 100)
    stage.stripe.close(stage.stripe.dispute(intent, 3_000)["id"], "won")
    sent = [stage.stripe.deliver(event, stage.gateway.url) for event in stage.take_events()]
    assert {answer.status_code for answer in await asyncio.gather(*sent)} == {200}
    assert (await stage.balance(agent))["balance_atomic"] == 42_000_000


async def test_what_stripe_cannot_say_is_asked_again(stage: Stage) -> None:
    agent = await stage.agent()
    deposit = await stage.deposit(agent, 1_000)
    name = stage.session_of(deposit)
    stage.stripe.pay(name)
    (event,) = stage.take_events("checkout.session.completed")
    whole = stage.stripe.store.pop(name)
    assert (await stage.stripe.deliver(event, stage.gateway.url)).status_code == 503
    stage.stripe.store[name] = {"id": name, "object": "checkout.session"}  # half an answer
    assert (await stage.stripe.deliver(event, stage.gateway.url)).status_code == 503
    stage.stripe.store[name] = whole
    assert (await stage.stripe.deliver(event, stage.gateway.url)).status_code == 200
    assert (await stage.balance(agent))["balance_atomic"] == 10_000_000


async def test_an_event_before_our_own_answer_is_as_good(stage: Stage) -> None:
    """The page was opened and the answer to us lost: whoever paid there has paid."""
    agent = await stage.agent()
    deposit = await stage.deposit(agent, 700)
    await stage.connection.execute(
        "UPDATE card.deposit SET session_id = NULL, checkout_url = NULL, state = 'new' WHERE id = $1",
        deposit["deposit_id"],
    )
    stage.stripe.pay(stage.session_of(deposit))
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == 7_000_000


async def test_lost_answers_of_stripe_open_one_page(stage: Stage) -> None:
    agent, before = await stage.agent(), len(stage.stripe.made("checkout.session"))
    stage.stripe.lose = 1
    await stage.deposit(agent, 600)
    assert len(stage.stripe.made("checkout.session")) == before + 1


async def test_without_any_event_the_reconciler_finds_out(stage: Stage) -> None:
    agent = await stage.agent()
    paid, over = await stage.deposit(agent, 800), await stage.deposit(agent, 900)
    stage.stripe.pay(stage.session_of(paid))
    stage.stripe.expire(stage.session_of(over))
    stage.take_events()
    await stage.reconciled(paid, "paid")
    await stage.reconciled(over, "expired")
    assert (await stage.balance(agent))["balance_atomic"] == 8_000_000


async def test_a_deposit_that_never_got_a_page_gets_one_or_fails(stage: Stage) -> None:
    agent = await stage.agent()
    stage.stripe.down = True
    answer = await stage.post(agent, "/wallet/deposit", {"amount_cents": 500})
    stage.stripe.down = False
    assert answer.status_code == 503
    made = await stage.connection.fetchval("SELECT id FROM card.deposit ORDER BY created_at DESC LIMIT 1")
    await stage.reconciled({"deposit_id": str(made)}, "open")


async def test_money_that_comes_later_is_waited_for(stage: Stage) -> None:
    agent = await stage.agent()
    good, bad = await stage.deposit(agent, 500), await stage.deposit(agent, 600)
    for deposit in (good, bad):
        stage.stripe.pay(stage.session_of(deposit), waits=True)
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == 0
    stage.stripe.arrive(stage.session_of(good))
    stage.stripe.arrive(stage.session_of(bad), good=False)
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == 5_000_000
    assert await stage.state(bad) == "failed"


async def test_another_amount_than_was_asked_for_is_nobodys_and_shows(stage: Stage, database: Database) -> None:
    agent = await stage.agent()
    deposit = await stage.deposit(agent, 5_000)
    intent = stage.stripe.pay(stage.session_of(deposit), cents=4_000)["id"]
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == 0
    assert await stage.state(deposit) == "suspense"
    assert await stage.platform("suspense") == 40_000_000
    assert await shown_in_suspense(database) == 40_000_000
    stage.stripe.refund(intent, 4_000)
    await stage.hears()
    assert await stage.platform("suspense") == 0
    assert await shown_in_suspense(database) == 0


@pytest.mark.parametrize(
    ("said", "value", "came"),
    [("livemode", True, 50_000_000), ("currency", "eur", 0), ("metadata", {"tollway_deposit": "another"}, 50_000_000)],
)
async def test_money_of_another_mode_currency_or_name_is_nobodys(
    stage: Stage, said: str, value: Any, came: int
) -> None:
    agent = await stage.agent()
    deposit, before = await stage.deposit(agent, 5_000), await stage.platform("suspense")
    intent = stage.stripe.pay(stage.session_of(deposit))
    about = stage.session_of(deposit) if said == "metadata" else intent["latest_charge"]
    stage.stripe.store[about][said] = value
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == 0
    assert await stage.state(deposit) == "suspense"
    assert await stage.platform("suspense") - before == came
    if not came:
        stage.not_ours.add(intent["id"])
    stage.stripe.refund(intent["id"], 5_000)
    await stage.hears()
    assert await stage.platform("suspense") == before


async def shown_in_suspense(database: Database) -> float:
    """Return what the metrics show after a look at the books."""
    metrics = Metrics()
    await Bookkeeping(database, metrics, 3600).report()
    line = re.compile(r'^tollway_suspense_atomic\{asset="USDC",network="eip155:8453"\} (\S+)$', re.M)
    (shown,) = line.findall(metrics.render().decode())
    return float(shown)


async def test_a_page_of_somebody_else_credits_nobody(stage: Stage) -> None:
    """It names our deposit and was not opened for it: what counts is the page that we opened."""
    agent = await stage.agent()
    deposit = await stage.deposit(agent, 5_000)
    session = dict(stage.stripe.store[stage.session_of(deposit)])
    forged = stage.stripe._new(
        "cs_test", "checkout.session", **{k: v for k, v in session.items() if k not in ("id", "object")}
    )
    forged["_forged"] = True
    stage.not_ours.add(stage.stripe.pay(forged["id"])["id"])
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == 0
    assert await stage.state(deposit) == "open"


async def test_what_was_spent_is_owed_and_the_next_deposit_pays_it(stage: Stage) -> None:
    agent = await stage.agent()
    intent = await stage.pays(await stage.deposit(agent, 1_000))
    await stage.spend(agent, 7_500_000)
    stage.stripe.refund(intent, 1_000)
    await stage.hears()
    balance = await stage.balance(agent)
    assert (balance["balance_atomic"], balance["owed_atomic"], balance["owed_usd"]) == (0, 7_500_000, "$7.50")
    await stage.pays(await stage.deposit(agent, 2_000))
    balance = await stage.balance(agent)
    assert (balance["balance_atomic"], balance["owed_atomic"]) == (12_500_000, 0)
    kinds = [one["source"] for one in (await stage.get(agent, "/wallet/transactions"))["transactions"][:3]]
    assert sorted(kinds) == ["card_refund", "fiat_purchase", "recovery"]


async def test_whoever_owes_and_has_money_again_is_found_among_all_wallets(stage: Stage) -> None:
    """Money of a refunded call comes back to a lot without a word to the debt; a job looks for that."""
    owing, other = await stage.agent(), await stage.agent()
    for agent in (owing, other):
        await stage.pays(await stage.deposit(agent, 1_000))
    undone = stage.connection.transaction()
    await undone.start()
    wallet = await stage.connection.fetchval("SELECT id FROM ledger.wallet WHERE owner_id = $1", owing.id)
    await stage.connection.execute(
        "SELECT ledger.move(ledger.new_id(), 'shortfall', 0::smallint, card.receivable($1), card.clearing($2), 4, 0)",
        wallet, USDC,
    )  # fmt: skip
    assert await DEBTORS.all(stage.connection) == [wallet]
    assert await RECOVER.one(stage.connection, wallet) == 4
    assert await DEBTORS.all(stage.connection) == []
    await undone.rollback()


async def test_a_refund_that_its_bank_sends_back_is_credited_again(stage: Stage) -> None:
    agent = await stage.agent()
    intent = await stage.pays(await stage.deposit(agent, 1_000))
    refund = stage.stripe.refund(intent, 1_000)
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == 0
    stage.stripe.fail_refund(refund["id"])
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == 10_000_000


@pytest.mark.parametrize("end", ["won", "lost"])
async def test_disputed_money_is_frozen_until_its_bank_has_decided(stage: Stage, end: str) -> None:
    agent = await stage.agent()
    intent = await stage.pays(await stage.deposit(agent, 1_000))
    await stage.spend(agent, 4_000_000)
    dispute = stage.stripe.dispute(intent)
    await stage.hears()
    balance = await stage.balance(agent)
    assert (balance["balance_atomic"], balance["frozen_balance_atomic"]) == (0, 6_000_000)
    assert (await stage.call(agent)).status_code == 402
    stage.stripe.close(dispute["id"], end)
    await stage.hears()
    balance = await stage.balance(agent)
    left, owed = (6_000_000, 0) if end == "won" else (0, 4_000_000)
    assert (balance["balance_atomic"], balance["frozen_balance_atomic"], balance["owed_atomic"]) == (left, 0, owed)


async def test_an_inquiry_freezes_nothing_until_it_is_a_dispute(stage: Stage) -> None:
    agent = await stage.agent()
    intent = await stage.pays(await stage.deposit(agent, 1_000))
    dispute = stage.stripe.dispute(intent, inquiry=True)
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == 10_000_000
    stage.stripe.escalate(dispute["id"])
    await stage.hears()
    assert (await stage.balance(agent))["frozen_balance_atomic"] == 10_000_000
    stage.stripe.close(dispute["id"], "lost")
    stage.stripe.close(dispute["id"], "won")  # a bank may change its mind
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == 10_000_000


@pytest.mark.parametrize("status", ["appeal_needs_response", "appeal_under_review", "prevented", "something_new"])
async def test_only_a_dispute_that_is_won_brings_its_money_back(stage: Stage, status: str) -> None:
    agent = await stage.agent()
    intent = await stage.pays(await stage.deposit(agent, 1_000))
    dispute = stage.stripe.dispute(intent)
    stage.stripe.close(dispute["id"], "lost")
    await stage.hears()
    stage.stripe.close(dispute["id"], status)
    await stage.hears()
    balance = await stage.balance(agent)
    assert (balance["balance_atomic"], balance["frozen_balance_atomic"], balance["owed_atomic"]) == (0, 0, 0)
    stage.stripe.close(dispute["id"], "won")
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == 10_000_000


async def test_a_dispute_that_a_rule_ends_at_once_is_lost_where_it_took_money(stage: Stage) -> None:
    agent = await stage.agent()
    intent = await stage.pays(await stage.deposit(agent, 1_000))
    stage.stripe.close(stage.stripe.dispute(intent, inquiry=True)["id"], "prevented")  # nothing was taken for it
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == 10_000_000
    stage.stripe.close(stage.stripe.dispute(intent)["id"], "prevented")
    await stage.hears()
    balance = await stage.balance(agent)
    assert (balance["balance_atomic"], balance["frozen_balance_atomic"]) == (0, 0)


async def test_a_dispute_in_another_currency_is_not_booked_as_dollars(stage: Stage) -> None:
    agent = await stage.agent()
    intent = await stage.pays(await stage.deposit(agent, 1_000))
    dispute = stage.stripe.dispute(intent, inquiry=True)
    dispute.update(currency="jpy", amount=1_000_000, status="needs_response")
    await stage.hears()
    assert (await stage.balance(agent))["frozen_balance_atomic"] == 0
    assert "is in jpy and not booked" in stage.gateway.output()
    dispute["status"] = "warning_closed"


async def test_a_dispute_that_is_heard_of_when_it_is_lost_takes_the_same(stage: Stage) -> None:
    agent = await stage.agent()
    intent = await stage.pays(await stage.deposit(agent, 1_000))
    stage.stripe.close(stage.stripe.dispute(intent)["id"], "lost")
    await stage.stripe.deliver(stage.take_events("charge.dispute.closed")[0], stage.gateway.url)
    balance = await stage.balance(agent)
    assert (balance["balance_atomic"], balance["owed_atomic"]) == (0, 0)


async def test_a_call_and_a_dispute_at_once_never_have_the_same_money(stage: Stage) -> None:
    agent = await stage.agent()
    intent = await stage.pays(await stage.deposit(agent, 500))
    stage.stripe.dispute(intent)
    events = stage.take_events()
    calls = [stage.call(agent) for _ in range(30)]
    sent = [stage.stripe.deliver(event, stage.gateway.url) for event in events]
    answers = await asyncio.gather(*calls, *sent)
    paid = sum(answer.status_code == 200 for answer in answers[:30])
    balance = await stage.balance(agent)
    assert balance["balance_atomic"] == 0
    assert balance["frozen_balance_atomic"] == 5_000_000 - paid * PRICE


async def test_fees_are_booked_as_what_they_are_once(stage: Stage) -> None:
    agent, before = await stage.agent(), await stage.platform("card_fees")
    intent = await stage.pays(await stage.deposit(agent, 3_000))
    stage.stripe.close(stage.stripe.dispute(intent)["id"], "won")
    await stage.hears(times=2)
    assert before - await stage.platform("card_fees") == (card_fee(3_000) + 1_500) * CENT


async def test_a_fee_that_is_known_after_its_payment_is_booked_then(stage: Stage) -> None:
    agent, before = await stage.agent(), await stage.platform("card_fees")
    stage.stripe.late = True
    intent = await stage.pays(await stage.deposit(agent, 3_000))
    stage.stripe.late = False
    assert (await stage.balance(agent))["balance_atomic"] == 30_000_000
    assert await stage.platform("card_fees") == before
    stage.stripe.charged(intent)
    await stage.hears(times=2)
    assert before - await stage.platform("card_fees") == card_fee(3_000) * CENT


async def test_a_referral_code_counts_as_it_does_elsewhere(stage: Stage) -> None:
    referrer, agent = await stage.registered(), await stage.registered()
    code = (await stage.get(referrer, "/wallet/referral"))["referral_code"]
    answer = await stage.post(agent, "/wallet/deposit", {"amount_cents": 500, "referral_code": "REF-NOBODY"})
    assert answer.status_code == 400
    for _ in range(2):  # whoever has a referrer may deposit with the code again
        answer = await stage.post(agent, "/wallet/deposit", {"amount_cents": 500, "referral_code": code})
        assert answer.status_code == 200, answer.text
    assert (await stage.get(referrer, "/wallet/referral"))["total_referrals"] == 1


@pytest.mark.parametrize("wrong", [["--state", "lost"], ["--limit", "0"], ["--limit", "9" * 20]])
def test_the_command_says_what_it_does_not_know(wrong: list[str]) -> None:
    done = CliRunner().invoke(deposits, ["list", *wrong])
    assert (done.exit_code, wrong[0] in done.output) == (2, True)


async def test_an_operator_gives_a_deposit_back(stage: Stage) -> None:
    agent = await stage.agent()
    deposit = await stage.deposit(agent, 3_000)
    await stage.pays(deposit)
    name = deposit["deposit_id"]
    assert "paid $30.00" in await stage.tollway("deposits", "list", "--state", "paid")
    assert "$30.00 of it can be given back" in await stage.tollway(
        "deposits", "refund", name, "--amount", "31", expect=1
    )
    assert "gave $12.50" in await stage.tollway("deposits", "refund", name, "--amount", "12.50")
    assert (await stage.balance(agent))["balance_atomic"] == 17_500_000
    stage.stripe.fail_refund(stage.stripe.made("refund")[-1]["id"])
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == 30_000_000
    assert "gave $12.50" in await stage.tollway("deposits", "refund", name, "--amount", "12.50")
    assert (await stage.balance(agent))["balance_atomic"] == 17_500_000
    await stage.hears()  # Stripe tells what is booked already
    assert "gave $17.50" in await stage.tollway("deposits", "refund", name)
    shown = await stage.tollway("deposits", "show", name)
    assert "paid $30.00, $30.00 given back" in shown
    assert re.findall(r"  (?:(receipt|refund|fee)  \S+)(?:  (\$\S+)  (.*))?", shown) == [
        ("receipt", "", ""), ("fee", "$1.17", "paid to Stripe"), ("refund", "$12.50", "did not arrive"),
        ("refund", "$12.50", "given back"), ("refund", "$17.50", "given back"),
    ]  # fmt: skip
    assert (await stage.balance(agent))["balance_atomic"] == 0


async def test_the_log_and_webhooks_hear_of_it(stage: Stage) -> None:
    agent = await stage.agent()
    dispute = stage.stripe.dispute(await stage.pays(await stage.deposit(agent, 1_000)))
    await stage.hears()
    stage.stripe.close(dispute["id"], "won")
    await stage.hears()
    rows = await stage.connection.fetch(
        "SELECT action, metadata FROM audit.entry WHERE chain = $1 AND action LIKE 'deposit.%' ORDER BY seq",
        agent.organization_id,
    )
    assert [row["action"] for row in rows] == [
        "deposit.create",
        "deposit.complete",
        "deposit.dispute",
        "deposit.dispute_won",
    ]
    assert rows[1]["metadata"]["amount_atomic"] == "10000000"
