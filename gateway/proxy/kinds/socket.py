"""A WebSocket connection: priced and paid like a GET on its path, once.

Once the upstream has answered 101 the connection counts as delivered, however it ends later; any other answer costs
nothing and is not passed on, so that nobody gets a GET for free by asking for an upgrade. While the connection lasts
the exchange is open: if this process dies, the reconciler gives the money back.

What does not live here: relaying messages (relay.py), the handshake with the upstream (upstreams/websocket.py).
"""

from __future__ import annotations

from time import monotonic

from gateway.billing.prepaid_credits import Ending
from gateway.errors import Unavailable, UpgradeRefused
from gateway.proxy.deliver import response_headers
from gateway.proxy.effects import perform
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.failures import unanswered
from gateway.proxy.forward import let_in, request_headers, target
from gateway.proxy.handshake import OWN_FIELDS, Caller
from gateway.proxy.kinds.kind import PathCall
from gateway.proxy.relay import Bounds, Relay
from gateway.upstreams.http.errors import UpstreamError
from gateway.upstreams.http.timeouts import Timeouts
from gateway.upstreams.origin import Lane
from gateway.upstreams.websocket import HandshakeRefused, UpstreamSocket, open_socket


class SocketCall(PathCall):
    """A handshake, and the connection that it opens."""

    __slots__ = ()

    async def sell(self) -> Ending:
        """Open a connection to the upstream, accept the caller, and relay until one of them ends."""
        exchange, purse = self.exchange, self.exchange.purse
        upstream = await perform("forward", self._open())
        try:
            await perform("ahead", purse.settle_ahead(exchange))
        except BaseException:
            await upstream.aclose()
            raise
        try:
            ending = await self._connect(upstream)
        except BaseException:
            purse.interrupted(exchange)
            raise
        if exchange.keyed is not None:
            try:
                await purse.keep(exchange, [], None)
            except Unavailable:
                purse.keep_later(exchange)
        return ending

    async def _open(self) -> UpstreamSocket:
        """Shake hands with the upstream. Raises UpgradeRefused or another Problem; nothing stays charged then."""
        exchange, to, services = self.exchange, self.to, self.parts.services
        try:
            upstream = await self._dial()
        except HandshakeRefused as refusal:
            exchange.sent = True
            self._answered()
            services.metrics.upstream_error(exchange.sold.slug, "HandshakeRefused")
            await exchange.purse.end(exchange, "upgrade_refused")
            raise UpgradeRefused(
                f"The publisher's server answered the WebSocket handshake with {refusal.status}; you were not charged.",
                upstream_status=refusal.status,
            ) from None
        except UpstreamError as error:
            raise await unanswered(exchange, to, error, services) from error
        self._answered()
        exchange.mark("upstream")
        exchange.sent, exchange.status = True, 101
        return upstream

    def _answered(self) -> None:
        if self.to.breaker.watching:
            self.to.breaker.succeeded(monotonic())

    async def _dial(self) -> UpstreamSocket:
        exchange, to = self.exchange, self.to
        settings, times = self.parts.services.settings.websocket, to.timeouts
        caller: Caller = exchange.scope["caller"]
        most = to.lane.limit if isinstance(to.lane, Lane) else settings.connections
        exchange.to = to
        headers = request_headers(exchange, to.publisher, to.route, to.origin, has_body=False)
        auth = exchange.own or to.auth
        if auth is not None:
            headers.append(let_in(exchange, await auth.token(str(exchange.id))))
        return await open_socket(
            self.parts.services.upstreams,
            # Connections of their own: those of calls come back within seconds, and must not wait for these.
            Lane(to.origin, f"{to.publisher.slug} websocket", most),
            target(to.route, exchange.path, exchange.query),
            headers,
            caller.protocols,
            Timeouts(times.connect, times.first_byte, times.idle, settings.lifetime + 60, times.retries),
            settings.max_message,
        )

    async def _connect(self, upstream: UpstreamSocket) -> Ending:
        """Accept the caller and relay. Whatever happens from here on, the call was delivered."""
        exchange, places = self.exchange, self.parts.places
        caller: Caller = exchange.scope["caller"]
        relay = Relay(exchange, caller.receive, caller.raw_send, upstream, self._bounds())
        exchange.head_sent, exchange.answered = True, 101
        places.relays.add(relay)
        try:
            await perform("head", caller.accept(upstream.subprotocol, accept_headers(exchange, upstream)))
            if places.closed:
                relay.restart()
            return await relay.run()
        except OSError:  # the caller left before it was accepted
            return "client_gone"
        finally:
            places.relays.discard(relay)
            await upstream.aclose()

    def _bounds(self) -> Bounds:
        settings, proxy = self.parts.services.settings.websocket, self.parts.services.settings.proxy
        return Bounds(
            max_message=settings.max_message,
            life=settings.lifetime,
            idle=settings.idle_timeout,
            ping=settings.ping_interval,
            client=proxy.client_timeout,
            upstream=self.to.timeouts.idle,
            close=settings.close_timeout,
        )


def accept_headers(exchange: Exchange, upstream: UpstreamSocket) -> HeaderPairs:
    """Return the fields of the 101: the upstream's end-to-end ones, the cost and what is left."""
    return [
        pair
        for pair in response_headers(exchange, upstream.answer, refunded=False)
        if not pair[0].startswith(OWN_FIELDS) and pair[0] not in (b"date", b"content-length")
    ]
