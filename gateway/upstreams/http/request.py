"""The request as bytes: validation and framing, pure.

Prevents request smuggling and header injection: whatever the caller passes, what leaves is one request with one
framing, or an exception. Not here: which headers to send (the caller's choice) and any I/O.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from gateway.upstreams.http.errors import UnsafeRequest

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

# A larger body is sent piecewise, so that an early answer (413) can stop it and it is never copied whole.
ONE_WRITE = 256 * 1024
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# No controls and no space: a space would add a fourth word to the request line (RFC 9112 section 3).
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_COMMON = frozenset({b"GET", b"HEAD", b"OPTIONS", b"POST", b"PUT", b"PATCH", b"DELETE"})

_PLAIN, _LENGTH, _TRANSFER, _UPGRADE = range(4)
_SPECIAL = {b"content-length": _LENGTH, b"transfer-encoding": _TRANSFER, b"upgrade": _UPGRADE}
# Names seen and validated: one dict probe per field instead of a regex and a lower(). Bounded, names are few.
_names: dict[bytes, int] = {}
_plain_names: set[bytes] = set()
_NAMES_MAX = 4096


@dataclass(slots=True)
class EncodedRequest:
    """A request that is safe to write. `stream` holds what follows `data`; `length` None means chunked."""

    data: bytes
    stream: AsyncIterator[bytes] | None = None
    length: int | None = None
    is_head: bool = False
    upgrade: bool = False
    has_body: bool = False


def encode(method: bytes, target: bytes, headers: Headers, body: bytes | AsyncIterator[bytes] | None) -> EncodedRequest:
    """Return the validated request. Raises UnsafeRequest."""
    if method not in _COMMON and _TOKEN.fullmatch(method) is None:
        raise UnsafeRequest("method is not a token")
    if _TARGET.fullmatch(target) is None:
        raise UnsafeRequest("target is empty or contains a space or control character")
    length, upgrade = _inspect(headers)
    # join() under map() stays in C: half the cost of formatting each field.
    lines = [b"%b %b HTTP/1.1" % (method, target), *map(b": ".join, headers), b""]
    head = b"\r\n".join(lines)
    # Every line brought exactly one CR and one LF; any other came from inside a value.
    ends = len(lines) - 1
    if head.count(b"\n") != ends or head.count(b"\r") != ends or b"\0" in head:
        raise UnsafeRequest("a header value contains CR, LF or NUL")
    if body is None:
        if length:
            raise UnsafeRequest("Content-Length promises a body but there is none")
        return EncodedRequest(head + b"\r\n", is_head=method == b"HEAD", upgrade=upgrade)
    return _with_body(method, head, body, length, upgrade)


def _with_body(
    method: bytes, head: bytes, body: bytes | AsyncIterator[bytes], length: int | None, upgrade: bool
) -> EncodedRequest:
    is_head = method == b"HEAD"
    if not isinstance(body, bytes):
        head += b"\r\n" if length is not None else b"Transfer-Encoding: chunked\r\n\r\n"
        return EncodedRequest(head, body, length, is_head=is_head, upgrade=upgrade, has_body=True)
    if length is None:
        head += b"Content-Length: %d\r\n" % len(body)
    elif length != len(body):
        raise UnsafeRequest("Content-Length differs from the body's length")
    head += b"\r\n"
    if len(body) > ONE_WRITE:
        return EncodedRequest(head, _slices(body), len(body), is_head=is_head, upgrade=upgrade, has_body=True)
    return EncodedRequest(head + body, is_head=is_head, upgrade=upgrade, has_body=bool(body))


def _inspect(headers: Headers) -> tuple[int | None, bool]:
    """Validate names and return (declared length, has Upgrade)."""
    length: int | None = None
    upgrade = False
    if _plain_names.issuperset([name for name, _ in headers]):
        return length, upgrade
    for name, value in headers:
        kind = _names.get(name)
        if kind is None:
            kind = _classify(name)
        if kind == _PLAIN:
            continue
        if kind == _TRANSFER:
            raise UnsafeRequest("Transfer-Encoding is this client's to add")
        if kind == _UPGRADE:
            upgrade = True
        elif length is not None or _DIGITS.fullmatch(value) is None:
            raise UnsafeRequest("Content-Length is repeated or not a number")
        else:
            length = int(value)
    return length, upgrade


def _classify(name: bytes) -> int:
    if _TOKEN.fullmatch(name) is None:
        raise UnsafeRequest("a header name is not a token")
    kind = _SPECIAL.get(name.lower(), _PLAIN)
    if len(_names) < _NAMES_MAX:
        _names[name] = kind
        if kind == _PLAIN:
            _plain_names.add(name)
    return kind


async def _slices(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), ONE_WRITE):
        yield body[start : start + ONE_WRITE]
