"""Pages of other sites as customers (CORS): preflights, and answers that a page may read.

The policy is one: any site, no credentials. Callers pay with a bearer key or a signed payment, which no browser adds by
itself, so a foreign page has nothing that it was not given; a request with a cookie is never opened. The gateway speaks
for all: what an upstream says about CORS is replaced. A preflight is no call: it is answered here, free, and no
publisher hears of it. Only requests with an Origin field cost anything.

What does not live here: pages that publishers deliver (deliver.fenced), login cookies (admin_api/kit/cookies.py).
"""

from __future__ import annotations

import re

from gateway.dates import http_date
from gateway.errors import Problem
from gateway.proxy.exchange import Exchange, HeaderPairs, Message, Scope, Send
from gateway.proxy.framing import check_head

METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
METHOD = re.compile(rb"(?!(?:TRACE|TRACK|CONNECT|DEBUG)$)[A-Z][A-Z0-9_-]{0,31}")
NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
MAX_NAMES = 100
MAX_AGE = b"7200"  # the most that browsers keep a preflight for
OWN = b"access-control-"
# By name for those who do not know the wildcard, which is valid as there are no credentials.
EXPOSED = (
    b"*, payment-required, payment-response, x-payment-response, www-authenticate, x-request-id, x-cost, x-cost-max,"
    b" x-cost-asset, x-cost-drawn, x-balance, x-balance-low, x-budget-left, idempotency-replayed, retry-after,"
    b" ratelimit, ratelimit-policy, link, location, etag"
)
ANY = (b"access-control-allow-origin", b"*")
READABLE: HeaderPairs = [ANY, (b"access-control-expose-headers", EXPOSED)]
VARY = (b"vary", b"Origin")


def readable(headers: HeaderPairs) -> HeaderPairs:
    """Return an answer's fields with our word on CORS, instead of any other."""
    return [*(pair for pair in headers if not pair[0].lower().startswith(OWN)), *READABLE, VARY]


def reading(send: Send) -> Send:
    """Return a way to send answers that a page may read."""

    async def send_readable(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = readable(message["headers"])
        await send(message)

    return send_readable


def let_page_read(exchange: Exchange) -> None:
    """Let the page that sent a call read its answer."""
    if exchange.bounded_by.cors and opens(exchange.scope):
        exchange.send = reading(exchange.send)


def opens(scope: Scope) -> bool:
    """Return whether a page of another site may read the answer to a request: it has an Origin, and no cookie."""
    names = {name for name, _ in scope["headers"]}
    return b"origin" in names and b"cookie" not in names


def preflight(scope: Scope) -> HeaderPairs | None:
    """Return the fields of the answer to an OPTIONS request that is a preflight; None for a call.

    A preflight names an origin and the method to come (Fetch, section 4.8), and has neither body nor credentials.
    """
    fields: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        fields[name] = value if name not in fields else fields[name] + b"," + value
    method = fields.get(b"access-control-request-method")
    if method is None or b"origin" not in fields or {b"authorization", b"cookie", b"transfer-encoding"} & fields.keys():
        return None
    if fields.get(b"content-length", b"0") != b"0":
        return None
    try:
        check_head(scope)
    except Problem:
        return None  # whoever serves the path says what is wrong
    return _allowed(method, fields.get(b"access-control-request-headers", b""))


def _allowed(method: bytes, asked: bytes) -> HeaderPairs:
    """Return what a preflight asked for, as far as it is a method and names."""
    # Nothing is said about private networks (Access-Control-Request-Private-Network): those stay closed.
    names = [name.strip() for name in asked.split(b",", MAX_NAMES)][:MAX_NAMES]
    allowed = [name.lower() for name in names if NAME.fullmatch(name)]
    more = b"" if METHOD.fullmatch(method) is None or method in METHODS.split(b", ") else b", " + method
    headers: HeaderPairs = [
        ANY,
        (b"access-control-allow-methods", METHODS + more),
        (b"access-control-max-age", MAX_AGE),
        (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
        (b"date", http_date()),
    ]
    if allowed:
        headers.append((b"access-control-allow-headers", b", ".join(allowed)))
    return headers


async def answer_preflight(send: Send, headers: HeaderPairs) -> None:
    """Answer a preflight."""
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
