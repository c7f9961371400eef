"""After all rounds: do the chain, the ledger and what callers were told agree?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.x402.rounds import OPEN, PaidRow
from benchmarks.x402.stack import PRICE, PaidStack
from gateway.database.pool import Connection
from gateway.ledger.proof import verify
from gateway.payments.evm.encoding import parse_address
from gateway.payments.evm.node import Node

CLEARING = """
    SELECT coalesce(sum(s.debits - s.credits), 0) FROM ledger.shard s JOIN ledger.account a ON a.id = s.account_id
     WHERE a.purpose = 'clearing' AND a.rail = $1
"""
BOOKED = "SELECT count(*) FROM chain.payment WHERE state = 'confirmed' AND booking <> 'none'"
FAILED = "SELECT count(*) FROM chain.payment WHERE state IN ('failed', 'cancelled')"


async def prove(
    stack: PaidStack, connection: Connection, node: Node, rows: Sequence[PaidRow], before: int
) -> dict[str, Any]:
    """Compare what the treasury has gained on the chain, what the books say, and what the rounds counted.

    `before` is what the treasury had at the beginning. Amounts are atomic units of USDC.
    """
    report = await verify(connection)
    treasury = parse_address(stack.chain.treasury)
    gained = await node.token_balance(parse_address(stack.chain.usdc), treasury) - before
    cleared = int(await connection.fetchval(CLEARING, f"eip155:{stack.chain.chain_id}"))
    booked = int(await connection.fetchval(BOOKED))
    ours = [one for row in rows if row.seller.sdk == "tollway" for one in (*row.warm_ups, *row.rounds)]
    settled = sum(one.settled for one in ours)
    still_open, failed = await connection.fetchval(OPEN), await connection.fetchval(FAILED)
    return {
        "sound": report.sound and gained == cleared == booked * PRICE == settled * PRICE and not still_open,
        "violations": report.violations,
        "payments_booked": booked,
        "payments_settled_on_chain": settled,
        "treasury_gained": gained,
        "ledger_received": cleared,
        "open": still_open,
        "failed_or_cancelled": failed,
        "answers": sum(one.calls for one in ours),
        "served_by_the_upstream": sum(one.served for one in ours),
    }
