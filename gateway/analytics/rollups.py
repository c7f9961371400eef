"""The job that keeps the sums, and what makes them anew and compares them.

The tables and the rules are in the migration. Whoever reads them adds what the job has not added yet
(`analytics.booked` from the mark on), so that an answer is exact and does not depend on when the job ran.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement

LAG = timedelta(seconds=5)
"""What was booked since is left for the next round: a transaction may have begun and not say so yet."""
STEP = timedelta(minutes=5)
"""What one transaction adds at most, in time of booking: a gateway that has stood still catches up in short ones."""
ROUND_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Mark:
    """Until when the sums reach, and until when they could."""

    upto: datetime
    horizon: datetime


@dataclass(frozen=True, slots=True)
class Moved:
    """Where a step has left the mark; None when another worker is just moving it."""

    upto: datetime | None


MARK = Statement("SELECT m.upto, analytics.horizon($1) AS horizon FROM analytics.mark m", Mark)
ROLL_UP = Statement("SELECT analytics.roll_up($1) AS upto", Moved)
REBUILD = Command("SELECT analytics.rebuild()")
DIFFERENCES = Statement("SELECT detail FROM analytics.differences() LIMIT $1", str, scalar=True)


async def roll_up(database: Database) -> None:
    """Move the mark on: a job. It never waits for another worker that does the same."""
    async with database.acquire() as connection:
        await catch_up(connection, LAG, time.monotonic() + ROUND_SECONDS)


async def catch_up(connection: Connection, lag: timedelta, deadline: float) -> None:
    """Add everything that was booked `lag` ago or before, step by step, until there is no more or the time is over."""
    mark = await MARK.one(connection, lag)
    upto: datetime | None = mark.upto
    while upto is not None and upto < mark.horizon and time.monotonic() < deadline:
        upto = (await ROLL_UP.one(connection, min(upto + STEP, mark.horizon))).upto


async def differences(connection: Connection, most: int = 20) -> list[str]:
    """Return what the sums say and the ledger does not, in words; at most so many. Reads everything."""
    return await DIFFERENCES.all(connection, most)
