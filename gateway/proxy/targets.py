"""Which requests are calls of a publisher, told by their target before anything else is read."""

from __future__ import annotations

import re
from urllib.parse import unquote

from gateway.proxy.exchange import Scope
from gateway.proxy.intake import PREFIX

ABSOLUTE = re.compile(rb"https?://([^/?#]+)(/.*)?", re.I | re.S)
# What stands below /publishers/<slug> and is ours: exactly these methods and paths, everything else is the upstream's.
STORE = {
    *((path, method) for path in (b"", b"/logo", b"/openapi.json") for method in ("GET", "HEAD")),
    (b"/estimate", "POST"),
}


def origin_form(scope: Scope) -> Scope:
    """Return a request in absolute form as if it had come in origin form; its authority replaces Host (RFC 9112 3.2.2).

    Our own server has done so by now, hypercorn has not. What is no such request is returned as it is.
    """
    found = ABSOLUTE.fullmatch(scope.get("raw_path") or b"")
    if found is None:
        return scope
    path = found[2] or b"/"
    fields = [(name, found[1] if name == b"host" else value) for name, value in scope["headers"]]
    return {**scope, "raw_path": path, "path": unquote(path), "headers": fields}


def is_paid_path(scope: Scope) -> bool:
    """Return whether a request is a publisher call rather than a look at the store."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    if not path.startswith(PREFIX):
        return False
    slug, slash, rest = path[len(PREFIX) :].partition(b"/")
    return bool(slug) and slug != b"suggest" and (slash + rest, scope["method"]) not in STORE
