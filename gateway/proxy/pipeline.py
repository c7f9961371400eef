"""The paid path, top to bottom: this file is its documentation.

intake -> match -> identify -> limit -> quote -> authorize -> forward -> deliver -> settle. Each step fills in the
exchange or raises one Problem. Whatever happens, an exchange whose money moved ends settled or refunded; what a crash
leaves open is the reconciler's (jobs/reconcile.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Self

from gateway.billing.prepaid_credits import Ending, gives_back
from gateway.billing.quotas import KIND as QUOTA
from gateway.errors import (
    Overloaded,
    Problem,
    QuotaExceeded,
    Unavailable,
)
from gateway.faults import ARMED, act
from gateway.identity.clients import Network, networks
from gateway.limits.policy import Policy
from gateway.proxy.admission import Admission, Reason, overloaded
from gateway.proxy.authorize import Shortfall, WalletNumbers, authorize
from gateway.proxy.body import ClientGone, cut_short
from gateway.proxy.buying import Buyer, to_its_end
from gateway.proxy.cut import cut_connection
from gateway.proxy.deliver import deliver
from gateway.proxy.destination import Destination, Destinations
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.failures import admit, unanswered
from gateway.proxy.forward import NO_FIELDS, forward
from gateway.proxy.idempotency import claim_key, keep_answer, release_key, replay
from gateway.proxy.identify import identify
from gateway.proxy.intake import intake
from gateway.proxy.judge import judge
from gateway.proxy.limit import limit
from gateway.proxy.live import Live
from gateway.proxy.loop_lag import LoopLag
from gateway.proxy.match import match
from gateway.proxy.mcp.purchase import Purchases
from gateway.proxy.mcp.seller import McpSeller
from gateway.proxy.observe import observe
from gateway.proxy.onchain.presented import presents
from gateway.proxy.onchain.rail import OnchainRail
from gateway.proxy.problems import (
    answer_internal_error,
    answer_payment_required,
    answer_problem,
    problem_answer,
    turn_away,
)
from gateway.proxy.queries import Queries
from gateway.proxy.quote import quote
from gateway.proxy.settle import settle
from gateway.proxy.tiers import Usages
from gateway.services import Services
from gateway.telemetry.logging import of
from gateway.upstreams.http.errors import (
    UpstreamError,
)
from gateway.upstreams.http.response import UpstreamResponse

log = logging.getLogger(__name__)


# Endings after whose last bytes the caller's connection is cut, so that no part can be taken for the whole.
CUT = frozenset[Ending]({"broken_off", "total_timeout", "client_stalled"})


class Truncated(Exception):
    """The answer broke off after its head had gone out: the server must cut the connection, not end it cleanly."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The steps with the parts that they need, made once per worker."""

    services: Services
    wallets: WalletNumbers
    usages: Usages
    per_key: Policy
    per_address: Policy
    guesses: Policy
    destinations: Destinations
    trusted: tuple[Network, ...]
    queries: Queries
    mcp: McpSeller
    live: Live
    admission: Admission
    loop_lag: LoopLag
    onchain: OnchainRail | None = None
    buyer: Buyer | None = None

    @classmethod
    def build(cls, services: Services, onchain: OnchainRail | None = None, buyer: Buyer | None = None) -> Self:
        """Derive limits and bounds from the settings. `onchain` takes payments that calls bring along, `buyer` pays
        servers that ask for some.
        """
        limits, wallets, live = services.settings.limits, WalletNumbers(services.database), Live()
        usages, trusted = Usages(services.database), tuple(networks(services.settings.server.trusted_proxies))
        destinations = Destinations(services.settings, services.metrics, services.authenticate)

        async def pay(exchange: Exchange) -> None:
            await authorize(exchange, services.ledger, services.holds, wallets, usages)

        return cls(
            services,
            wallets,
            usages,
            Policy("key", limits.per_key, 60),
            Policy("address", limits.per_address, 60),
            Policy("guesses", limits.guesses, 60),
            destinations,
            trusted,
            Queries(services, wallets, live, trusted, onchain),
            McpSeller.build(services, Purchases(services, destinations, pay, onchain)),
            live,
            Admission(services.settings.proxy.wait, services.settings.proxy.calls),
            LoopLag(),
            onchain,
            buyer,
        )

    @property
    def crowded(self) -> bool:
        """Return whether a call that begins now is refused."""
        return self.admission.is_full(len(self.live.calls))

    def shed(self) -> Overloaded:
        """Return the refusal of a call of which nothing was made, where it is crowded."""
        return self._too_many(self.admission.refuse(len(self.live.calls), perf_counter()))

    async def serve(self, exchange: Exchange) -> None:
        """Walk one call to its booked end and answer it. Raises only Truncated, and cancellation."""
        exchange.lag = self.loop_lag.lag
        reason = self.admission.enter(exchange, len(self.live.calls), exchange.started)
        if reason is not None:
            exchange.bounds = self.services.settings.proxy
            await turn_away(exchange, self._too_many(reason))
            return
        self.live.calls[exchange] = asyncio.current_task()
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
            self.admission.shedder.leave(exchange)
            del self.live.calls[exchange]
            if exchange.place is not None:
                exchange.place.leave()
            exchange.end_upload()
            if exchange.peeked is not None:
                exchange.peeked.stop()
            observe(exchange, self.services)

    def _too_many(self, reason: Reason) -> Overloaded:
        self.services.metrics.turned_away(reason)
        return overloaded(reason)

    async def _serve(self, exchange: Exchange) -> None:
        """Walk, and answer what stopped the walk; a fault in that answer is a fault like any other."""
        services = self.services
        try:
            await self._walk(exchange)
        except Shortfall as shortfall:
            await settle(exchange, services.ledger, "refused")
            await release_key(exchange, services.answers, services.ledger)
            await self._ask(exchange, shortfall)
        except ClientGone:
            await settle(exchange, services.ledger, "client_gone")
            await release_key(exchange, services.answers, services.ledger)
            with contextlib.suppress(OSError):
                await answer_problem(exchange, cut_short())
        except Problem as problem:
            await settle(exchange, services.ledger, "refused")
            await self._refuse(exchange, problem)
        except asyncio.CancelledError:
            if self.live.cutting:
                await self._cut_off(exchange)
                return
            if exchange.stalled:
                await self._leave(exchange)
            # The server gave up on the caller. The money still has to end, after this task.
            services.ledger.spawn(self._abandon(exchange))
            raise

    async def _walk(self, exchange: Exchange) -> None:
        services = self.services
        intake(exchange, services.settings.proxy)
        candidates = match(exchange, services.catalog)
        if self.destinations.crowded(exchange.slug, exchange.started):
            raise self._too_many("publisher")  # which `admit` would say as well, after more work
        await identify(exchange, services.identities, services.proofs, services.limiter, self.guesses, self.trusted)
        await limit(exchange, services.limiter, self.per_key, self.per_address, self.trusted)
        exchange.mark("limit")
        if exchange.sold.mcp:
            ending = await self.mcp.serve(exchange)
            if ending is not None:
                await self._end(exchange, ending)
            return
        if self.onchain is not None and presents(exchange) and not exchange.sold.relays:
            if exchange.sold.sale is not None:
                await self.queries.sell_onchain(exchange, exchange.sold.sale, self.onchain)
                return
            quote(exchange, candidates)
            if exchange.quote.amount:
                await self._walk_onchain(exchange, self.onchain)
                return
        buyer = self.buyer if self.buyer is not None and self.buyer.takes(exchange) else None
        # What a key means to a server that sells by itself is its own; a 402 must not be what a payment gets again.
        relays = exchange.sold.relays and buyer is None
        finished = None if relays else await claim_key(exchange, services.answers, services.ledger)
        if finished is not None:
            await replay(exchange, finished)
            return
        if ARMED == "claim.after":
            await act()
        sale = exchange.sold.sale
        if sale is not None:
            await self.queries.sell(exchange, sale)
            return
        if buyer is None:
            quote(exchange, candidates)
        else:
            await buyer.prepare(exchange)
        to = self.destinations.find(exchange.sold)
        self.admission.shedder.leave(exchange)  # a full publisher must not make us refuse calls to others
        await admit(exchange, to, services)
        self.admission.shedder.come_back(exchange)
        try:
            if ARMED == "authorize.before":
                await act()
            begun = perf_counter()
            await authorize(exchange, services.ledger, services.holds, self.wallets, self.usages)
            if ARMED == "authorize.after":
                await act()
            exchange.mark("authorize")
            limited, paid = exchange.marks[0][1], exchange.marks[-1][1]
            self.admission.shedder.passed(exchange, exchange.lag + limited - exchange.started + paid - begun, paid)
            if buyer is None:
                await self._buy(exchange, to)
            else:
                await to_its_end(exchange, self.live, self._buy_for(exchange, to, buyer))
        finally:
            to.breaker.abandon(exchange)

    async def _walk_onchain(self, exchange: Exchange, rail: OnchainRail) -> None:
        """Go on with a call that brings its payment along, until its booked end (proxy/onchain)."""
        taken = await rail.claim(exchange)
        if taken is None:
            return
        to = self.destinations.find(exchange.sold)
        await admit(exchange, to, self.services)
        try:
            await rail.authorize(exchange, taken)
            exchange.mark("authorize")
            answer = await self._answer(exchange, to)
            try:
                ending = await rail.deliver(exchange, answer)
            except UpstreamError as error:  # in the middle of a body that nobody has seen anything of
                raise await unanswered(exchange, to, error, self.services) from error
            finally:
                await answer.aclose()
            await self._end(exchange, ending)
        finally:
            to.breaker.abandon(exchange)

    async def _ask(self, exchange: Exchange, shortfall: Shortfall) -> None:
        """Answer 402."""
        if self.onchain is not None and not exchange.sold.relays:  # what its server sells we cannot
            await self.onchain.ask(exchange, shortfall)
            return
        await answer_payment_required(
            exchange, self.services.settings.public_url, available=shortfall.available, error=shortfall.detail
        )

    async def _buy(self, exchange: Exchange, to: Destination) -> None:
        """Forward, deliver and settle: from here on the exchange may be paid."""
        answer = await self._answer(exchange, to)
        if exchange.refunds.rules is not None:  # first: what is gathered for them has its cost in it
            await self._judge(exchange, to, answer)
        if exchange.held is not None:
            await self._measure(exchange, to, answer)
        await self._hand_over(exchange, answer)

    async def _buy_for(self, exchange: Exchange, to: Destination, buyer: Buyer) -> None:
        """The same where the upstream may ask for a payment of its own, which the gateway makes (proxy/buying.py)."""
        answer = await self._answer(exchange, to)
        if answer.status == 402:
            answer = await buyer.pay(exchange, to, answer, lambda payment: self._answer(exchange, to, payment))
        await self._hand_over(exchange, answer)

    async def _hand_over(self, exchange: Exchange, answer: UpstreamResponse) -> None:
        """Deliver an answer and settle."""
        services = self.services
        # The refund of an answer that costs nothing is durable before the caller reads that it does.
        given_back = gives_back(answer.status, exchange.refunded_statuses, exchange.judged) is not None
        refunded = given_back and await settle(exchange, services.ledger, "delivered")
        if ARMED == "refund.after" and refunded:
            await act()

        async def keep(headers: HeaderPairs, body: bytes | None) -> None:
            await keep_answer(exchange, services.answers, services.ledger, headers, body)

        try:
            ending = await deliver(
                exchange,
                answer,
                refunded=refunded,
                keep=keep,
                limit=services.answers.keep,
                patience=services.settings.proxy.client_timeout,
            )
        finally:
            await answer.aclose()
        await self._end(exchange, ending)

    async def _measure(self, exchange: Exchange, to: Destination, answer: UpstreamResponse) -> None:
        """Begin to read what an answer costs; what breaks off while it is waited for was nobody's answer."""
        if exchange.meter is None:
            return
        try:
            await exchange.meter.begin(answer)
        except UpstreamError as error:
            await answer.aclose()
            raise await unanswered(exchange, to, error, self.services) from error

    async def _judge(self, exchange: Exchange, to: Destination, answer: UpstreamResponse) -> None:
        """Look whether the publisher's rules give an answer back; one that breaks off meanwhile was nobody's answer."""
        try:
            await judge(exchange, answer)
        except UpstreamError as error:
            await answer.aclose()
            raise await unanswered(exchange, to, error, self.services) from error

    async def _answer(self, exchange: Exchange, to: Destination, payment: HeaderPairs = NO_FIELDS) -> UpstreamResponse:
        """Forward the call and return the upstream's answer, its head at least."""
        try:
            answer = await forward(exchange, self.services.upstreams, to, payment)
        except UpstreamError as error:
            raise await unanswered(exchange, to, error, self.services) from error
        if to.breaker.watching:
            to.breaker.succeeded(monotonic())
        exchange.end_upload()  # what the upstream has not read by now it does not want
        exchange.mark("upstream")
        exchange.sent = True
        exchange.status = answer.status
        if ARMED == "forward.after":
            await act()
        return answer

    async def _end(self, exchange: Exchange, ending: Ending) -> None:
        """Settle a call whose answer was delivered, as far as it was. Raises Truncated."""
        services = self.services
        exchange.mark("deliver")
        if ARMED == "deliver.after":
            await act()
        await settle(exchange, services.ledger, ending)
        if ARMED == "settle.after":
            await act()
        if ending == "broken_off":
            services.metrics.upstream_error(exchange.sold.slug, "BrokenBody")
            await release_key(exchange, services.answers, services.ledger)
        if ending == "client_stalled":
            cut_connection(exchange.scope)
        if ending in CUT:
            raise Truncated

    async def _refuse(self, exchange: Exchange, problem: Problem) -> None:
        """Answer a problem. Once the upstream may have seen the call, a repeat gets this answer, not a second call."""
        services = self.services
        if isinstance(problem, QuotaExceeded):
            services.metrics.limit_verdict(QUOTA, "refused")
        owed = exchange.keyed is not None and exchange.sent and exchange.payment is None
        if owed and not isinstance(problem, Unavailable):
            headers, body = problem_answer(exchange, problem)
            exchange.answered = problem.status
            try:
                await keep_answer(exchange, services.answers, services.ledger, headers, body)
                exchange.keyed = None
            except Unavailable as unavailable:
                problem = unavailable
        await release_key(exchange, services.answers, services.ledger)
        if exchange.head_sent:  # in the middle of an answer nothing else can be said
            raise Truncated
        await answer_problem(exchange, problem)

    async def _abandon(self, exchange: Exchange) -> None:
        """End a call that nobody waits for any more."""
        await settle(exchange, self.services.ledger, "client_gone")
        await release_key(exchange, self.services.answers, self.services.ledger)

    async def _leave(self, exchange: Exchange) -> None:
        """End a call whose caller does not take its answer: it was delivered. Raises Truncated."""
        _go_on()
        await settle(exchange, self.services.ledger, "client_stalled")
        cut_connection(exchange.scope)
        raise Truncated

    async def _cut_off(self, exchange: Exchange) -> None:
        """End a call that this process has no time to finish: it costs nothing. Raises Truncated."""
        _go_on()
        await settle(exchange, self.services.ledger, "gateway_stopped")
        await release_key(exchange, self.services.answers, self.services.ledger)
        if exchange.head_sent:
            raise Truncated
        await answer_problem(exchange, Unavailable("The gateway is stopping; you were not charged. Try again."))


def _go_on() -> None:
    """Let the task that was cancelled to get here end its call in peace."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
