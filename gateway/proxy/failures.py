"""Calls that get no answer of the upstream's: what that says of its server, how their money ends, what is read then."""

from __future__ import annotations

from math import ceil
from time import monotonic, perf_counter

from gateway.billing.prepaid_credits import Ending
from gateway.errors import (
    InvalidRequest,
    Problem,
    Unavailable,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.proxy.admission import overloaded
from gateway.proxy.body import ClientGone
from gateway.proxy.callers_name import speak_for
from gateway.proxy.destination import Destination
from gateway.proxy.exchange import Exchange
from gateway.proxy.uploading import begin_upload, unless_gone
from gateway.services import Services
from gateway.upstreams.breaker import CLOSED
from gateway.upstreams.http.errors import (
    AddressRefused,
    ConnectError,
    ConnectTimeout,
    Disconnected,
    FirstByteTimeout,
    IdleTimeout,
    PoolTimeout,
    ProtocolError,
    TotalTimeout,
    UnsafeRequest,
    UploadError,
    UpstreamError,
)

# What speaks against the upstream itself; not our bounds (PoolTimeout), the caller's body or a forbidden address.
SILENCE = (ConnectError, Disconnected, FirstByteTimeout, IdleTimeout, ProtocolError, TotalTimeout)


async def admit(exchange: Exchange, to: Destination, services: Services) -> None:
    """Take the place of one call, which Pipeline.serve gives back. Nothing has moved when this raises.

    Raises Unavailable when as many calls as the publisher takes at once stay on their way for the connect timeout,
    Overloaded when too many wait for that already, UpstreamUnavailable while its server is left alone, ClientGone when
    the caller leaves meanwhile, and what `speak_for` and reading the beginning of the body raise.
    """
    if exchange.sold.user_oauth is not None:
        await speak_for(exchange, services)
    if exchange.scope["type"] == "websocket":
        places = to.sockets
        entered = await places.enter(to.timeouts.connect)
    else:
        await begin_upload(exchange, to)
        places = to.calls
        entered = (to.shedder.calm and places.take()) or await _in_line(exchange, to, services)
    if not entered:
        services.metrics.upstream_error(exchange.sold.slug, "PoolTimeout")
        raise Unavailable(
            f"{places.limit} calls to this publisher are on their way, as many as it takes at once; not charged."
        )
    exchange.place = places
    if to.breaker.state is CLOSED:
        return
    wait = to.breaker.admit(exchange, monotonic())
    if wait:
        services.metrics.upstream_error(exchange.sold.slug, "BreakerOpen")
        raise UpstreamUnavailable(
            "The publisher's server failed repeatedly and is left alone for a moment; you were not charged.",
            retry_after=ceil(wait),
        )


async def _in_line(exchange: Exchange, to: Destination, services: Services) -> bool:
    """Wait for a place and return whether there was one in time. Raises Overloaded."""
    begun, shedder = perf_counter(), to.shedder
    if not shedder.enter(exchange, begun):
        services.metrics.turned_away("publisher")
        raise overloaded("publisher")
    try:
        entered = await unless_gone(exchange, to.calls.enter(to.timeouts.connect))
        now = perf_counter()
        shedder.passed(exchange, now - begun, now)
    finally:
        shedder.leave(exchange)
    return entered


async def unanswered(exchange: Exchange, to: Destination, error: UpstreamError, services: Services) -> Problem:
    """End a call without an answer and return what its caller reads. Raises ClientGone."""
    exchange.sent = error.sent
    services.metrics.upstream_error(exchange.sold.slug, type(error).__name__)
    if isinstance(error.__cause__, ClientGone):
        raise ClientGone from None
    if isinstance(error, SILENCE) and not isinstance(error, AddressRefused):
        to.breaker.failed(exchange, monotonic(), provoked=not isinstance(error, ConnectError))
    ending, problem = _failure(error)
    await exchange.purse.end(exchange, ending)
    return problem


def _failure(error: UpstreamError) -> tuple[Ending, Problem]:
    """Return how the exchange ends and what the caller reads, for a call without an answer."""
    if isinstance(error.__cause__, Problem):  # why the caller's body could not be read on
        return "refused", error.__cause__
    if isinstance(error, UnsafeRequest | UploadError):
        return "refused", InvalidRequest(f"The request cannot be forwarded: {error}. You were not charged.")
    if isinstance(error, PoolTimeout):
        return "refused", Unavailable("All connections to this publisher are busy; you were not charged.")
    if isinstance(error, ConnectTimeout):
        return "unreachable", UpstreamTimeout("The publisher's server accepted no connection in time; not charged.")
    if isinstance(error, ConnectError):
        return "unreachable", UpstreamUnreachable("The publisher's server cannot be reached; you were not charged.")
    if isinstance(error, FirstByteTimeout | IdleTimeout | TotalTimeout):
        return "timeout", UpstreamTimeout("The publisher's server did not answer in time; you were not charged.")
    return "upstream_error", UpstreamInvalid("The publisher's server gave no valid answer; you were not charged.")
