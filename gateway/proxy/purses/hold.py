"""A price that is known after the call: the most is held before it, what is due is captured.

A balance or a budget below the most, but not below what a query probably costs, is held whole; the query is stopped
where it is used up. A hold ends once. Its capture is written at once and nobody waits for it, except with the stored
answer of a call that has a key: that is one transaction. What a dead process leaves held is released by the reconciler
(ledger/holds.py).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.billing import pay_per_use
from gateway.billing.prepaid_credits import Ending
from gateway.catalog.snapshot import AssetPrice
from gateway.ledger.answers import StoredAnswer
from gateway.ledger.exchanges import HoldVerdict
from gateway.ledger.holds import Capture, Hold
from gateway.proxy.allowance import Allowance, allowance_of
from gateway.proxy.balances import balance_fields
from gateway.proxy.effects import perform
from gateway.proxy.exchange import Exchange, HeaderPairs, Keyed
from gateway.proxy.plan_quota import check_quota, plan_counters
from gateway.proxy.purses.keyed import KeyedPurse, stored_answer
from gateway.proxy.purses.metered import Answer, MeteredPurse
from gateway.proxy.purses.wallets import Shortfall, payer_of, wallet_of
from gateway.proxy.settlement import settlement_of
from gateway.upstreams.http.response import UpstreamResponse
from pricing.money import format_amount
from pricing.quote import FREE, Quote, quote_of

if TYPE_CHECKING:
    from gateway.proxy.parts import Parts

END_SECONDS = 0.03
"""How long the ledger usually takes to write what an earlier call has cost."""
REDUCTIONS = 3
"""How often a hold is tried with less: a day's budget, a month's and the balance may each have less left."""


class HoldPurse(KeyedPurse, MeteredPurse):
    """Holds the most that a call may cost on the caller's balance, and captures what is due."""

    __slots__ = ("_allowance", "_available", "_ended", "_held", "_price", "_trails", "_wallet")

    source = "prepaid_balance"

    def __init__(self, parts: Parts, price: AssetPrice) -> None:
        super().__init__(parts)
        self._price = price
        self._allowance: Allowance | None = None
        self._wallet: int | None = None
        self._held = 0
        self._available = 0  # what can be spent beside what is held
        self._ended = False
        self._trails = False  # whether the answer's head announced that its cost is said behind its body

    @property
    def paid(self) -> bool:
        """Return whether money is, or was, held."""
        return self._held > 0

    @property
    def price(self) -> AssetPrice:
        """Return the price that is paid."""
        return self._price

    @property
    def held(self) -> int:
        """Return how much is held."""
        return self._held

    async def demand(self, exchange: Exchange) -> None:
        """Find the wallet that pays. Raises Shortfall."""
        payer = payer_of(exchange, self._price)
        self._wallet = await wallet_of(exchange, payer, self._price, self._parts.wallets)

    async def authorize(self, exchange: Exchange) -> None:
        """Hold the most that the call may cost; of a query at least what it probably costs.

        Raises Shortfall, BudgetExceeded, QuotaExceeded or Unavailable; then nothing is held.
        """
        if self._wallet is None:
            await self.demand(exchange)
        budget, rate = exchange.budget, self._price.rows
        least = exchange.quote.amount if budget is None else rate.quote(budget.estimate).amount
        most = exchange.quote.amount if budget is None else rate.quote(budget.most).amount
        self._allowance = allowance_of(exchange.principal, self._price.asset)
        verdict, amount = await self._reserve(exchange, least, most)
        if verdict.verdict in ("busy", "beyond"):  # the end of an earlier hold may be on its way
            await asyncio.sleep(END_SECONDS)
            verdict, amount = await self._reserve(exchange, least, most)
        if not verdict.paid:
            check_quota(exchange.principal, verdict)
            if self._allowance is not None:
                self._allowance.check(verdict, least)
            what = "most that this call may cost" if budget is None else "estimate for this query"
            raise Shortfall(f"The balance does not cover the {what}.", verdict.available)
        self._held, self._available = amount, verdict.available
        if self._allowance is not None:
            await self._allowance.look(self._parts.services.database)

    async def _reserve(self, exchange: Exchange, least: int, most: int) -> tuple[HoldVerdict, int]:
        """Hold the most, or all that there is where that is not less than `least`. Returns the amount as well.

        What there is, is what the balance and the budget of the key have left. Raises BudgetExceeded where `least` is
        above a limit alone.
        """
        amount = most if self._allowance is None else self._allowance.at_most(most, least)
        verdict = await self._place(exchange, amount)
        for _ in range(REDUCTIONS):
            room = self._room(verdict)
            if verdict.paid or not 0 < least <= room < amount:
                break
            amount = room
            verdict = await self._place(exchange, amount)
        return verdict, amount

    def _room(self, verdict: HoldVerdict) -> int:
        room = self._allowance.room(verdict) if self._allowance is not None else None
        return verdict.available if room is None else room

    async def _place(self, exchange: Exchange, amount: int) -> HoldVerdict:
        counters = self._allowance.counters(amount) if self._allowance is not None else ()
        counters += plan_counters(exchange.principal)
        hold = Hold(exchange.id, self._wallet or 0, exchange.sold.id, self._price.account_id, amount, counters)
        return await self._parts.services.holds.place(hold)

    async def look(self, exchange: Exchange, answer: UpstreamResponse) -> None:
        """Begin to read what the answer costs."""
        if exchange.meter is not None:
            await exchange.meter.begin(answer)

    def at_most(self, quote: Quote) -> Quote:
        """Return what is due of a query's quote."""
        return quote_of(min(quote.amount, self._held), self._price.rows.fee_ppm, "rows")

    async def take(self, exchange: Exchange, quote: Quote, reason: str, answer: Answer | None = None) -> HeaderPairs:
        """Capture at once and release the rest; only a call that has a key waits for it (docs/money.md)."""
        left, keyed = self._available + self._held - quote.amount, exchange.keyed
        if keyed is None or answer is None:
            self._over(exchange, quote, reason)
            exchange.outcome = "settled"
        else:
            stored = stored_answer(exchange, keyed, *answer)
            left = await perform("store", self._finish(exchange, quote, reason, keyed, stored))
            exchange.outcome = "settled"
        exchange.keyed = None
        said = balance_fields(self._price, left)
        return said if self._allowance is None else said + self._allowance.fields(self._held - quote.amount)

    def leave(self, exchange: Exchange, quote: Quote, reason: str) -> None:
        """Capture as soon as it can be done."""
        if self._held and not self._ended:
            self._over(exchange, quote, reason)

    async def end(self, exchange: Exchange, ending: Ending) -> bool:
        """Capture what is due by the rule, or nothing, and return whether nothing was."""
        if not self._held:
            return await super().end(exchange, ending)
        if not self._ended:
            meter = exchange.meter
            decision = pay_per_use.settle(
                ending,
                exchange.status,
                answered=exchange.head_sent or exchange.bought,  # what was bought is its caller's
                due=FREE if meter is None else meter.due,
                refunded=exchange.refunded_statuses,
                judged=exchange.judged,
            )
            # A call whose key is still claimed has no stored answer: the key is given back, so the hold is too.
            self._over(exchange, decision.due if exchange.keyed is None else FREE, decision.reason)
        return exchange.outcome == "refunded"

    async def _store(self, exchange: Exchange, keyed: Keyed, answer: StoredAnswer) -> bool:
        """Capture what is due of a metered call, and store the answer with it."""
        meter = exchange.meter
        if meter is None or self._ended or not self._held:
            return await super()._store(exchange, keyed, answer)
        await self._finish(exchange, meter.due, exchange.ending, keyed, answer)
        return True

    async def _finish(self, exchange: Exchange, quote: Quote, reason: str, keyed: Keyed, answer: StoredAnswer) -> int:
        """Capture and store: both or neither, durably. Returns what can be spent then. Raises Unavailable."""
        self._ended, exchange.outcome = True, "refunded"  # what the ledger sees to when it cannot be done
        capture = Capture(settlement_of(exchange, reason), quote.amount, quote.fee, keyed.owner_id, keyed.key, answer)
        verdict = await self._parts.services.holds.finish(capture)
        self._note(exchange, quote)
        return verdict.available

    def _over(self, exchange: Exchange, quote: Quote, reason: str) -> None:
        self._note(exchange, quote)
        self._parts.services.holds.finish_later(Capture(settlement_of(exchange, reason), quote.amount, quote.fee))

    def _note(self, exchange: Exchange, quote: Quote) -> None:
        self._ended = True
        exchange.quote = quote
        exchange.outcome = "settled" if quote.amount else "refunded"

    def fields(self, exchange: Exchange, *, refunded: bool) -> HeaderPairs:
        """Return what a metered call cost, or the most that it can come to, and what is left."""
        meter = exchange.meter
        if meter is None or not self._held:
            return super().fields(exchange, refunded=refunded)
        decimals = self._price.asset.decimals
        final = refunded or meter.whole
        due = 0 if refunded else meter.due.amount
        back = self._held - due if final else 0
        name, amount = (b"x-cost", due) if final else (b"x-cost-max", self._held)
        return [
            (name, format_amount(amount, decimals).encode()),
            (b"x-cost-asset", self._price.asset.symbol.encode()),
            *balance_fields(self._price, self._available + back),
            *(self._allowance.fields(back) if self._allowance is not None else ()),
        ]

    def announce_trailer(self, exchange: Exchange) -> bool:
        """Return whether the cost is said behind the body, because the head cannot know it; then it will be."""
        meter = exchange.meter
        self._trails = self._held > 0 and meter is not None and not (self._ended or meter.whole)
        return self._trails

    def trailer(self, exchange: Exchange) -> HeaderPairs:
        """Return what is said of the cost behind a body whose head could not say it."""
        meter = exchange.meter
        if not self._trails or meter is None:
            return []
        return [(b"x-cost", format_amount(meter.due.amount, self._price.asset.decimals).encode())]
