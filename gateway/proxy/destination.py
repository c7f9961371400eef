"""Where a publisher's calls go and within which bounds: derived once per publisher, one dictionary probe per call.

A destination follows its publisher: when the catalog has a new version of it, the next call derives it again. What does
not live here: the choices themselves (catalog/delivery.py) and what is sent (forward.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

from gateway.catalog.authentication import Authentication
from gateway.catalog.snapshot import Publisher, Route
from gateway.errors import UpstreamUnreachable
from gateway.proxy.load_shedding import Shedder
from gateway.proxy.locations import PublicPlace
from gateway.proxy.own_secrets import spellings_of
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics
from gateway.upstreams.auth.authenticator import Authenticator
from gateway.upstreams.breaker import Breaker, BreakerPolicy, State
from gateway.upstreams.egress import EgressRefused, canonical_host
from gateway.upstreams.http.timeouts import Timeouts, timeouts_of
from gateway.upstreams.origin import Lane, Origin
from gateway.upstreams.turnstile import Turnstile

log = logging.getLogger(__name__)

Authenticate: TypeAlias = Callable[[Authentication, str], Authenticator]


@dataclass(frozen=True, slots=True)
class Destination:
    """A publisher's server. `lane` is the pool key: the origin's, or the publisher's own when it bounds connections.

    `public` is where callers see it, `secrets` what they may not see. `calls` and `sockets` bound what is on its way at
    once, and `uploads` those of the calls whose body is not here yet; `shedder` is of the calls that want to be among
    `calls`.
    """

    publisher: Publisher
    route: Route
    origin: Origin
    lane: Origin | Lane
    timeouts: Timeouts
    breaker: Breaker
    auth: Authenticator | None
    calls: Turnstile
    sockets: Turnstile
    uploads: Turnstile
    shedder: Shedder
    public: PublicPlace
    secrets: tuple[bytes, ...]


class Destinations:
    """The destinations of one worker. As many entries as publishers have been called; slugs are never reused."""

    def __init__(self, settings: Settings, metrics: Metrics, authenticate: Authenticate) -> None:
        self._settings, self._metrics, self._authenticate = settings.proxy, metrics, authenticate
        self._prefix = urlsplit(settings.public_url).path + "/publishers/"
        self._sockets = settings.websocket.connections
        it = settings.breaker
        self._policy = BreakerPolicy(it.failures, it.percent, it.calls, it.window, it.wait, it.wait_max)
        self._known: dict[str, Destination] = {}

    def crowded(self, slug: str, now: float) -> bool:
        """Return whether a publisher's queue is as long as it may be. One that nobody has called has none."""
        known = self._known.get(slug)
        return known is not None and known.shedder.full(now)

    def find(self, publisher: Publisher) -> Destination:
        """Return the destination of a publisher that has a route."""
        known = self._known.get(publisher.slug)
        if known is None or known.publisher is not publisher:
            known = self._known[publisher.slug] = self._derive(publisher, known)
        return known

    def _derive(self, publisher: Publisher, known: Destination | None) -> Destination:
        route = publisher.route
        if route is None:
            raise RuntimeError("match lets only publishers with a route through")
        origin = origin_of(route)
        lane: Origin | Lane = origin
        most, sockets = self._settings.connections_per_upstream, self._sockets
        if publisher.delivery.connections is not None:
            most = sockets = min(publisher.delivery.connections, self._settings.connections_per_upstream_max)
            lane = Lane(origin, publisher.slug, most)
        # What is known of a server outlives a change of its publisher, unless the change leads to another server.
        breaker = known.breaker if known is not None and known.origin == origin else self._breaker(publisher.slug)
        timeouts = timeouts_of(publisher.delivery, self._settings)
        return Destination(
            publisher,
            route,
            origin,
            lane,
            timeouts,
            breaker,
            self._auth(publisher, known),
            known.calls if known is not None and known.calls.limit == most else Turnstile(most),
            known.sockets if known is not None and known.sockets.limit == sockets else Turnstile(sockets),
            known.uploads if known is not None and known.calls.limit == most else Turnstile(max(most // 2, 1)),
            known.shedder if known is not None else Shedder(self._settings.wait),
            self._public(publisher, route, origin),
            spellings_of(route.headers, None if route.query is None else route.query[1]),
        )

    def _public(self, publisher: Publisher, route: Route, origin: Origin) -> PublicPlace:
        prefix = (self._prefix + publisher.slug).encode("ascii")
        key_name = None if route.query is None else route.query[0]
        return PublicPlace(origin, route.base_path, prefix, key_name, whole=not publisher.mcp)

    def _auth(self, publisher: Publisher, known: Destination | None) -> Authenticator | None:
        plan = publisher.authentication
        if known is not None and known.publisher.authentication == plan:
            return known.auth  # with the token that it holds
        return None if plan is None else self._authenticate(plan, publisher.slug)

    def _breaker(self, slug: str) -> Breaker:
        def changed(state: State) -> None:
            self._metrics.breaker_changed(slug, state.value)
            log.warning("the breaker of publisher %s is %s", slug, state.value)

        return Breaker(self._policy, changed)


def origin_of(route: Route) -> Origin:
    """Return the origin of a route. Raises UpstreamUnreachable for a stored host that is none by today's rules."""
    try:
        host = canonical_host(route.host)
    except EgressRefused:
        raise UpstreamUnreachable("The publisher's server cannot be reached; you were not charged.") from None
    return Origin("https" if route.scheme == "https" else "http", host, route.port)
