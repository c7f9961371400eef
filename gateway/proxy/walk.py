"""The paid path, top to bottom: this file is its documentation. HTTP, queries, tool calls and WebSockets walk it alike.

    enter        intake -> match -> identify -> limit -> the call as one of its kind (kinds/)
    claim        no other call runs or ran by its key or payment; its price; what pays it (purses/)
    authorize    the money is taken, held or reserved, before the publisher hears of the call
    sell         the publisher is asked, its answer delivered, metered on the way
    end          the money is kept, captured or given back

Each step fills in the exchange or raises one Problem. Whatever happens, an exchange whose money moved ends settled or
refunded; what a crash leaves open is the reconciler's (jobs/reconcile.py). What is waited for goes through `perform`
(effects.py), which is where tests kill, hang and break a call. What does not live here: what is answered to a call that
this stops (pipeline.py).
"""

from __future__ import annotations

from time import perf_counter

from gateway.billing.prepaid_credits import Ending
from gateway.errors import BudgetExceeded, QuotaExceeded
from gateway.proxy.cut import cut_connection
from gateway.proxy.effects import perform
from gateway.proxy.exchange import Exchange
from gateway.proxy.idempotency import answered_before, release_key
from gateway.proxy.identify import identify
from gateway.proxy.intake import intake
from gateway.proxy.kinds.http import HttpCall
from gateway.proxy.kinds.kind import Kind
from gateway.proxy.kinds.query import QueryCall
from gateway.proxy.kinds.socket import SocketCall
from gateway.proxy.kinds.tool import ToolInvocation
from gateway.proxy.limit import limit
from gateway.proxy.match import match
from gateway.proxy.mcp.line import ToolOrder
from gateway.proxy.parts import Parts
from gateway.proxy.purses.choice import pays_onchain
from gateway.proxy.purses.wallets import Shortfall
from gateway.proxy.query_request import read_request

# Endings after whose last bytes the caller's connection is cut, so that no part can be taken for the whole.
CUT = frozenset[Ending]({"broken_off", "total_timeout", "client_stalled"})


class Truncated(Exception):
    """The answer broke off after its head had gone out: the server must cut the connection, not end it cleanly."""


async def walk(exchange: Exchange, parts: Parts) -> None:
    """Take one call from its head to its booked end. Raises Problem, ClientGone or Truncated."""
    kind = await _enter(exchange, parts)
    if kind is None:
        return
    shedder = parts.admission.shedder
    try:
        if not await _claim(exchange, kind, parts):
            return
        purse = exchange.purse
        await purse.demand(exchange)
        shedder.leave(exchange)  # a full publisher must not make us refuse calls to others
        async with kind:
            if not purse.waits_for_chain:
                shedder.come_back(exchange)
            await _authorize(exchange, parts)
            await purse.see_through(exchange, _sell(exchange, kind, parts))
    except (Shortfall, BudgetExceeded, QuotaExceeded):
        if not exchange.purse.paid:
            await kind.unpaid()
        raise


async def _enter(exchange: Exchange, parts: Parts) -> Kind | None:
    """Return the call as one of its kind; None for what is free at an MCP publisher, which has its end by then."""
    services, trusted = parts.services, parts.trusted
    intake(exchange, services.settings.proxy)
    candidates = match(exchange, services.catalog)
    if parts.destinations.crowded(exchange.slug, exchange.started):
        raise parts.too_many("publisher")  # which `admit` would say as well, after more work
    await identify(exchange, services.identities, services.proofs, services.limiter, parts.guesses, trusted)
    await limit(exchange, services.limiter, parts.per_key, parts.per_address, trusted)
    exchange.mark("limit")
    if exchange.sold.mcp:
        return await _enter_mcp(exchange, parts)
    if exchange.sold.sale is not None:
        return QueryCall(exchange, parts, exchange.sold.sale, await read_request(exchange))
    kind = SocketCall if exchange.scope["type"] == "websocket" else HttpCall
    return kind(exchange, parts, candidates)


async def _enter_mcp(exchange: Exchange, parts: Parts) -> Kind | None:
    parts.admission.shedder.leave(exchange)  # a stream of what its server says of itself may last for hours
    order = await parts.mcp.serve(exchange)
    if isinstance(order, ToolOrder):
        parts.admission.shedder.come_back(exchange)
        return ToolInvocation(exchange, parts, order)
    if order is not None:
        await _end(exchange, order, parts)
    return None


async def _claim(exchange: Exchange, kind: Kind, parts: Parts) -> bool:
    """Choose what pays, and return whether the call is to be made: else it was answered from store.

    What a key has bought does not depend on today's prices, so it is looked for before the price. What a key or a
    payment means to a server that sells by itself is its own.
    """
    services = parts.services
    early = not exchange.sold.relays and not pays_onchain(exchange, parts)
    if early and await answered_before(exchange, services.answers, services.ledger):
        return False
    kind.price()
    exchange.purse = purse = kind.purse()
    return early or await purse.claim(exchange)


async def _authorize(exchange: Exchange, parts: Parts) -> None:
    """Have the call paid, and tell load shedding how long the gateway itself has kept it."""
    begun, purse, shedder = perf_counter(), exchange.purse, parts.admission.shedder
    await perform("authorize", purse.authorize(exchange))
    exchange.mark("authorize")
    if not purse.waits_for_chain:
        limited, paid = exchange.marks[0][1], exchange.marks[-1][1]
        shedder.passed(exchange, exchange.lag + limited - exchange.started + paid - begun, paid)


async def _sell(exchange: Exchange, kind: Kind, parts: Parts) -> None:
    """Ask, deliver and settle: from here on the exchange may be paid. Raises Truncated."""
    ending = await perform("deliver", kind.sell())
    await _end(exchange, ending, parts)


async def _end(exchange: Exchange, ending: Ending, parts: Parts) -> None:
    """Settle a call whose answer was delivered, as far as it was. Raises Truncated."""
    services = parts.services
    exchange.mark("deliver")
    await perform("settle", exchange.purse.end(exchange, ending))
    if ending == "broken_off":
        services.metrics.upstream_error(exchange.sold.slug, "BrokenBody")
        await release_key(exchange, services.answers, services.ledger)
    if ending == "client_stalled":
        cut_connection(exchange.scope)
    if ending in CUT:
        raise Truncated
