"""What is asked of the books and of the chain for a payment that comes along with its call, in order.

    claim      read the payment, verify it for an offer of ours, and claim its name; or answer what it bought before
    examine    ask the chain what it is worth
    reserve    promise it to this call

From `reserve` on the payment ends: kept with the answer, or given back (purses/onchain.py). An unpaid call is told what
it may be paid with (`ask`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from gateway.billing.x402_per_request import policy_for
from gateway.errors import Problem, Unavailable
from gateway.payments.calls import Deliveries
from gateway.payments.evm.rpc import NoAnswer, NodeRefused
from gateway.payments.evm.settlements import Order, Reservation
from gateway.payments.examine import Examined
from gateway.payments.x402.reasons import PaymentRefused, Reason
from gateway.payments.x402.verify import Verified
from gateway.proxy.effects import perform
from gateway.proxy.exchange import Exchange
from gateway.proxy.idempotency import fingerprint
from gateway.proxy.onchain import ask
from gateway.proxy.onchain.claim import answer_again, bought, claim, explained, fate_before, fate_of, pending
from gateway.proxy.onchain.declined import Declined
from gateway.proxy.onchain.offers import Offers, Sale, resource_of
from gateway.proxy.onchain.payment import CallPayment
from gateway.proxy.onchain.presented import Presented, check, read
from gateway.proxy.purses.wallets import Shortfall
from gateway.services import Services
from gateway.settings import SettlementPolicy

NODE_AWAY = "The chain's node does not answer, so your payment cannot be checked; nothing was charged. Try again."


@dataclass(frozen=True, slots=True)
class Taken:
    """A payment whose name this call has claimed, and what it is for."""

    presented: Presented
    verified: Verified
    sale: Sale
    policy: SettlementPolicy


@dataclass(frozen=True, slots=True)
class OnchainRail:
    """Made once per worker, where there are chains to settle on."""

    services: Services
    offers: Offers
    deliveries: Deliveries

    @classmethod
    def build(cls, services: Services) -> Self | None:
        """Return the rail, or None when there is no network to be paid on."""
        parties = services.settlements.parties
        if not parties:
            return None
        return cls(services, Offers(services.kinds, parties), Deliveries(services.database))

    async def ask(self, exchange: Exchange, shortfall: Shortfall) -> None:
        """Answer 402 with every way to pay this call."""
        sales = self.offers.of(exchange, self._policy(exchange))
        await ask.answer(exchange, shortfall, sales, self.services)

    async def claim(self, exchange: Exchange) -> Taken | None:
        """Take the payment that came along. None: its call was made before, and was answered from store."""
        resource = resource_of(exchange, self.services.settings.public_url).url
        try:
            presented = read(exchange, self.offers.kinds)
        except PaymentRefused as refused:
            raise Declined.of(refused) from None
        sales = self.offers.of(exchange, self._policy(exchange), presented.terms.value)
        try:
            verified, sale = check(presented, sales, resource)
        except PaymentRefused as refused:
            found = await bought(exchange, presented, self.services)
            if found is None:
                raise Declined.of(refused) from None
            await answer_again(exchange, found, presented, self.services)
            return None
        found = await perform("claim", claim(exchange, presented, self.services))
        if found is not None:
            await answer_again(exchange, found, presented, self.services)
            return None
        left = verified.terms.valid_before - int(time.time())
        return Taken(presented, verified, sale, policy_for(sale.policy, left))

    async def examine(self, exchange: Exchange, taken: Taken) -> Examined:
        """Ask the payer's wallet where its key has not signed, and the chain what the authorization is worth.

        Raises Declined, Unavailable or the refusal of a suspended wallet; then nothing has happened.
        """
        examined = await perform("examine", self._examine(exchange, taken))
        self.services.suspended_wallets.demand(examined.terms.payer)  # who has signed is told why
        self.services.ledger.begin(exchange.id)
        return examined

    def payment(self, exchange: Exchange, taken: Taken, examined: Examined) -> CallPayment:
        """Return the payment that is to be reserved for a call, which costs what was signed for from now on."""
        exchange.asset_price, exchange.quote = taken.sale.price, taken.sale.quote
        return CallPayment(
            self.services, self.deliveries, exchange.id, taken.sale, taken.presented.taken.version,
            examined.terms.payer, taken.policy, self.services.ledger.worker_id,
            valid_before=examined.terms.valid_before,
        )  # fmt: skip

    async def reserve(self, exchange: Exchange, taken: Taken, payment: CallPayment, examined: Examined) -> None:
        """Reserve the payment; one that is not trusted under `before_response`. Raises Declined or another Problem."""
        reservation = await self._reserve(exchange, payment, examined)
        if reservation.verdict == "exposed":
            payment.policy = "before_response"
            reservation = await self._reserve(exchange, payment, examined)
        if reservation.verdict != "reserved":
            payment.never_was()
            raise await self._unreserved(exchange, taken, reservation)

    def _policy(self, exchange: Exchange) -> SettlementPolicy:
        return exchange.sold.onchain.settlement_for(exchange.candidates, self.services.settings.x402.settlement)

    async def _examine(self, exchange: Exchange, taken: Taken) -> Examined:
        try:
            return await self.services.examiner.examine(taken.verified)
        except PaymentRefused as refused:
            fate = await fate_before(taken.presented, self.services)
            if fate is not None:
                raise explained(exchange, fate, taken.presented, self.services) from None
            raise Declined.of(refused) from None
        except (NoAnswer, NodeRefused):
            raise Unavailable(NODE_AWAY) from None

    async def _unreserved(self, exchange: Exchange, taken: Taken, reservation: Reservation) -> Problem:
        """Return the answer to a payment that was not reserved."""
        if reservation.status is None:
            return Declined(str(Reason.FUNDS), "the wallet's open payments leave too little of its balance")
        fate = await fate_of(reservation.status.id, self.services)
        if fate is None:
            return pending(reservation.status.id, self.services)
        return explained(exchange, fate, taken.presented, self.services)

    async def _reserve(self, exchange: Exchange, payment: CallPayment, examined: Examined) -> Reservation:
        terms, sale = examined.terms, payment.sale
        order = Order(
            id=payment.id, network=sale.offer.kind.network.id, booking=sale.booking,
            deferred=payment.policy == "deferred", request_hash=fingerprint(exchange), worker_id=payment.worker_id,
            asset=terms.asset, payer=terms.payer, payee=terms.payee, nonce=terms.nonce, method=terms.method,
            authorized=terms.authorized, valid_after=terms.valid_after, valid_before=terms.valid_before,
            signature=terms.signature, deploy_target=terms.deploy_target, deploy_data=terms.deploy_data,
        )  # fmt: skip
        cap = exchange.sold.onchain.exposure_in(sale.price.asset, self.services.settings.x402)
        reserving = self.services.settlements.reserve(
            order, funds=examined.funds, exposure=cap if order.deferred else None
        )
        return await perform("reserve", reserving)
