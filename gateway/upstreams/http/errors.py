"""Every way a call to an upstream can fail, by kind.

`sent` answers the money question: may the upstream have seen any byte of this request? Messages name sizes, phases and
hosts, never header values, targets or bodies, so they may be logged. Not here: which HTTP status or refund follows.
"""

from __future__ import annotations


class UpstreamError(Exception):
    """The exchange failed. `sent` is False only when the upstream certainly has not read a byte of the request."""

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent


class UnsafeRequest(UpstreamError, ValueError):
    """The request as given would corrupt the wire (CR, LF, NUL, contradictory framing). Nothing was sent."""


class ConnectError(UpstreamError):
    """No connection: the name did not resolve, the peer refused, or TLS failed."""


class NameUnresolved(ConnectError):
    """The host name has no address now."""


class TlsFailed(ConnectError):
    """TCP connected, TLS did not. `reason` is OpenSSL's, of the certificate where that was refused."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ConnectTimeout(ConnectError):
    """No connection within the connect timeout."""


class AddressRefused(ConnectError):
    """The egress guard forbids this host or one of its addresses."""


class PoolTimeout(UpstreamError):
    """All connections to this origin stayed busy for as long as the connect timeout."""


class FirstByteTimeout(UpstreamError):
    """The request was sent; no complete response head came in time."""


class IdleTimeout(UpstreamError):
    """The upstream stopped sending its body, or stopped accepting ours."""


class TotalTimeout(UpstreamError):
    """The exchange as a whole took too long."""


class ProtocolError(UpstreamError):
    """The upstream broke HTTP/1.1, or answered with more header bytes or fields than we accept."""


class Disconnected(UpstreamError):
    """The connection ended before a response head. `received` tells whether a part of one had arrived."""

    def __init__(self, message: str, *, sent: bool, received: bool = False) -> None:
        super().__init__(message, sent=sent)
        self.received = received


class BrokenBody(UpstreamError):
    """The response body ended before its framing said so."""


class UploadError(UpstreamError):
    """The caller's body iterator failed, or did not yield what Content-Length promised. The cause is chained."""
