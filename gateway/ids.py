"""Time-ordered identifiers (UUIDv7, RFC 9562): neighbours in time are neighbours in the index.

Their time is a clock of this process. It runs with the monotonic clock, so that no id goes back when somebody sets the
host's clock back: the ledger refuses an exchange with an id before the one that it has already said to be done with.
jobs/heartbeat.py notices a step of the host's clock and lets this one follow when that is safe.
"""

from __future__ import annotations

import os
import time
import uuid

# The kind of UUID that rows have anyway: made, and written as text, in a sixth of the time.
from asyncpg.pgproto.pgproto import UUID as FastUUID


class Clock:
    """Unix time that steps of the host's clock reach only by `follow`."""

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.monotonic_ns()
        self._left: list[tuple[int, int]] = []  # offsets that it had, and when it left them

    def milliseconds(self) -> int:
        """Return the Unix time in milliseconds."""
        return (time.monotonic_ns() + self._offset) // 1_000_000

    def milliseconds_before_steps(self, within: int) -> int:
        """Return what it would show without the steps forward of the last `within` ms: ids of then are still around."""
        now = time.monotonic_ns()
        self._left = [(offset, at) for offset, at in self._left if now - at < within * 1_000_000]
        return (now + min([self._offset, *(offset for offset, _ in self._left)])) // 1_000_000

    def behind_host(self) -> int:
        """Return by how many milliseconds the host's clock is ahead; below zero where it was set back."""
        return time.time_ns() // 1_000_000 - self.milliseconds()

    def follow(self) -> None:
        """Take the host's time. Back only when the ledger has been told to look that far back (GroupCommit.rewind)."""
        now = time.monotonic_ns()
        self._left.append((self._offset, now))
        self._offset = time.time_ns() - now


CLOCK = Clock()


def floor_at(unix_milliseconds: int) -> uuid.UUID:
    """Return the smallest UUIDv7 of a moment, for range searches."""
    return uuid.UUID(int=unix_milliseconds << 80 | 0x7 << 76 | 0x2 << 62)


def uuid7() -> uuid.UUID:
    """Return a new UUIDv7: 48 bits of Unix milliseconds, 74 random bits."""
    random = bytearray(os.urandom(10))
    random[0] = random[0] & 0x0F | 0x70  # the version
    random[2] = random[2] & 0x3F | 0x80  # the variant
    return FastUUID(CLOCK.milliseconds().to_bytes(6) + random)
