"""`x402_per_request`: a wallet without an account pays one call by an authorization that it has signed. Pure.

Three policies say when the authorization is settled on its chain:

    settle_first      reserve, settle, forward, deliver      the money is there before the publisher works
    before_response   reserve, forward, settle, deliver      (default) nothing is delivered that is not paid
    deferred          reserve, forward, deliver, settle      delivered on trust, up to the payer's exposure cap

The refund rule is that of every paid call (prepaid_credits.settle: keep or refund); what follows for the authorization:

    rule      nothing submitted yet      submitted
    keep      submit                     keep
    refund    cancel                     repay

cancel: it was never sent to anybody, and the payer may present it again. repay: the money has moved, and goes back.
Only what is at the relayer's own address can: a publisher's own address is never paid by `settle_first`, and

    returnable = we settle on the network ourselves, and the treasury is the relayer's own address
    `settle_first` where nothing is returnable is `before_response`

    exposure   = the payer's authorizations in this asset that were delivered on trust and are not confirmed
    trusted    = exposure + price <= cap, and the authorization lives for TRUSTED_SECONDS more
    `deferred` for a call that is not trusted is `before_response`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gateway.billing import prepaid_credits
from gateway.billing.prepaid_credits import NOTHING, Ending
from gateway.settings import SettlementPolicy

LEAST_SECONDS = 6
"""What an authorization must live at least when it is presented: time to get it into a block."""

TRUSTED_SECONDS = 60
"""What it must live to be delivered on trust: it is settled when the answer ends."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What to do with an authorization. `reason` goes into the books."""

    action: Literal["submit", "keep", "cancel", "repay"]
    reason: str


def settle(
    ending: Ending,
    status: int | None,
    *,
    answered: bool,
    submitted: bool,
    refunded: frozenset[int] = NOTHING,
    judged: str | None = None,
) -> Settlement:
    """Decide an authorization's end. `submitted`: it was handed over for settlement; the rest as for prepaid calls."""
    rule = prepaid_credits.settle(ending, status, answered=answered, refunded=refunded, judged=judged)
    if rule.action == "keep":
        return Settlement("keep" if submitted else "submit", rule.reason)
    return Settlement("repay" if submitted else "cancel", rule.reason)


def policy_on(chosen: SettlementPolicy, *, returnable: bool) -> SettlementPolicy:
    """Return the policy that holds on a network."""
    return "before_response" if chosen == "settle_first" and not returnable else chosen


def policy_for(chosen: SettlementPolicy, seconds_left: int) -> SettlementPolicy:
    """Return the policy under which an authorization that lives so long is taken; the exposure cap is not asked yet."""
    return "before_response" if chosen == "deferred" and seconds_left < TRUSTED_SECONDS else chosen


def pays_publisher(policy: SettlementPolicy, fee_ppm: int) -> bool:
    """Say whether a payment goes to the publisher's own address: no fee is taken, and nothing may have to go back."""
    return fee_ppm == 0 and policy != "settle_first"
