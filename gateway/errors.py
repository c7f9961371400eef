"""Every refusal Tollway can answer, as RFC 9457 problems.

One subclass per cause. It knows its HTTP status, its stable `type` (a URI path documented in docs/problems.md and
served at that path) and its title. `detail` says what was wrong with this request and what to do; extra keyword
arguments become machine-readable members. Nothing secret may be put into either: both are sent to the caller.

What does not live here: mapping to a response (admin_api/kit/problems.py, gateway/proxy/problems.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class Problem(Exception):
    """A refusal with a public explanation. Raise a subclass, never this class itself."""

    status: ClassVar[int] = 500
    name: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, headers: Mapping[str, str] | None = None, **fields: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = fields
        self.headers: dict[str, str] = dict(headers or {})

    def document(self, instance: str | None = None) -> dict[str, object]:
        """Return the problem document (RFC 9457 section 3). `instance` is the request id."""
        body: dict[str, object] = {
            "type": f"/problems/{self.name}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if instance is not None:
            body["instance"] = instance
        body.update(self.fields)
        return body


class InternalError(Problem):
    """A fault of ours. The log has the cause under the same request id; the answer never does."""


class InvalidRequest(Problem):
    """The request is malformed: `errors` lists each field with what was wrong."""

    status, name, title = 400, "invalid-request", "Invalid request"


class EarningsShort(Problem):
    """Less can be paid out than was asked for, or less than a payout must be. Nothing was moved."""

    status, name, title = 400, "earnings-short", "Not enough earnings"


class InvalidTarget(Problem):
    """The request target could be read in more than one way, or leaves the publisher's base path."""

    status, name, title = 400, "invalid-target", "Invalid request target"


class KeyInUrl(Problem):
    """An API key stands in the path or query of a call. Nothing was forwarded or charged."""

    status, name, title = 400, "key-in-url", "API key in the URL"


class QueryNotSold(Problem):
    """A query that is not sold here; `code` says which rule it breaks. No database heard of it, nothing was charged."""

    status, name, title = 400, "query-not-sold", "Query not sold"


class NotEligible(Problem):
    """The caller may not do this yet (for instance a second daily claim on one day)."""

    status, name, title = 400, "not-eligible", "Not eligible"


class Unauthenticated(Problem):
    """No credential, or one that is unknown, malformed, expired or revoked. Deliberately not told apart."""

    status, name, title = 401, "unauthenticated", "Unauthenticated"

    def __init__(self, detail: str, **fields: object) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer realm="tollway"'}, **fields)


class PaymentRequired(Problem):
    """The balance does not cover the price. On publisher calls the body is x402's instead of a problem."""

    status, name, title = 402, "payment-required", "Payment required"


class NotBought(Problem):
    """The publisher's server asks for a payment that is not made for you; `reason` says why. Nothing was charged."""

    status, name, title = 402, "not-bought", "Not bought"


class Forbidden(Problem):
    """The caller is known but lacks the permission, or is not a member of the organization."""

    status, name, title = 403, "forbidden", "Forbidden"


class EndpointProtected(Problem):
    """The publisher has protected this endpoint; `detail` carries its reason."""

    status, name, title = 403, "endpoint-protected", "Endpoint protected"


class ConnectionNeeded(Problem):
    """The publisher is called in its callers' names, and this one has not connected: `authorize_url` is where to."""

    status, name, title = 403, "connection-needed", "Connection needed"


class Suspended(Problem):
    """The gateway's operator has suspended the publisher, key, account, organization or wallet: `reason` says why."""

    status, name, title = 403, "suspended", "Suspended"


class PlanLimitReached(Problem):
    """The organization's plan allows no more of this; `limit` says how many, `plan` which plan. Nothing was made."""

    status, name, title = 403, "plan-limit-reached", "Plan limit reached"


class BudgetExceeded(Problem):
    """The call could exceed what the API key may spend. Nothing was sent or charged; no other payment is asked for."""

    status, name, title = 403, "budget-exceeded", "Budget exceeded"


