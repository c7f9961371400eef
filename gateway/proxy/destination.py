"""Where a publisher's calls go and within which bounds: derived once per publisher, one dictionary probe per call.

A destination follows its publisher: when the catalog has a new version of it, the next call derives it again. What does
not live here: the choices themselves (catalog/delivery.py) and what is sent (forward.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.catalog.snapshot import Publisher, Route
from gateway.settings import ProxySettings
from gateway.upstreams.egress import canonical_host
from gateway.upstreams.http.timeouts import Timeouts
from gateway.upstreams.origin import Lane, Origin


@dataclass(frozen=True, slots=True)
class Destination:
    """A publisher's server. `lane` is the pool key: the origin's, or the publisher's own when it bounds connections."""

    publisher: Publisher
    route: Route
    origin: Origin
    lane: Origin | Lane
    timeouts: Timeouts


class Destinations:
    """The destinations of one worker. As many entries as publishers have been called; slugs are never reused."""

    def __init__(self, settings: ProxySettings) -> None:
        self._settings = settings
        self._known: dict[str, Destination] = {}

    def find(self, publisher: Publisher) -> Destination:
        """Return the destination of a publisher that has a route."""
        known = self._known.get(publisher.slug)
        if known is None or known.publisher is not publisher:
            known = self._known[publisher.slug] = self._derive(publisher)
        return known

    def _derive(self, publisher: Publisher) -> Destination:
        route = publisher.route
        if route is None:
            raise RuntimeError("match lets only publishers with a route through")
        origin = origin_of(route)
        lane: Origin | Lane = origin
        if publisher.delivery.connections is not None:
            most = min(publisher.delivery.connections, self._settings.connections_per_upstream_max)
            lane = Lane(origin, publisher.slug, most)
        return Destination(publisher, route, origin, lane, timeouts_of(publisher, self._settings))


def origin_of(route: Route) -> Origin:
    """Return the origin of a route."""
    return Origin("https" if route.scheme == "https" else "http", canonical_host(route.host), route.port)


def timeouts_of(publisher: Publisher, settings: ProxySettings) -> Timeouts:
    """Return the owner's timeouts where there are, else the operator's; never more than the operator allows now."""
    chosen = publisher.delivery
    return Timeouts(
        connect=min(chosen.connect or settings.connect_timeout, settings.connect_timeout_max),
        first_byte=min(chosen.first_byte or settings.first_byte_timeout, settings.first_byte_timeout_max),
        idle=min(chosen.idle or settings.idle_timeout, settings.idle_timeout_max),
        total=min(chosen.total or settings.total_timeout, settings.total_timeout_max),
    )
