"""A query to a publisher's database: checked, planned, held for, run and metered, paid, and then answered.

One that is refused before it runs costs nothing; one that ran costs at least the minimum, whatever became of it
(docs/sql.md).
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self
from uuid import UUID

from gateway.billing.prepaid_credits import Ending
from gateway.catalog.experiences import Experiences, Seen
from gateway.catalog.sales import Sale
from gateway.errors import InvalidRequest, Problem
from gateway.limits.policy import Check
from gateway.payments.x402.reasons import Reason
from gateway.proxy.effects import perform
from gateway.proxy.exchange import Exchange
from gateway.proxy.identify import counted_address
from gateway.proxy.kinds.kind import Kind
from gateway.proxy.limit import refusal
from gateway.proxy.onchain.declined import Declined
from gateway.proxy.onchain.offers import covers
from gateway.proxy.parts import Parts
from gateway.proxy.problems import problem_answer
from gateway.proxy.purses.choice import choose_for_query
from gateway.proxy.purses.metered import MeteredPurse
from gateway.proxy.purses.onchain import OnchainPurse
from gateway.proxy.query_delivery import CallerLeft, Outlet
from gateway.proxy.query_looks import count_look
from gateway.proxy.query_request import QueryRequest
from gateway.proxy.query_run import Run, checked_query, not_run, ran
from gateway.proxy.quote import prepaid_price
from gateway.upstreams.postgres.errors import DatabaseError, QueryTimeout
from gateway.upstreams.postgres.markets import Market, OpenQuery
from gateway.upstreams.postgres.parameters import BadParameter
from pricing.money import format_amount
from pricing.quote import FREE, Quote
from pricing.sql.budget import Budget, bound, budget
from pricing.sql.learning import lesson
from pricing.sql.policy import CheckedQuery

Asker = tuple[UUID, UUID | None]
"""A publisher and who asks it, None for nobody that is known."""

NOT_A_BUDGET = "sign an amount from the estimate of this query up to its maximum: those are the offers"


class QueryCall(Kind):
    """A query that was read from its request."""

    __slots__ = ("_checked", "_known", "_market", "_purse", "_query", "_request", "_sale", "_stack")

    _checked: CheckedQuery
    _market: Market
    _purse: MeteredPurse

    def __init__(self, exchange: Exchange, parts: Parts, sale: Sale, request: QueryRequest) -> None:
        super().__init__(exchange, parts)
        self._sale, self._request = sale, request
        self._stack = AsyncExitStack()  # what the query holds of its database
        self._query: OpenQuery | None = None
        self._known: Quote | None = None  # what the text alone allows
        exchange.read_body = request.body
        exchange.named = "query"

    def price(self) -> None:
        """Set the price by which rows are paid; the quote is known when the query is planned."""
        self.exchange.asset_price = prepaid_price(self.exchange.sold)

    def purse(self) -> MeteredPurse:
        """Return what pays the query."""
        self._purse = choose_for_query(self.exchange, self.parts)
        return self._purse

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._check()
            await self._plan(stack)
            if not self._purse.waits_for_chain:
                self._stack = stack.pop_all()
        if isinstance(self._purse, OnchainPurse) and not self._covered(self._purse):
            raise Declined(str(Reason.VALUE), NOT_A_BUDGET)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def _check(self) -> None:
        """Find out as what the query may run, and where, and what its text alone allows. Raises Problem."""
        exchange, request = self.exchange, self._request
        self._market, self._checked = await checked_query(
            self.parts.services.markets,
            exchange.sold.id,
            self._sale,
            request.query,
            params=len(request.params),
            database=request.database,
        )
        if exchange.asset_price is not None and not self._purse.waits_for_chain:
            self._known = exchange.asset_price.rows.quote(bound(self._checked, self._market.bounds.rows))
            exchange.quote = self._known
        exchange.mark("check")

    async def _plan(self, stack: AsyncExitStack) -> OpenQuery:
        """Plan the query in a session that the stack ends, and set what it may come to. Raises Problem."""
        exchange = self.exchange
        try:
            opening = stack.enter_async_context(self._market.open(self._checked, self._request.params))
            query = self._query = await perform("plan", opening)
        except BadParameter as error:
            raise InvalidRequest(f"params: {error}.") from None
        except DatabaseError as error:
            self.parts.services.metrics.upstream_error(exchange.slug, type(error).__name__)
            raise not_run(error) from error
        exchange.mark("plan")
        experiences = self.parts.services.experiences
        exchange.budget = planned_budget(self._checked, query, self._market, experiences, _asker(exchange))
        if exchange.asset_price is not None:
            exchange.quote = exchange.asset_price.rows.quote(exchange.budget.shown)
        return query

    def _covered(self, purse: OnchainPurse) -> bool:
        return self.exchange.budget is not None and covers(purse.sale, self.exchange.budget)

    async def unpaid(self) -> None:
        """Plan a query that can be paid on a chain, to say what it costs there.

        What a plan tells for nothing is limited. Raises Problem, RateLimited too.
        """
        exchange, onchain = self.exchange, self.parts.onchain
        if exchange.budget is None:
            await self._check()
            if onchain is not None and onchain.offers.takes(exchange.sold):
                await self._count_look()
                async with AsyncExitStack() as stack:
                    await self._plan(stack)
        elif self._purse.waits_for_chain:
            await self._count_look()
        elif exchange.principal is not None and exchange.quote != self._known:
            verdict = await self.parts.services.limiter.check(Check(exchange.principal.key_id, self.parts.looks))
            if not verdict.allowed:
                raise refusal(verdict) from None

    async def _count_look(self) -> None:
        exchange, principal = self.exchange, self.exchange.principal
        caller = principal.key_id if principal is not None else counted_address(exchange, self.parts.trusted)
        await count_look(self.parts.services, caller, exchange.sold.id)

    async def sell(self) -> Ending:
        """Run the query within what is paid for, and answer it."""
        services, exchange, purse = self.parts.services, self.exchange, self._purse
        outlet = Outlet(
            exchange,
            purse,
            self._request.form,
            buffer=services.settings.queries.buffer,
            keep=services.answers.keep,
            patience=services.settings.proxy.client_timeout,
        )
        run, end = Run(exchange, purse, outlet), "failed"
        try:
            await self._read(run)
            end = run.truncated or "whole"
            await run.answer()
            return "delivered"
        except CallerLeft:
            end = "left"
            purse.leave(exchange, run.cost, "client_gone")
            return "client_gone"
        except BaseException as error:
            self._leave(run, error)
            raise
        finally:
            outlet.close()
            if run.allowed:
                services.metrics.query_ended(exchange.slug, end, run.read.count, run.read.size)

    async def _read(self, run: Run) -> None:
        """Read the rows. Nothing is held of the database when this returns. Raises Problem, or CallerLeft."""
        exchange = self.exchange
        try:
            async with self._stack.pop_all() as stack:
                query = await self._plan(stack) if self._purse.waits_for_chain else self._query
                if query is None or exchange.budget is None:
                    raise RuntimeError("the query was not planned")
                paid = self._purse.price.rows.rows_for(self._purse.held, exchange.budget.most)
                exchange.quote = FREE
                await perform("ready", query.ready())
                run.allow(self._checked, query, self._market.bounds, exchange.budget, paid)
                await perform("query", run.read_all(query))
                self._learn(run, query, exchange.budget)
        except DatabaseError as error:
            self.parts.services.metrics.upstream_error(exchange.slug, type(error).__name__)
            if not run.allowed:
                raise not_run(error) from error
            await _failed(run, error)
        exchange.mark("upstream")

    def _learn(self, run: Run, query: OpenQuery, asked: Budget) -> None:
        """Say how good the estimate was, and let the next one of such a query be better."""
        services, checked, planned, read = self.parts.services, self._checked, query.planned, run.read
        if read.stopped is None:
            services.metrics.query_estimated(asked.estimate, run.metered)
        limited = checked.limit if planned.rows == planned.source else planned.rows
        actual = lesson(planned.source, limited, read.count, cut=read.stopped is not None)
        publisher_id, account_id = _asker(self.exchange)
        if account_id is not None and actual is not None and not checked.one_row:
            services.experiences.saw(Seen(publisher_id, checked.shape, account_id, planned.source, actual))

    def _leave(self, run: Run, error: BaseException) -> None:
        """End the money of a query whose answer nobody gets whole.

        A caller who left pays what was read for it; nothing is due when the gateway stops or fails, nor from a caller
        who can ask again with the same key.
        """
        due = isinstance(error, asyncio.CancelledError) and not self.parts.live.cutting
        if due and run.allowed and self.exchange.keyed is None:
            self._purse.leave(self.exchange, run.cost, "client_gone")
        else:
            never_ran = isinstance(error, Problem) and not run.allowed
            self._purse.leave(self.exchange, FREE, "unreachable" if never_ran else "gateway_stopped")


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
    purse, exchange = run.purse, run.exchange
    run.over()
    if isinstance(error, QueryTimeout) and run.read.count:
        run.late = True
        return
    quote = run.cost if exchange.head_sent else purse.at_most(purse.price.rows.quote(1))
    problem = ran(error, format_amount(quote.amount, purse.price.asset.decimals))
    headers, body = problem_answer(exchange, problem)
    exchange.status = problem.status
    if not exchange.head_sent:
        exchange.answered = problem.status
        exchange.gave_out(body)
    said = await purse.take(exchange, quote, "query_failed", (headers, body))
    problem.headers.update({name.decode(): value.decode() for name, value in said})
    raise problem from error