class NotFirstParty(Problem):
    """The operator has not named this publisher as one that may take money from agents without a call."""

    status, name, title = 403, "not-first-party", "Not a first-party service"


class ChargeLimit(Problem):
    """More than the operator lets this publisher take, at once or of one agent in a day: `limit` says which."""

    status, name, title = 403, "charge-limit", "Charge limit"


class AddressNotAllowed(Problem):
    """The API key may not be used, or the project not reached, from this address: its list names others."""

    status, name, title = 403, "address-not-allowed", "Address not allowed"


class BudgetLocked(Problem):
    """A key that has a budget may not make keys, set budgets or make a recovery code; no key sets its own budget."""

    status, name, title = 403, "budget-locked", "Budget locked"


class NotFound(Problem):
    """No such object, or one of another tenant: the two are answered alike."""

    status, name, title = 404, "not-found", "Not found"


class UnknownPublisher(Problem):
    """No active publisher has this slug."""

    status, name, title = 404, "unknown-publisher", "Unknown publisher"


class SessionLost(Problem):
    """No MCP session of the caller's has this id, or the publisher's server has ended it. Nothing was charged."""

    status, name, title = 404, "session-lost", "Session lost"


class EndpointNotOffered(Problem):
    """The publisher sells only documented endpoints (default_deny) and this is none of them."""

    status, name, title = 404, "endpoint-not-offered", "Endpoint not offered"


class NotPriced(Problem):
    """The publisher sells for money and has said no price for this, so it is not for sale. Nothing was charged."""

    status, name, title = 404, "not-priced", "Not for sale"


class MethodNotAllowed(Problem):
    """The path exists but not with this method; `Allow` lists those that do."""

    status, name, title = 405, "method-not-allowed", "Method not allowed"


class RequestTimeout(Problem):
    """The rest of the request did not come in time. Nothing was charged; send it again on a new connection."""

    status, name, title = 408, "request-timeout", "Request timeout"


class WouldLockOut(Problem):
    """The list would leave out the `address` that asks for it; `allow_lockout` says that it is meant."""

    status, name, title = 409, "would-lock-out", "Would lock you out"


class Conflict(Problem):
    """The state of the object forbids it: a taken slug, a bonus already claimed, a charge already refunded."""

    status, name, title = 409, "conflict", "Conflict"


class CallRunning(Problem):
    """A call with this Idempotency-Key is still under way; Retry-After says when to ask again."""

    status, name, title = 409, "call-running", "Call still running"


class KeyReused(Problem):
    """This Idempotency-Key belongs to a different request. Nothing was done; use a new key for a new request."""

    status, name, title = 422, "key-reused", "Idempotency key reused"


class QueryFailed(Problem):
    """The publisher's database refused or broke off the query: `sqlstate` says why, `cost` what was charged for it."""

    status, name, title = 422, "query-failed", "Query failed"


class AnswerNotKept(Problem):
    """The call with this Idempotency-Key was delivered and paid; its answer was too large to keep, or cut short."""

    status, name, title = 410, "answer-not-kept", "Answer not kept"


class PayloadTooLarge(Problem):
    """The body is larger than the limit that `detail` names."""

    status, name, title = 413, "payload-too-large", "Payload too large"


class UriTooLong(Problem):
    """The request target is longer than the limit that `detail` names."""

    status, name, title = 414, "uri-too-long", "URI too long"


class HeadersTooLarge(Problem):
    """The request's header section is larger than the limit that `detail` names."""

    status, name, title = 431, "headers-too-large", "Request header fields too large"


class UnsupportedMediaType(Problem):
    """The body has a type or coding that this operation does not read; Accept or Accept-Encoding names what it does."""

    status, name, title = 415, "unsupported-media-type", "Unsupported media type"


class ExpectationFailed(Problem):
    """The Expect field asks for something that this gateway does not do."""

    status, name, title = 417, "expectation-failed", "Expectation failed"


class UpgradeRequired(Problem):
    """The WebSocket handshake is of another version than the one that is spoken here."""

    status, name, title = 426, "upgrade-required", "Upgrade required"


