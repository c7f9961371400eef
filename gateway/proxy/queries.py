"""The paid path of a database publisher, from its body to its booked end: the steps after idempotency's claim.

read -> check -> plan -> hold -> run and meter -> capture -> answer. A query that is refused before it runs costs
nothing; one that ran costs at least the minimum, whatever became of it (docs/sql.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from gateway.catalog.experiences import Experiences, Seen
from gateway.catalog.sales import Sale
from gateway.errors import BudgetExceeded, InvalidRequest, Problem, QuotaExceeded
from gateway.faults import ARMED, act
from gateway.identity.clients import Network
from gateway.limits.policy import Check, Policy
from gateway.payments.x402.reasons import Reason
from gateway.proxy.authorize import Shortfall, WalletNumbers
from gateway.proxy.exchange import Exchange
from gateway.proxy.identify import counted_address
from gateway.proxy.limit import refusal
from gateway.proxy.live import Live
from gateway.proxy.onchain.declined import Declined
from gateway.proxy.onchain.offers import covers
from gateway.proxy.onchain.query_purse import PaymentPurse
from gateway.proxy.onchain.rail import OnchainRail
from gateway.proxy.problems import problem_answer
from gateway.proxy.query_delivery import CallerLeft, Outlet
from gateway.proxy.query_looks import count_look
from gateway.proxy.query_money import BalancePurse, Purse
from gateway.proxy.query_request import QueryRequest, read_request
from gateway.proxy.query_run import Run, checked_query, not_run, ran
from gateway.proxy.quote import prepaid_price
from gateway.services import Services
from gateway.upstreams.postgres.errors import DatabaseError, QueryTimeout
from gateway.upstreams.postgres.markets import Market, OpenQuery
from gateway.upstreams.postgres.parameters import BadParameter
from pricing.money import format_amount
from pricing.quote import FREE
from pricing.sql.budget import Budget, bound, budget
from pricing.sql.learning import lesson
from pricing.sql.policy import CheckedQuery

Asker = tuple[UUID, UUID | None]
"""A publisher and who asks it, None for nobody that is known."""

Authorize = Callable[[Budget], Awaitable[int]]
NOT_A_BUDGET = "sign an amount from the estimate of this query up to its maximum: those are the offers"


@dataclass(frozen=True, slots=True)
class Asked:
    """A query that is on sale, and where it runs."""

    request: QueryRequest
    market: Market
    checked: CheckedQuery


class Queries:
    """Sells queries. One per worker."""

    def __init__(
        self,
        services: Services,
        wallets: WalletNumbers,
        live: Live,
        trusted: Sequence[Network],
        onchain: OnchainRail | None,
    ) -> None:
        self._services = services
        self._wallets = wallets
        self._live = live
        self._trusted = trusted
        self._onchain = onchain
        self._looks = Policy("estimates", services.settings.limits.estimates, 60)

    async def sell(self, exchange: Exchange, sale: Sale) -> None:
        """Run one query for a balance and answer it. Raises Problem or ClientGone; its money has its end then."""
        purse = BalancePurse.of(exchange, self._services.holds)
        asked = await self._check(exchange, sale, await read_request(exchange))
        try:
            wallet = await purse.payer(self._wallets, bound(asked.checked, asked.market.bounds.rows))
        except Shortfall:
            if self._onchain is not None and self._onchain.offers.takes(exchange.sold):
                await self._price(exchange, asked)
            raise
        exchange.mark("check")
        await self._answer(purse, asked, lambda budget: self._hold(purse, wallet, budget))

    async def sell_onchain(self, exchange: Exchange, sale: Sale, rail: OnchainRail) -> None:
        """Run one query for the payment that came along. Raises Problem or ClientGone; its money has its end then.

        The signature is checked before anything is planned, and what was signed when the plan is there.
        """
        request = await read_request(exchange)
        exchange.read_body = request.body
        try:
            taken = await rail.claim(exchange)
        except Declined:
            await self._price(exchange, await self._check(exchange, sale, request))
            raise
        if taken is None:
            return
        asked = await self._check(exchange, sale, request)
        exchange.budget = await self._planned(exchange, asked)
        exchange.mark("check")
        try:
            if not covers(taken.sale, exchange.budget):
                raise Declined(str(Reason.VALUE), NOT_A_BUDGET)
            payment = await rail.authorize(exchange, taken)
        except Declined:
            await self._count_look(exchange)
            raise
        purse = PaymentPurse(exchange, payment)
        await self._answer(purse, asked, purse.rows)

    async def _check(self, exchange: Exchange, sale: Sale, request: QueryRequest) -> Asked:
        """Return what is asked as it may run, and where. Raises Problem."""
        market, checked = await checked_query(
            self._services.markets,
            exchange.sold.id,
            sale,
            request.query,
            params=len(request.params),
            database=request.database,
        )
        return Asked(request, market, checked)

    async def _price(self, exchange: Exchange, asked: Asked) -> None:
        """Plan a query that nobody has paid, to say what it costs on a chain. Raises Problem, RateLimited too."""
        await self._count_look(exchange)
        exchange.budget = await self._planned(exchange, asked)
        price = prepaid_price(exchange.sold)
        if price is not None:
            exchange.asset_price, exchange.quote = price, price.rows.quote(exchange.budget.shown)

    async def _count_look(self, exchange: Exchange) -> None:
        principal = exchange.principal
        caller = principal.key_id if principal is not None else counted_address(exchange, self._trusted)
        await count_look(self._services, caller, exchange.sold.id)

    async def _planned(self, exchange: Exchange, asked: Asked) -> Budget:
        """Return what a query may come to, before it is let run. Raises Problem."""
        try:
            async with asked.market.open(asked.checked, asked.request.params) as query:
                return planned_budget(asked.checked, query, asked.market, self._services.experiences, _asker(exchange))
        except BadParameter as error:
            raise InvalidRequest(f"params: {error}.") from None
        except DatabaseError as error:
            self._services.metrics.upstream_error(exchange.slug, type(error).__name__)
            raise not_run(error) from error

    async def _answer(self, purse: Purse, asked: Asked, authorize: Authorize) -> None:
        """Run it within what `authorize` returns for its budget, in rows, and answer it."""
        services, settings, exchange = self._services, self._services.settings, purse.exchange
        exchange.named = "query"
        outlet = Outlet(
            exchange,
            purse,
            asked.request.form,
            buffer=settings.queries.buffer,
            keep=services.answers.keep,
            patience=settings.proxy.client_timeout,
        )
        run, end = Run(purse, outlet), "failed"
        try:
            await self._run(run, asked, authorize)
            if ARMED == "query.read":
                await act()
            end = run.truncated or "whole"
            await run.answer()
            exchange.mark("deliver")
            if ARMED == "query.delivered":
                await act()
        except CallerLeft:
            end = "left"
            purse.leave(run.cost, "client_gone")
        except BaseException as error:
            self._leave(run, error)
            raise
        finally:
            outlet.close()
            if run.allowed:
                services.metrics.query_ended(exchange.slug, end, run.read.count, run.read.size)

    async def _run(self, run: Run, asked: Asked, authorize: Authorize) -> None:
        """Plan, hold, read. Raises Problem when there is nothing to answer."""
        exchange, market, checked = run.purse.exchange, asked.market, asked.checked
        try:
            async with market.open(checked, asked.request.params) as query:
                exchange.mark("plan")
                budget = planned_budget(checked, query, market, self._services.experiences, _asker(exchange))
                paid = await authorize(budget)
                exchange.mark("authorize")
                if ARMED == "query.held":
                    await act()
                await query.ready()
                if ARMED == "query.ready":
                    await act()
                run.allow(checked, query, market.bounds, budget, paid)
                await run.read_all(query)
                self._learn(run, checked, query, budget)
        except BadParameter as error:
            raise InvalidRequest(f"params: {error}.") from None
        except DatabaseError as error:
            self._services.metrics.upstream_error(exchange.slug, type(error).__name__)
            if not run.allowed:
                raise not_run(error) from error
            await _failed(run, error)
        exchange.mark("upstream")

    def _learn(self, run: Run, checked: CheckedQuery, query: OpenQuery, asked: Budget) -> None:
        """Say how good the estimate was, and let the next one of such a query be better."""
        planned, read = query.planned, run.read
        if read.stopped is None:
            self._services.metrics.query_estimated(asked.estimate, run.metered)
        limited = checked.limit if planned.rows == planned.source else planned.rows
        actual = lesson(planned.source, limited, read.count, cut=read.stopped is not None)
        publisher_id, account_id = _asker(run.purse.exchange)
        if account_id is not None and actual is not None and not checked.one_row:
            self._services.experiences.saw(Seen(publisher_id, checked.shape, account_id, planned.source, actual))

    async def _hold(self, purse: BalancePurse, wallet: int, asked: Budget) -> int:
        """Hold and return the rows that are paid for.

        A price that is not paid, and that says more than the query's text does, is a free look, and limited.
        """
        known = purse.exchange.quote
        purse.exchange.budget = asked
        try:
            rows = await purse.hold(wallet, asked)
        except (Shortfall, BudgetExceeded, QuotaExceeded):
            principal = purse.exchange.principal
            if principal is not None and purse.exchange.quote != known:
                verdict = await self._services.limiter.check(Check(principal.key_id, self._looks))
                if not verdict.allowed:
                    raise refusal(verdict) from None
            raise
        if purse.exchange.allowance is not None:
            await purse.exchange.allowance.look(self._services.database)
        return rows

    def _leave(self, run: Run, error: BaseException) -> None:
        """End the money of a query whose answer nobody gets whole.

        A caller who left pays what was read for it; nothing is due when the gateway stops or fails, nor from a caller
        who can ask again with the same key.
        """
        due = isinstance(error, asyncio.CancelledError) and not self._live.cutting
        due = due and run.allowed and run.purse.exchange.keyed is None
        if due:
            run.purse.leave(run.cost, "client_gone")
        else:
            never_ran = isinstance(error, Problem) and not run.allowed
            run.purse.leave(FREE, "unreachable" if never_ran else "gateway_stopped")


def _asker(exchange: Exchange) -> Asker:
    return exchange.sold.id, exchange.principal.account_id if exchange.principal is not None else None


def planned_budget(
    checked: CheckedQuery, query: OpenQuery, market: Market, experiences: Experiences, asker: Asker
) -> Budget:
    """Return what a planned query may come to, by the plan and by what such queries came to before."""
    planned = query.planned
    publisher_id, account_id = asker
    expected = experiences.expected(publisher_id, checked.shape, account_id, planned.source)
    return budget(
        checked,
        planned=expected if planned.rows == planned.source else min(expected, planned.rows),
        folded=planned.folded,
        width=planned.width,
        columns=query.described.columns,
        cap=market.bounds.rows,
        size=market.bounds.size,
    )


async def _failed(run: Run, error: DatabaseError) -> None:
    """Charge for a query that broke off. Returns when what was read before a deadline is the answer; else raises."""
    purse, exchange = run.purse, run.purse.exchange
    run.over()
    if isinstance(error, QueryTimeout) and run.read.count:
        run.late = True
        return
    quote = run.cost if exchange.head_sent else purse.cost(1)
    problem = ran(error, format_amount(quote.amount, purse.price.asset.decimals))
    headers, body = problem_answer(exchange, problem)
    exchange.status = problem.status
    if not exchange.head_sent:
        exchange.answered = problem.status
        exchange.gave_out(body)
    said = await purse.take(quote, "query_failed", (headers, body))
    problem.headers.update({name.decode(): value.decode() for name, value in said})
    raise problem from error
