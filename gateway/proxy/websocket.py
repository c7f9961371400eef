"""The door of WebSocket connections to publishers. Their walk is that of every call (walk.py, kinds/socket.py)."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from gateway.catalog.snapshot import Publisher
from gateway.errors import InvalidRequest, Problem, WebSocketNotOffered
from gateway.identity.clients import client_address
from gateway.identity.wallets import KIND, address_in
from gateway.proxy.exchange import Exchange, Receive, Scope, Send
from gateway.proxy.handshake import POLICY_VIOLATION, Caller
from gateway.proxy.intake import PREFIX
from gateway.proxy.parts import Parts
from gateway.proxy.pipeline import Pipeline
from gateway.proxy.problems import answer_problem
from gateway.proxy.relay import both
from gateway.proxy.walk import Truncated
from gateway.suspensions import SUSPENDED_PUBLISHERS


@dataclass(frozen=True, slots=True)
class SocketDoor:
    """Takes handshakes, with parts of its own: connections are bounded apart from calls. One per worker."""

    parts: Parts
    pipeline: Pipeline

    async def serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one handshake and see its connection to the booked end."""
        await receive()  # websocket.connect
        caller = Caller(scope, receive, send)
        exchange = Exchange(caller.scope, caller.no_body, caller.send)
        who = self._who(exchange)
        try:
            self._check(exchange)
            self.parts.places.take(who, self.parts.services.settings.websocket)
        except Problem as problem:
            await answer_problem(exchange, problem)
            return
        self._count()
        try:
            await self.pipeline.serve(exchange)
        except Truncated:
            pass  # the relay has told both sides
        finally:
            self.parts.places.leave(who)
            self._count()

    def _count(self) -> None:
        self.parts.services.metrics.set_pool("websocket", "open", self.parts.places.held.total())

    def _who(self, exchange: Exchange) -> str:
        """Return whose connections count together: one credential's, or one address's without any."""
        lines: list[str] = []
        for name, value in exchange.scope["headers"]:
            if name == b"authorization":
                return value.decode("latin-1")
            if name == b"x-forwarded-for" and self.parts.trusted:
                lines.append(value.decode("latin-1"))
        client = exchange.scope.get("client")
        return client_address(str(client[0]) if client else None, lines, self.parts.trusted)

    def _check(self, exchange: Exchange) -> None:
        """Refuse what no step would notice: a publisher without WebSockets, a handshake with a body."""
        path: bytes = exchange.scope.get("raw_path") or exchange.scope["path"].encode()
        slug = path[len(PREFIX) :].partition(b"/")[0].decode("latin-1")
        publisher = self.parts.services.catalog.find(slug)
        offers = publisher is None or _offers(publisher)
        if publisher is not None and publisher.not_served is None and not offers:
            raise WebSocketNotOffered(f"{slug} offers no WebSocket connections; call it by plain HTTP.")
        for name, value in exchange.scope["headers"]:
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 ")):
                raise InvalidRequest("A WebSocket handshake has no body.")

    async def end_suspended(self) -> None:
        """End connections whose publisher, key or wallet was suspended; looks only when something was changed."""
        services, places = self.parts.services, self.parts.places
        relays = places.relays
        changes = (services.identities.changes, services.catalog.reloads, services.suspended_wallets.changes)
        if not relays or (services.identities.listening and changes == places.changes):
            return
        gone = {relay.exchange.sold.id for relay in relays if services.catalog.find(relay.exchange.sold.slug) is None}
        suspended: set[UUID] = set()
        if gone:
            found = await services.database.read(lambda connection: SUSPENDED_PUBLISHERS.all(connection, list(gone)))
            suspended.update(found)
        for relay in list(relays):
            if relay.exchange.sold.id in suspended or await self._payer_suspended(relay.exchange):
                relay.end(both("delivered", POLICY_VIOLATION, "suspended"))
        places.changes = changes

    async def _payer_suspended(self, exchange: Exchange) -> bool:
        services, signer, principal = self.parts.services, exchange.purse.signer, exchange.principal
        if signer is not None and services.suspended_wallets.find(signer) is not None:
            return True
        if principal is None or principal.session_id is not None:
            return False
        if principal.kind == KIND:
            return services.suspended_wallets.find(address_in(principal)) is not None
        return await services.identities.suspended(principal.key_id)

    def restart(self) -> None:
        """End every connection because this process stops, and take no new one."""
        self.parts.places.closed = True
        for relay in self.parts.places.relays:
            relay.restart()


def _offers(publisher: Publisher) -> bool:
    """Return whether a publisher sells connections: not by what answers say, which a connection has none of."""
    return publisher.websocket and publisher.route is not None and not (publisher.metered or publisher.relays)


async def refuse_socket(scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
    """Refuse a handshake that is not a publisher call."""
    await receive()
    caller = Caller(scope, receive, send)
    await answer_problem(Exchange(caller.scope, caller.no_body, caller.send), problem)
