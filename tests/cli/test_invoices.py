"""`tollway invoices`, run as an operator runs it: a month is made, listed, issued and taken back."""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import pytest_asyncio

from gateway.billing.invoices.month import month_of
from gateway.cli.main import main
from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.ledger import proof
from gateway.plans import load_plans
from tests.support.dev import environment
from tests.support.stripe_server import KEY, SIGNING, StripeServer
from tests.support.world import World

LAST = month_of(datetime.now(UTC).date().replace(day=1) - timedelta(days=1))
SELLER = {
    "TOLLWAY_INVOICES_SELLER_NAME": "Tollway Gateways",
    "TOLLWAY_INVOICES_SELLER_ADDRESS": "1 Road|Town",
    "TOLLWAY_INVOICES_SELLER_COUNTRY": "DE",
    "TOLLWAY_INVOICES_TAX_RATES": "DE=19",
}


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    returncode: int | str | None
    stdout: str
    stderr: str


def command(*arguments: str, **env: str) -> Ended:
    """Run a command in this process: each of its own would take a second to import."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as process:
        for name in list(os.environ):
            process.delenv(name)
        for name, value in environment(**env).items():
            process.setenv(name, value)
        process.setattr(sys, "argv", ["tollway", *arguments])
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
            main()
    return Ended(end.value.code, out.getvalue(), err.getvalue())


async def run(database_url: str, *arguments: str, **settings: str) -> Ended:
    env = {"TOLLWAY_DATABASE_URL": database_url, **SELLER, **settings}
    return await asyncio.to_thread(command, "invoices", *arguments, **env)


async def done(database_url: str, *arguments: str, **settings: str) -> str:
    ended = await run(database_url, *arguments, **settings)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest_asyncio.fixture
async def owing(world: World, connection: Connection) -> UUID:
    """An organization that had the plan Pro for all of the last month."""
    organization, plan = (await world.agent()).organization_id, load_plans().named("pro")
    assert plan is not None
    terms = {"display_name": "Pro", "price_monthly": "100", "included_calls": None, "overage_price": None}
    await connection.execute(
        "INSERT INTO identity.organization_plan (id, organization_id, plan_id, terms, started_at)"
        " VALUES ($1, $2, $3, $4, $5)", uuid7(), organization, plan.id, terms, LAST.start,
    )  # fmt: skip
    return organization


async def invoice_of(connection: Connection, organization: UUID) -> str:
    return await connection.fetchval(
        "SELECT id::text FROM invoice.invoice WHERE organization_id = $1 AND status <> 'void'", organization
    )


async def test_a_month_is_made_once_listed_and_issued(database_url: str, owing: UUID, connection: Connection) -> None:
    made = await done(database_url, "generate", "--month", str(LAST))
    assert re.fullmatch(rf"[1-9][0-9]* invoices of {LAST}\n", made)
    assert await done(database_url, "generate", "--month", str(LAST)) == made
    invoice = await invoice_of(connection, owing)
    listed = await done(database_url, "list", "--month", str(LAST))
    assert f"{invoice}  DRAFT-{invoice.replace('-', '')[-12:]}  {owing}  draft  119.00 USD, due 119.00 USD\n" in listed
    issued = await done(database_url, "issue", invoice)
    number = issued.partition(":")[0]
    assert re.fullmatch(r"INV-20[0-9]{2}-[0-9]{6}: issued, due 119.00 USD\n", issued)
    assert f"{invoice}  {number}  {owing}  issued  119.00 USD" in await done(database_url, "list", "--month", str(LAST))
    again = await run(database_url, "issue", invoice)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == f"tollway: Invoice {number} is issued already; only a draft can be issued.\n"


async def test_a_void_one_ends_its_payment_keeps_its_number_and_makes_room(
    database_url: str, owing: UUID, connection: Connection, stripe: StripeServer
) -> None:
    cards = {
        "TOLLWAY_STRIPE_SECRET_KEY": KEY, "TOLLWAY_STRIPE_WEBHOOK_SECRETS": SIGNING, "TOLLWAY_STRIPE_API_BASE": stripe.url,
    }  # fmt: skip
    await done(database_url, "generate", "--month", str(LAST))
    invoice = await invoice_of(connection, owing)
    draft = await run(database_url, "void", invoice, "--reason", "Wrong")
    assert (draft.returncode, "A draft is not issued yet" in draft.stderr) == (1, True)
    number = (await done(database_url, "issue", invoice)).partition(":")[0]
    open_one = stripe._intent(11_900, "usd", {"tollway_invoice": invoice}, None)["id"]
    await connection.execute(
        "INSERT INTO invoice.intent (id, invoice_id, cents) VALUES ($1, $2, 11900)", open_one, UUID(invoice)
    )
    for reason in ("", " ", "x" * 501):
        assert (await run(database_url, "void", invoice, "--reason", reason)).returncode == 2
    void = await done(database_url, "void", invoice, "--reason", "Called off", **cards)
    assert void == f"{number}: void. Its month can be generated anew.\n"
    assert stripe.store[open_one]["status"] == "canceled"
    entry = await connection.fetchrow(
        "SELECT action, actor_type, credential_type, resource_id::text, metadata->>'number' AS number FROM audit.entry"
        " WHERE chain = $1 ORDER BY seq DESC LIMIT 1", owing,
    )  # fmt: skip
    assert tuple(entry) == ("invoice.void", "operator", "command_line", invoice, number)
    again = await run(database_url, "void", invoice, "--reason", "Again")
    assert (again.returncode, again.stderr) == (1, f"tollway: Invoice {number} is void already.\n")
    await done(database_url, "generate", "--month", str(LAST))
    anew = await invoice_of(connection, owing)
    following = (await done(database_url, "issue", anew)).partition(":")[0]
    assert int(following[-6:]) == int(number[-6:]) + 1
    report = await proof.verify(connection)
    assert report.sound, report.violations


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("generate", "--month", "2026-13"), 1, "month: must be from 1 to 12"),
        (("generate", "--month", "9999-12"), 1, "month: must be over"),
        (("list", "--month", "October"), 2, "must be a month such as 2026-10"),
        (("issue", str(UUID(int=1))), 1, "There is no invoice with this id."),
        (("issue", "INV-2026-000001"), 2, "is not a valid UUID"),
        (("void", str(UUID(int=1)), "--reason", "x"), 1, "There is no invoice with this id."),
        (("void", str(UUID(int=1))), 2, "--reason"),
    ],
)
async def test_what_is_wrong_is_one_line(
    database_url: str, arguments: tuple[str, ...], status: int, words: str
) -> None:
    refused = await run(database_url, *arguments)
    assert (refused.returncode, refused.stdout) == (status, "")
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr
