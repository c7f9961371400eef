"""One try of a publisher's server, told step by step: name, address, TCP and TLS, the answer's head.

For owners who want to know why calls fail. It says no more than they could learn from outside: never an address that a
name resolved to, never a byte of the answer's body. What does not live here: what is sent, what an MCP server says
(gateway/proxy/mcp/connection_test.py), and who may ask for a try.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, cast

from gateway.upstreams.egress import EgressGuard, EgressRefused, ResolutionFailed
from gateway.upstreams.http.connection import Connection
from gateway.upstreams.http.dial import Dialer
from gateway.upstreams.http.errors import (
    AddressRefused,
    ConnectTimeout,
    Disconnected,
    FirstByteTimeout,
    NameUnresolved,
    ProtocolError,
    TlsFailed,
    TotalTimeout,
    UnsafeRequest,
    UpstreamError,
)
from gateway.upstreams.http.request import Headers, encode
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.http.timeouts import Timeouts
from gateway.upstreams.origin import Origin

Outcome = Literal[
    "answered",
    "redirected",
    "unauthorized",
    "server_error",
    "dns_failed",
    "address_refused",
    "connect_failed",
    "connect_timeout",
    "tls_failed",
    "answer_timeout",
    "connection_closed",
    "invalid_answer",
    "invalid_request",
    "not_mcp",
    "mcp_refused",
    "mcp_version",
    "no_tools",
    "nothing_for_sale",
]


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """The session and the certificate that was accepted."""

    version: str
    issuer: str | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class McpFacts:
    """What an MCP server was found to be. `for_sale` is None as long as there is no publisher with prices."""

    version: str
    tools: int
    for_sale: int | None


@dataclass(slots=True)
class Finding:
    """What the try showed. Times are whole milliseconds, None for steps that were not reached."""

    outcome: Outcome = "answered"
    detail: str = ""
    status: int | None = None
    content_type: str | None = None
    tls: TlsFacts | None = None
    times: dict[str, int] = field(default_factory=dict[str, int])
    mcp: McpFacts | None = None
    seen: dict[str, Any] | None = None
    """What a publisher's MCP server has, as it is kept (catalog/tools.py)."""

    @property
    def ok(self) -> bool:
        """Return whether calls can work: the server answers, and does not refuse the credentials."""
        return self.outcome in ("answered", "redirected")


class _Alone:
    """The owner of a connection that is used once."""

    idle_seconds = 0.0

    def release(self, connection: Connection) -> None:
        connection.dispose()

    def discard(self, connection: Connection) -> None:
        """Nothing is counted."""

    def gone(self, connection: Connection) -> None:
        """Nothing is counted."""


class Prober:
    """Sends requests to one server, each on a connection of its own. `finding` tells the steps of the first."""

    def __init__(
        self, guard: EgressGuard, origin: Origin, timeouts: Timeouts, tls: ssl.SSLContext | None = None
    ) -> None:
        self._guard, self._origin, self._timeouts, self._tls = guard, origin, timeouts, tls
        self.finding = Finding()

    async def send(self, method: bytes, target: bytes, headers: Headers, body: bytes | None) -> UpstreamResponse:
        """Send one request and return its answer, not read yet. Raises UpstreamError."""
        finding, timeouts = self.finding, self._timeouts
        request = encode(method, target, headers, body)
        await _resolve(self._guard, self._origin, timeouts.connect, finding)
        connection = await _connect(Dialer(self._guard, self._tls), self._origin, timeouts.connect, finding)
        try:
            finding.tls = _facts(connection.tls)
            began = now = asyncio.get_running_loop().time()
            answer = await connection.begin(request, timeouts, now, now + timeouts.total)
        except BaseException:
            connection.dispose()
            raise
        _took(finding, "first_byte_ms", began)
        if finding.status is None:
            finding.status, finding.content_type = answer.status, _content_type(answer.headers)
        return answer


