"""Response framing rules as small pure functions, stricter than the parser below them.

httptools (llhttp, strict) already refuses Content-Length with Transfer-Encoding, repeated or malformed lengths, bare
LF, folded headers and NUL. Here is what it lets pass and a metering proxy must not: other transfer codings, codings
under HTTP/1.0, and stray line ends behind a message. Not here: the bytes' way to the caller (connection.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from gateway.upstreams.http.errors import ProtocolError

Framing: TypeAlias = Literal["none", "length", "chunked", "close"]

MAX_HEAD = 64 * 1024
MAX_FIELDS = 200


def check_head(status: int, version: str, fields: Sequence[tuple[bytes, bytes]], received: int) -> None:
    """Raise ProtocolError for a head that must not be believed. `received` counts at least the head's bytes."""
    if version not in ("1.1", "1.0"):
        raise ProtocolError("response is not HTTP/1.x", sent=True)
    if not 100 <= status <= 599:  # RFC 9110 section 15; a server below us may not be able to send another
        raise ProtocolError("response status is not between 100 and 599", sent=True)
    if len(fields) > MAX_FIELDS:
        raise ProtocolError(f"response has more than {MAX_FIELDS} header fields", sent=True)
    # `received` may include body bytes; measure exactly only when it could matter.
    if received > MAX_HEAD and sum(len(name) + len(value) + 4 for name, value in fields) > MAX_HEAD:
        raise ProtocolError(f"response header section exceeds {MAX_HEAD} bytes", sent=True)


def body_framing(status: int, is_head: bool, version: str, fields: Sequence[tuple[bytes, bytes]]) -> Framing:
    """Return how this response's body ends (RFC 9112 section 6.3)."""
    framing: Framing = "close"
    for name, value in fields:
        size = len(name)  # a length test is a third of the cost of lower() and settles nearly every field
        if size == 14 and name.lower() == b"content-length":
            framing = "length"
        elif size == 17 and name.lower() == b"transfer-encoding":
            # Only plain chunked is undone here; passing on another coding's bytes would deliver garbage as the body.
            if framing == "chunked" or value.strip().lower() != b"chunked" or version == "1.0":
                raise ProtocolError("response has an unsupported Transfer-Encoding", sent=True)
            framing = "chunked"
    return "none" if is_head or status in (204, 304) else framing


def asks_to_close(version: str, fields: Sequence[tuple[bytes, bytes]]) -> bool:
    """Tell whether the connection ends after this message; for HEAD, where the parser cannot know."""
    options = b",".join(value for name, value in fields if name.lower() == b"connection").lower()
    tokens = {token.strip() for token in options.split(b",")}
    return b"close" in tokens or (version == "1.0" and b"keep-alive" not in tokens)


def ends_exactly(data: bytes, *, framing: Framing, head_inside: bool, body_size: int) -> bool:
    """Tell whether `data`, in which a message ended, holds nothing behind it.

    The parser reports a following message's first byte but skips line ends silently. May say False where the answer
    is not certain: a connection is then closed that could have been kept.
    """
    if data[-1] not in b"\r\n" or len(data) == 1:
        return True
    if framing == "chunked":
        return data[-4:] == b"\r\n\r\n" and data[-5:-4] not in b"\r\n"
    head_size = data.find(b"\r\n\r\n") + 4 if head_inside else 0
    return head_size + body_size == len(data)
