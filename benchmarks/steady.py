"""A database in the state in which it runs for weeks: without this, a new cluster makes its WAL files while we measure.

Making a segment costs tens of milliseconds, during which every commit waits: p99 at 64 connections was 40 ms until the
first checkpoint, and 10 afterwards. A running server recycles old segments, so we let ours have some to recycle.
"""

from __future__ import annotations

import asyncpg

SEGMENTS = 48  # of 16 MiB: more than a run writes between two checkpoints


async def settle_wal(admin_url: str, segments: int = SEGMENTS) -> None:
    """Fill WAL segments and recycle them by a checkpoint, which then is behind us. Needs the superuser."""
    connection = await asyncpg.connect(admin_url)
    try:
        await connection.execute(f"ALTER SYSTEM SET min_wal_size = '{(segments + 4) * 16}MB'")
        await connection.execute("SELECT pg_reload_conf()")
        for _ in range(segments):
            await connection.execute("SELECT pg_logical_emit_message(false, 'bench', 'x'), pg_switch_wal()")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
