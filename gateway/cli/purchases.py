"""`tollway purchases`: what the gateway has bought by x402 for its callers, and the wallet that pays for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import click

from gateway.audit.entries import record
from gateway.catalog.assets import LIST_ASSETS, Asset
from gateway.cli.context import chain_for_cli, on_connection, operating, settings_for_cli
from gateway.database.pool import Connection, connect
from gateway.networks import Network, load_networks
from gateway.payments.evm.chains import treasury_of
from gateway.payments.evm.encoding import parse_address, show_address
from gateway.payments.evm.node import Node
from gateway.payments.evm.purchases import BOOKED, FORGIVE, LIST, OpenPurchase, buyer_address, open_nodes, rail_of
from gateway.payments.evm.rpc import RpcError
from gateway.payments.evm.wallet_movements import Movement, NotMoved, book, final_receipt, moved
from pricing.money import format_amount

TREASURY_HELP = "The treasury's address, where neither TOLLWAY_CHAIN_TREASURY nor the relayer's key says it; or none."


@click.group()
def purchases() -> None:
    """Look at what was bought from publishers' servers, and at the wallet that pays."""


@purchases.command("list")
@click.option("--limit", default=100, show_default=True)
def list_command(limit: int) -> None:
    """List purchases whose end is not known yet, and those that were paid and brought nothing."""

    async def work(connection: Connection) -> list[OpenPurchase]:
        return await LIST.all(connection, limit)

    for purchase in on_connection(work):
        click.echo(_line(purchase))


@purchases.command("forgive")
@click.argument("slug")
def forgive_command(slug: str) -> None:
    """Buy again from a publisher, and the others of its owner, that was paid for what it did not deliver.

    What it cost stays booked.
    """

    async def work(connection: Connection) -> int:
        forgiven = await FORGIVE.run(connection, slug)
        await record(connection, "purchase.forgive", None, details={"slug": slug, "purchases": forgiven})
        return forgiven

    click.echo(f"forgave {on_connection(work)} purchases from the owner of {slug}")


@purchases.command("fund")
@click.argument("asset")
@click.argument("transaction")
@click.option("--treasury", help=TREASURY_HELP)
def fund_command(asset: str, transaction: str, treasury: str | None) -> None:
    """Book what TRANSACTION has brought the buying wallet of ASSET (such as eip155:8453/USDC).

    How much that was, and from whom, is read from the chain. The same transaction is booked once.
    """
    click.echo(asyncio.run(_move(asset, transaction, treasury, incoming=True)))


@purchases.command("withdraw")
@click.argument("asset")
@click.argument("transaction")
@click.option("--treasury", help=TREASURY_HELP)
def withdraw_command(asset: str, transaction: str, treasury: str | None) -> None:
    """Book what TRANSACTION has taken out of the buying wallet of ASSET, as `fund` books what came in.

    It moves nothing: you have signed it with the wallet's key. What was bought is booked without you, and left out.
    """
    click.echo(asyncio.run(_move(asset, transaction, treasury, incoming=False)))


@purchases.command("balance")
@click.argument("asset")
def balance_command(asset: str) -> int:
    """Compare what the books and the chain have in the buying wallet. Exit status 1 when they differ.

    They do while purchases are open that their upstreams have been paid for.
    """
    return asyncio.run(_compare(asset))


@dataclass(frozen=True, slots=True)
class _Looking:
    """What a look at the wallet needs: the books, a token, the chain that it is on, and the wallet's address."""

    connection: Connection
    asset: Asset
    token: bytes
    network: Network
    node: Node
    wallet: bytes

    @property
    def rail(self) -> str:
        return rail_of(self.network.id, self.asset.symbol)

    async def booked(self) -> int:
        return await BOOKED.one(self.connection, self.rail)

    def text(self, units: int) -> str:
        return f"{format_amount(units, self.asset.decimals)} {self.asset.symbol}"


