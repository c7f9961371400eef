"""All publishers' databases that are sold from: a pool and small caches for each, made at the first query.

A publisher that changes gets a new market, and its old connections are closed. What does not live here: what a query
costs and who pays (proxy/kinds/query.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Generic, TypeVar
from uuid import UUID

from gateway.catalog.sales import Sale
from gateway.settings import ProxySettings, QuerySettings
from gateway.upstreams.breaker import Breaker, BreakerPolicy, State
from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.http.timeouts import timeouts_of
from gateway.upstreams.postgres import queries
from gateway.upstreams.postgres.address import Address, BadConnectionString, read_address
from gateway.upstreams.postgres.errors import DatabaseLost, DatabaseResting, DatabaseUnreachable, QueryTimeout
from gateway.upstreams.postgres.parameters import texts
from gateway.upstreams.postgres.pool import DatabasePool, Session
from gateway.upstreams.postgres.queries import Bounds, Described, Planned, Rows
from pricing.sql.guard import QueryRefused
from pricing.sql.policy import CheckedQuery, check

Key = TypeVar("Key")
Value = TypeVar("Value")
IN_A_THREAD = 2_048
"""Checking a longer query takes milliseconds, which other calls should not wait for."""
CHECKERS = 2
CACHED = 512
LARGEST_KEY = 4_096
PLAN_SECONDS = 60.0


class Recent(Generic[Key, Value]):
    """The last used values, each for a while at most."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._kept: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """Return what is kept, if it is not too old."""
        found = self._kept.get(key)
        if found is None or (self._seconds is not None and time.monotonic() - found[0] > self._seconds):
            return None
        self._kept.move_to_end(key)
        return found[1]

    def put(self, key: Key, value: Value) -> None:
        """Keep a value."""
        self._kept[key] = (time.monotonic(), value)
        self._kept.move_to_end(key)
        if len(self._kept) > CACHED:
            self._kept.popitem(last=False)


Known = tuple[Described, list[str | None], Planned]
"""What is known of a query before it runs, and its values as the server reads them."""


class OpenQuery:
    """A planned query. `ready` before `rows`: only then does its sandbox stand, and nothing of it has run yet.

    A plan that is known needs no session, so the sandbox may still be on its way, or wait for a session that is free:
    whoever pays for the query meanwhile does not wait for it.
    """

    def __init__(
        self, described: Described, values: list[str | None], planned: Planned, enter: Callable[[], Awaitable[Session]]
    ) -> None:
        self.described = described
        self.planned = planned
        self._values = values
        self._enter = enter
        self._session: Session | None = None

    async def ready(self) -> None:
        """Return when it may run. Raises DatabaseError: then it has not."""
        self._session = await self._enter()

    def rows(self, bounds: Bounds, read: Rows) -> AsyncIterator[list[bytes]]:
        """Run it and yield its rows as JSON objects, in lots; ends at the first bound that is reached."""
        if self._session is None:
            raise RuntimeError("the query's sandbox is not ready")
        return queries.rows(self._session, self.described, self._values, bounds, read)


class Market:
    """One publisher's database, as it is sold now."""

    def __init__(self, sale: Sale, address: Address, pool: DatabasePool, bounds: Bounds, breaker: Breaker) -> None:
        self.version = sale.version
        self.address = address
        self.database = address.database
        self.pool = pool
        self.bounds = bounds
        self.breaker = breaker
        self._on_sale = sale.on_sale
        self._checked: Recent[str, CheckedQuery] = Recent()
        self._described: Recent[str, Described] = Recent(PLAN_SECONDS)
        self._planned: Recent[tuple[str, tuple[str | None, ...]], Planned] = Recent(PLAN_SECONDS)

    async def check(self, query: str, checkers: ThreadPoolExecutor) -> CheckedQuery:
        """Return the query as it may run. Raises QueryRefused; no database hears of it."""
        checked = self._checked.get(query)
        if checked is None:
            if len(query) > IN_A_THREAD:
                loop = asyncio.get_running_loop()
                checked = await loop.run_in_executor(checkers, check, query, self._on_sale)
            else:
                checked = check(query, self._on_sale)
            if len(query) <= LARGEST_KEY:
                self._checked.put(query, checked)
        return checked

    @contextlib.asynccontextmanager
    async def open(self, checked: CheckedQuery, values: Sequence[Any]) -> AsyncGenerator[OpenQuery]:
        """Plan a query that is to run in a sandbox of its own. Raises DatabaseError or BadParameter."""
        call = object()
        wait = self.breaker.admit(call, time.monotonic())
        if wait > 0:
            raise DatabaseResting(wait)
        try:
            async with self._planned_for_sandbox(checked, values) as query:
                yield query
        except (DatabaseUnreachable, DatabaseLost, QueryTimeout) as error:
            self.breaker.failed(call, time.monotonic(), provoked=not isinstance(error, DatabaseUnreachable))
            raise
        finally:
            self.breaker.abandon(call)

    @contextlib.asynccontextmanager
    async def _planned_for_sandbox(self, checked: CheckedQuery, values: Sequence[Any]) -> AsyncGenerator[OpenQuery]:
        async with contextlib.AsyncExitStack() as stack:

            async def begun() -> tuple[Session, asyncio.Future[None]]:
                session = await stack.enter_async_context(self.pool.lease())
                sandbox = queries.opening_sandbox(session, self._on_sale.search_path, self.bounds)
                return session, await stack.enter_async_context(sandbox)

            async def enter() -> Session:
                session, opening = begin or await begun()
                await opening
                self._answered()
                return session

            known = self._known(checked, values)
            begin = await begun() if known is None or self.pool.idle else None
            if known is None:
                session, opening = begin or await begun()
                await opening
                known = await self._plan(session, checked, values)
                self._answered()
            yield OpenQuery(*known, enter)

    def _answered(self) -> None:
        """Tell the breaker that the server answers."""
        if self.breaker.watching:
            self.breaker.succeeded(time.monotonic())

    def _known(self, checked: CheckedQuery, values: Sequence[Any]) -> Known | None:
        """Return what is remembered of the same query with the same values. Raises BadParameter."""
        described = self._described.get(checked.text)
        if described is None:
            return None
        bound = texts(values, described.parameters)
        planned = self._planned.get((checked.text, tuple(bound)))
        return None if planned is None else (described, bound, planned)

    async def _plan(self, session: Session, checked: CheckedQuery, values: Sequence[Any]) -> Known:
        described = self._described.get(checked.text)
        if described is None:
            described = await queries.describe(session, checked, self.bounds)
            if len(checked.text) <= LARGEST_KEY:
                self._described.put(checked.text, described)
        bound = texts(values, described.parameters)
        planned = await queries.plan(session, described, bound, self.bounds)
        if len(checked.text) + sum(len(text or "") for text in bound) <= LARGEST_KEY:
            self._planned.put((checked.text, tuple(bound)), planned)
        return described, bound, planned


