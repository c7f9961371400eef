"""Billing's health says what the jobs have found, and never proves anything for a request."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from gateway.database.pool import Connection
from gateway.jobs.bookkeeping import Bookkeeping
from gateway.jobs.runner import Runner
from tests.admin_api.conftest import Api
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
