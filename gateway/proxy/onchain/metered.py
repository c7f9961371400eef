"""A call whose price its answer tells, paid by a signed authorization for the most that it may cost.

`upto` settles what the answer came to, which is read first: the answer is gathered, streams as well, as long as the
authorization lives and the answer can be kept. One that goes on is settled whole, like `exact`, and passed on as it
comes. `exact` pays the most, whatever the answer says: what is signed is what is moved.
"""

from __future__ import annotations

import time

from gateway.billing.prepaid_credits import Ending
from gateway.billing.x402_per_request import LEAST_SECONDS
from gateway.errors import Unavailable
from gateway.proxy.deliver import response_headers, send_at_once, whole_content
from gateway.proxy.exchange import Exchange
from gateway.proxy.idempotency import release_key
from gateway.proxy.meter import Meter
from gateway.proxy.onchain import hold
from gateway.proxy.onchain.offers import Sale, rate_in
from gateway.proxy.onchain.payment import CallPayment
from gateway.services import Services
from gateway.upstreams.http.response import UpstreamResponse

NOT_BACK = "The payment could not be given back yet; present it again in a moment."


def meter_of(exchange: Exchange, sale: Sale) -> Meter | None:
    """Return what reads the cost of a call that is paid by a sale; None where the price is what was signed."""
    publisher = exchange.sold
    if exchange.meter is None or sale.offer.kind.scheme != "upto":
        return None
    rate = rate_in(sale.price, publisher, exchange.method, exchange.candidates)
    return None if rate is None else Meter(rate, publisher.watch)


async def until_settled(
    exchange: Exchange, answer: UpstreamResponse, payment: CallPayment, meter: Meter, services: Services
) -> Ending | None:
    """Settle what the answer says, send it, and return how that ended. None, and raises, as hold.until_settled."""
    exchange.answered = answer.status
    await meter.begin(answer)
    seconds = max(payment.valid_before - time.time() - LEAST_SECONDS, services.settings.x402.gather)
    if not await answer.gather(services.answers.keep, seconds):
        await hold.settled_first(exchange, payment)
        return None
    body = whole_content(answer) or b""
    exchange.gave_out(body)
    meter.end()
    payment.due = exchange.quote = meter.due
    if payment.due.amount == 0:
        if await payment.give_back(exchange, "delivered") == "waiting":
            raise Unavailable(NOT_BACK)
        await release_key(exchange, services.answers, services.ledger)
        return await send_at_once(exchange, response_headers(exchange, answer, refunded=True), body)
    await hold.kept_until_settled(exchange, payment, response_headers(exchange, answer, refunded=False), body)
    return await send_at_once(exchange, response_headers(exchange, answer, refunded=False), body)
