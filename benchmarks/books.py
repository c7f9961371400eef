"""After the paid rounds: is the ledger sound, and is what was charged what the upstream served?"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from benchmarks.plain_http import get
from benchmarks.stack import Stack
from gateway.database.pool import Connection, connect
from gateway.ledger.proof import verify
from gateway.settings import DatabaseSettings

SETTLE_SECONDS = 10.0


SUM = "SELECT coalesce(sum(amount), 0)::bigint FROM ledger.transfer WHERE kind = $1"
COUNT = "SELECT count(*) FROM ledger.transfer WHERE kind = $1 AND leg = 0"


async def prove(stack: Stack, *, allowance: int) -> dict[str, Any]:
    """Run the ledger's proof and compare charges that stand with paid requests at the upstream.

    `allowance` is of how many calls the generator does not know the end: charged, and maybe never forwarded.
    """
    connection = await connect(DatabaseSettings(url=stack.services.database_url, command_timeout=3600))
    try:
        await settled(connection)
        report = await verify(connection)
        charges, refunds = await connection.fetchval(COUNT, "charge"), await connection.fetchval(COUNT, "refund")
    finally:
        await connection.close()
    served = json.loads(get(stack.upstream.port, "/counts")[1])["paid"]
    difference = charges - refunds - served
    return {
        "sound": report.sound and abs(difference) <= allowance,
        "violations": report.violations,
        "transfers": report.transfers,
        "open_exchanges": report.open_exchanges,
        "charges": charges,
        "refunds": refunds,
        "upstream": served,
        "difference": difference,
        "allowance": allowance,
    }


async def charged(stack: Stack) -> int:
    """Return what all calls have cost so far, refunds taken off, in atomic units."""
    connection = await connect(DatabaseSettings(url=stack.services.database_url, command_timeout=3600))
    try:
        await settled(connection)
        return int(await connection.fetchval(SUM, "charge")) - int(await connection.fetchval(SUM, "refund"))
    finally:
        await connection.close()


async def settled(connection: Connection) -> None:
    """Wait until the last calls have ended, so that no charge is open any more."""
    still_open = (
        "SELECT count(*) FROM (SELECT cause_id FROM ledger.transfer WHERE kind = 'charge' AND leg = 0"
        " ORDER BY cause_id DESC LIMIT 2000) t"
        " WHERE NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = t.cause_id)"
    )
    ends = asyncio.get_running_loop().time() + SETTLE_SECONDS
    while await connection.fetchval(still_open) and asyncio.get_running_loop().time() < ends:
        await asyncio.sleep(0.2)
