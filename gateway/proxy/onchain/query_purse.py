"""A query that is paid by a signed authorization, which is its budget.

`exact` pays what was signed, whatever the query then carries: a query that ran is paid for, also one that failed.
`upto` settles what was metered. Either is stopped where the budget is used up.
"""

from __future__ import annotations

from gateway.errors import Unavailable
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.onchain import hold
from gateway.proxy.onchain.payment import CallPayment, response_field
from gateway.proxy.query_money import Answer, Purse
from pricing.quote import Quote
from pricing.sql.budget import Budget


class PaymentPurse(Purse):
    """Takes from a payment that is reserved for this exchange; its answer is always gathered, and kept with it."""

    source = "onchain"

    def __init__(self, exchange: Exchange, payment: CallPayment) -> None:
        super().__init__(exchange, payment.sale.price, payment.sale.offer.amount)
        self._payment = payment

    async def rows(self, budget: Budget) -> int:
        """Return the rows that are paid for."""
        return self.rate.rows_for(self.held, budget.most)

    def cost(self, metered: int) -> Quote:
        """Return what the query costs by now."""
        return self._payment.sale.quote if self._payment.sale.offer.kind.scheme == "exact" else super().cost(metered)

    async def take(self, quote: Quote, reason: str, answer: Answer | None = None) -> HeaderPairs:
        """Have the payment settled for what is due, as its policy says, and keep the answer with it."""
        exchange, payment = self.exchange, self._payment
        if answer is None:
            raise RuntimeError("what is paid by an authorization is answered in one piece")
        exchange.quote, payment.due = quote, quote
        if quote.amount == 0:
            if await payment.give_back(exchange, reason) == "waiting":
                raise Unavailable("The payment could not be given back yet; present it again in a moment.")
            return []
        if payment.policy != "before_response":
            await payment.keep(exchange, *answer, reason)
        elif answer[1] is None:
            await hold.settled_first(exchange, payment)
            await payment.keep(exchange, *answer, reason)
        else:
            await hold.kept_until_settled(exchange, payment, answer[0], answer[1], reason)
        return [response_field(payment.version, payment.settlement())]

    def leave(self, quote: Quote, reason: str) -> None:
        """Do nothing: what was not kept with an answer is given back when the exchange ends (settle.py)."""
