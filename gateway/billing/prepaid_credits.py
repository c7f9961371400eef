"""`prepaid_credits`: a Bearer key pays from its wallet, before the call is forwarded.

    fixed price:    post the charge first; reverse it when the refund rule says so
    shortfall:      402 with the prepaid accept, nothing moves, the upstream is never touched

The refund rule (DESIGN.md section 3; docs/money.md has the table): no charge when the upstream was not reached, timed
out before its first byte, answered 5xx, or broke off; a charge when it delivered, whatever the client did with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Ending = Literal["delivered", "client_gone", "unreachable", "timeout", "upstream_error", "broken_off", "refused"]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What to do with a posted charge. `reason` goes into the ledger."""

    action: Literal["keep", "refund"]
    reason: str


def settle(ending: Ending, status: int | None, *, answered: bool) -> Settlement:
    """Decide a fixed-price charge's end.

    `answered` is whether the upstream's response head had arrived; `status` is its code then.
    """
    if ending == "delivered" and status is not None and status < 500:
        return Settlement("keep", "delivered")
    if ending == "delivered":
        return Settlement("refund", "upstream_5xx")
    if ending == "client_gone" and answered:
        return Settlement("keep", "client_gone")
    return Settlement("refund", ending)
