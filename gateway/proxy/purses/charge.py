"""A price that is known before the call: it is charged before the upstream hears of the call.

An answer that the refund rule keeps is settled with the ledger's next batch. A refund is durable before the caller
reads of it; when the ledger cannot be reached it is made as soon as it is back.
"""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache
from typing import TYPE_CHECKING

from gateway.billing import prepaid_credits
from gateway.billing.prepaid_credits import Ending
from gateway.catalog.snapshot import AssetPrice
from gateway.errors import Unavailable
from gateway.identity.principals import Principal
from gateway.ledger.counters import Counter
from gateway.ledger.entries import Charge, Settlement
from gateway.ledger.exchanges import ChargeVerdict
from gateway.proxy.allowance import Allowance, allowance_of
from gateway.proxy.balances import balance_fields
from gateway.proxy.effects import perform
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.plan_quota import check_quota, plan_counters
from gateway.proxy.purses.hold import END_SECONDS
from gateway.proxy.purses.keyed import KeyedPurse
from gateway.proxy.purses.purse import FREE_OF_CHARGE
from gateway.proxy.purses.wallets import Shortfall, payer_of, wallet_of
from gateway.proxy.settlement import settlement_of
from gateway.proxy.tiers import charge_in_step
from gateway.telemetry.logging import of
from pricing.money import format_amount

if TYPE_CHECKING:
    from gateway.proxy.parts import Parts

log = logging.getLogger(__name__)


class ChargePurse(KeyedPurse):
    """Charges the quote to the caller's balance."""

    __slots__ = ("_allowance", "_price", "_verdict")

    def __init__(self, parts: Parts, price: AssetPrice) -> None:
        super().__init__(parts)
        self._price = price
        self._verdict: ChargeVerdict | None = None
        self._allowance: Allowance | None = None

    @property
    def paid(self) -> bool:
        """Return whether the charge is posted."""
        return self._verdict is not None

    async def authorize(self, exchange: Exchange) -> None:
        """Post the charge. Raises Shortfall, BudgetExceeded, QuotaExceeded or Unavailable."""
        payer, tiers = payer_of(exchange, self._price), exchange.tiers
        if tiers is None:
            self._verdict = await self._charge(exchange, payer)
        else:
            self._verdict = await charge_in_step(
                exchange,
                payer.account_id,
                tiers,
                self._parts.usages,
                lambda counter: self._charge(exchange, payer, counter),
            )
        if self._allowance is not None:
            await self._allowance.look(self._parts.services.database)

    async def _charge(self, exchange: Exchange, payer: Principal, counter: Counter | None = None) -> ChargeVerdict:
        """Post a charge of the quote, and count it. The verdict is of a paid charge, or `beyond` of `counter`."""
        offer, price, ledger = exchange.quote, self._price, self._parts.services.ledger
        wallet, allowance, counters = 0, None, () if counter is None else (counter,)
        if offer.amount:  # a call in a free tier needs no wallet
            wallet = await wallet_of(exchange, payer, price, self._parts.wallets)
            allowance = allowance_of(payer, price.asset)
        self._allowance = allowance
        if allowance is not None:
            counters += allowance.counters(offer.amount)
        if offer.amount:
            counters += plan_counters(payer)
        charge = Charge(exchange.id, wallet, exchange.sold.id, price.account_id, offer.amount, offer.fee, counters)
        verdict = await ledger.charge(charge)
        check_quota(payer, verdict)
        if verdict.verdict == "beyond" and (counter is None or verdict.kind != counter.kind):
            await asyncio.sleep(END_SECONDS)  # the end of an earlier hold may be on its way, as in hold.py
            verdict = await ledger.charge(charge)
        if verdict.paid or (counter is not None and verdict.kind == counter.kind):
            return verdict
        check_quota(payer, verdict)
        if allowance is not None:
            allowance.check(verdict, offer.amount)
        raise Shortfall("The balance does not cover this call.", verdict.available)

    async def end(self, exchange: Exchange, ending: Ending) -> bool:
        """Keep the charge or give it back, by the rule."""
        if self._verdict is None:
            return await super().end(exchange, ending)
        if exchange.outcome in ("settled", "refunded"):
            return exchange.outcome == "refunded"
        decision = prepaid_credits.settle(
            ending,
            exchange.status,
            answered=exchange.head_sent,
            refunded=exchange.refunds.statuses,
            judged=exchange.judged,
        )
        # A call whose key is still claimed has no stored answer (that would have settled it): the key is given back, so
        # the charge is too. Its caller may ask, and pay, again.
        if decision.action == "keep" and exchange.keyed is None:
            exchange.outcome = "settled"
            self._parts.services.ledger.settle(settlement_of(exchange, decision.reason))
            return False
        exchange.outcome = "refunded"
        try:
            await perform("refund", self._refund(exchange, decision.reason))
        except Unavailable:
            log.warning("refund is owed: the ledger is away", extra=of(exchange.id))
        return True

    async def _refund(self, exchange: Exchange, reason: str) -> None:
        await self._parts.services.ledger.refund(exchange.id, reason=reason, status=exchange.status)

    def _settlement(self, exchange: Exchange) -> Settlement | None:
        owed = self._verdict is not None and exchange.outcome not in ("settled", "refunded")
        return settlement_of(exchange, exchange.ending) if owed else None

    def fields(self, exchange: Exchange, *, refunded: bool) -> HeaderPairs:
        """Return the cost, what of the balance is left, and which parts of it were drawn."""
        charge, quoted = self._verdict, exchange.quote.amount
        if charge is None or not quoted:
            return [FREE_OF_CHARGE]
        asset, back = self._price.asset, quoted if refunded else 0
        headers = [
            *_cost(quoted - back, asset.decimals, asset.symbol),
            *balance_fields(self._price, charge.available + back),
            *(self._allowance.fields(back) if self._allowance is not None else ()),
        ]
        if not refunded:
            headers.append(_drawn(charge.deposit, charge.promotional, charge.funded, asset.decimals))
        return headers


# Prices repeat, so their texts are kept; what is left of a balance does not.
@lru_cache(maxsize=4096)
def _cost(amount: int, decimals: int, symbol: str) -> HeaderPairs:
    return [(b"x-cost", format_amount(amount, decimals).encode()), (b"x-cost-asset", symbol.encode())]


@lru_cache(maxsize=4096)
def _drawn(deposit: int, promotional: int, funded: int, decimals: int) -> tuple[bytes, bytes]:
    parts = {"deposit": deposit, "promotional": promotional, "funded": funded}
    texts = [f"{name}={format_amount(part, decimals)}" for name, part in parts.items() if part]
    return b"x-cost-drawn", ", ".join(texts).encode()
