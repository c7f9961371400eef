"""Step 1, intake: bounds on the head, one reading of it (framing.py), and slug and path as the bytes that were sent.

Nothing is decoded here: what is forwarded later is exactly what stood on the wire.
"""

from __future__ import annotations

import re

from gateway.errors import HeadersTooLarge, InvalidTarget, KeyInUrl, LoopDetected, MethodNotAllowed, UriTooLong
from gateway.proxy.browsers import let_page_read
from gateway.proxy.exchange import Exchange
from gateway.proxy.framing import CLOSE, check_framing, repeated
from gateway.proxy.identify import holds_key
from gateway.settings import ProxySettings

PREFIX = b"/publishers/"
# The request fields that we read ourselves. A second one of SINGLE would let us and an upstream disagree.
OURS = frozenset(
    b"authorization host content-length transfer-encoding content-type idempotency-key"
    b" payment-signature x-payment expect x-forwarded-for x-forwarded-host x-forwarded-proto via sign-in-with-x"
    b" x-agent-wallet sec-fetch-site origin".split()
)
SINGLE = frozenset(
    b"authorization host content-length transfer-encoding idempotency-key sign-in-with-x x-agent-wallet".split()
)
# Our name in Via, and how many of us a call may pass (RFC 9110 section 7.6.3): sellers of sellers, but no loops.
PSEUDONYM = b"tollway"
MAX_HOPS = 3
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# Others go on as well (PROPFIND, QUERY), but not those that a careless upstream takes for one of METHODS, that would
# send the publisher's credential back to the caller, or that open a tunnel (RFC 9110 sections 9.1, 9.3.6, 9.3.8).
METHOD = re.compile(r"(?!(?:TRACE|TRACK|CONNECT|DEBUG)$)[A-Z][A-Z0-9_-]*")
# No controls, no blank, no fragment: "#" ends the path for some readers and not for others.
TARGET = re.compile(rb"[\x21\x22\x24-\x7e\x80-\xff]*")


def intake(exchange: Exchange, settings: ProxySettings) -> None:
    """Fill in slug, path, query and our own fields.

    Raises InvalidRequest, MethodNotAllowed, InvalidTarget, KeyInUrl, LoopDetected, UriTooLong or HeadersTooLarge; each
    closes the connection.
    """
    scope, exchange.bounds = exchange.scope, settings
    target: bytes = scope.get("raw_path") or scope["path"].encode()
    exchange.query = query = scope.get("query_string", b"")
    if len(target) + len(query) > settings.max_target:
        raise UriTooLong(f"The request target is longer than {settings.max_target} bytes.", headers=CLOSE)
    _read_fields(exchange, settings.max_header_bytes)
    if b"origin" in exchange.fields:
        let_page_read(exchange)
    check_framing(scope, exchange.fields)
    if exchange.fields.get(b"via", b"").count(PSEUDONYM) >= MAX_HOPS:
        raise LoopDetected("The call has passed a Tollway too often: a publisher on its way leads back.", headers=CLOSE)
    if exchange.method not in METHODS and METHOD.fullmatch(exchange.method) is None:
        raise MethodNotAllowed(
            "This method is not forwarded; methods are case-sensitive.", headers={"Allow": ", ".join(METHODS), **CLOSE}
        )
    if TARGET.fullmatch(target) is None or TARGET.fullmatch(query) is None:
        raise InvalidTarget("The target contains a blank, a control character or '#'.", headers=CLOSE)
    if holds_key(target) or holds_key(query):
        raise KeyInUrl(
            "An API key stands in the URL, where the publisher and every log on the way would read it. Send it as"
            " `Authorization: Bearer` alone, and revoke it if it has been used so.",
            headers=CLOSE,
        )
    slug, slash, rest = target[len(PREFIX) :].partition(b"/")
    exchange.slug = slug.decode("latin-1")
    exchange.path = slash + rest


def _read_fields(exchange: Exchange, limit: int) -> None:
    size = 0
    fields = exchange.fields
    for name, value in exchange.scope["headers"]:
        size += len(name) + len(value) + 4
        if name in OURS:
            if name in fields:
                if name in SINGLE:
                    raise repeated(name)
                value = fields[name] + b", " + value
            fields[name] = value
    if size > limit:
        raise HeadersTooLarge(f"The header section is larger than {limit} bytes.", headers=CLOSE)
