"""`tollway wallet`: an operator's look at wallets, and grants."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import click

from gateway.audit.entries import record
from gateway.billing.credits import wallet_of
from gateway.catalog.assets import LIST_ASSETS, Asset
from gateway.cli.context import on_connection
from gateway.database.pool import Connection
from gateway.identity.accounts import FIND_ACCOUNT, FIND_AGENT
from gateway.identity.organizations import default_of
from gateway.ids import uuid7
from gateway.ledger.wallets import BALANCES, FIND_BY_ADDRESS, Wallet, grant
from pricing.money import MoneyError, format_usd, parse_amount


@click.group()
def wallet() -> None:
    """Show wallets and grant credit."""


@wallet.command("grant")
@click.argument("wallet_or_agent")
@click.argument("usd")
@click.option("--reference", help="What caused it. The same reference is granted once, however often you call.")
@click.option("--note", help="Shown in the wallet's history.")
@click.option("--expires-in-days", type=click.IntRange(1, 3_650), help="Default: never.")
def grant_command(
    wallet_or_agent: str, usd: str, reference: str | None, note: str | None, expires_in_days: int | None
) -> None:
    """Grant USD of credit to a wallet, named by its address, its agent's name or id."""
    if reference == "":  # an unset variable of a script would grant again and again
        raise click.BadParameter("must not be empty", param_hint="--reference")
    expires = None if expires_in_days is None else datetime.now(UTC) + timedelta(days=expires_in_days)

    async def run(connection: Connection) -> str:
        asset = await _default_asset(connection)
        amount = _amount(usd, asset)
        found = await _find(connection, wallet_or_agent, asset)
        granted = await grant(
            connection, found.id, source="admin_grant", reference=reference or str(uuid7()), amount=amount,
            expires_at=expires, description=note,
        )  # fmt: skip
        balance = await _balance(connection, found)
        text = format_usd(balance, asset.decimals)
        if granted.verdict != "repeated":
            home = await default_of(connection, found.owner_id)
            details = {"wallet": found.address, "amount_atomic": str(amount), "reference": reference}
            await record(connection, "wallet.grant", home.id if home else None, found.owner_id, details=details)
        if granted.verdict == "repeated":
            return f"nothing granted: reference {reference} was granted to {found.address} before; it has {text}"
        return f"granted {format_usd(amount, asset.decimals)} to {found.address}; it has {text}"

    click.echo(on_connection(run))


@wallet.command("show")
@click.argument("wallet_or_agent")
def show_command(wallet_or_agent: str) -> None:
    """Show a wallet's spendable balance by source."""

    async def run(connection: Connection) -> str:
        asset = await _default_asset(connection)
        found = await _find(connection, wallet_or_agent, asset)
        rows = await BALANCES.all(connection, found.id)
        lines = [f"{found.address}  {format_usd(sum(row.balance for row in rows), asset.decimals)}"]
        lines += [f"  {row.purpose:<11} {row.source:<20} {format_usd(row.balance, asset.decimals)}" for row in rows]
        return "\n".join(lines)

    click.echo(on_connection(run))


async def _default_asset(connection: Connection) -> Asset:
    assets = await LIST_ASSETS.all(connection)
    if not assets:
        raise click.ClickException("the database has no assets; run `tollway migrate` first")
    return assets[0]  # the default one comes first


def _amount(text: str, asset: Asset) -> int:
    try:
        amount = parse_amount(text.removeprefix("$"), asset.decimals)
    except MoneyError as error:
        raise click.BadParameter(str(error), param_hint="USD") from None
    if not amount:
        raise click.BadParameter("must be above 0", param_hint="USD")
    return amount


async def _find(connection: Connection, name: str, asset: Asset) -> Wallet:
    found = await FIND_BY_ADDRESS.first(connection, name)
    if found is not None:
        return found
    is_id = re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", name)
    account_id = UUID(name) if is_id else await FIND_AGENT.first(connection, name)
    if account_id is None or await FIND_ACCOUNT.first(connection, account_id) is None:
        raise click.ClickException(f"no wallet or agent is called {name}")
    return await wallet_of(connection, account_id, asset.id)


async def _balance(connection: Connection, found: Wallet) -> int:
    return sum(row.balance for row in await BALANCES.all(connection, found.id))
