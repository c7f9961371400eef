"""Time-ordered identifiers (UUIDv7, RFC 9562): neighbours in time are neighbours in the index."""

from __future__ import annotations

import os
import time
import uuid


def floor_at(unix_milliseconds: int) -> uuid.UUID:
    """Return the smallest UUIDv7 of a moment, for range searches."""
    return uuid.UUID(int=unix_milliseconds << 80 | 0x7 << 76 | 0x2 << 62)


def uuid7() -> uuid.UUID:
    """Return a new UUIDv7: 48 bits of Unix milliseconds, 74 random bits."""
    random = int.from_bytes(os.urandom(10))
    value = (time.time_ns() // 1_000_000) << 80 | random
    value &= ~(0xF << 76) & ~(0x3 << 62)
    return uuid.UUID(int=value | 0x7 << 76 | 0x2 << 62)
