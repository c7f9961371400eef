"""Billing's health says what the jobs have found, and never proves anything for a request."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from gateway.jobs.bookkeeping import Bookkeeping
from gateway.jobs.runner import Runner
from tests.admin_api.conftest import Api
from tests.support.alerts import RULES, firing
from tests.support.world import World


async def health(api: Api) -> dict[str, Any]:
    return (await api.call("GET", "/billing/health", expect=200)).json()["data"]


async def again(connection: Connection, kind: str) -> None:
    """Let the next round prove, whenever the last one did."""
    await connection.execute("UPDATE analytics.proof SET taken_until = now() WHERE kind = $1", kind)


@pytest.fixture
def books(api: Api) -> Bookkeeping:
    return Bookkeeping(api.services.database, api.services.metrics, 3600)


async def test_what_the_proofs_found_is_told_until_the_next_ones(
    api: Api, books: Bookkeeping, connection: Connection, world: World
) -> None:
    agent = await world.agent(500)
    for kind, prove in (("quick", books.prove_quickly), ("full", books.prove_fully)):
        await again(connection, kind)
        await prove()
        assert (await health(api))["books_balance"] is True
        await connection.execute(
            "UPDATE ledger.account SET balance = balance + 1 WHERE wallet_id = $1", agent.wallet_id
        )
        assert (await health(api))["books_balance"] is True  # nothing is proven for a request
        await prove()
        assert (await health(api))["books_balance"] is True  # and nothing again before it is time
        await again(connection, kind)
        await prove()
        await books.report()
        seen = await health(api)
        assert seen["books_balance"] is False
        assert b"tollway_books_balance 0.0" in api.services.metrics.render()
        await connection.execute(
            "UPDATE ledger.account SET balance = balance - 1 WHERE wallet_id = $1", agent.wallet_id
        )
        await again(connection, kind)
        await prove()
        assert (await health(api))["books_balance"] is True
    assert datetime.fromisoformat(seen["last_proof"]) <= datetime.fromisoformat(seen["last_full_proof"])


async def test_two_workers_do_not_prove_at_once(api: Api, books: Bookkeeping, connection: Connection) -> None:
    await again(connection, "full")
    await connection.execute("UPDATE analytics.proof SET taken_until = now() + interval '1 hour' WHERE kind = 'full'")
    before = (await health(api))["last_full_proof"]
    await books.prove_fully()
    assert (await health(api))["last_full_proof"] == before


async def test_what_waits_is_told_by_its_age_and_failures_are_counted(
    api: Api, books: Bookkeeping, connection: Connection
) -> None:
    before = await health(api)
    assert before["outbox_oldest_seconds"] == dict.fromkeys(
        ("settlements", "repayments", "payouts", "webhooks", "letters"), 0
    )
    assert (before["daily_aggregation_ok"], before["has_recent_daily_run"]) == (True, True)
    await connection.execute(
        "INSERT INTO identity.letter (id, kind, recipient, next_try_at)"
        " VALUES (gen_random_uuid(), 'x', 'a@b.example', now() - interval '2 hours')"
    )
    await connection.execute(
        "INSERT INTO ledger.worker (settled_through, seen_at)"
        " VALUES ('00000000-0000-0000-0000-000000000000', now() - interval '90 seconds')"
    )
    await connection.execute(
        "UPDATE analytics.mark SET upto = now() - interval '1 hour', moved_at = now() - interval '2 days'"
    )
    await connection.execute("ALTER FUNCTION analytics.horizon(interval) RENAME TO away")
    runner = Runner()
    books.begin(runner)
    try:
        async with asyncio.timeout(60):
            while (seen := await health(api))["daily_aggregation_failures_total"] == 0:
                await asyncio.sleep(0.05)
    finally:
        await runner.stop()
        await connection.execute("ALTER FUNCTION analytics.away(interval) RENAME TO horizon")
    assert seen["outbox_oldest_seconds"]["letters"] >= 7200
    assert seen["reconciler_lag_seconds"] >= 90
    assert (seen["daily_aggregation_ok"], seen["has_recent_daily_run"]) == (False, False)
    assert {job["job"] for job in seen["jobs"]} == {"daily_aggregation", "quick_proof", "full_proof"}


# What makes a claim of the books untrue, what mends it, and the alert that says so. `$wallet` is a wallet.
BROKEN = {
    "an edited balance": (
        "TollwayBooksDoNotBalance",
        "UPDATE ledger.account SET balance = balance + 1 WHERE wallet_id = $wallet AND granted IS NOT NULL",
        "UPDATE ledger.account SET balance = balance - 1 WHERE wallet_id = $wallet AND granted IS NOT NULL",
    ),
    "no quick proof for long": (
        "TollwayBooksNotProven",
        "UPDATE analytics.proof SET proven_at = now() - interval '1 hour', taken_until = 'infinity' WHERE kind = 'quick'",
        "UPDATE analytics.proof SET taken_until = now() WHERE kind = 'quick'",
    ),
    "no full proof ever": (
        "TollwayBooksNotProven",
        "UPDATE public.tollway_migration SET applied_at = applied_at - interval '3 days';"
        "UPDATE analytics.proof SET proven_at = NULL, taken_until = 'infinity' WHERE kind = 'full'",
        "UPDATE analytics.proof SET taken_until = now() WHERE kind = 'full';"
        "UPDATE public.tollway_migration SET applied_at = applied_at + interval '3 days'",
    ),
    "money that is nobody's": (
        "TollwayMoneyInSuspense",
        "SELECT ledger.move(gen_random_uuid(), 'grant', 0::smallint, ledger.platform_account(w.asset_id, 'clearing'),"
        " ledger.platform_account(w.asset_id, 'suspense'), 5, 0) FROM ledger.wallet w WHERE id = $wallet",
        "SELECT ledger.move(gen_random_uuid(), 'card_refund', 0::smallint, ledger.platform_account(w.asset_id, 'suspense'),"
        " ledger.platform_account(w.asset_id, 'clearing'), 5, 0) FROM ledger.wallet w WHERE id = $wallet",
    ),
    "a payment that failed after it was credited": (
        "TollwayDepositFailedLater",
        "INSERT INTO card.deposit (id, wallet_id, cents, amount, bonus, state, expires_at, failed_at)"
        " VALUES ('00000000-0000-7000-8000-00000000d1ed', $wallet, 5, 5, 0, 'suspense', now(), now())",
        "UPDATE card.deposit SET failed_at = now() - interval '8 days'",
    ),
    "a payment of an invoice that was disputed": (
        "TollwayInvoicePaymentReversed",
        "INSERT INTO invoice.invoice (id, organization_id, period_start, asset_id, decimals, subtotal, taxable, tax,"
        " tax_ppm, tax_note, seller, buyer) SELECT '00000000-0000-7000-8000-00000000d1ed', o.id, '2020-01-01',"
        " w.asset_id, 6, 0, 0, 0, 0, '', '{}', '{}' FROM ledger.wallet w"
        " JOIN identity.organization o ON o.created_by = w.owner_id WHERE w.id = $wallet;"
        "INSERT INTO invoice.intent (id, invoice_id, cents, state)"
        " VALUES ('pi_d1ed', '00000000-0000-7000-8000-00000000d1ed', 1, 'succeeded');"
        "INSERT INTO invoice.back (id, intent_id, kind, cents, amount, cause_id, undecided)"
        " VALUES ('dp_d1ed', 'pi_d1ed', 'dispute', 1, 1, gen_random_uuid(), true)",
        "DELETE FROM invoice.back; DELETE FROM invoice.intent; DELETE FROM invoice.invoice",
    ),
    "a hold without an end": (
        "TollwayExchangesUnknown",
        "INSERT INTO ledger.hold (exchange_id, wallet_id, account_id, amount, placed_at)"
        " SELECT '00000000-0000-7000-8000-00000000d1ed', $wallet, min(id), 5, now() - interval '2 hours' FROM ledger.account",
        "DELETE FROM ledger.hold WHERE exchange_id = '00000000-0000-7000-8000-00000000d1ed'",
    ),
    "a dead worker that nobody clears up after": (
        "TollwayReconcilerLags",
        "INSERT INTO ledger.worker (id, settled_through, seen_at) OVERRIDING SYSTEM VALUE"
        " VALUES (-7, '00000000-0000-0000-0000-000000000000', now() - interval '10 minutes')",
        "DELETE FROM ledger.worker WHERE id = -7",
    ),
    "sums that are not kept": (
        "TollwaySumsLag",
        "UPDATE analytics.mark SET upto = upto - interval '1 hour'",
        "UPDATE analytics.mark SET upto = now()",
    ),
    "a payment that is not sent": (
        "TollwayOutboxWaits",
        "INSERT INTO chain.payment (id, network, verifier, asset, payer, nonce, method, payee, authorized, amount, fee,"
        " valid_after, valid_before, signature, deferred, booking, state, submitted_at)"
        " SELECT '00000000-0000-7000-8000-00000000d1ed', 'eip155:8453', b, b, b, sha256(b), 'eip3009', b, 1, 1, 0, 0, 1,"
        " decode(repeat('ab', 65), 'hex'), false, 'none', 'pending', now() - interval '1 hour'"
        " FROM decode(repeat('ab', 20), 'hex') AS x (b)",
        "DELETE FROM chain.payment WHERE id = '00000000-0000-7000-8000-00000000d1ed'",
    ),
    "a letter that is not sent": (
        "TollwayOutboxWaits",
        "INSERT INTO identity.letter (id, kind, recipient, next_try_at)"
        " VALUES ('00000000-0000-7000-8000-00000000d1ed', 'x', 'a@b.example', now() - interval '1 hour')",
        "DELETE FROM identity.letter WHERE id = '00000000-0000-7000-8000-00000000d1ed'",
    ),
}  # fmt: skip


@pytest_asyncio.fixture
async def whole(connection: Connection) -> None:
    """Nothing of the tests before is left that would make an alert fire."""
    await connection.execute(
        "DELETE FROM identity.letter; DELETE FROM ledger.worker; UPDATE analytics.mark SET upto = now();"
        "UPDATE analytics.proof SET taken_until = now()"
    )


@pytest.mark.parametrize("what", BROKEN)
async def test_the_alert_of_what_is_broken_fires_until_it_is_mended(
    what: str, api: Api, books: Bookkeeping, connection: Connection, world: World, whole: None
) -> None:
    alert, breaks, mends = BROKEN[what]
    wallet = str((await world.agent(500)).wallet_id)

    async def fires() -> bool:
        await connection.execute("UPDATE analytics.proof SET taken_until = now() WHERE taken_until < 'infinity'")
        await books.prove_quickly()
        await books.prove_fully()
        await books.report()
        return firing(api.services.metrics.render().decode(), alert)

    assert not await fires()
    await connection.execute(breaks.replace("$wallet", wallet))
    assert await fires()
    await connection.execute(mends.replace("$wallet", wallet))
    assert not await fires()


async def test_what_lags_has_its_alert(api: Api, books: Bookkeeping) -> None:
    await books.report()
    sent = set(re.findall(r'tollway_billing_lag_seconds\{of="(\w+)"\}', api.services.metrics.render().decode()))
    rules = re.findall(r'tollway_billing_lag_seconds\{of=~?"([\w|]+)"\}', RULES.read_text())
    assert {name for names in rules for name in names.split("|")} | {
        "payouts"
    } == sent  # by network: TollwayPayoutsWait
