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
from pricing.money import format_usd

PREPAID_DECIMALS = 6
"""Of the asset in which balances are kept, and in which TOLLWAY_MONEY_FOUR_EYES_ABOVE counts."""


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
        f"nothing moved yet: {_what(approval)} waits for another operator until"
        f" {approval.expires_at:%FT%TZ}: tollway approvals approve {approval.id}"
    )


def _line(row: Approval) -> str:
    decided = f" by {row.decided_by}" if row.decided_by else ""
    note = f"  [{row.note}]" if row.note else ""
    until = f" until {row.expires_at:%FT%TZ}" if row.state == "pending" else ""
    reason = f": {row.reason}" if row.reason else ""
    return f"{row.id}  {_what(row)}  {row.subject}  asked by {row.asked_by}{reason}  {row.state}{until}{decided}{note}"


def _what(row: Approval) -> str:
    """Return what would be done, so that whoever approves it knows; money of the gateway's own asset in dollars."""
    told = row.details
    amount = format_usd(row.amount, PREPAID_DECIMALS)
    days = f", for {told['expires_in_days']} days" if told.get("expires_in_days") else ""
    match row.kind:
        case "correction":
            return f"correction, {told['direction']} of {amount} ({told['money']}{days})"
        case "grant":
            return f"grant of {amount}{days}"
        case "deposit_refund":
            spent = ", also what was spent" if told["spent_too"] else ""
            return f"refund to its card of {amount}{spent}"
        case "refund":
            return f"refund of a call, {row.amount} (atomic)"
        case "resolution":
            return f"{told['decision']} of an exchange without an end, {row.amount} (atomic)"
