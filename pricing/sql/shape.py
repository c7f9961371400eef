"""The shape of a query: its text without its constants. Queries of one shape are estimated alike (learning.py)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pricing.sql.lexer import Kind, Token

_CONSTANTS = frozenset({Kind.STRING, Kind.NUMBER, Kind.PARAMETER})


def shape_of(read: Iterable[Token]) -> bytes:
    """Return 16 bytes that are the same for queries that differ in constants and lengths of lists only."""
    kept: list[str] = []
    for token in read:
        if token.kind not in _CONSTANTS:
            kept.append(token.text)
        elif kept[-2:] == ["?", ","]:
            kept.pop()  # one more of a list
        else:
            kept.append("?")
    return hashlib.blake2b(" ".join(kept).encode(), digest_size=16).digest()
