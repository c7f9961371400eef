"""Step 6, authorize: the price is paid, durably, before the upstream hears of the call."""

from __future__ import annotations

import asyncio
from uuid import UUID

from gateway.catalog.assets import Asset
from gateway.catalog.snapshot import AssetPrice
from gateway.database.pool import Database
from gateway.errors import PaymentRequired
from gateway.identity.principals import Principal
from gateway.ledger.counters import Counter
from gateway.ledger.entries import Charge
from gateway.ledger.exchanges import ChargeVerdict
from gateway.ledger.group_commit import GroupCommit
from gateway.ledger.holds import Holds
from gateway.ledger.wallets import FIND_WALLET, SPENDABLE
from gateway.proxy.allowance import allowance_of
from gateway.proxy.exchange import Exchange
from gateway.proxy.held import END_SECONDS, HeldCall, hold_for, place
from gateway.proxy.meter import Meter
from gateway.proxy.plan_quota import check_quota, plan_counters
from gateway.proxy.tiers import Usages, charge_in_step
from pricing.money import format_amount

CACHE_SIZE = 200_000


class Shortfall(PaymentRequired):
    """Not enough, or no payer. `available` is atomic units; answered as x402's 402, not as a problem."""

    def __init__(self, detail: str, available: int) -> None:
        super().__init__(detail)
        self.available = available


class WalletNumbers:
    """Which wallet an account has in an asset. Wallets are never renumbered, so found ones are kept."""

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

    @property
    def size(self) -> int:
        """Return how many are cached."""
        return len(self._known)


async def authorize(
    exchange: Exchange, ledger: GroupCommit, holds: Holds, wallets: WalletNumbers, usages: Usages
) -> None:
    """Post the charge, or hold the most where the price is known afterwards. Free calls pass.

    Raises Shortfall, BudgetExceeded, QuotaExceeded or Unavailable; then nothing has moved.
    """
    price, tiers = exchange.asset_price, exchange.tiers
    if price is None or exchange.quote.amount == 0:
        return
    payer = exchange.principal
    if payer is None:
        raise Shortfall("This call has a price: send an API key (Authorization: Bearer) that has funds.", 0)
    if not price.prepaid:
        raise Shortfall("This publisher does not take prepaid balances in this asset.", 0)
    if exchange.meter is not None:
        await _hold(exchange, exchange.meter, price, holds, await wallet_of(exchange, payer, price, wallets))
    elif tiers is None:
        exchange.charge = await _charge(exchange, payer, price, ledger, wallets)
    else:
        exchange.charge = await charge_in_step(
            exchange,
            payer.account_id,
            tiers,
            usages,
            lambda counter: _charge(exchange, payer, price, ledger, wallets, counter),
        )
    if exchange.allowance is not None:
        await exchange.allowance.look(wallets.database)


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


async def _hold(exchange: Exchange, meter: Meter, price: AssetPrice, holds: Holds, wallet: int) -> None:
    amount = exchange.quote.amount
    allowance = exchange.allowance = allowance_of(exchange.principal, price.asset)
    counters = allowance.counters(amount) if allowance is not None else ()
    counters += plan_counters(exchange.principal)
    held = await place(holds, hold_for(exchange, meter, price, wallet, counters))
    if not held.paid:
        check_quota(exchange.principal, held)
        if allowance is not None:
            allowance.check(held, amount)
        raise Shortfall("The balance does not cover the most that this call may cost.", held.available)
    exchange.held = HeldCall(holds, meter, price, amount, held.available, allowance)


async def _charge(
    exchange: Exchange,
    payer: Principal,
    price: AssetPrice,
    ledger: GroupCommit,
    wallets: WalletNumbers,
    counter: Counter | None = None,
) -> ChargeVerdict:
    """Post a charge of the quote, and count it. The verdict is of one that was paid, or `beyond` of `counter`."""
    offer = exchange.quote
    wallet, allowance, counters = 0, None, () if counter is None else (counter,)
    if offer.amount:  # a call in a free tier needs no wallet
        wallet, allowance = await wallet_of(exchange, payer, price, wallets), allowance_of(payer, price.asset)
    exchange.allowance = allowance
    if allowance is not None:
        counters += allowance.counters(offer.amount)
    if offer.amount:
        counters += plan_counters(payer)
    charge = Charge(exchange.id, wallet, exchange.sold.id, price.account_id, offer.amount, offer.fee, counters)
    verdict = await ledger.charge(charge)
    check_quota(payer, verdict)
    if verdict.verdict == "beyond" and (counter is None or verdict.kind != counter.kind):
        await asyncio.sleep(END_SECONDS)  # the end of an earlier hold may be on its way, as in held.place
        verdict = await ledger.charge(charge)
    if verdict.paid or (counter is not None and verdict.kind == counter.kind):
        return verdict
    check_quota(payer, verdict)
    if allowance is not None:
        allowance.check(verdict, offer.amount)
    raise Shortfall("The balance does not cover this call.", verdict.available)
