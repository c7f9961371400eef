"""`before_response`: the answer is held until its payment is settled, and nobody has it when that fails.

An answer that is whole within a moment is kept first: when its caller leaves, or the settlement takes longer than
anybody waits, presenting the payment again fetches it. A longer one cannot be kept before it is there; its payment is
settled as soon as its head promises an answer, and goes back when the answer then breaks off.
"""

from __future__ import annotations

from gateway.billing.prepaid_credits import Ending
from gateway.errors import Problem, Unavailable
from gateway.payments.evm.settlements import Status
from gateway.proxy.deliver import response_headers, send_at_once, whole_content
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.onchain.claim import pending
from gateway.proxy.onchain.declined import Declined
from gateway.proxy.onchain.payment import CallPayment
from gateway.services import Services
from gateway.upstreams.http.response import UpstreamResponse


async def until_settled(exchange: Exchange, answer: UpstreamResponse, services: Services) -> Ending | None:
    """Settle the call's payment, send the answer if it is whole, and return how that ended.

    None: it is settled, and the answer is still to be sent.

    Raises Declined when the settlement failed, SettlementPending, Unavailable, or UpstreamError when the answer broke
    off before.
    """
    payment = exchange.payment
    if payment is None:
        raise RuntimeError("authorize has not run")
    exchange.answered = answer.status
    if not await answer.gather(services.answers.keep, services.settings.x402.gather):
        await settled_first(exchange, payment)
        return None
    body = whole_content(answer) or b""
    exchange.gave_out(body)
    await kept_until_settled(exchange, payment, response_headers(exchange, answer, refunded=False), body)
    return await send_at_once(exchange, response_headers(exchange, answer, refunded=False), body)


async def settled_first(exchange: Exchange, payment: CallPayment) -> None:
    """Settle a payment whose answer cannot be kept before it is there. Raises Declined or SettlementPending."""
    await payment.submit()
    status = await payment.wait()
    if status.state != "confirmed":
        await payment.give_back(exchange, status.reason or "settlement_timeout")
        raise not_settled(payment, status)


async def settled_to_open(exchange: Exchange, payment: CallPayment) -> None:
    """Settle a connection's payment before it is accepted; one on trust is submitted, because connections last.

    Raises Declined, SettlementPending or Unavailable.
    """
    if payment.policy == "deferred":
        await payment.submit()
    elif not payment.submitted:
        await settled_first(exchange, payment)


async def kept_until_settled(
    exchange: Exchange, payment: CallPayment, headers: HeaderPairs, body: bytes, reason: str = "delivered"
) -> None:
    """Keep a whole answer with its payment, and wait until that is settled. Raises as `until_settled`."""
    await payment.keep(exchange, headers, body, reason)
    exchange.outcome = "unsettled"
    try:
        status = await payment.wait()
    except Unavailable:
        raise pending(payment.id, payment.services) from None
    if status.state != "confirmed":
        raise not_settled(payment, status)
    exchange.outcome = "settled"


def not_settled(payment: CallPayment, status: Status) -> Problem:
    """Return the answer to a caller whose payment was not settled: the chain's refusal, or that it is still open."""
    if status.state == "failed":
        settlement = payment.settlement()
        return Declined(settlement.reason or "", version=payment.version, settlement=settlement)
    return pending(payment.id, payment.services)
