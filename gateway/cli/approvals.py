"""`tollway approvals`: what waits for another operator's approval, and the decision."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import click

from gateway.catalog.assets import LIST_ASSETS
from gateway.cli.context import on_database, operator_name
from gateway.database.pool import Database
from gateway.operators import approvals as requests
from gateway.operators.approvals import Approval, State
from gateway.operators.approving import approve
from gateway.settings import Settings


@click.group()
def approvals() -> None:
    """Decide about money that waits for another operator."""


@approvals.command("list")
@click.option("--state", type=click.Choice(["pending", "approved", "declined", "expired"]), help="Default: all.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True)
def list_command(state: State | None, limit: int) -> None:
    """List requests, newest first."""

    async def work(database: Database, _settings: Settings) -> list[Approval]:
        async with database.acquire() as connection:
            return await requests.LIST_APPROVALS.all(connection, state, limit, 0)

    for row in on_database(work):
        click.echo(_line(row))


@approvals.command("approve")
@click.argument("approval_id", type=click.UUID)
def approve_command(approval_id: UUID) -> None:
    """Do what another operator has asked for. Judged anew, and done once."""

    async def work(database: Database, settings: Settings) -> Approval:
        async with database.acquire() as connection:
            asset = (await LIST_ASSETS.all(connection))[0]  # the default one comes first
        grace = timedelta(days=settings.money.refund_grace_days)
        return await approve(database, approval_id, operator=operator_name(), asset=asset, grace=grace)

    click.echo(_line(on_database(work)))


@approvals.command("decline")
@click.argument("approval_id", type=click.UUID)
@click.option("--note", help="Why; for operators only.")
def decline_command(approval_id: UUID, note: str | None) -> None:
    """End a request without doing it. Who asked may take it back so."""

    async def work(database: Database, _settings: Settings) -> Approval:
        async with database.transaction() as connection:
            return await requests.decline(connection, approval_id, operator=operator_name(), note=note)

    click.echo(_line(on_database(work)))


def waiting(approval: Approval) -> str:
    """Return what to tell the operator whose request was stored."""
    return (
        f"nothing moved yet: {approval.kind} of {approval.amount} (atomic) waits for another operator until"
        f" {approval.expires_at:%FT%TZ}: tollway approvals approve {approval.id}"
    )


def _line(row: Approval) -> str:
    decided = f" by {row.decided_by}" if row.decided_by else ""
    note = f"  [{row.note}]" if row.note else ""
    return (
        f"{row.id}  {row.kind} of {row.amount} (atomic)  {row.subject}  asked by {row.asked_by}: {row.reason}"
        f"  {row.state}{decided}{note}"
    )