class Markets:
    """The markets of this worker, by publisher.

    `changed` is told of every new state of a publisher's breaker, `refused` of the code of each query that is not sold.
    """

    def __init__(
        self,
        guard: EgressGuard,
        settings: QuerySettings,
        proxy: ProxySettings,
        policy: BreakerPolicy,
        changed: Callable[[UUID, State], None],
        refused: Callable[[str], None],
    ) -> None:
        self._guard = guard
        self._policy, self._changed, self._refused = policy, changed, refused
        self._proxy = proxy
        self._size = settings.connections
        self._bounds = Bounds(
            plan=settings.plan_seconds,
            statement=settings.statement_seconds,
            total=settings.seconds,
            rows=settings.rows,
            size=settings.size,
            row_size=settings.row_size,
        )
        self._known: dict[UUID, Market] = {}
        self._checkers = ThreadPoolExecutor(CHECKERS, "query-check")

    def of(self, publisher_id: UUID, sale: Sale) -> Market:
        """Return a publisher's market as it is now. Raises DatabaseUnreachable when its address cannot be used."""
        market = self._known.get(publisher_id)
        if market is not None and market.version == sale.version:
            return market
        if market is not None:
            market.pool.close()
        config = sale.config
        try:
            address = read_address(config.connection_string, tls=config.tls, ca=config.ca)
        except BadConnectionString:
            raise DatabaseUnreachable("The address of the publisher's database cannot be used.") from None
        # What is known of a server outlives a change of what is sold from it.
        same = market is not None and market.address == address
        breaker = market.breaker if market is not None and same else self._breaker(publisher_id)
        # What its owner chose, within what the operator allows.
        times = timeouts_of(sale.delivery, self._proxy)
        size = min(sale.delivery.connections or self._size, self._size)
        pool = DatabasePool(address, self._guard, size=size, connect=times.connect, retries=times.retries)
        bounds = replace(
            self._bounds,
            statement=min(self._bounds.statement, times.first_byte, times.idle),
            total=min(self._bounds.total, times.total),
        )
        market = self._known[publisher_id] = Market(sale, address, pool, bounds, breaker)
        return market

    async def check(self, market: Market, query: str) -> CheckedQuery:
        """Return the query as it may run. Raises QueryRefused; no database hears of it."""
        try:
            return await market.check(query, self._checkers)
        except QueryRefused as refusal:
            self._refused(refusal.code)
            raise

    def _breaker(self, publisher_id: UUID) -> Breaker:
        return Breaker(self._policy, lambda state: self._changed(publisher_id, state))

    def trim(self, live: Mapping[UUID, str]) -> None:
        """Close what has been idle, and the markets of publishers that are not in `live` (id to version) any more."""
        now = time.monotonic()
        for publisher_id, market in list(self._known.items()):
            if live.get(publisher_id) != market.version:
                market.pool.close()
                del self._known[publisher_id]
            else:
                market.pool.trim(now)

    def close(self) -> None:
        """Close everything that is free; what is lent is closed when it comes back."""
        for market in self._known.values():
            market.pool.close()
        self._known.clear()
        self._checkers.shutdown(wait=False, cancel_futures=True)
