"""`prepaid_credits`: a Bearer key pays from its wallet, before the call is forwarded.

    fixed price:    post the charge first; reverse it when the refund rule says so
    shortfall:      402 with the prepaid accept, nothing moves, the upstream is never touched

The refund rule (docs/who-pays.md has the table): no charge when the upstream was not reached, timed out before its
first byte, answered 5xx, with a redirect or another status that its publisher gives back, or broke off; a charge when
it delivered, whatever the client did with it, and when the answer went on for as long as any answer may.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gateway.catalog.delivery import REDIRECTS

Ending = Literal[
    "delivered",
    "client_gone",
    "client_stalled",
    "total_timeout",
    "broken_off",
    "unreachable",
    "timeout",
    "upstream_error",
    "upgrade_refused",
    "tool_error",
    "input_required",
    "gateway_stopped",
    "refused",
]
# How a call can end that the upstream answered: what it answered decides then, and whether the caller got any of it.
ANSWERED = frozenset[Ending]({"delivered", "client_gone", "client_stalled", "total_timeout"})
NOTHING: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Settlement:
    """What to do with a posted charge. `reason` goes into the ledger."""

    action: Literal["keep", "refund"]
    reason: str


def gives_back(status: int, refunded: frozenset[int] = NOTHING, judged: str | None = None) -> str | None:
    """Return why an answer costs nothing, or None.

    `refunded` are the statuses that its publisher gives back, redirects among them unless it charges for them; `judged`
    is what its rules say of this answer.
    """
    if status >= 500:
        return "upstream_5xx"
    if status in refunded:
        return "redirect" if status in REDIRECTS else "refund_on_status"
    return judged


def settle(
    ending: Ending,
    status: int | None,
    *,
    answered: bool,
    refunded: frozenset[int] = NOTHING,
    judged: str | None = None,
) -> Settlement:
    """Decide a fixed-price charge's end.

    `answered` is whether the answer's head had gone out to the caller; `status` is what the upstream answered.
    """
    if status is not None and ending in ANSWERED:
        reason = gives_back(status, refunded, judged)
        if reason is not None:
            return Settlement("refund", reason)
        if ending == "delivered" or answered:
            return Settlement("keep", ending)
    return Settlement("refund", ending)
