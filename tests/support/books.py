"""No test makes money: what all accounts and rails have of an asset sums to zero when its database goes.

Whatever test runs, so a new way for money to move need not be thought of. `tollway ledger verify` says more; this is
what can be asked of every database, also of those whose gateway was killed in the middle.
"""

from __future__ import annotations

from gateway.database.pool import Connection

SUMS = """
    SELECT a.asset_id::text AS asset, sum(coalesce(a.balance, 0) + coalesce(s.net, 0)) AS amount
      FROM ledger.account a
      LEFT JOIN (SELECT account_id, sum(credits - debits) AS net FROM ledger.shard GROUP BY account_id) s
             ON s.account_id = a.id
     GROUP BY a.asset_id HAVING sum(coalesce(a.balance, 0) + coalesce(s.net, 0)) <> 0
"""


async def made_of_nothing(connection: Connection) -> list[str]:
    """Return the assets of which there is more or less than there was, with the atomic units."""
    if not await connection.fetchval("SELECT to_regclass('ledger.account')"):
        return []
    return [f"{row['asset']}: {row['amount']}" for row in await connection.fetch(SUMS)]
