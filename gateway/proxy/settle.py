"""Step 9, settle: every exchange ends settled or refunded, by the rule in billing/.

A kept charge is noted and written with the next batch. A refund is durable before the caller is told of it; when the
ledger cannot be reached it is made as soon as it is back.
"""

from __future__ import annotations

import hashlib
import logging

from gateway.billing import prepaid_credits
from gateway.billing.prepaid_credits import Ending
from gateway.errors import Unavailable
from gateway.ledger.entries import Settlement
from gateway.ledger.group_commit import GroupCommit
from gateway.proxy.exchange import Exchange
from gateway.telemetry.logging import of

log = logging.getLogger(__name__)


async def settle(exchange: Exchange, ledger: GroupCommit, ending: Ending) -> bool:
    """End the exchange once and return whether its charge was given back."""
    if exchange.outcome in ("settled", "refunded"):
        return exchange.outcome == "refunded"
    if exchange.payment is not None:
        return await exchange.payment.end(exchange, ending)
    if exchange.held is not None:
        return exchange.held.end(exchange, ending)
    if exchange.charge is None:
        exchange.outcome = "free" if ending in prepaid_credits.ANSWERED else "refused"
        return False
    decision = prepaid_credits.settle(
        ending,
        exchange.status,
        answered=exchange.head_sent,
        refunded=exchange.refunds.statuses,
        judged=exchange.judged,
    )
    # A call whose key is still claimed has no stored answer (that would have settled it): the key is given back, so the
    # charge is too. Its caller may ask, and pay, again.
    if decision.action == "keep" and exchange.keyed is None:
        exchange.outcome = "settled"
        ledger.settle(settlement_of(exchange, decision.reason))
        return False
    exchange.outcome = "refunded"
    try:
        await ledger.refund(exchange.id, reason=decision.reason, status=exchange.status)
    except Unavailable:
        log.warning("refund is owed: the ledger is away", extra=of(exchange.id))
    return True


def settlement_of(exchange: Exchange, reason: str) -> Settlement:
    """Return what the ledger records of a delivered call, and its receipt says."""
    target = b"/publishers/" + exchange.slug.encode("latin-1") + exchange.path
    if exchange.query:
        target += b"?" + exchange.query
    return Settlement(
        exchange.id,
        reason,
        exchange.status,
        exchange.bytes_in,
        exchange.bytes_out,
        exchange.method,
        hashlib.sha256(target).digest(),
        exchange.body_hasher.digest() if exchange.body_hasher is not None else None,
        _endpoint_of(exchange),
        exchange.rows.count if exchange.rows is not None else None,
    )


def _endpoint_of(exchange: Exchange) -> str | None:
    """Return what was called by the name that its publisher knows it by; None when it has none."""
    if exchange.named is not None:
        return exchange.named
    return next((one.path for one in exchange.candidates if one is not None), None)
