"""The head of a request, read by an allow-list: what RFC 9112 does not allow is refused, never repaired.

The grammar is two regular expressions over the whole head, possessive so that no input makes them go back. That was
measured to cost what a C parser with callbacks costs (1.6 us for a usual head), knows where a message ends before
anything of it is believed, and has no lenient corners. What does not live here: bodies (body.py), sizes and time
(connection.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from gateway.errors import (
    ExpectationFailed,
    InvalidRequest,
    InvalidTarget,
    MethodNotAllowed,
)
from gateway.hosts import NO_HOST, host_fault

Fields = list[tuple[bytes, bytes]]

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
MAX_METHOD = 64
LINE = re.compile(rb"(" + TOKEN + rb"{1,%d}) ([\x21-\x7e]++) HTTP/([0-9])\.([0-9])\r\n" % MAX_METHOD)
FIELD = re.compile(rb"^(" + TOKEN + rb"++):[ \t]*+([\t\x20-\x7e\x80-\xff]*+)\r\n", re.M)
NO_TEXT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?=[^\n])")
ABSOLUTE = re.compile(rb"https?://([^/?]*+)(.*+)", re.I)
MAX_HOST = 300
MAX_USUAL = 64  # longer lists of options are read anew each time: what is kept of them must be small
# Of up to 18 digits, without leading zeros, which some readers take for octal.
LENGTH = re.compile(rb"0|[1-9][0-9]{0,17}")
CHUNKED = -1
ONCE = frozenset({b"host", b"content-length", b"transfer-encoding"})
FRAMING = ONCE | {b"connection", b"expect", b"upgrade"}
ALLOWED = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


@dataclass(slots=True)
class Head:
    """A request's head, checked. `fields` have names in small letters, `raw_fields` as they came."""

    method: bytes
    target: bytes
    http_1_1: bool
    raw_fields: Fields
    fields: Fields
    length: int = 0  # of the body in bytes, or CHUNKED
    keep_alive: bool = True  # as far as the client is concerned
    expects: bool = False  # the client waits for 100 (Continue) before it sends the body
    websocket: bool = False  # asks for the upgrade to a WebSocket

    @property
    def origin_form(self) -> tuple[bytes, bytes]:
        """Return the target's path and query, and b"" for the query that there is none of."""
        target = self.target
        if target[:1] != b"/":
            absolute = ABSOLUTE.fullmatch(target)
            target = absolute[2] if absolute is not None else target
            target = target if target[:1] == b"/" else b"/" + target
        path, _, query = target.partition(b"?")
        return path, query


def parse(data: bytes) -> Head:
    """Read a head; `data` ends with its empty line. Raises a Problem, after which the connection must end."""
    line = LINE.match(data)
    if line is None:
        raise InvalidRequest("The request line is not `METHOD target HTTP/1.1` with single blanks and plain ASCII.")
    method, target, major, minor = line.groups()
    if major != b"1":
        raise InvalidRequest("This version of HTTP is not spoken here: use 1.1.")
    end = line.end()
    raw: Fields = FIELD.findall(data, end, len(data) - 2)
    if len(raw) != data.count(b"\n", end) - 1:  # each match is one whole line: the rest would be no fields
        raise InvalidRequest("A header line is not `Name: value`, or has characters that are not allowed there.")
    if b" \r\n" in data or b"\t\r\n" in data:
        raw = [(name, value.rstrip(b" \t")) for name, value in raw]
    head = Head(method, target, minor != b"0", raw, [(name.lower(), value) for name, value in raw])
    _read_framing(head)
    _check_target(head)
    return head


def check_beginning(data: bytes | bytearray, begin: int) -> None:
    """Check what has come of a head that is not whole, from an index on. Raises InvalidRequest.

    So that nobody waits for the rest of what cannot become a request.
    """
    line_end = data.find(b"\r\n")
    if NO_TEXT.search(data, begin) is not None:
        raise InvalidRequest("The request's head has control characters, or lines that do not end with CR LF.")
    if line_end >= 0 and begin <= line_end + 1 and LINE.match(data) is None:
        raise InvalidRequest("The request line is not `METHOD target HTTP/1.1` with single blanks and plain ASCII.")
    if line_end < 0 and len(data) > MAX_METHOD and b" " not in data[: MAX_METHOD + 1]:
        raise InvalidRequest("The request does not begin with a method.")


