"""WebSocket connections to publishers: priced and paid like a GET on their path, once per connection.

The steps before payment are the pipeline's own; only the purchase differs. The price is posted before the upstream
hears of the call. Once the upstream has answered 101 the connection counts as delivered, however it ends later; any
other answer costs nothing and is not passed on, so that nobody gets a GET for free by asking for an upgrade. While the
connection lasts the exchange is open: if this process dies, the reconciler gives the money back.

What does not live here: relaying messages (relay.py), the handshake with the upstream (upstreams/websocket.py).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from time import monotonic
from uuid import UUID

from gateway.billing.prepaid_credits import Ending
from gateway.catalog.snapshot import Publisher
from gateway.errors import (
    InvalidRequest,
    Problem,
    RateLimited,
    Unavailable,
    UpgradeRefused,
    WebSocketNotOffered,
)
from gateway.faults import ARMED, act
from gateway.identity.clients import client_address
from gateway.identity.wallets import KIND, address_in
from gateway.proxy.cut import cut_connection
from gateway.proxy.deliver import response_headers
from gateway.proxy.destination import Destination
from gateway.proxy.exchange import Exchange, HeaderPairs, Message, Receive, Scope, Send
from gateway.proxy.failures import admit, unanswered
from gateway.proxy.forward import let_in, request_headers, target
from gateway.proxy.idempotency import keep_answer, keep_later
from gateway.proxy.intake import PREFIX
from gateway.proxy.onchain import hold
from gateway.proxy.onchain.rail import OnchainRail
from gateway.proxy.pipeline import Pipeline, Truncated
from gateway.proxy.problems import answer_problem
from gateway.proxy.relay import Bounds, Relay, both
from gateway.proxy.settle import settle
from gateway.settings import WebSocketSettings
from gateway.suspensions import SUSPENDED_PUBLISHERS
from gateway.upstreams.http.errors import UpstreamError
from gateway.upstreams.http.timeouts import Timeouts
from gateway.upstreams.origin import Lane
from gateway.upstreams.websocket import HandshakeRefused, UpstreamSocket, open_socket

OWN_FIELDS = b"sec-websocket-"  # of the caller's handshake with us; the upstream gets one of its own
DENIAL = "websocket.http.response"
POLICY_VIOLATION = 1008


def _offers(publisher: Publisher) -> bool:
    """Return whether a publisher sells connections: not by what answers say, which a connection has none of."""
    return publisher.websocket and publisher.route is not None and not (publisher.metered or publisher.relays)


@dataclass(slots=True)
class Places:
    """Who holds how many connections of this worker, and the connections themselves."""

    held: Counter[str] = field(default_factory=Counter[str])
    relays: set[Relay] = field(default_factory=set[Relay])
    closed: bool = False  # the worker stops
    changes: tuple[int, int, int] = (-1, -1, -1)  # of keys, publishers and wallets at the last look for suspended ones

    def take(self, who: str, settings: WebSocketSettings) -> None:
        """Hold one more place. Raises Unavailable or RateLimited."""
        if self.closed or self.held.total() >= settings.connections:
            raise Unavailable("This gateway takes no further WebSocket connection now; you were not charged.")
        if self.held[who] >= settings.per_key:
            raise RateLimited(
                f"{settings.per_key} WebSocket connections are open with this API key or from this address.",
                headers={"Retry-After": "5"},
                policy="websockets",
                retry_after=5,
            )
        self.held[who] += 1

    def leave(self, who: str) -> None:
        """Give a place back."""
        self.held[who] -= 1
        if not self.held[who]:
            del self.held[who]


@dataclass(frozen=True, slots=True)
class SocketPipeline(Pipeline):
    """The paid path of WebSocket connections."""

    places: Places = field(default_factory=Places)

    async def serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one handshake and see its connection to the booked end."""
        await receive()  # websocket.connect
        caller = Caller(scope, receive, send)
        exchange = Exchange(caller.scope, caller.no_body, caller.send)
        who = self._who(exchange)
        try:
            self._check(exchange)
            self.places.take(who, self.services.settings.websocket)
        except Problem as problem:
            await answer_problem(exchange, problem)
            return
        self._count()
        try:
            await self.serve(exchange)
        except Truncated:
            pass  # the relay has told both sides
        finally:
            self.places.leave(who)
            self._count()

    def _count(self) -> None:
        self.services.metrics.set_pool("websocket", "open", self.places.held.total())

    def _who(self, exchange: Exchange) -> str:
        """Return whose connections count together: one credential's, or one address's without any."""
        lines: list[str] = []
        for name, value in exchange.scope["headers"]:
            if name == b"authorization":
                return value.decode("latin-1")
            if name == b"x-forwarded-for" and self.trusted:
                lines.append(value.decode("latin-1"))
        client = exchange.scope.get("client")
        return client_address(str(client[0]) if client else None, lines, self.trusted)

    def _check(self, exchange: Exchange) -> None:
        """Refuse what no step would notice: a publisher without WebSockets, a handshake with a body."""
        path: bytes = exchange.scope.get("raw_path") or exchange.scope["path"].encode()
        slug = path[len(PREFIX) :].partition(b"/")[0].decode("latin-1")
        publisher = self.services.catalog.find(slug)
        offers = publisher is None or _offers(publisher)
        if publisher is not None and publisher.not_served is None and not offers:
            raise WebSocketNotOffered(f"{slug} offers no WebSocket connections; call it by plain HTTP.")
        for name, value in exchange.scope["headers"]:
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 ")):
                raise InvalidRequest("A WebSocket handshake has no body.")

    async def _walk_onchain(self, exchange: Exchange, rail: OnchainRail) -> None:
        """Open a connection for the payment that came along: settled, or submitted on trust, before it is accepted."""
        taken = await rail.claim(exchange)
        if taken is None:  # pragma: no cover - of a connection no answer is kept
            return
        to = self.destinations.find(exchange.sold)
        await admit(exchange, to, self.services)
        try:
            payment = await rail.authorize(exchange, taken)
            exchange.mark("authorize")
            upstream = await self._open(exchange, to)
            try:
                await hold.settled_to_open(exchange, payment)
            except BaseException:
                await upstream.aclose()
                raise
            try:
                ending = await self._connect(exchange, upstream)
            except BaseException:
                payment.keep_later(exchange)
                raise
            if ending == "client_stalled":
                cut_connection(exchange.scope)
            try:
                await payment.keep(exchange, [], None)
            except Unavailable:
                payment.keep_later(exchange)
        finally:
            to.breaker.abandon(exchange)

    async def _buy(self, exchange: Exchange, to: Destination) -> None:
        services = self.services
        upstream = await self._open(exchange, to)
        ending = await self._connect(exchange, upstream)
        if ending == "client_stalled":
            cut_connection(exchange.scope)
        if ARMED == "deliver.after":
            await act()
        if exchange.keyed is not None:
            try:
                await keep_answer(exchange, services.answers, services.ledger, [], None)
            except Unavailable:
                keep_later(exchange, services.answers, services.ledger)
        await settle(exchange, services.ledger, ending)
        if ARMED == "settle.after":
            await act()

    async def _open(self, exchange: Exchange, to: Destination) -> UpstreamSocket:
        """Shake hands with the upstream. Raises UpgradeRefused or another Problem; nothing stays charged then."""
        services = self.services
        try:
            upstream = await self._dial(exchange, to)
        except HandshakeRefused as refusal:
            exchange.sent = True
            _answered(to)
            services.metrics.upstream_error(exchange.sold.slug, "HandshakeRefused")
            await settle(exchange, services.ledger, "upgrade_refused")
            raise UpgradeRefused(
                f"The publisher's server answered the WebSocket handshake with {refusal.status}; you were not charged.",
                upstream_status=refusal.status,
            ) from None
        except UpstreamError as error:
            raise await unanswered(exchange, to, error, self.services) from error
        _answered(to)
        exchange.mark("upstream")
        exchange.sent, exchange.status = True, 101
        if ARMED == "forward.after":
            await act()
        return upstream

    async def end_suspended(self) -> None:
        """End connections whose publisher, key or wallet was suspended; looks only when something was changed."""
        services, relays = self.services, self.places.relays
        changes = (services.identities.changes, services.catalog.reloads, services.suspended_wallets.changes)
        if not relays or (services.identities.listening and changes == self.places.changes):
            return
        gone = {relay.exchange.sold.id for relay in relays if services.catalog.find(relay.exchange.sold.slug) is None}
        suspended: set[UUID] = set()
        if gone:
            found = await services.database.read(lambda connection: SUSPENDED_PUBLISHERS.all(connection, list(gone)))
            suspended.update(found)
        for relay in list(relays):
            if relay.exchange.sold.id in suspended or await self._payer_suspended(relay.exchange):
                relay.end(both("delivered", POLICY_VIOLATION, "suspended"))
        self.places.changes = changes

    async def _payer_suspended(self, exchange: Exchange) -> bool:
        payment, principal = exchange.payment, exchange.principal
        if payment is not None and self.services.suspended_wallets.find(payment.payer) is not None:
            return True
        if principal is None or principal.session_id is not None:
            return False
        if principal.kind == KIND:
            return self.services.suspended_wallets.find(address_in(principal)) is not None
        return await self.services.identities.suspended(principal.key_id)

    def restart(self) -> None:
        """End every connection because this process stops, and take no new one."""
        self.places.closed = True
        for relay in self.places.relays:
            relay.restart()

    async def _dial(self, exchange: Exchange, to: Destination) -> UpstreamSocket:
        settings, times, caller = self.services.settings.websocket, to.timeouts, exchange.scope["caller"]
        most = to.lane.limit if isinstance(to.lane, Lane) else settings.connections
        exchange.to = to
        headers = request_headers(exchange, to.publisher, to.route, to.origin, has_body=False)
        auth = exchange.own or to.auth
        if auth is not None:
            headers.append(let_in(exchange, await auth.token(str(exchange.id))))
        return await open_socket(
            self.services.upstreams,
            # Connections of their own: those of calls come back within seconds, and must not wait for these.
            Lane(to.origin, f"{to.publisher.slug} websocket", most),
            target(to.route, exchange.path, exchange.query),
            headers,
            caller.protocols,
            Timeouts(times.connect, times.first_byte, times.idle, settings.lifetime + 60, times.retries),
            settings.max_message,
        )

    async def _connect(self, exchange: Exchange, upstream: UpstreamSocket) -> Ending:
        """Accept the caller and relay. Whatever happens from here on, the call was delivered."""
        caller: Caller = exchange.scope["caller"]
        relay = Relay(exchange, caller.receive, caller.raw_send, upstream, self._bounds(exchange))
        exchange.head_sent, exchange.answered = True, 101
        self.places.relays.add(relay)
        try:
            await caller.accept(upstream.subprotocol, accept_headers(exchange, upstream))
            if ARMED == "deliver.head":
                await act()
            if self.places.closed:
                relay.restart()
            return await relay.run()
        except OSError:  # the caller left before it was accepted
            return "client_gone"
        finally:
            self.places.relays.discard(relay)
            await upstream.aclose()

    def _bounds(self, exchange: Exchange) -> Bounds:
        settings, proxy = self.services.settings.websocket, self.services.settings.proxy
        return Bounds(
            max_message=settings.max_message,
            life=settings.lifetime,
            idle=settings.idle_timeout,
            ping=settings.ping_interval,
            client=proxy.client_timeout,
            upstream=self.destinations.find(exchange.sold).timeouts.idle,
            close=settings.close_timeout,
        )


