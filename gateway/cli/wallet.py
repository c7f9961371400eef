"""`tollway wallet`: an operator's look at wallets, grants and corrections."""

from __future__ import annotations

import click

from gateway.catalog.assets import LIST_ASSETS, Asset
from gateway.cli.approvals import waiting
from gateway.cli.context import on_connection, on_database, operator_name, settings_for_cli
from gateway.database.pool import Connection, Database
from gateway.ledger.corrections import Direction
from gateway.ledger.wallets import BALANCES, Wallet
from gateway.operators.approvals import Approval, FourEyes
from gateway.operators.correcting import Corrected, CorrectionRequest, correct_balance
from gateway.operators.granting import GrantRequest, grant_credit
from gateway.operators.wallets import find_wallet
from gateway.settings import Settings
from pricing.money import MoneyError, format_usd, parse_amount


@click.group()
def wallet() -> None:
    """Show wallets, grant credit and correct balances."""


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

    async def run(connection: Connection) -> str:
        asset = await _default_asset(connection)
        amount = _amount(usd, asset)
        request = GrantRequest(wallet_or_agent, amount, reference, note, expires_in_days)
        rule = FourEyes.of(settings_for_cli().money)
        done = await grant_credit(connection, asset, request, operator=operator_name(), rule=rule)
        if isinstance(done, Approval):
            return waiting(done)
        found = await find_wallet(connection, wallet_or_agent, asset)
        text = format_usd(await _balance(connection, found), asset.decimals)
        if done.verdict == "repeated":
            return f"nothing granted: reference {reference} was granted to {found.address} before; it has {text}"
        return f"granted {format_usd(amount, asset.decimals)} to {found.address}; it has {text}"

    click.echo(on_connection(run))


@wallet.command("correct")
@click.argument("wallet_or_agent")
@click.argument("direction", type=click.Choice(["credit", "debit"]))
@click.argument("usd")
@click.option("--reference", required=True, help="What caused it. The same reference corrects once.")
@click.option("--reason", required=True, help="Its owner reads it in the wallet's history and in the audit log.")
@click.option("--promotional", is_flag=True, help="Credit or take promotional credit. Default: paid money.")
@click.option("--expires-in-days", type=click.IntRange(1, 3_650), help="Promotional credit only. Default: never.")
def correct_command(
    wallet_or_agent: str,
    direction: Direction,
    usd: str,
    reference: str,
    reason: str,
    *,
    promotional: bool,
    expires_in_days: int | None,
) -> None:
    """Credit USD to a wallet or take it back, once per reference. A debit takes all of it or nothing.

    Paid money is taken from purchases first, oldest first, then from what was
    granted. Deposits for one publisher, held and frozen money stay.
    """  # fmt: skip
    for name, text, most in (("--reference", reference, 200), ("--reason", reason, 500)):
        if not text.strip() or len(text) > most:
            raise click.BadParameter(f"must have 1 to {most} characters", param_hint=name)

    async def run(database: Database, settings: Settings) -> tuple[Asset, Corrected | Approval]:
        async with database.acquire() as connection:
            asset = await _default_asset(connection)
        request = CorrectionRequest(
            wallet=wallet_or_agent, direction=direction, money="promotional" if promotional else "paid",
            amount=_amount(usd, asset), reference=reference, reason=reason, expires_in_days=expires_in_days,
        )  # fmt: skip
        rule = FourEyes.of(settings.money)
        return asset, await correct_balance(database, asset, request, operator=operator_name(), rule=rule)

    asset, done = on_database(run)
    if isinstance(done, Approval):
        click.echo(waiting(done))
        return
    correction = done.correction
    text = f"{correction.direction} of {format_usd(correction.amount, asset.decimals)} ({correction.money})"
    before = "nothing moved; corrected before: " if done.repeated else "corrected: "
    click.echo(f"{before}{text} of {correction.wallet}, {correction.id}")


@wallet.command("show")
@click.argument("wallet_or_agent")
def show_command(wallet_or_agent: str) -> None:
    """Show a wallet's spendable balance by source."""

    async def run(connection: Connection) -> str:
        asset = await _default_asset(connection)
        found = await find_wallet(connection, wallet_or_agent, asset)
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


async def _balance(connection: Connection, found: Wallet) -> int:
    return sum(row.balance for row in await BALANCES.all(connection, found.id))
