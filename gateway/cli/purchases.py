"""`tollway purchases`: what the gateway has bought by x402 for its callers, and the wallet that pays for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar
from uuid import NAMESPACE_URL, uuid5

import click

from gateway.catalog.assets import LIST_ASSETS, Asset
from gateway.cli.context import settings_for_cli
from gateway.database.pool import Connection, Database, connect
from gateway.payments.evm.encoding import parse_address, show_address
from gateway.payments.evm.purchases import BOOKED, FORGIVE, LIST, OpenPurchase, fund, open_wallet, rail_of
from gateway.payments.evm.rpc import RpcError
from pricing.money import MoneyError, format_amount, parse_amount

Result = TypeVar("Result")


@click.group()
def purchases() -> None:
    """Look at what was bought from publishers' servers, and at the wallet that pays."""


@purchases.command("list")
@click.option("--limit", default=100, show_default=True)
def list_command(limit: int) -> None:
    """List purchases whose end is not known yet, and those that were paid and brought nothing."""

    async def work(connection: Connection) -> list[OpenPurchase]:
        return await LIST.all(connection, limit)

    for purchase in _run(work):
        click.echo(_line(purchase))


@purchases.command("forgive")
@click.argument("slug")
def forgive_command(slug: str) -> None:
    """Buy again from a publisher, and the others of its owner, that was paid for what it did not deliver.

    What it cost stays booked.
    """

    async def work(connection: Connection) -> int:
        return await FORGIVE.run(connection, slug)

    click.echo(f"forgave {_run(work)} purchases from the owner of {slug}")


@purchases.command("fund")
@click.argument("asset")
@click.argument("amount")
@click.option("--reference", required=True, help="The transaction that brought it. The same one is booked once.")
@click.option("--from-treasury", is_flag=True, help="It came from the treasury on the same network.")
def fund_command(asset: str, amount: str, reference: str, from_treasury: bool) -> None:
    """Book AMOUNT of ASSET (such as eip155:8453/USDC) that was sent to the buying wallet."""
    if not reference:
        raise click.BadParameter("must not be empty", param_hint="--reference")

    async def work(connection: Connection) -> str:
        found = await _asset(connection, asset)
        units = _units(amount, found)
        cause = uuid5(NAMESPACE_URL, f"tollway:funding/{found.network_id}/{reference}")
        new = await fund(
            connection, cause, found.ledger_asset_id, found.network_id, found.symbol, units, treasury=from_treasury
        )
        total = format_amount(await BOOKED.one(connection, rail_of(found.network_id, found.symbol)), found.decimals)
        said = f"booked {amount} {found.symbol}" if new else f"nothing booked: {reference} was booked before"
        return f"{said}; the books have {total} in the wallet"

    click.echo(_run(work))


@purchases.command("balance")
@click.argument("asset")
def balance_command(asset: str) -> int:
    """Compare what the books and the chain have in the buying wallet. Exit status 1 when they differ.

    They do while purchases are open that their upstreams have been paid for.
    """
    compared = asyncio.run(_compare(asset))
    texts = [format_amount(one, compared.asset.decimals) for one in (compared.booked, compared.there)]
    symbol = compared.asset.symbol
    click.echo(f"{compared.address}: books {texts[0]} {symbol}, chain {texts[1]} {symbol}")
    return 0 if compared.booked == compared.there else 1


@dataclass(frozen=True, slots=True)
class _Compared:
    """What is in the wallet by the books and by the chain, in atomic units."""

    address: str
    asset: Asset
    booked: int
    there: int


async def _compare(name: str) -> _Compared:
    settings = settings_for_cli()
    connection = await connect(settings.database.direct)
    wallet = open_wallet(Database(settings.database), timedelta(), os.environ)
    if wallet is None:
        raise click.ClickException("there is no buying wallet: set TOLLWAY_CHAIN_BUYER_KEY")
    try:
        found = await _asset(connection, name)
        if found.network_id not in wallet.networks or found.contract_address is None:
            raise click.ClickException(f"{name} is no token on a network that has a node")
        there = await wallet.balance(found.network_id, parse_address(found.contract_address))
        booked = await BOOKED.one(connection, rail_of(found.network_id, found.symbol))
        return _Compared(show_address(wallet.address), found, booked, there)
    except RpcError as error:
        raise click.ClickException(f"the node does not answer: {error}") from None
    finally:
        await wallet.aclose()
        await connection.close()


async def _asset(connection: Connection, name: str) -> Asset:
    assets = {f"{one.network_id}/{one.symbol}": one for one in await LIST_ASSETS.all(connection)}
    if name not in assets:
        raise click.ClickException(f"no asset is called {name}; there are {', '.join(sorted(assets))}")
    return assets[name]


def _units(text: str, asset: Asset) -> int:
    try:
        units = parse_amount(text, asset.decimals)
    except MoneyError as error:
        raise click.BadParameter(str(error), param_hint="AMOUNT") from None
    if not units:
        raise click.BadParameter("must be above 0", param_hint="AMOUNT")
    return units


def _line(purchase: OpenPurchase) -> str:
    transaction = f"  {purchase.transaction}" if purchase.transaction else ""
    return (
        f"{purchase.exchange_id}  {purchase.publisher or '?'}  {purchase.network}  {purchase.amount} of "
        f"{show_address(purchase.asset)} (atomic) to {show_address(purchase.payee)}  {purchase.state}{transaction}"
    )


def _run(work: Callable[[Connection], Awaitable[Result]]) -> Result:
    async def connected() -> Result:
        connection = await connect(settings_for_cli().database.direct)
        try:
            async with connection.transaction():
                return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(connected())
