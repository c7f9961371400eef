"""Granting credit by hand, once per reference; above the bound of four eyes another operator approves it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import orjson

from gateway.catalog.assets import Asset
from gateway.database.pool import Connection
from gateway.database.statement import Statement
from gateway.ids import uuid7
from gateway.ledger.wallets import Granted, Wallet, grant
from gateway.operators.approvals import Approval, FourEyes, Wanted, alone_or_asked
from gateway.operators.wallets import find_wallet, tell_owner

SOURCE = "admin_grant"


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """What an operator wants to grant; `amount` is atomic units."""

    wallet: str
    amount: int
    reference: str | None
    note: str | None
    expires_in_days: int | None


GRANTED_BEFORE = Statement(
    """
    SELECT EXISTS (SELECT FROM ledger.account
                    WHERE wallet_id = $1 AND source = $2 AND reference = $3 AND granted IS NOT NULL)
    """,
    bool,
    scalar=True,
)


async def grant_credit(
    connection: Connection, asset: Asset, request: GrantRequest, *, operator: str, rule: FourEyes
) -> Granted | Approval:
    """Grant credit, or store the request for another operator. Raises NotFound, Conflict."""
    wallet = await find_wallet(connection, request.wallet, asset)
    if not await GRANTED_BEFORE.one(connection, wallet.id, SOURCE, request.reference):
        body = orjson.dumps({**asdict(request), "wallet": wallet.address, "amount": str(request.amount)}).decode()
        reference = request.reference or str(uuid7())
        wanted = Wanted("grant", wallet.address, reference, request.amount, request.note or "", body)
        waits = await alone_or_asked(connection, wanted, operator=operator, rule=rule)
        if waits is not None:
            return waits
    return await book(connection, wallet, request, operator=operator)


def of_approval(approval: Approval) -> GrantRequest:
    """Return what an approval stands for: with its own reference, so that it is granted once."""
    asked = orjson.loads(approval.request)
    return GrantRequest(
        wallet=approval.subject,
        amount=approval.amount,
        reference=approval.reference,
        note=asked["note"],
        expires_in_days=asked["expires_in_days"],
    )


async def book(
    connection: Connection, wallet: Wallet, request: GrantRequest, *, operator: str, approved_by: str | None = None
) -> Granted:
    """Grant credit in the caller's transaction, last in it."""
    days = request.expires_in_days
    granted = await grant(
        connection,
        wallet.id,
        source=SOURCE,
        reference=request.reference or str(uuid7()),
        amount=request.amount,
        expires_at=None if days is None else datetime.now(UTC) + timedelta(days=days),
        description=request.note,
    )
    if granted.verdict == "granted":
        told = {"wallet": wallet.address, "amount_atomic": str(request.amount), "reference": request.reference}
        await tell_owner(connection, "wallet.grant", operator, wallet, told, approved_by=approved_by)
    return granted
