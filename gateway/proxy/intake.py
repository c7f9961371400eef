"""Step 1, intake: bounds on the head, and the slug and path as the bytes that were sent.

Nothing is decoded here: what is forwarded later is exactly what stood on the wire.
"""

from __future__ import annotations

from gateway.errors import HeadersTooLarge, InvalidRequest, InvalidTarget, UriTooLong
from gateway.proxy.exchange import Exchange
from gateway.settings import ProxySettings

PREFIX = b"/publishers/"
# The request fields that we read ourselves. A second Authorization or Host would let us and an upstream disagree.
OURS = frozenset(
    b"authorization host content-length transfer-encoding content-type x-forwarded-for idempotency-key".split()
)
SINGLE = frozenset(b"authorization host content-length idempotency-key".split())


def intake(exchange: Exchange, settings: ProxySettings) -> None:
    """Fill in slug, path, query and our own fields. Raises UriTooLong, HeadersTooLarge or InvalidTarget."""
    scope = exchange.scope
    target: bytes = scope.get("raw_path") or scope["path"].encode()
    exchange.query = scope.get("query_string", b"")
    if len(target) + len(exchange.query) > settings.max_target:
        raise UriTooLong(f"The request target is longer than {settings.max_target} bytes.")
    size = 0
    fields = exchange.fields
    for name, value in scope["headers"]:
        size += len(name) + len(value) + 4
        if name in OURS:
            if name in fields and name in SINGLE:
                raise InvalidTarget(f"The field {name.decode()} was sent more than once.")
            fields[name] = value
    _check_framing(fields)
    if size > settings.max_header_bytes:
        raise HeadersTooLarge(f"The header section is larger than {settings.max_header_bytes} bytes.")
    slug, slash, rest = target[len(PREFIX) :].partition(b"/")
    exchange.slug = slug.decode("latin-1")
    exchange.path = slash + rest


def _check_framing(fields: dict[bytes, bytes]) -> None:
    """Refuse framing that an upstream could read differently (RFC 9112 section 6); servers let some through."""
    coding = fields.get(b"transfer-encoding")
    if coding is None:
        return
    if coding.strip().lower() != b"chunked":
        raise InvalidRequest("Only the transfer coding `chunked` is accepted.", headers={"Connection": "close"})
    if b"content-length" in fields:
        raise InvalidRequest(
            "Content-Length and Transfer-Encoding exclude each other.", headers={"Connection": "close"}
        )
