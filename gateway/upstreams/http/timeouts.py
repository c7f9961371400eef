"""How long each phase of an exchange may take, in seconds.

Not here: the timer itself (connection.py keeps one per connection and re-arms it lazily, because a timer per read costs
more than the read).
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.catalog.delivery import DeliveryPolicy
from gateway.settings import ProxySettings


@dataclass(frozen=True, slots=True)
class Timeouts:
    """`connect` covers a free pool slot, resolution, TCP and TLS; `first_byte` runs from the last request byte to the
    complete response head; `idle` is silence in a body (or a stalled upload); `total` bounds everything.
    `retries` is how often a connection that did not come about is tried again, each time for `connect`.
    """

    connect: float
    first_byte: float
    idle: float
    total: float
    retries: int = 0


def timeouts_of(chosen: DeliveryPolicy, settings: ProxySettings) -> Timeouts:
    """Return the owner's timeouts where there are, else the operator's; never more than the operator allows now."""
    retries = settings.connect_retries if chosen.retries is None else chosen.retries
    return Timeouts(
        connect=min(chosen.connect or settings.connect_timeout, settings.connect_timeout_max),
        first_byte=min(chosen.first_byte or settings.first_byte_timeout, settings.first_byte_timeout_max),
        idle=min(chosen.idle or settings.idle_timeout, settings.idle_timeout_max),
        total=min(chosen.total or settings.total_timeout, settings.total_timeout_max),
        retries=min(retries, settings.connect_retries_max),
    )
