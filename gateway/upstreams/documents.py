"""One document fetched from a publisher's address: through the egress guard, bounded, without any credential.

Redirects are followed a few times, and each step passes the guard like the first. What went wrong is told in words fit
for who gave the address, without a byte of what the server said.
"""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from gateway.upstreams.egress import BaseUrl, EgressGuard, EgressRefused
from gateway.upstreams.http.client import UpstreamClient
from gateway.upstreams.http.errors import UpstreamError
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.http.timeouts import Timeouts

MAX_REDIRECTS = 3
REDIRECTS = frozenset((301, 302, 303, 307, 308))
TIMEOUTS = Timeouts(connect=5.0, first_byte=10.0, idle=5.0, total=20.0)
ACCEPT = b"application/yaml, application/json, text/yaml, */*;q=0.1"


class NotFetched(ValueError):
    """The document could not be had. The message says why."""


async def fetch(client: UpstreamClient, guard: EgressGuard, url: str, most: int) -> bytes:
    """Return the document at a URL, at most `most` bytes. Raises NotFetched."""
    for _ in range(MAX_REDIRECTS + 1):
        try:
            answer = await _asked(client, guard, url)
            try:
                if answer.status not in REDIRECTS:
                    return await _taken(answer, most)
                url = _next(answer, url)
            finally:
                await answer.aclose()
        except (EgressRefused, UpstreamError) as error:
            raise NotFetched(f"cannot be fetched: {error}") from None
    raise NotFetched(f"cannot be fetched: it leads on more than {MAX_REDIRECTS} times")


async def _asked(client: UpstreamClient, guard: EgressGuard, url: str) -> UpstreamResponse:
    base, target = read_url(guard, url)
    headers = [
        (b"host", base.origin.authority),
        (b"accept", ACCEPT),
        (b"accept-encoding", b"identity"),
        (b"user-agent", b"tollway"),
    ]
    return await client.send(base.origin, b"GET", target, headers, None, TIMEOUTS)


def read_url(guard: EgressGuard, url: str) -> tuple[BaseUrl, bytes]:
    """Return where a URL leads and what to ask for there. Raises EgressRefused; plain http is for development."""
    address, mark, query = url.partition("?")
    base = guard.check_url(address)
    if base.origin.scheme == "http" and not guard.is_exempt(base.origin.host):
        raise EgressRefused("the URL must be https")
    if not query.isascii() or not query.isprintable() or " " in query:
        raise EgressRefused("the query contains a character that must be percent-encoded")
    return base, ((urlsplit(address).path or "/") + mark + query).encode("ascii")


def _next(answer: UpstreamResponse, url: str) -> str:
    place = answer.field(b"location")
    if place is None:
        raise NotFetched(f"cannot be fetched: the server answered {answer.status} without a Location")
    return urljoin(url, place.decode("latin-1")).partition("#")[0]


async def _taken(answer: UpstreamResponse, most: int) -> bytes:
    if answer.status != 200:
        raise NotFetched(f"cannot be fetched: the server answered {answer.status}")
    content = await answer.whole(most)
    if content is None:
        raise NotFetched(f"leads to more than {most} bytes")
    return content