def check_host(host: bytes) -> None:
    """Refuse what names no host, or no port. Raises InvalidRequest."""
    fault = host_fault(host) if len(host) <= MAX_HOST else NO_HOST
    if fault is not None:
        raise InvalidRequest(fault)


def _read_framing(head: Head) -> None:
    """Read the fields that say where the request ends and what becomes of its connection (RFC 9112 section 6)."""
    found: dict[bytes, bytes] = {}
    for name, value in head.fields:
        if name in FRAMING:
            if name not in found:
                found[name] = value
            elif name in ONCE:
                raise InvalidRequest(f"The field {name.decode()} was sent more than once.")
            else:
                found[name] += b"," + value
    _check_host(head, found)
    if b"content-length" in found or b"transfer-encoding" in found:
        head.length = _body_length(head, found)
    options = _tokens(found[b"connection"]) if b"connection" in found else ()
    head.keep_alive = b"close" not in options if head.http_1_1 else options == (b"keep-alive",)
    if not head.http_1_1:
        return  # it knows neither Expect nor Upgrade (RFC 9110 sections 7.8 and 10.1.1)
    if b"expect" in found:
        if found[b"expect"].lower() != b"100-continue":
            raise ExpectationFailed("The only expectation that can be met here is `100-continue`.")
        head.expects = head.length != 0
    if b"upgrade" in found and b"upgrade" in options and head.method == b"GET" and not head.length:
        head.websocket = b"websocket" in _tokens(found[b"upgrade"])


def _check_host(head: Head, found: dict[bytes, bytes]) -> None:
    host = found.get(b"host")
    if host:
        check_host(host)
    elif head.http_1_1 or host is not None:
        raise InvalidRequest("The request has no Host field, or an empty one.")


def _body_length(head: Head, found: dict[bytes, bytes]) -> int:
    coding, length = found.get(b"transfer-encoding"), found.get(b"content-length")
    if coding is None:
        if length is None or LENGTH.fullmatch(length) is None:
            raise InvalidRequest("Content-Length is not a decimal number.")
        return int(length)
    if not head.http_1_1:
        raise InvalidRequest("HTTP/1.0 has no transfer codings.")
    if coding.lower() != b"chunked":
        raise InvalidRequest("Only the transfer coding `chunked` is accepted, once.")
    if length is not None:
        raise InvalidRequest("Content-Length and Transfer-Encoding exclude each other.")
    return CHUNKED


@lru_cache(256)
def _usual_tokens(value: bytes) -> tuple[bytes, ...]:
    return _split(value)


def _tokens(value: bytes) -> tuple[bytes, ...]:
    return _usual_tokens(value) if len(value) <= MAX_USUAL else _split(value)


def _split(value: bytes) -> tuple[bytes, ...]:
    return tuple(part.strip(b" \t") for part in value.lower().split(b",") if part.strip(b" \t"))


def _check_target(head: Head) -> None:
    """Refuse targets of another form than the method may have (RFC 9112 section 3.2)."""
    if head.method == b"CONNECT":  # what follows would be the tunnel's bytes, not requests
        raise MethodNotAllowed("There are no tunnels here.", headers={"Allow": ALLOWED})
    target = head.target
    if b"#" in target:
        raise InvalidTarget("The target contains '#': a fragment stays with the client.")
    if target[:1] == b"/" or (target == b"*" and head.method == b"OPTIONS"):
        return
    absolute = ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise InvalidTarget("The target must be a path that begins with '/', or a whole http or https URL.")
    check_host(absolute[1])
    # It counts, and what the field says does not (RFC 9112 section 3.2.2).
    head.fields = [(name, absolute[1] if name == b"host" else value) for name, value in head.fields]
