"""A plain HTTP call: forwarded as it came, its answer delivered as it comes."""

from __future__ import annotations

from time import monotonic

from gateway.billing.prepaid_credits import Ending, gives_back
from gateway.proxy.deliver import deliver
from gateway.proxy.effects import perform
from gateway.proxy.exchange import HeaderPairs
from gateway.proxy.failures import unanswered
from gateway.proxy.forward import NO_FIELDS, forward
from gateway.proxy.judge import judge
from gateway.proxy.kinds.kind import PathCall
from gateway.upstreams.http.errors import UpstreamError
from gateway.upstreams.http.response import UpstreamResponse


class HttpCall(PathCall):
    """A request that goes on to its publisher's server."""

    __slots__ = ()

    async def sell(self) -> Ending:
        """Forward the call and deliver the answer."""
        exchange = self.exchange
        answer = await exchange.purse.buy(exchange, self.to, await self._ask(), self._ask)
        try:
            refunded = await self._examined(answer)
            settings = self.parts.services.settings.proxy
            return await deliver(
                exchange,
                answer,
                refunded=refunded,
                limit=self.parts.services.answers.keep,
                patience=settings.client_timeout,
            )
        finally:
            await answer.aclose()

    async def _ask(self, payment: HeaderPairs = NO_FIELDS) -> UpstreamResponse:
        """Forward the call, with a payment of ours maybe, and return the upstream's answer, its head at least."""
        exchange, to, services = self.exchange, self.to, self.parts.services
        try:
            answer = await perform("forward", forward(exchange, services.upstreams, to, payment))
        except UpstreamError as error:
            raise await unanswered(exchange, to, error, services) from error
        if to.breaker.watching:
            to.breaker.succeeded(monotonic())
        exchange.end_upload()  # what the upstream has not read by now it does not want
        exchange.mark("upstream")
        exchange.sent = True
        exchange.status = answer.status
        return answer

    async def _examined(self, answer: UpstreamResponse) -> bool:
        """Look at an answer before its head goes out, and return whether its money was given back.

        A refund is durable before the caller reads of it. An answer that breaks off meanwhile was nobody's answer.
        """
        exchange = self.exchange
        purse = exchange.purse
        if not purse.paid:
            return False
        try:
            if exchange.refunds.rules is not None:  # first: what is gathered for them has its cost in it
                await judge(exchange, answer)
            if gives_back(answer.status, exchange.refunded_statuses, exchange.judged) is not None:
                return await purse.end(exchange, "delivered")
            await perform("look", purse.look(exchange, answer))
        except UpstreamError as error:
            raise await unanswered(exchange, self.to, error, self.parts.services) from error
        return False
