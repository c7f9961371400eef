"""The money of a call whose price is known afterwards: the most is held before it is made, what is due is captured.

It ends once. The capture is written at once and nobody waits for it, except with the stored answer of a call that has a
key: that is one transaction. What a dead process leaves held is released by the reconciler (ledger/holds.py).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.billing import pay_per_use
from gateway.billing.prepaid_credits import Ending
from gateway.catalog.snapshot import AssetPrice
from gateway.ledger.answers import StoredAnswer
from gateway.ledger.counters import Counter
from gateway.ledger.exchanges import HoldVerdict
from gateway.ledger.holds import Capture, Hold, Holds
from gateway.proxy.allowance import Allowance
from gateway.proxy.balances import balance_fields
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.meter import Meter
from gateway.proxy.settle import settlement_of
from pricing.money import format_amount
from pricing.quote import FREE, Quote

END_SECONDS = 0.03
"""How long the ledger usually takes to write what an earlier call has cost."""


@dataclass(slots=True)
class HeldCall:
    """A hold that was placed. `amount` is held, `available` can be spent beside it; atomic units."""

    holds: Holds
    meter: Meter
    price: AssetPrice
    amount: int
    available: int
    allowance: Allowance | None = None
    ended: bool = False
    trails: bool = False
    """Whether the answer's head announced that its cost is said behind its body."""

    def end(self, exchange: Exchange, ending: Ending) -> bool:
        """Capture what is due by the rule, or nothing, and return whether nothing was."""
        if not self.ended:
            decision = pay_per_use.settle(
                ending,
                exchange.status,
                answered=exchange.head_sent or self.meter.bought,  # what was bought for a caller is its own
                due=self.meter.due,
                refunded=exchange.refunded_statuses,
                judged=exchange.judged,
            )
            # A call whose key is still claimed has no stored answer: the key is given back, so the hold is too.
            due = decision.due if exchange.keyed is None else FREE
            self._over(exchange, due)
            self.holds.finish_later(Capture(settlement_of(exchange, decision.reason), due.amount, due.fee))
        return exchange.outcome == "refunded"

    async def keep(self, exchange: Exchange, answer: StoredAnswer) -> None:
        """Capture what is due and store the answer with it: both or neither, durably. Raises Unavailable."""
        keyed, due = exchange.keyed, self.meter.due
        if keyed is None:
            raise RuntimeError("only the answer of a call with a key is stored")
        self.ended, exchange.outcome = True, "refunded"  # what the ledger sees to when it cannot be done
        capture = Capture(
            settlement_of(exchange, exchange.ending), due.amount, due.fee, keyed.owner_id, keyed.key, answer
        )
        await self.holds.finish(capture)
        self._over(exchange, due)

    def _over(self, exchange: Exchange, due: Quote) -> None:
        self.ended = True
        exchange.quote = due
        exchange.outcome = "settled" if due.amount else "refunded"

    def fields(self, *, refunded: bool) -> HeaderPairs:
        """Return the answer's fields about its cost: what it is, or the most that it can come to."""
        decimals = self.price.asset.decimals
        final = refunded or self.meter.whole
        due = 0 if refunded else self.meter.due.amount
        back = self.amount - due if final else 0
        said = (b"x-cost", due) if final else (b"x-cost-max", self.amount)
        return [
            (said[0], format_amount(said[1], decimals).encode()),
            (b"x-cost-asset", self.price.asset.symbol.encode()),
            *balance_fields(self.price, self.available + back),
            *(self.allowance.fields(back) if self.allowance is not None else ()),
        ]

    def trailer(self) -> HeaderPairs:
        """Return what is said of the cost behind a body whose head could not say it."""
        return [(b"x-cost", format_amount(self.meter.due.amount, self.price.asset.decimals).encode())]


async def place(holds: Holds, hold: Hold) -> HoldVerdict:
    """Place a hold, and look once more where the end of an earlier one may be on its way. Raises Unavailable."""
    verdict = await holds.place(hold)
    if verdict.verdict in ("busy", "beyond"):
        await asyncio.sleep(END_SECONDS)
        verdict = await holds.place(hold)
    return verdict


def hold_for(
    exchange: Exchange, meter: Meter, price: AssetPrice, wallet: int, counters: tuple[Counter, ...] = ()
) -> Hold:
    """Return what is to be held for a call, and what that counts."""
    return Hold(exchange.id, wallet, exchange.sold.id, price.account_id, meter.rate.reserve, counters)
