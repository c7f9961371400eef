"""`tollway exchanges`: see and end what has no end of its own, forgive what was never paid, refund what has ended."""

from __future__ import annotations

import getpass
from datetime import timedelta
from uuid import UUID

import click

from gateway.cli.approvals import waiting
from gateway.cli.context import on_database, operator_name
from gateway.database.pool import Database
from gateway.ledger.resolutions import Debt, Decision, UnendedExchange, debts, unended
from gateway.operators.approvals import Approval, FourEyes
from gateway.operators.refunds import CallRefund, refund_call
from gateway.operators.resolving import resolve_exchange
from gateway.settings import Settings


@click.group()
def exchanges() -> None:
    """List and resolve exchanges whose money moved and whose end is unknown."""


@exchanges.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
def list_command(limit: int) -> None:
    """List open exchanges, oldest first. Those of live workers are usually just being served."""

    async def work(database: Database, settings: Settings) -> list[UnendedExchange]:
        async with database.acquire() as connection:
            return await unended(connection, dead_after=timedelta(seconds=settings.money.dead_after), limit=limit)

    for row in on_database(work):
        state = "being served" if row.worker_alive else "orphaned"
        click.echo(
            f"{row.exchange_id}  {row.kind}  {row.amount} {row.asset} (atomic)  {row.publisher}"
            f"  {row.since:%FT%TZ}  {state}"
        )


@exchanges.command("debts")
@click.option("--limit", default=100, show_default=True)
def debts_command(limit: int) -> None:
    """List calls that wallets had on trust and have not paid, oldest first."""

    async def work(database: Database, _settings: Settings) -> list[Debt]:
        async with database.acquire() as connection:
            return await debts(connection, limit=limit)

    for row in on_database(work):
        click.echo(
            f"{row.exchange_id}  {row.amount} {row.asset} (atomic)  {row.payer}  {row.publisher}  {row.since:%FT%TZ}"
            f"  {row.reason}"
        )


@exchanges.command("refund")
@click.argument("request_id")
@click.option("--reason", required=True, help="Both sides read it in their audit logs.")
def refund_command(request_id: str, reason: str) -> None:
    """Give a call that has ended back whole, to the lots it was paid from. A second time moves nothing."""

    async def work(database: Database, settings: Settings) -> CallRefund | Approval:
        grace = timedelta(days=settings.money.refund_grace_days)
        rule = FourEyes.of(settings.money)
        return await refund_call(
            database, request_id, operator=operator_name(), reason=reason, grace=grace, rule=rule
        )  # fmt: skip

    done = on_database(work)
    if isinstance(done, Approval):
        click.echo(waiting(done))
        return
    click.echo(f"{'refunded before' if done.repeated else 'refunded'}: {done.amount} (atomic)")


@exchanges.command("resolve")
@click.argument("exchange_id", type=click.UUID)
@click.argument("decision", type=click.Choice(["refund", "keep", "forgive"]))
@click.option("--note", help="Why; kept with the audit line.")
def resolve_command(exchange_id: UUID, decision: Decision, note: str | None) -> None:
    """End one open exchange by hand, or forgive a debt. Writes an audit line, and can be done once.

    \b
    DECISION is one of:
      refund   The call is as if it had not been: a charge goes back whole to
               the lots it came from, a hold is released, a payment on a chain
               is given back, and a counted call is uncounted.
      keep     The call counts as delivered: a charge stays, a hold is taken
               whole (the most that the call could cost), a payment on a chain
               is submitted. The publisher earns it.
      forgive  A payment that failed after the call was delivered on trust
               counts no more against its wallet. No money moves.

    EXCHANGE_ID is the call's X-Request-Id, as `tollway exchanges list` and
    `tollway exchanges debts` show it.
    """  # fmt: skip

    async def work(database: Database, settings: Settings) -> str | Approval:
        return await resolve_exchange(
            database,
            exchange_id,
            decision,
            operator=operator_name(),
            actor=f"cli:{getpass.getuser()}",
            note=note,
            grace=timedelta(days=settings.money.refund_grace_days),
            rule=FourEyes.of(settings.money),
        )

    done = on_database(work)
    click.echo(waiting(done) if isinstance(done, Approval) else done)
