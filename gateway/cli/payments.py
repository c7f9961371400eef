"""`tollway payments`: what is on its way through a chain, and what became of one payment."""

from __future__ import annotations

from uuid import UUID

import click

from gateway.cli.context import on_connection
from gateway.database.pool import Connection
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.outbox import FIND_PAYMENT, OPEN_PAYMENTS, Payment
from gateway.payments.evm.repayments import FIND_REPAYMENT, OPEN_REPAYMENTS, Repayment


@click.group()
def payments() -> None:
    """Look at payments on a chain."""


@payments.command("list")
@click.option("--limit", default=100, show_default=True)
def list_command(limit: int) -> None:
    """List payments that have not ended, oldest first, and then those on their way back to their payers.

    They end by themselves; `unknown` waits for the chain.
    """

    async def work(connection: Connection) -> tuple[list[Payment], list[Repayment]]:
        return await OPEN_PAYMENTS.all(connection, limit), await OPEN_REPAYMENTS.all(connection, limit)

    open_payments, going_back = on_connection(work)
    for line in (*map(_line, open_payments), *map(_back, going_back)):
        click.echo(line)


@payments.command("show")
@click.argument("payment_id", type=click.UUID)
def show_command(payment_id: UUID) -> int:
    """Show one payment by its exchange's or deposit's id. Exit status 1 when there is none."""

    async def work(connection: Connection) -> tuple[Payment | None, Repayment | None]:
        return await FIND_PAYMENT.first(connection, payment_id), await FIND_REPAYMENT.first(connection, payment_id)

    found, back = on_connection(work)
    if found is None:
        click.echo("No payment has this id.", err=True)
        return 1
    click.echo(_line(found))
    if back is not None:
        click.echo(_back(back))
    return 0


def _back(one: Repayment) -> str:
    transaction = f"  0x{one.mined_transaction.hex()}" if one.mined_transaction else ""
    trouble = f": {one.trouble}" if one.trouble else ""
    return (
        f"{one.id}  {one.network}  {one.amount} of {show_address(one.token)} (atomic)"
        f"  back to {show_address(one.destination)}  {one.state}{trouble}{transaction}"
    )


def _line(payment: Payment) -> str:
    transaction = f"  0x{payment.mined_transaction.hex()}" if payment.mined_transaction else ""
    reason = f": {payment.reason}" if payment.reason else ""
    state = f"{payment.state}{reason}{' (final)' if payment.final else ''}"
    return (
        f"{payment.id}  {payment.network}  {payment.amount} of {show_address(payment.asset)} (atomic)"
        f"  {show_address(payment.payer)} to {show_address(payment.payee)}  {state}{transaction}"
    )
