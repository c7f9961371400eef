"""One query that may run: what it may use, what it has used, and what its failures mean. What it costs: pricing/sql."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from time import perf_counter
from uuid import UUID

from gateway.catalog.sales import Sale
from gateway.errors import (
    InvalidRequest,
    Problem,
    QueryFailed,
    QueryLost,
    QueryNotSold,
    QueryStopped,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.proxy.exchange import Exchange
from gateway.proxy.purses.metered import MeteredPurse
from gateway.proxy.query_answer import Summary
from gateway.proxy.query_delivery import Outlet
from gateway.upstreams.postgres.errors import DatabaseBusy, DatabaseError, DatabaseUnreachable, QueryTimeout
from gateway.upstreams.postgres.errors import QueryFailed as Refusal
from gateway.upstreams.postgres.markets import Market, Markets, OpenQuery
from gateway.upstreams.postgres.queries import Bounds, Rows
from pricing.money import format_amount
from pricing.quote import Quote
from pricing.sql.budget import Budget
from pricing.sql.guard import QueryRefused
from pricing.sql.metering import BYTES_PER_ROW, metered_rows
from pricing.sql.policy import CheckedQuery

FREE = "you were not charged."


@dataclass(slots=True)
class Run:
    """A query on its way. `allow` lets it run; before, nothing is due for it.

    `short_of_rows` and `short_of_size` say whether it is the money, not the gateway, that bounds them.
    """

    exchange: Exchange
    purse: MeteredPurse
    outlet: Outlet
    allowed: bool = False
    bounds: Bounds = field(default_factory=Bounds)
    folded: int = 0
    short_of_rows: bool = False
    short_of_size: bool = False
    read: Rows = field(default_factory=Rows)
    began: float = field(default_factory=perf_counter)
    milliseconds: int = 0
    late: bool = False

    def allow(self, checked: CheckedQuery, query: OpenQuery, bounds: Bounds, asked: Budget, paid: int) -> None:
        """Let it run within `bounds` and within `paid`, the rows that are held for."""
        rows, size = min(asked.returned, paid), min(bounds.size, paid * BYTES_PER_ROW)
        self.short_of_rows, self.short_of_size = rows < asked.returned, size < bounds.size
        # Where the text itself bounds the rows there is one more to ask for, which says that these were all.
        whole = not self.short_of_rows and (checked.one_row or checked.limit == rows)
        self.bounds = replace(bounds, rows=rows + whole, size=size)
        self.folded = query.planned.folded
        self.outlet.name_columns(query.described.columns, query.described.types)
        self.exchange.rows = self.read
        self.began = perf_counter()
        self.allowed = True

    async def read_all(self, query: OpenQuery) -> None:
        """Read to the end or the first bound. Raises DatabaseError or CallerLeft."""
        async for lot in query.rows(self.bounds, self.read):
            await self.outlet.write(lot)
        self.over()

    def over(self) -> None:
        """Note that nothing more is read."""
        self.milliseconds = round((perf_counter() - self.began) * 1_000)

    @property
    def metered(self) -> int:
        """Return the rows to pay for by now."""
        return metered_rows(returned=self.read.count, size=self.read.size, folded=self.folded)

    @property
    def truncated(self) -> str | None:
        """Return which bound ended it: rows, size, row_size, seconds or budget (what was held)."""
        if self.late:
            return "seconds"
        stopped = self.read.stopped
        if (stopped == "rows" and self.short_of_rows) or (stopped == "size" and self.short_of_size):
            return "budget"
        return stopped

    @property
    def cost(self) -> Quote:
        """Return what it costs by now."""
        return self.purse.at_most(self.purse.price.rows.quote(self.metered))

    async def answer(self) -> None:
        """Pay and send what was read. Raises Unavailable or CallerLeft."""
        quote, asset = self.cost, self.purse.price.asset
        summary = Summary(
            row_count=self.read.count,
            cost=format_amount(quote.amount, asset.decimals),
            cost_atomic=quote.amount,
            asset_symbol=asset.symbol,
            execution_time_ms=self.milliseconds,
            metered_rows=self.metered,
            truncated=self.truncated,
            payment_source=self.purse.source,
        )
        await self.outlet.finish(summary, quote)


async def checked_query(
    markets: Markets, publisher_id: UUID, sale: Sale, query: str, *, params: int, database: str | None
) -> tuple[Market, CheckedQuery]:
    """Return where and as what a query may run. Raises QueryNotSold, InvalidRequest, UpstreamUnreachable."""
    try:
        market = markets.of(publisher_id, sale)
        checked = await markets.check(market, query)
    except DatabaseUnreachable as error:
        raise not_run(error) from None
    except QueryRefused as refusal:
        raise QueryNotSold(f"{refusal} Nothing was charged.", code=refusal.code) from None
    if params != checked.parameters:
        raise InvalidRequest(f"The query has {checked.parameters} parameters, and params has {params} values.")
    if database is not None and database != market.database:
        raise InvalidRequest("database names another database than this publisher sells; leave it out.")
    return market, checked


def not_run(error: DatabaseError) -> Problem:
    """Return the problem of a query that did not come to run: it costs nothing."""
    match error:
        case DatabaseBusy():
            return UpstreamUnavailable(f"{error} Nothing ran; {FREE}", retry_after=error.retry_after)
        case DatabaseUnreachable():
            return UpstreamUnreachable(f"{error} Nothing ran; {FREE}")
        case QueryTimeout():
            return UpstreamTimeout(f"The query could not be planned in time; {FREE}")
        case Refusal():
            return QueryFailed(f"{error} Nothing ran; {FREE}", sqlstate=error.sqlstate, cost="0")
        case _:
            return UpstreamInvalid(f"The connection to the publisher's database was lost; nothing ran; {FREE}")


def ran(error: DatabaseError, cost: str) -> Problem:
    """Return the problem of a query that ran and gave nothing: it costs `cost`, in decimals."""
    charged = f"It ran, so {cost} was charged."
    match error:
        case QueryTimeout():
            return QueryStopped(f"The query gave no row in time. {charged}", cost=cost)
        case Refusal():
            return QueryFailed(f"{error} {charged}", sqlstate=error.sqlstate, cost=cost)
        case _:
            return QueryLost(f"{error} {charged}", cost=cost)
