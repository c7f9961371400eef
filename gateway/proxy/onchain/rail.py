"""The steps of a call that brings its payment along, in order; pipeline.py calls them.

    claim       read the payment, verify it for an offer of ours, and claim its name; or answer what it bought before
    authorize   ask the chain what it is worth, and reserve it; under `settle_first` settle it
    deliver     under `before_response` hold the answer until the payment is settled, else pass it on

Whatever happens after `authorize`, the payment ends: kept with the answer, or given back (payment.py). An unpaid call
is told what it may be paid with (`ask`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from gateway.billing.prepaid_credits import Ending, gives_back
from gateway.billing.x402_per_request import policy_for
from gateway.errors import Problem, Unavailable
from gateway.faults import ARMED, act
from gateway.payments.calls import Deliveries
from gateway.payments.evm.rpc import NoAnswer, NodeRefused
from gateway.payments.evm.settlements import Order, Reservation
from gateway.payments.examine import Examined
from gateway.payments.x402.reasons import PaymentRefused, Reason
from gateway.payments.x402.verify import Verified
from gateway.proxy.authorize import Shortfall
from gateway.proxy.deliver import deliver
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.idempotency import fingerprint, release_key
from gateway.proxy.judge import judge
from gateway.proxy.onchain import ask, hold, metered
from gateway.proxy.onchain.claim import answer_again, bought, claim, explained, fate_before, fate_of, pending
from gateway.proxy.onchain.declined import Declined
from gateway.proxy.onchain.metered import meter_of
from gateway.proxy.onchain.offers import Offers, Sale, resource_of
from gateway.proxy.onchain.payment import CallPayment
from gateway.proxy.onchain.presented import Presented, check, read
from gateway.services import Services
from gateway.settings import SettlementPolicy
from gateway.upstreams.http.response import UpstreamResponse

NODE_AWAY = "The chain's node does not answer, so your payment cannot be checked; nothing was charged. Try again."
TOO_SLOW = (
    "Your payment was not settled in time, so the call was not made; the authorization was never sent. Try again."
)


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
        found = await claim(exchange, presented, self.services)
        if found is not None:
            await answer_again(exchange, found, presented, self.services)
            return None
        if ARMED == "x402.claimed":
            await act()
        left = verified.terms.valid_before - int(time.time())
        return Taken(presented, verified, sale, policy_for(sale.policy, left))

    async def authorize(self, exchange: Exchange, taken: Taken) -> CallPayment:
        """Reserve the payment, and settle it first where that is the policy. Raises Declined or another Problem."""
        examined = await self._examine(exchange, taken)
        self.services.suspended_wallets.demand(examined.terms.payer)  # who has signed is told why
        self.services.ledger.begin(exchange.id)
        payment = CallPayment(
            self.services, self.deliveries, exchange.id, taken.sale, taken.presented.taken.version,
            examined.terms.payer, taken.policy, self.services.ledger.worker_id,
        )  # fmt: skip
        exchange.asset_price, exchange.quote = taken.sale.price, taken.sale.quote
        payment.valid_before = examined.terms.valid_before
        exchange.payment = payment  # from here on it ends with the call, also when the database's answer is lost
        reservation = await self._reserve(exchange, payment, examined)
        if reservation.verdict == "exposed":  # not trusted: as without trust, then
            payment.policy = "before_response"
            reservation = await self._reserve(exchange, payment, examined)
        if reservation.verdict != "reserved":
            payment.never_was()
            raise await self._unreserved(exchange, taken, reservation)
        if payment.policy == "settle_first":
            await self._settle_first(exchange, payment)
        exchange.meter = meter_of(exchange, taken.sale)
        return payment

    async def deliver(self, exchange: Exchange, answer: UpstreamResponse) -> Ending:
        """Pass the answer on and return how that ended; the payment is kept with it, or given back before."""
        payment = exchange.payment
        if payment is None:
            raise RuntimeError("authorize has not run")
        proxy, keeps = self.services.settings.proxy, self.services.answers.keep
        await judge(exchange, answer)
        given_back = gives_back(answer.status, exchange.refunds.statuses, exchange.judged) is not None
        if given_back:
            await payment.end(exchange, "delivered")
            await release_key(exchange, self.services.answers, self.services.ledger)
        elif payment.policy == "before_response":
            if exchange.meter is not None:
                ending = await metered.until_settled(exchange, answer, payment, exchange.meter, self.services)
            else:
                ending = await hold.until_settled(exchange, answer, self.services)
            if ending is not None:
                return ending

        async def keep(headers: HeaderPairs, body: bytes | None) -> None:
            await payment.keep(exchange, headers, body)

        return await deliver(
            exchange, answer, refunded=given_back, keep=keep, limit=keeps, patience=proxy.client_timeout
        )

    def _policy(self, exchange: Exchange) -> SettlementPolicy:
        return exchange.sold.onchain.settlement_for(exchange.candidates, self.services.settings.x402.settlement)

    async def _examine(self, exchange: Exchange, taken: Taken) -> Examined:
        """Ask the payer's wallet where its key has not signed, and the chain what the authorization is worth."""
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
        return await self.services.settlements.reserve(
            order, funds=examined.funds, exposure=cap if order.deferred else None
        )

    async def _settle_first(self, exchange: Exchange, payment: CallPayment) -> None:
        await payment.submit()
        status = await payment.wait()
        if status.state == "confirmed":
            return
        if await payment.give_back(exchange, status.reason or "settlement_timeout") == "cancelled":
            raise Unavailable(TOO_SLOW)
        raise hold.not_settled(payment, status)