class Caller:
    """The caller of a handshake. Towards the steps it is one of HTTP: answers before the upgrade become denials."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: HeaderPairs = scope["headers"]
        offered: list[str] = list(scope.get("subprotocols") or ())  # not every server leaves them in the headers
        self.protocols = [", ".join(offered).encode("latin-1")] if offered else []
        self.receive, self.raw_send = receive, send
        self._denial = DENIAL in (scope.get("extensions") or {})
        self._start: Message = {}
        self._body = b""
        self.scope: Scope = {
            **scope,
            "method": "GET",
            "scheme": "https" if scope.get("scheme") in ("wss", "https") else "http",
            "headers": [pair for pair in headers if not pair[0].startswith(OWN_FIELDS)],
            "caller": self,
        }

    async def no_body(self) -> Message:
        """Return the body of a handshake: there is none."""
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        """Send an HTTP answer instead of the upgrade, in one piece: not every ASGI server takes more."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        if self._denial:
            headers = [pair for pair in self._start["headers"] if pair[0] != b"connection"]
            await self.raw_send({"type": f"{DENIAL}.start", "status": self._start["status"], "headers": headers})
            await self.raw_send({"type": f"{DENIAL}.body", "body": self._body, "more_body": False})
        else:
            await self.raw_send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "refused"})

    async def accept(self, subprotocol: str | None, headers: HeaderPairs) -> None:
        """Upgrade the caller's connection."""
        await self.raw_send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})


def _answered(to: Destination) -> None:
    if to.breaker.watching:
        to.breaker.succeeded(monotonic())


def accept_headers(exchange: Exchange, upstream: UpstreamSocket) -> HeaderPairs:
    """Return the fields of the 101: the upstream's end-to-end ones, the cost and what is left."""
    return [
        pair
        for pair in response_headers(exchange, upstream.answer, refunded=False)
        if not pair[0].startswith(OWN_FIELDS) and pair[0] not in (b"date", b"content-length")
    ]


async def refuse_socket(scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
    """Refuse a handshake that is not a publisher call."""
    await receive()
    caller = Caller(scope, receive, send)
    await answer_problem(Exchange(caller.scope, caller.no_body, caller.send), problem)
