"""`tollway payouts`: what publishers are being paid, and what its operator can do about one that waits."""

from __future__ import annotations

from uuid import UUID

import click

from gateway.audit.entries import record
from gateway.cli.context import on_connection
from gateway.database.pool import Connection
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.payouts import FIND_PAYOUT, OPEN_PAYOUTS, RETRY, RETURN, Payout, told

BY_OPERATOR = "The operator has cancelled it."


@click.group()
def payouts() -> None:
    """Look at payouts to publishers, and end what waits."""


@payouts.command("list")
@click.option("--limit", default=100, show_default=True)
def list_command(limit: int) -> None:
    """List payouts that have not ended, oldest first, with what each waits for."""

    async def work(connection: Connection) -> list[Payout]:
        return await OPEN_PAYOUTS.all(connection, limit)

    for one in on_connection(work):
        click.echo(_line(one))


@payouts.command("retry")
@click.argument("payout_id", type=click.UUID)
def retry_command(payout_id: UUID) -> int:
    """Try a queued payout again now, as often as a new one. Exit status 1 when it is not queued."""

    async def work(connection: Connection) -> bool:
        one = await FIND_PAYOUT.first(connection, payout_id)
        if one is None or not await RETRY.run(connection, payout_id):
            return False
        await record(connection, "payout.retry", one.organization_id, payout_id, details=told(one))
        return True

    return _say(payout_id, done=on_connection(work))


@payouts.command("cancel")
@click.argument("payout_id", type=click.UUID)
def cancel_command(payout_id: UUID) -> int:
    """Put the money of a queued payout back into the earnings. Exit status 1 when it is not queued."""

    async def work(connection: Connection) -> bool:
        one = await FIND_PAYOUT.first(connection, payout_id)
        if one is None or not await RETURN.one(connection, payout_id, "cancelled", BY_OPERATOR):
            return False
        await record(connection, "payout.cancel", one.organization_id, payout_id, details=told(one))
        return True

    return _say(payout_id, done=on_connection(work))


def _say(payout_id: UUID, *, done: bool) -> int:
    async def work(connection: Connection) -> Payout | None:
        return await FIND_PAYOUT.first(connection, payout_id)

    found = on_connection(work)
    if found is None:
        click.echo("No payout has this id.", err=True)
        return 1
    click.echo(_line(found), err=not done)
    return 0 if done else 1


def _line(one: Payout) -> str:
    transaction = f"  0x{one.mined_transaction.hex()}" if one.mined_transaction else ""
    why = "waits for a second member" if one.unapproved else one.reason
    return (
        f"{one.id}  {one.network}  {one.amount} of {show_address(one.token)} (atomic)"
        f"  to {show_address(one.destination)}  {one.state}{f': {why}' if why else ''}{transaction}"
    )
