"""What a documented endpoint needs of a request: without it the call is refused before anything is paid or sent.

Only that it is there; what it means is the publisher's business.
"""

from __future__ import annotations

from urllib.parse import unquote_plus

from gateway.catalog.endpoints import Endpoint
from gateway.errors import InvalidRequest
from gateway.proxy.exchange import Exchange


def require(exchange: Exchange, endpoint: Endpoint) -> None:
    """Raise InvalidRequest that names every header field and query parameter that is missing."""
    sent = {name for name, _ in exchange.scope["headers"]} if endpoint.required_headers else set[bytes]()
    errors = [
        {"field": name, "message": "this header field is required here"}
        for name in endpoint.required_headers
        if name.lower().encode("ascii") not in sent
    ]
    if endpoint.required_params:
        given = _parameters(exchange.query)
        errors += [
            {"field": name, "message": "this query parameter is required here"}
            for name in endpoint.required_params
            if name not in given
        ]
    if errors:
        names = ", ".join(error["field"] for error in errors)
        raise InvalidRequest(
            f"{endpoint.method} {endpoint.path} needs {names}; nothing was sent or charged.", errors=errors
        )


def _parameters(query: bytes) -> set[str]:
    return {unquote_plus(part.partition(b"=")[0].decode("latin-1")) for part in query.split(b"&")}
