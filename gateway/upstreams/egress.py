"""The egress guard: which servers Tollway may contact on a publisher's behalf.

Lives here: strict reading of publishers' URLs, name resolution, and the check of every resolved address. The caller
connects to the literal addresses returned, so there is no second resolution to rebind. Not here: the address ranges
(addresses.py) and the connection (http/dial.py).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias

from gateway.upstreams.addresses import Network, numeric_host, refusal
from gateway.upstreams.origin import DEFAULT_PORTS, Origin, Scheme

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[^\[\]]*\]|[^\[\]:/?]*)(?::(?P<port>[^/?]*))?(?P<path>/[^?]*)?", re.I
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PATH = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
_DOTS = re.compile(r"(?:\.|%2e){1,2}", re.I)
_PORT = re.compile(r"[0-9]{1,5}")


class EgressRefused(ValueError):
    """The URL or host must not be contacted. The message says why, in words fit for the publisher."""


class ResolutionFailed(Exception):
    """The host name has no address now. Says nothing about whether it would be allowed."""


class BaseUrl(NamedTuple):
    """A publisher's checked base URL."""

    origin: Origin
    base_path: str


class EgressGuard:
    """Resolves and checks. Results live `ttl` seconds in a cache of at most `cache_size` hosts."""

    def __init__(
        self,
        allow: Sequence[Network] = (),
        *,
        resolver: Resolver | None = None,
        ttl: float = 10.0,
        cache_size: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allow = tuple(allow)
        self._resolver = resolver or _system_resolver
        self._ttl = ttl
        self._cache_size = cache_size
        self._clock = clock
        self._cache: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._pending: dict[str, asyncio.Task[tuple[str, ...]]] = {}

    async def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """Return the address literals of `host`, all of them checked. Raises EgressRefused or ResolutionFailed."""
        host = canonical_host(host)
        literal = numeric_host(host)
        if literal is not None:
            self._check(str(literal), host)
            return (str(literal),)
        known = self._cache.get(host)
        if known is not None and known[0] > self._clock():
            return known[1]
        return await self._shared(host, port)

    def check_url(self, url: str) -> BaseUrl:
        """Read a publisher's base URL, strictly, without resolving names. Raises EgressRefused."""
        base = _parse(url)
        host = base.origin.host
        if numeric_host(host) is not None:
            self._check(host, host)
        elif (host == "localhost" or host.endswith(".localhost")) and not self._allows_loopback():
            raise EgressRefused(f"{host} is a loopback name")
        return base

    async def resolve_url(self, url: str) -> BaseUrl:
        """As `check_url`, and check every address that the name has now. May raise ResolutionFailed."""
        base = self.check_url(url)
        await self.addresses(base.origin.host, base.origin.port)
        return base

    async def _shared(self, host: str, port: int) -> tuple[str, ...]:
        """Let callers that want the same name at once share one resolution; a cancelled caller does not end it."""
        task = self._pending.get(host)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._resolve(host, port))
            self._pending[host] = task
            task.add_done_callback(lambda done: self._settled(host, done))
        return await asyncio.shield(task)

    def _settled(self, host: str, task: asyncio.Task[tuple[str, ...]]) -> None:
        del self._pending[host]
        if not task.cancelled():
            task.exception()  # marked as seen even if every caller has gone

    async def _resolve(self, host: str, port: int) -> tuple[str, ...]:
        try:
            found = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise ResolutionFailed(f"{host} cannot be resolved ({_resolver_reason(error)})") from None
        addresses = tuple(dict.fromkeys(found))
        if not addresses:
            raise ResolutionFailed(f"{host} has no address")
        for address in addresses:
            self._check(address, host)
        self._cache.pop(host, None)
        while len(self._cache) >= self._cache_size:
            del self._cache[next(iter(self._cache))]  # insertion order: the oldest result
        self._cache[host] = (self._clock() + self._ttl, addresses)
        return addresses

    def _check(self, address: str, host: str) -> None:
        """Raise EgressRefused unless the address may be contacted."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            raise EgressRefused(f"{host} resolves to something that is not an IP address") from None
        scoped = isinstance(parsed, ipaddress.IPv6Address) and parsed.scope_id is not None
        reason = "a scoped address" if scoped else refusal(parsed, self._allow)
        if reason is not None:
            # A name's address stays ours: told, it would make this check a look into the network that it protects.
            raise EgressRefused(f"{host} is {reason}" if host == address else f"{host} resolves to {reason}")

    def is_exempt(self, host: str) -> bool:
        """Return whether a host is a literal address, or localhost, in a range that development allows."""
        literal = ipaddress.IPv4Address("127.0.0.1") if host == "localhost" else numeric_host(host)
        return literal is not None and any(
            literal.version == network.version and literal in network for network in self._allow
        )

    def _allows_loopback(self) -> bool:
        return refusal(ipaddress.IPv4Address("127.0.0.1"), self._allow) is None


def canonical_host(host: str) -> str:
    """Return a host as lower-case A-labels or an address literal. Raises EgressRefused.

    Names go through IDNA before numbers are looked for: full-width digits and dots become ASCII ones there.
    """
    try:
        name = host if ":" in host else host.encode("idna").decode("ascii").lower()
        literal = numeric_host(name)
    except UnicodeError:
        raise EgressRefused("the host name has an empty, overlong or invalid label") from None
    except ValueError as error:
        raise EgressRefused(f"the host is not a valid address: {error}") from None
    if literal is not None:
        return str(literal)
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise EgressRefused("the host name has an empty, overlong or invalid label")
    return name


def _parse(url: str) -> BaseUrl:
    if not url.isprintable() or " " in url or "\\" in url:
        raise EgressRefused("the URL contains a space, a backslash or a control character")
    if "#" in url:
        raise EgressRefused("the URL has a fragment")
    authority = url.partition("://")[2].partition("/")[0].partition("?")[0]
    if "@" in authority:
        raise EgressRefused("the URL contains user information; credentials are configured apart")
    if "?" in url:
        raise EgressRefused("the base URL has a query")
    match = _URL.fullmatch(url)
    if match is None:
        raise EgressRefused("the URL is not of the form http(s)://host[:port][/path]")
    scheme: Scheme = "https" if match["scheme"].lower() == "https" else "http"
    return BaseUrl(Origin(scheme, _host(match["host"]), _port(match["port"], scheme)), _base_path(match["path"] or ""))


def _host(text: str) -> str:
    if not text:
        raise EgressRefused("the URL has no host")
    if text.startswith("["):
        if ":" not in text:
            raise EgressRefused("only an IPv6 address may stand in brackets")
        return canonical_host(text[1:-1])
    return canonical_host(text)


def _port(text: str | None, scheme: Scheme) -> int:
    if text is None:
        return DEFAULT_PORTS[scheme]
    if _PORT.fullmatch(text) is None or not 0 < int(text) < 65_536:
        raise EgressRefused("the port is not a number between 1 and 65535")
    return int(text)


def _base_path(path: str) -> str:
    if _PATH.fullmatch(path) is None:
        raise EgressRefused("the path contains a character that must be percent-encoded")
    if any(_DOTS.fullmatch(segment) for segment in path.split("/")):
        raise EgressRefused("the path contains a dot segment")
    return path.rstrip("/")


async def _system_resolver(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _resolver_reason(error: Exception) -> str:
    return error.strerror or "failure" if isinstance(error, OSError) else "invalid name"
