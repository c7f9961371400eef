"""One call inside: admitted, walked (walk.py), and answered when the walk stops before its answer has begun.

What stops a walk is a refusal (a Problem), a caller who leaves, a fault of ours, or the end of this process; the money
has its end before anything is said of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from time import perf_counter

from gateway.billing.quotas import KIND as QUOTA
from gateway.errors import Overloaded, Problem, QuotaExceeded, Unavailable
from gateway.proxy.body import ClientGone, cut_short
from gateway.proxy.cut import cut_connection
from gateway.proxy.exchange import Exchange
from gateway.proxy.idempotency import release_key
from gateway.proxy.observe import observe
from gateway.proxy.parts import Parts
from gateway.proxy.problems import (
    answer_internal_error,
    answer_payment_required,
    answer_problem,
    problem_answer,
    turn_away,
)
from gateway.proxy.purses.wallets import Shortfall
from gateway.proxy.walk import Truncated, walk
from gateway.telemetry.logging import of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Serves calls. One per worker for HTTP, and one for WebSockets."""

    parts: Parts

    @property
    def crowded(self) -> bool:
        """Return whether a call that begins now is refused."""
        return self.parts.admission.is_full(len(self.parts.live.calls))

    def shed(self) -> Overloaded:
        """Return the refusal of a call of which nothing was made, where it is crowded."""
        return self.parts.too_many(self.parts.admission.refuse(len(self.parts.live.calls), perf_counter()))

    async def serve(self, exchange: Exchange) -> None:
        """Walk one call to its booked end and answer it. Raises only Truncated, and cancellation."""
        exchange.lag = self.parts.loop_lag.lag
        reason = self.parts.admission.enter(exchange, len(self.parts.live.calls), exchange.started)
        if reason is not None:
            exchange.bounds = self.parts.services.settings.proxy
            await turn_away(exchange, self.parts.too_many(reason))
            return
        self.parts.live.calls[exchange] = asyncio.current_task()
        try:
            await self._serve(exchange)
        except Truncated:
            raise
        except Exception:
            log.exception("call failed", extra=of(exchange.id))
            await self._abandon(exchange)
            if exchange.head_sent:
                raise Truncated from None
            await answer_internal_error(exchange)
        finally:
            self.parts.admission.shedder.leave(exchange)
            del self.parts.live.calls[exchange]
            if exchange.place is not None:
                exchange.place.leave()
            exchange.end_upload()
            if exchange.peeked is not None:
                exchange.peeked.stop()
            observe(exchange, self.parts.services)

    async def _serve(self, exchange: Exchange) -> None:
        """Walk, and answer what stopped the walk; a fault in that answer is a fault like any other."""
        services = self.parts.services
        try:
            await walk(exchange, self.parts)
        except Shortfall as shortfall:
            await exchange.purse.end(exchange, "refused")
            await release_key(exchange, services.answers, services.ledger)
            await self._ask(exchange, shortfall)
        except ClientGone:
            await exchange.purse.end(exchange, "client_gone")
            await release_key(exchange, services.answers, services.ledger)
            with contextlib.suppress(OSError):
                await answer_problem(exchange, cut_short())
        except Problem as problem:
            await exchange.purse.end(exchange, "refused")
            await self._refuse(exchange, problem)
        except asyncio.CancelledError:
            if self.parts.live.cutting:
                await self._cut_off(exchange)
                return
            if exchange.stalled:
                await self._leave(exchange)
            # The server gave up on the caller. The money still has to end, after this task.
            services.ledger.spawn(self._abandon(exchange))
            raise

    async def _ask(self, exchange: Exchange, shortfall: Shortfall) -> None:
        """Answer 402."""
        if self.parts.onchain is not None and not exchange.sold.relays:  # what its server sells we cannot
            await self.parts.onchain.ask(exchange, shortfall)
            return
        await answer_payment_required(
            exchange, self.parts.services.settings.public_url, available=shortfall.available, error=shortfall.detail
        )

    async def _refuse(self, exchange: Exchange, problem: Problem) -> None:
        """Answer a problem. Once the upstream may have seen the call, a repeat gets this answer, not a second call."""
        services = self.parts.services
        if isinstance(problem, QuotaExceeded):
            services.metrics.limit_verdict(QUOTA, "refused")
        owed = exchange.keyed is not None and exchange.sent and exchange.purse.keeps_refusals
        if owed and not isinstance(problem, Unavailable):
            headers, body = problem_answer(exchange, problem)
            exchange.answered = problem.status
            try:
                await exchange.purse.keep(exchange, headers, body)
                exchange.keyed = None
            except Unavailable as unavailable:
                problem = unavailable
        await release_key(exchange, services.answers, services.ledger)
        if exchange.head_sent:  # in the middle of an answer nothing else can be said
            raise Truncated
        await answer_problem(exchange, problem)

    async def _abandon(self, exchange: Exchange) -> None:
        """End a call that nobody waits for any more."""
        await exchange.purse.end(exchange, "client_gone")
        await release_key(exchange, self.parts.services.answers, self.parts.services.ledger)

    async def _leave(self, exchange: Exchange) -> None:
        """End a call whose caller does not take its answer: it was delivered. Raises Truncated."""
        _go_on()
        await exchange.purse.end(exchange, "client_stalled")
        cut_connection(exchange.scope)
        raise Truncated

    async def _cut_off(self, exchange: Exchange) -> None:
        """End a call that this process has no time to finish: it costs nothing. Raises Truncated."""
        _go_on()
        await exchange.purse.end(exchange, "gateway_stopped")
        await release_key(exchange, self.parts.services.answers, self.parts.services.ledger)
        if exchange.head_sent:
            raise Truncated
        await answer_problem(exchange, Unavailable("The gateway is stopping; you were not charged. Try again."))


def _go_on() -> None:
    """Let the task that was cancelled to get here end its call in peace."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
