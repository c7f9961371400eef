"""How long each phase of an exchange may take, in seconds.

Not here: the timer itself (connection.py keeps one per connection and re-arms it lazily, because a timer per read costs
more than the read).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """`connect` covers a free pool slot, resolution, TCP and TLS; `first_byte` runs from the last request byte to the
    complete response head; `idle` is silence in a body (or a stalled upload); `total` bounds everything.
    """

    connect: float
    first_byte: float
    idle: float
    total: float
