"""`tollway payments`: what is on its way through a chain, and what became of one payment."""

from __future__ import annotations

from uuid import UUID

import click

from gateway.cli.context import on_connection
from gateway.database.pool import Connection
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.outbox import FIND_PAYMENT, OPEN_PAYMENTS, Payment


@click.group()
def payments() -> None:
    """Look at payments on a chain."""


@payments.command("list")
@click.option("--limit", default=100, show_default=True)
def list_command(limit: int) -> None:
    """List payments that have not ended, oldest first. They end by themselves; `unknown` waits for the chain."""

    async def work(connection: Connection) -> list[Payment]:
        return await OPEN_PAYMENTS.all(connection, limit)

    for payment in on_connection(work):
        click.echo(_line(payment))


@payments.command("show")
@click.argument("payment_id", type=click.UUID)
def show_command(payment_id: UUID) -> int:
    """Show one payment by its exchange's or deposit's id. Exit status 1 when there is none."""

    async def work(connection: Connection) -> Payment | None:
        return await FIND_PAYMENT.first(connection, payment_id)

    found = on_connection(work)
    if found is None:
        click.echo("No payment has this id.", err=True)
        return 1
    click.echo(_line(found))
    return 0


def _line(payment: Payment) -> str:
    transaction = f"  0x{payment.mined_transaction.hex()}" if payment.mined_transaction else ""
    reason = f": {payment.reason}" if payment.reason else ""
    state = f"{payment.state}{reason}{' (final)' if payment.final else ''}"
    return (
        f"{payment.id}  {payment.network}  {payment.amount} of {show_address(payment.asset)} (atomic)"
        f"  {show_address(payment.payer)} to {show_address(payment.payee)}  {state}{transaction}"
    )
