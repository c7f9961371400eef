"""The money of a query: the most it may cost is held before it runs, what was metered is captured before it ends.

A balance below the most, but not below the estimate, is held whole, and the query is stopped where it is used up. This
is where another rail would authorize a maximum.
"""

from __future__ import annotations

from uuid import UUID

from gateway.catalog.snapshot import AssetPrice
from gateway.errors import Unavailable
from gateway.ledger.answers import StoredAnswer
from gateway.ledger.exchanges import HoldVerdict
from gateway.ledger.holds import Capture, Hold, Holds
from gateway.proxy.authorize import Shortfall, WalletNumbers
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.idempotency import NOT_KEPT
from gateway.proxy.quote import prepaid_price
from gateway.proxy.settle import settlement_of
from pricing.quote import FREE, Quote, quote_of
from pricing.sql.budget import Budget, rounded


class Purse:
    """What one query may take, has taken and has given back. Amounts are atomic units of the price's asset."""

    def __init__(self, exchange: Exchange, price: AssetPrice, holds: Holds) -> None:
        self.exchange, self.price, self.rate = exchange, price, price.rows
        self.held = 0
        self.ended = False
        self._holds = holds

    @classmethod
    def of(cls, exchange: Exchange, holds: Holds) -> Purse:
        """Return the purse of an exchange. Raises Unavailable for a publisher without prices."""
        price = prepaid_price(exchange.sold)
        if price is None or price.rows.quote(1_000_000).amount == 0:  # never free by accident
            raise Unavailable(f"{exchange.slug} has no prices for queries yet, so it cannot be called.", retry_after=60)
        exchange.asset_price = price
        return cls(exchange, price, holds)

    async def payer(self, wallets: WalletNumbers, rows: int) -> int:
        """Return the wallet that pays. Raises Shortfall for nobody; `rows` is what the query's text alone allows."""
        exchange, price = self.exchange, self.price
        exchange.quote = self.rate.quote(rows)
        if exchange.principal is None:
            raise Shortfall("Queries have a price: send an API key (Authorization: Bearer) that has funds.", 0)
        if not price.prepaid:
            raise Shortfall("This publisher does not take prepaid balances in this asset.", 0)
        wallet = await wallets.find(exchange.principal.account_id, price.asset.ledger_asset_id)
        if wallet is None:
            raise Shortfall(f"You have no {price.asset.symbol} balance.", 0)
        return wallet

    async def hold(self, wallet: int, budget: Budget) -> int:
        """Hold the most that the query may cost, or what there is; return the rows that this pays for.

        Raises Shortfall when that is less than the estimate, and Unavailable; then nothing is held.
        """
        wanted = self.rate.quote(budget.most).amount
        verdict = await self._place(wallet, wanted)
        if verdict.verdict == "short" and verdict.available >= self.rate.quote(budget.estimate).amount:
            wanted = verdict.available
            verdict = await self._place(wallet, wanted)
        if verdict.verdict not in ("held", "repeated"):
            self.exchange.quote = self.rate.quote(
                rounded(budget.estimate, budget.returned if budget.estimate <= budget.returned else budget.most)
            )
            raise Shortfall("The balance does not cover the estimate for this query.", verdict.available)
        self.held = wanted
        self.exchange.quote = FREE
        return self.rate.rows_for(wanted, budget.most)

    async def _place(self, wallet: int, amount: int) -> HoldVerdict:
        publisher: UUID = self.exchange.sold.id
        return await self._holds.place(Hold(self.exchange.id, wallet, publisher, self.price.account_id, amount))

    def cost(self, metered: int) -> Quote:
        """Return what metered rows cost: never less than the minimum, never more than what is held."""
        return quote_of(min(self.rate.quote(metered).amount, self.held), self.rate.fee_ppm, "rows")

    async def take(self, quote: Quote, reason: str, answer: tuple[HeaderPairs, bytes | None] | None = None) -> int:
        """Capture, release the rest and keep the answer of a call that has a key, all durably; return what is left.

        Raises Unavailable; then nothing stays charged.
        """
        exchange = self.exchange
        self.ended = True
        exchange.outcome = "refunded"
        ended = await self._holds.finish(self._capture(quote, reason, answer))
        exchange.quote = quote
        exchange.outcome = "settled"
        exchange.keyed = None
        return ended.available

    def leave(self, quote: Quote, reason: str) -> None:
        """Capture without waiting: the caller has gone, or this process has no time."""
        if self.held and not self.ended:
            self.ended = True
            self.exchange.quote = quote
            self.exchange.outcome = "settled" if quote.amount else "refunded"
            self._holds.finish_later(self._capture(quote, reason, None))

    def _capture(self, quote: Quote, reason: str, answer: tuple[HeaderPairs, bytes | None] | None) -> Capture:
        exchange, keyed = self.exchange, self.exchange.keyed
        settlement = settlement_of(exchange, reason)
        if keyed is None or answer is None:
            return Capture(settlement, quote.amount, quote.fee)
        headers = [pair for pair in answer[0] if pair[0] not in NOT_KEPT and pair[0] != b"content-length"]
        kept = StoredAnswer(exchange.answered, headers, answer[1], keyed.request_hasher.digest())
        return Capture(settlement, quote.amount, quote.fee, keyed.owner_id, keyed.key, kept)
