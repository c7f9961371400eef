"""What we offer for gas: enough to get in, never more than the cap, more again when a transaction is stuck. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.payments.evm.transaction import Fees

GWEI = 10**9


@dataclass(frozen=True, slots=True)
class RelayPolicy:
    """How a relayer behaves on one network. Times in seconds, depths in blocks, fees in wei per gas.

    `confirmations`: a payment counts from this depth on (1: it is in the newest block). `finality`: from this depth on
    no fork is expected, and what failed has failed for good. `stuck_seconds` without a block, and the fee is raised. A
    relayer says every `beat_seconds` that it lives; silent for `lease_seconds` it loses its place.
    """

    confirmations: int = 1
    finality: int = 32
    poll_seconds: float = 0.25
    idle_seconds: float = 1.0
    check_seconds: float = 5.0
    stuck_seconds: float = 12.0
    unknown_seconds: float = 60.0
    beat_seconds: float = 15.0
    lease_seconds: float = 90.0  # more than a round takes at a node that answers each call at the last moment
    payout_seconds: float = 30.0  # how long a payout that cannot be sent is left alone
    lookback_blocks: int = 600
    max_fee: int = 100 * GWEI
    min_tip: int = GWEI // 1000
    max_gas: int = 500_000
    max_in_flight: int = 64
    batch: int = 50


def offer(base_fee: int, tip: int, policy: RelayPolicy) -> Fees | None:
    """Return what a new transaction offers: room for the base fee to double. None while even the least is over the cap.

    `tip` is what the node suggests; where base fee and tip together are over the cap the tip gives way.
    """
    room = policy.max_fee - base_fee
    if room < policy.min_tip:
        return None
    tip = min(max(tip, policy.min_tip), room)
    return Fees(min(2 * base_fee + tip, policy.max_fee), tip)


def raised(last: Fees, base_fee: int, tip: int, policy: RelayPolicy) -> Fees | None:
    """Return what replaces a stuck transaction: an eighth more of both, as nodes ask a tenth. None at the cap."""
    market = offer(base_fee, tip, policy)
    max_fee = max(last.max_fee + last.max_fee // 8 + 1, market.max_fee if market else 0)
    tip = max(last.tip + last.tip // 8 + 1, market.tip if market else 0)
    if max_fee > policy.max_fee:
        return None
    return Fees(max_fee, min(tip, max_fee))


def gas_limit(estimate: int) -> int:
    """Return the gas allowed for an estimate: the state may have changed when it runs."""
    return estimate + estimate // 4 + 5_000