@asynccontextmanager
async def _looking(name: str, env: Mapping[str, str]) -> AsyncGenerator[_Looking]:
    wallet = buyer_address(env)
    if wallet is None:
        raise click.ClickException("there is no buying wallet: set TOLLWAY_CHAIN_BUYER_ADDRESS, or its key")
    nodes = open_nodes(load_networks(env))
    connection = await connect(settings_for_cli().database.direct)
    try:
        asset = await _asset(connection, name)
        if asset.network_id not in nodes or asset.contract_address is None:
            raise click.ClickException(f"{name} is no token on a network that has a node")
        yield _Looking(connection, asset, parse_address(asset.contract_address), *nodes[asset.network_id], wallet)
    except RpcError as error:
        raise click.ClickException(f"the node does not answer: {error}") from None
    finally:
        for _, node in nodes.values():
            await node.rpc.aclose()
        await connection.close()


async def _compare(name: str) -> int:
    async with _looking(name, chain_for_cli()) as it:
        there, booked = await it.node.token_balance(it.token, it.wallet), await it.booked()
        click.echo(f"{show_address(it.wallet)}: books {it.text(booked)}, chain {it.text(there)}")
        return 0 if booked == there else 1


async def _move(name: str, transaction: str, treasury: str | None, *, incoming: bool) -> str:
    env = chain_for_cli()
    digest, theirs = _digest(transaction), _treasury(treasury, env)
    async with _looking(name, env) as it:
        try:
            receipt = await final_receipt(it.node, digest, max(it.network.confirmations, 1))
            found = await moved(
                it.connection, receipt, it.network.id, it.token, it.wallet, theirs, incoming=incoming
            )  # fmt: skip
        except NotMoved as why:
            raise click.ClickException(f"nothing booked: {why}") from None
        async with it.connection.transaction():
            new = await book(
                it.connection, it.asset.ledger_asset_id, it.network.id, it.asset.symbol, digest, found,
                incoming=incoming,
            )  # fmt: skip
            if new:
                details = {
                    "asset": name,
                    "transaction": "0x" + digest.hex(),
                    "amount_atomic": found.treasury + found.outside,
                }
                with operating():
                    action = "purchase.fund" if incoming else "purchase.withdraw"
                    await record(it.connection, action, None, details=details)
        said = _said(it, found, new=new, incoming=incoming)
        return f"{said}; the books have {it.text(await it.booked())} in the wallet"


def _said(it: _Looking, found: Movement, *, new: bool, incoming: bool) -> str:
    if not new:
        return "nothing booked: this transaction was booked before"
    ends = ((found.treasury, "the treasury"), (found.outside, "outside"))
    way = "from" if incoming else "to"
    return "booked " + " and ".join(f"{it.text(amount)} {way} {end}" for amount, end in ends if amount)


def _digest(text: str) -> bytes:
    if not re.fullmatch("0x[0-9a-fA-F]{64}", text):
        raise click.BadParameter("must be a transaction's hash: 0x and 64 hexadecimal digits", param_hint="TRANSACTION")
    return bytes.fromhex(text[2:])


def _treasury(text: str | None, env: Mapping[str, str]) -> bytes | None:
    """Return the treasury's address. It is asked for, because what is booked wrong cannot be booked again."""
    if text == "none":
        return None
    try:
        found = treasury_of(env) if text is None else parse_address(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--treasury") from None
    if found is None:
        raise click.ClickException(
            "which address is the treasury? Set TOLLWAY_CHAIN_TREASURY, or say --treasury ADDRESS; none: there is none"
        )
    return found


async def _asset(connection: Connection, name: str) -> Asset:
    assets = {f"{one.network_id}/{one.symbol}": one for one in await LIST_ASSETS.all(connection)}
    if name not in assets:
        raise click.ClickException(f"no asset is called {name}; there are {', '.join(sorted(assets))}")
    return assets[name]


def _line(purchase: OpenPurchase) -> str:
    transaction = f"  {purchase.transaction}" if purchase.transaction else ""
    return (
        f"{purchase.exchange_id}  {purchase.publisher or '?'}  {purchase.network}  {purchase.amount} of "
        f"{show_address(purchase.asset)} (atomic) to {show_address(purchase.payee)}  {purchase.state}{transaction}"
    )
