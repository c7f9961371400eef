"""The paid path of a database publisher, from its body to its booked end: the steps after idempotency's claim.

read -> check -> plan -> hold -> run and meter -> capture -> answer. A query that is refused before it runs costs
nothing; one that ran costs at least the minimum, whatever became of it (docs/sql.md).
"""

from __future__ import annotations

import asyncio
from uuid import UUID

from gateway.catalog.experiences import Experiences, Seen
from gateway.catalog.sales import Sale
from gateway.errors import InvalidRequest
from gateway.limits.policy import Check, Policy
from gateway.proxy.authorize import Shortfall, WalletNumbers
from gateway.proxy.exchange import Exchange
from gateway.proxy.limit import refusal
from gateway.proxy.live import Live
from gateway.proxy.problems import problem_answer
from gateway.proxy.query_delivery import CallerLeft, Outlet
from gateway.proxy.query_money import Purse
from gateway.proxy.query_request import QueryRequest, read_request
from gateway.proxy.query_run import Run, checked_query, not_run, ran
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


class Queries:
    """Sells queries. One per worker."""

    def __init__(self, services: Services, wallets: WalletNumbers, live: Live) -> None:
        self._services = services
        self._wallets = wallets
        self._live = live
        self._looks = Policy("estimates", services.settings.limits.estimates, 60)

    async def sell(self, exchange: Exchange, sale: Sale) -> None:
        """Run one query and answer it. Raises Problem or ClientGone; its money has its end then."""
        services, settings = self._services, self._services.settings
        purse = Purse.of(exchange, services.holds)
        request = await read_request(exchange)
        market, checked = await checked_query(
            services.markets,
            exchange.sold.id,
            sale,
            request.query,
            params=len(request.params),
            database=request.database,
        )
        wallet = await purse.payer(self._wallets, bound(checked, market.bounds.rows))
        exchange.mark("check")
        outlet = Outlet(
            exchange,
            purse,
            request.form,
            buffer=settings.queries.buffer,
            keep=services.answers.keep,
            patience=settings.proxy.client_timeout,
        )
        run = Run(purse, outlet)
        try:
            await self._run(run, wallet, market, checked, request)
            await run.answer()
            exchange.mark("deliver")
        except CallerLeft:
            purse.leave(run.cost, "client_gone")
        except BaseException as error:
            self._leave(run, error)
            raise
        finally:
            outlet.close()

    async def _run(self, run: Run, wallet: int, market: Market, checked: CheckedQuery, request: QueryRequest) -> None:
        """Plan, hold, read. Raises Problem when there is nothing to answer."""
        exchange = run.purse.exchange
        try:
            async with market.open(checked, request.params) as query:
                exchange.mark("plan")
                asked = planned_budget(checked, query, market, self._services.experiences, _asker(exchange))
                run.allow(checked, query, market.bounds, asked, await self._hold(run.purse, wallet, asked))
                exchange.mark("authorize")
                await run.read_all(query)
                self._learn(run, checked, query)
        except BadParameter as error:
            raise InvalidRequest(f"params: {error}.") from None
        except DatabaseError as error:
            self._services.metrics.upstream_error(exchange.slug, type(error).__name__)
            if not run.allowed:
                raise not_run(error) from error
            await _failed(run, error)
        exchange.mark("upstream")

    def _learn(self, run: Run, checked: CheckedQuery, query: OpenQuery) -> None:
        """Let the next estimate of such a query be better."""
        planned, read = query.planned, run.read
        limited = checked.limit if planned.rows == planned.source else planned.rows
        actual = lesson(planned.source, limited, read.count, cut=read.stopped is not None)
        publisher_id, account_id = _asker(run.purse.exchange)
        if account_id is not None and actual is not None and not checked.one_row:
            self._services.experiences.saw(Seen(publisher_id, checked.shape, account_id, planned.source, actual))

    async def _hold(self, purse: Purse, wallet: int, asked: Budget) -> int:
        """Hold and return the rows that are paid for.

        A price that is not paid, and that says more than the query's text does, is a free look, and limited.
        """
        known = purse.exchange.quote
        try:
            return await purse.hold(wallet, asked)
        except Shortfall:
            principal = purse.exchange.principal
            if principal is not None and purse.exchange.quote != known:
                verdict = await self._services.limiter.check(Check(principal.key_id, self._looks))
                if not verdict.allowed:
                    raise refusal(verdict) from None
            raise

    def _leave(self, run: Run, error: BaseException) -> None:
        """End the money of a query whose answer nobody gets whole.

        A caller who left pays what was read for it; nothing is due when the gateway stops or fails, nor from a caller
        who can ask again with the same key.
        """
        due = isinstance(error, asyncio.CancelledError) and not self._live.cutting
        due = due and run.allowed and run.purse.exchange.keyed is None
        run.purse.leave(run.cost if due else FREE, "client_gone" if due else "gateway_stopped")


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
    quote = run.cost if exchange.head_sent else purse.cost(0)
    problem = ran(error, format_amount(quote.amount, purse.price.asset.decimals))
    headers, body = problem_answer(exchange, problem)
    exchange.status = problem.status
    if not exchange.head_sent:
        exchange.answered = problem.status
        exchange.gave_out(body)
    await purse.take(quote, "query_failed", (headers, body))
    raise problem from error
