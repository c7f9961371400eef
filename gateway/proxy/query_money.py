"""The money of a query: the most it may cost is authorized before it runs, what is due is taken before it is answered.

From a balance (here) the most is held and what was metered is captured. A balance below the most, but not below the
estimate, is held whole, and the query is stopped where it is used up; so is what the budget of the key has left. The
other rail is onchain/query_purse.py.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import ClassVar

from gateway.catalog.snapshot import AssetPrice
from gateway.errors import Unavailable
from gateway.ledger.answers import StoredAnswer
from gateway.ledger.exchanges import HoldVerdict
from gateway.ledger.holds import Capture, Hold, Holds
from gateway.proxy.allowance import allowance_of
from gateway.proxy.authorize import Shortfall, WalletNumbers, wallet_of
from gateway.proxy.balances import balance_fields
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.idempotency import NOT_KEPT
from gateway.proxy.plan_quota import check_quota, plan_counters
from gateway.proxy.quote import prepaid_price
from gateway.proxy.settle import settlement_of
from pricing.quote import FREE, Quote, quote_of
from pricing.sql.budget import Budget

END_SECONDS = 0.03
"""How long the ledger usually takes to write what a query has cost."""
REDUCTIONS = 3
"""How often a hold is tried with less: a day's budget, a month's and the balance may each have less left."""

Answer = tuple[HeaderPairs, bytes | None]
"""An answer's fields and body; no body where it is too large to keep."""


class Purse(ABC):
    """What one query may take, and has taken. Amounts are atomic units of the price's asset."""

    source: ClassVar[str]
    """The contract's word for where the money comes from."""

    def __init__(self, exchange: Exchange, price: AssetPrice, held: int = 0) -> None:
        self.exchange, self.price, self.rate = exchange, price, price.rows
        self.held = held

    def cost(self, metered: int) -> Quote:
        """Return what metered rows cost: never less than the minimum, never more than what is authorized."""
        return quote_of(min(self.rate.quote(metered).amount, self.held), self.rate.fee_ppm, "rows")

    @abstractmethod
    async def take(self, quote: Quote, reason: str, answer: Answer | None = None) -> HeaderPairs:
        """Take what is due, and keep the answer of a call that can be repeated, all durably.

        Returns what the answer's head says of it. Raises a Problem; then nothing is taken, and nobody has the answer.
        """

    @abstractmethod
    def leave(self, quote: Quote, reason: str) -> None:
        """Take what is due without waiting: the caller has gone, or this process has no time."""


class BalancePurse(Purse):
    """Takes from the balance of whoever sent the API key."""

    source = "prepaid_balance"

    def __init__(self, exchange: Exchange, price: AssetPrice, holds: Holds) -> None:
        super().__init__(exchange, price)
        self.ended = False
        self._left = 0  # what can be spent beside what is held
        self._allowance = exchange.allowance = allowance_of(exchange.principal, price.asset)
        self._holds = holds

    @classmethod
    def of(cls, exchange: Exchange, holds: Holds) -> BalancePurse:
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
        return await wallet_of(exchange, exchange.principal, price, wallets)

    async def hold(self, wallet: int, budget: Budget) -> int:
        """Hold the most that the query may cost, or what there is; return the rows that this pays for.

        Raises Shortfall or BudgetExceeded when that is less than the estimate, QuotaExceeded and Unavailable; then
        nothing is held.
        """
        self.exchange.quote = self.rate.quote(budget.shown)
        verdict, wanted = await self._reserve(wallet, budget)
        if verdict.verdict in ("busy", "beyond"):  # the end of an earlier query may be on its way from another worker
            await asyncio.sleep(END_SECONDS)
            verdict, wanted = await self._reserve(wallet, budget)
        if not verdict.paid:
            check_quota(self.exchange.principal, verdict)
            if self._allowance is not None:
                self._allowance.check(verdict, self.rate.quote(budget.estimate).amount)
            raise Shortfall("The balance does not cover the estimate for this query.", verdict.available)
        self.held, self._left = wanted, verdict.available
        self.exchange.quote = FREE
        return self.rate.rows_for(wanted, budget.most)

    async def _reserve(self, wallet: int, budget: Budget) -> tuple[HoldVerdict, int]:
        """Hold the most, or all that there is where that covers the estimate. Returns the amount as well.

        What there is, is what the balance and the budget of the key have left. Raises BudgetExceeded for an estimate
        that is above a limit alone.
        """
        least, wanted = self.rate.quote(budget.estimate).amount, self.rate.quote(budget.most).amount
        if self._allowance is not None:
            wanted = self._allowance.at_most(wanted, least)
        verdict = await self._place(wallet, wanted)
        for _ in range(REDUCTIONS):
            room = self._room(verdict)
            if verdict.paid or not 0 < least <= room < wanted:
                break
            wanted = room
            verdict = await self._place(wallet, wanted)
        return verdict, wanted

    def _room(self, verdict: HoldVerdict) -> int:
        room = self._allowance.room(verdict) if self._allowance is not None else None
        return verdict.available if room is None else room

    async def _place(self, wallet: int, amount: int) -> HoldVerdict:
        exchange, allowance = self.exchange, self._allowance
        counters = allowance.counters(amount) if allowance is not None else ()
        counters += plan_counters(exchange.principal)
        return await self._holds.place(
            Hold(exchange.id, wallet, exchange.sold.id, self.price.account_id, amount, counters)
        )

    async def take(self, quote: Quote, reason: str, answer: Answer | None = None) -> HeaderPairs:
        """Capture and release the rest: at once, but only a call that has a key waits for it (docs/money.md)."""
        exchange = self.exchange
        self.ended = True
        capture = self._capture(quote, reason, answer)
        left = self._left + self.held - quote.amount
        if capture.key is None:
            self._holds.finish_later(capture)
        else:
            exchange.outcome = "refunded"
            left = (await self._holds.finish(capture)).available
        exchange.quote = quote
        exchange.outcome = "settled"
        exchange.keyed = None
        said = balance_fields(self.price, left)
        return said if self._allowance is None else said + self._allowance.fields(self.held - quote.amount)

    def leave(self, quote: Quote, reason: str) -> None:
        """Capture as soon as it can be done."""
        if self.held and not self.ended:
            self.ended = True
            self.exchange.quote = quote
            self.exchange.outcome = "settled" if quote.amount else "refunded"
            self._holds.finish_later(self._capture(quote, reason, None))

    def _capture(self, quote: Quote, reason: str, answer: Answer | None) -> Capture:
        exchange, keyed = self.exchange, self.exchange.keyed
        settlement = settlement_of(exchange, reason)
        if keyed is None or answer is None:
            return Capture(settlement, quote.amount, quote.fee)
        headers = [pair for pair in answer[0] if pair[0] not in NOT_KEPT and pair[0] != b"content-length"]
        kept = StoredAnswer(exchange.answered, headers, answer[1], keyed.request_hasher.digest())
        return Capture(settlement, quote.amount, quote.fee, keyed.owner_id, keyed.key, kept)
