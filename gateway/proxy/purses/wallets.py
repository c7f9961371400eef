"""Which wallet pays a call from a balance, and what is said where none can."""

from __future__ import annotations

from uuid import UUID

from gateway.catalog.assets import Asset
from gateway.catalog.snapshot import AssetPrice
from gateway.database.pool import Database
from gateway.errors import PaymentRequired
from gateway.identity.principals import Principal
from gateway.ledger.wallets import FIND_WALLET, SPENDABLE
from gateway.proxy.exchange import Exchange
from pricing.money import format_amount

CACHE_SIZE = 200_000


class Shortfall(PaymentRequired):
    """Not enough, or no payer. `available` is atomic units; answered as x402's 402, not as a problem."""

    def __init__(self, detail: str, available: int) -> None:
        super().__init__(detail)
        self.available = available


class WalletNumbers:
    """Which wallet an account has in an asset. Wallets are never renumbered, so known ones are cached."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._known: dict[tuple[UUID, UUID], int] = {}

    async def find(self, account_id: UUID, asset_id: UUID) -> int | None:
        """Return the wallet's number, or None when the account has none in this asset."""
        key = (account_id, asset_id)
        number = self._known.get(key)
        if number is None:
            wallet = await self.database.read(lambda connection: FIND_WALLET.first(connection, account_id, asset_id))
            if wallet is None:
                return None
            if len(self._known) >= CACHE_SIZE:
                self._known.clear()
            number = self._known[key] = wallet.id
        return number


def payer_of(exchange: Exchange, price: AssetPrice) -> Principal:
    """Return whose balance pays. Raises Shortfall where there is nobody, or the publisher takes no balances."""
    payer = exchange.principal
    if payer is None:
        what = "Queries have a price" if exchange.sold.sale is not None else "This call has a price"
        raise Shortfall(f"{what}: send an API key (Authorization: Bearer) that has funds.", 0)
    if not price.prepaid:
        raise Shortfall("This publisher does not take prepaid balances in this asset.", 0)
    return payer


async def wallet_of(exchange: Exchange, payer: Principal, price: AssetPrice, wallets: WalletNumbers) -> int:
    """Return the wallet that pays. Raises Shortfall for none, and for one with less than the publisher asks for."""
    wallet = await wallets.find(payer.account_id, price.asset.ledger_asset_id)
    if wallet is None:
        raise Shortfall(f"You have no {price.asset.symbol} balance.", 0)
    if price.balances is not None and price.balances.least:
        await _check_least(wallet, exchange.sold.id, price.balances.least, price.asset, wallets.database)
    return wallet


async def _check_least(wallet: int, publisher_id: UUID, least: int, asset: Asset, database: Database) -> None:
    """Calls at once may each see the same balance: this asks how well off a caller is, and never lets it overdraw."""
    available = await database.read(lambda connection: SPENDABLE.one(connection, wallet, publisher_id))
    if available < least:
        shown = format_amount(least, asset.decimals)
        raise Shortfall(f"This publisher asks for a balance of at least {shown} {asset.symbol}.", available)