async def probe(prober: Prober, method: bytes, target: bytes, headers: Headers) -> Finding:
    """Send one request without a body and return what came of it. Raises nothing of its own."""
    finding = prober.finding
    try:
        answer = await prober.send(method, target, headers, None)
        await answer.aclose()
        judge(finding, answer.status)
    except UpstreamError as error:
        explain(finding, error)
    return finding


async def _resolve(guard: EgressGuard, origin: Origin, timeout: float, finding: Finding) -> None:
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(timeout):
            await guard.addresses(origin.host, origin.port)
    except EgressRefused as refusal:
        raise AddressRefused(str(refusal)) from None
    except (ResolutionFailed, TimeoutError) as failure:
        raise NameUnresolved(str(failure) or f"no answer to the look-up of {origin.host} in time") from None
    _took(finding, "resolve_ms", began)


async def _connect(dialer: Dialer, origin: Origin, timeout: float, finding: Finding) -> Connection:
    began = asyncio.get_running_loop().time()
    connection = await dialer.open(origin, lambda: Connection(_Alone()), timeout)
    _took(finding, "connect_ms", began)
    return connection


def _took(finding: Finding, step: str, began: float) -> None:
    finding.times.setdefault(step, round((asyncio.get_running_loop().time() - began) * 1000))


def judge(finding: Finding, status: int) -> None:
    """Say what a status means to an owner."""
    outcome: Outcome = "answered"
    detail = f"The server answered {status}."
    if status in (401, 403, 407):
        outcome, detail = "unauthorized", f"The server answered {status}: it refuses the credentials that were sent."
    elif status >= 500:
        outcome, detail = "server_error", f"The server answered {status}: it is reached but fails."
    elif 300 <= status < 400 and status != 304:
        outcome = "redirected"
        detail = f"The server answered {status}. Redirects are passed on and not followed: register their target."
    elif status >= 400:
        detail = f"The server answered {status}. It is reached; test a path that exists to see more."
    finding.outcome, finding.detail = outcome, detail


_EXPLANATIONS: tuple[tuple[type[UpstreamError], Outcome, str], ...] = (
    (UnsafeRequest, "invalid_request", "The request cannot be sent: {}."),
    (AddressRefused, "address_refused", "{}; this gateway contacts public addresses only."),
    (NameUnresolved, "dns_failed", "{}. Check the host name and its DNS records."),
    (TlsFailed, "tls_failed", "TLS failed: {}."),
    (ConnectTimeout, "connect_timeout", "No connection in time. Check port, firewall and address records."),
    (FirstByteTimeout, "answer_timeout", "The connection works, but no answer came in time."),
    (TotalTimeout, "answer_timeout", "The connection works, but no answer came in time."),
    (Disconnected, "connection_closed", "The server closed the connection without an answer."),
    (ProtocolError, "invalid_answer", "The server does not speak HTTP/1.1 here: {}."),
)


def explain(finding: Finding, error: UpstreamError) -> None:
    """Say why there is no answer."""
    finding.outcome, finding.detail = "connect_failed", f"{error}."
    for kind, outcome, text in _EXPLANATIONS:
        if isinstance(error, kind):
            finding.outcome = outcome
            finding.detail = text.format(error.reason if isinstance(error, TlsFailed) else error)
            return


def _content_type(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        if name.lower() == b"content-type":
            text = value.decode("latin-1").partition(";")[0].strip()[:100]
            return text if text.isascii() and text.isprintable() else None
    return None


def _facts(session: ssl.SSLObject | None) -> TlsFacts | None:
    if session is None:
        return None
    certificate = cast("dict[str, Any]", session.getpeercert() or {})
    issuer = {name: value for part in certificate.get("issuer", ()) for name, value in part}
    end = certificate.get("notAfter")
    return TlsFacts(
        session.version() or "unknown",
        (issuer.get("organizationName") or issuer.get("commonName") or "")[:100] or None,
        datetime.fromtimestamp(ssl.cert_time_to_seconds(end), UTC) if end else None,
    )
