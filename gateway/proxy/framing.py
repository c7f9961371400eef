"""One reading of a request's head: what two readers could see differently is refused and the connection closed.

The servers below us let different things through (our own nothing of it); here all become equally strict. Guards
the paid path and the admin API. What does not live here: sizes (intake.py) and paths (catalog/endpoints.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.errors import InvalidRequest, MethodNotAllowed
from gateway.hosts import host_fault
from gateway.proxy.exchange import Scope

VERSIONS = frozenset({"1.1", "2", "1.0", "1", "3"})  # some ASGI servers call 1.0 "1"
FIELDS = frozenset({b"host", b"content-length", b"transfer-encoding"})
CLOSE: Mapping[str, str] = {"Connection": "close"}


def check_head(scope: Scope) -> None:
    """Check a request that is not on the paid path. Raises InvalidRequest or MethodNotAllowed."""
    if scope["method"] == "CONNECT":  # what follows would be the tunnel's bytes, not requests
        raise MethodNotAllowed("There are no tunnels here.", headers={"Allow": "GET, HEAD, POST", **CLOSE})
    fields: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in FIELDS:
            if name in fields:
                raise repeated(name)
            fields[name] = value
    check_framing(scope, fields)


def check_framing(scope: Scope, fields: Mapping[bytes, bytes]) -> None:
    """Refuse what RFC 9112 sections 2.3, 3.2 and 6 forbid. `fields` has FIELDS, each once. Raises InvalidRequest."""
    version: str = scope.get("http_version", "1.1")
    if version not in VERSIONS:
        raise InvalidRequest("This version of HTTP is not spoken here: use 1.1.", headers=CLOSE)
    host = fields.get(b"host")
    if not host:  # some ASGI servers add an empty one where there is none
        if version == "1.1":
            raise InvalidRequest("The request has no Host field.", headers=CLOSE)
    elif fault := host_fault(host):
        raise InvalidRequest(fault, headers=CLOSE)
    coding = fields.get(b"transfer-encoding")
    if coding is None:
        return
    if version in ("1.0", "1"):
        raise InvalidRequest("HTTP/1.0 has no transfer codings.", headers=CLOSE)
    if coding.strip().lower() != b"chunked":
        raise InvalidRequest("Only the transfer coding `chunked` is accepted.", headers=CLOSE)
    if b"content-length" in fields:
        raise InvalidRequest("Content-Length and Transfer-Encoding exclude each other.", headers=CLOSE)


def repeated(name: bytes) -> InvalidRequest:
    """Return the refusal of a field that may stand only once."""
    return InvalidRequest(f"The field {name.decode('latin-1')} was sent more than once.", headers=CLOSE)