class QuotaExceeded(Problem):
    """The calls that the organization's plan includes are used up for this month. Nothing was sent or charged."""

    status, name, title = 429, "quota-exceeded", "Quota exceeded"


class RateLimited(Problem):
    """Too many requests; Retry-After says in whole seconds when one passes again."""

    status, name, title = 429, "rate-limited", "Rate limited"


class RailNotAvailable(Problem):
    """This gateway has no such payment rail configured. Nothing was started and nothing was charged."""

    status, name, title = 501, "rail-not-available", "Payment rail not available"


class NotConfigured(Problem):
    """This gateway lacks a setting that the operation needs; `detail` names it. Tell the operator."""

    status, name, title = 501, "not-configured", "Not configured"


class KindNotServed(Problem):
    """This gateway does not serve the publisher's kind, billing model or authentication yet. Nothing was charged."""

    status, name, title = 501, "kind-not-served", "Publisher kind not served"


class WebSocketNotOffered(Problem):
    """The publisher offers no WebSocket connections. Nothing was sent or charged; call it by plain HTTP."""

    status, name, title = 501, "websocket-not-offered", "WebSocket not offered"


class UpgradeRefused(Problem):
    """The publisher's server did not open a WebSocket: `upstream_status` is what it answered. Nothing was charged."""

    status, name, title = 502, "upgrade-refused", "WebSocket refused by the upstream"


class UpstreamUnreachable(Problem):
    """The publisher's server could not be reached. Nothing was charged."""

    status, name, title = 502, "upstream-unreachable", "Upstream unreachable"


class UpstreamInvalid(Problem):
    """The publisher's server broke the protocol or closed before an answer. Nothing was charged."""

    status, name, title = 502, "upstream-invalid", "Invalid upstream response"


class PaymentNotTaken(Problem):
    """The publisher's server did not take the payment that was made for you. You were not charged."""

    status, name, title = 502, "payment-not-taken", "Payment not taken by the upstream"


class McpRefused(Problem):
    """The publisher's MCP server answered with an error, which is in `mcp_error`. Nothing was charged."""

    status, name, title = 502, "mcp-refused", "Refused by the MCP server"


class QueryLost(Problem):
    """The connection to the publisher's database was lost while the query ran; `cost` says what was charged for it."""

    status, name, title = 502, "query-lost", "Query lost"


class LoopDetected(Problem):
    """The call has come through this or another Tollway several times: a publisher leads back to itself."""

    status, name, title = 508, "loop-detected", "Loop detected"


class UpstreamTimeout(Problem):
    """The publisher's server did not answer in time. Nothing was charged."""

    status, name, title = 504, "upstream-timeout", "Upstream timeout"


class QueryStopped(Problem):
    """The query did not give its first row in time; `cost` says what was charged for it. Ask for less."""

    status, name, title = 504, "query-stopped", "Query stopped"


class UpstreamUnavailable(Problem):
    """The publisher's server failed repeatedly and is left alone for a while. Nothing was sent or charged."""

    status, name, title = 503, "upstream-unavailable", "Upstream unavailable"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)}, retry_after=retry_after)


class SettlementPending(Problem):
    """The payment is on its way through its chain: present it again later, never a new one."""

    status, name, title = 503, "settlement-pending", "Settlement pending"

    def __init__(self, detail: str, *, retry_after: int, **fields: object) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)}, **fields)


class Overloaded(Problem):
    """More calls come than this gateway can serve; admission control refused this one. Retry-After says when to try.

    Nothing was done: a key of the call or a payment that it brought along is as good as before.
    """

    status, name, title = 503, "overloaded", "Overloaded"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"Retry-After": "1"})


class Unavailable(Problem):
    """A dependency of ours (ledger, limiter) cannot answer now; nothing was done. Retry-After says when to try."""

    status, name, title = 503, "unavailable", "Temporarily unavailable"

    def __init__(self, detail: str, *, retry_after: int = 1, **fields: object) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)}, **fields)


def every_problem() -> list[type[Problem]]:
    """Return all problem classes, for the documentation page and the test that keeps it complete."""
    return sorted(Problem.__subclasses__(), key=lambda kind: (kind.status, kind.name))
