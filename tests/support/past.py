"""Lets the ledger's last minutes have been in a month that is over, so that tests need not wait for its end."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from gateway.database.pool import Connection
from gateway.ids import floor_at


async def shift(
    connection: Connection, to: datetime, *, causes: datetime | None = None, only: Collection[UUID] | None = None
) -> None:
    """Move what was booked since the last shift, with its causes, to a moment; `causes`: these to another one.

    Ids keep what tells them apart, so that what belongs together still does. Balances are not touched. `only` these
    causes, else all of them.
    """
    for table, key in (("transfer", "cause_id"), ("settlement", "exchange_id"), ("hold", "exchange_id")):
        stamp = {"transfer": "created_at", "settlement": "ended_at", "hold": "placed_at"}[table]
        async with connection.transaction():
            await connection.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER USER")
            await connection.execute(
                f"UPDATE ledger.{table} SET {stamp} = $1,"
                f" {key} = overlay({key}::text PLACING left(ledger.id_at($2)::text, 13) FROM 1)::uuid"
                f" WHERE {stamp} > now() - interval '1 day' AND ($3::uuid[] IS NULL OR {key} = ANY ($3))"
                + (" AND kind <> 'grant'" if table == "transfer" else ""),
                to, causes or to, None if only is None else list(only),
            )  # fmt: skip
            await connection.execute(f"ALTER TABLE ledger.{table} ENABLE TRIGGER USER")


def moved(cause: UUID, to: datetime) -> UUID:
    """Return the id that a cause has after a shift."""
    return UUID(floor_at(int(to.timestamp() * 1000)).hex[:12] + cause.hex[12:])
