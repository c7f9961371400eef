"""Referrals: who brought whom. The reward itself is a ledger grant (billing/credits.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.identity import codes


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a referral code: only `applied` changed anything."""

    verdict: Literal["applied", "unknown", "own", "circular", "again"]
    referrer: UUID | None = None


FIND_REFERRER = Statement(
    "SELECT id::text FROM identity.account WHERE referral_code = $1 AND status = 'active'", UUID, scalar=True
)
# The guard stands in the statement: a second code finds referred_by set.
SET_REFERRER = Command(
    "UPDATE identity.account SET referred_by = $2, referred_at = now() WHERE id = $1 AND referred_by IS NULL"
)
# In id order: two that name each other at the same time must neither both succeed nor wait for each other.
LOCK_BOTH = Command("SELECT FROM identity.account WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE")
IS_REFERRED_BY = Statement(
    "SELECT EXISTS (SELECT FROM identity.account WHERE id = $1 AND referred_by = $2)", bool, scalar=True
)
REFERRED = Statement("SELECT id::text FROM identity.account WHERE referred_by = $1", UUID, scalar=True)
COUNT_REFERRED = Statement("SELECT count(*) FROM identity.account WHERE referred_by = $1", int, scalar=True)


async def apply(connection: Connection, account_id: UUID, code: str) -> Applied:
    """Record who referred an account, once and for all. `referrer` is the one that is recorded by this call."""
    referrer = await FIND_REFERRER.first(connection, codes.normalise_referral(code))
    if referrer is None:
        return Applied("unknown")
    if referrer == account_id:
        return Applied("own")
    await LOCK_BOTH.run(connection, [account_id, referrer])
    if await IS_REFERRED_BY.one(connection, referrer, account_id):
        return Applied("circular")
    changed = await SET_REFERRER.run(connection, account_id, referrer)
    return Applied("applied", referrer) if changed else Applied("again")
