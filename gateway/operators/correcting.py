"""Correcting a wallet's balance by hand: a credit or a debit, with a reason that its owner reads.

The reference makes it idempotent: the same one again is the same correction and moves nothing. A debit takes all of it
or nothing, so no balance goes below zero, and takes only the sort of money that it names.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import orjson

from gateway.catalog.assets import Asset
from gateway.database.pool import Connection, Database
from gateway.errors import Conflict, InvalidRequest
from gateway.ledger.corrections import (
    FIND_BY_REFERENCE,
    FIND_CORRECTION,
    LIST_CORRECTIONS,
    Correction,
    Direction,
    Money,
    correct,
)
from gateway.ledger.wallets import Wallet
from gateway.operators.approvals import Approval, FourEyes, Wanted, alone_or_asked
from gateway.operators.wallets import find_wallet, tell_owner


@dataclass(frozen=True, slots=True)
class CorrectionRequest:
    """What an operator asks for; `amount` is atomic units. Only promotional credit expires."""

    wallet: str
    direction: Direction
    money: Money
    amount: int
    reference: str
    reason: str
    expires_in_days: int | None = None

    def __post_init__(self) -> None:
        if self.expires_in_days is not None and (self.direction, self.money) != ("credit", "promotional"):
            raise InvalidRequest("Only a credit of promotional money can expire.")


@dataclass(frozen=True, slots=True)
class Corrected:
    """A booked correction; `repeated`: its reference had done it before, and nothing moved now."""

    correction: Correction
    repeated: bool


async def correct_balance(
    database: Database, asset: Asset, request: CorrectionRequest, *, operator: str, rule: FourEyes
) -> Corrected | Approval:
    """Correct a balance, or store the request for another operator. Raises NotFound, Conflict."""
    async with database.transaction() as connection:
        wallet = await find_wallet(connection, request.wallet, asset)
        if await FIND_BY_REFERENCE.first(connection, wallet.id, request.reference) is None:
            waits = await alone_or_asked(connection, _wanted(wallet, request), operator=operator, rule=rule)
            if waits is not None:
                return waits
        return await book(connection, wallet, request, operator=operator)


def _wanted(wallet: Wallet, request: CorrectionRequest) -> Wanted:
    body = orjson.dumps({**asdict(request), "wallet": wallet.address, "amount": str(request.amount)}).decode()
    return Wanted("correction", wallet.address, request.reference, request.amount, request.reason, body)


def of_approval(approval: Approval) -> CorrectionRequest:
    """Return what an approval stands for."""
    asked = orjson.loads(approval.request)
    return CorrectionRequest(
        wallet=approval.subject,
        direction=asked["direction"],
        money=asked["money"],
        amount=approval.amount,
        reference=approval.reference,
        reason=approval.reason,
        expires_in_days=asked["expires_in_days"],
    )


async def book(
    connection: Connection,
    wallet: Wallet,
    request: CorrectionRequest,
    *,
    operator: str,
    approved_by: str | None = None,
) -> Corrected:
    """Book a correction in the caller's transaction, last in it: tell the owner and the platform. Raises Conflict."""
    days = request.expires_in_days
    outcome = await correct(
        connection,
        wallet.id,
        reference=request.reference,
        direction=request.direction,
        money=request.money,
        amount=request.amount,
        expires_at=None if days is None else datetime.now(UTC) + timedelta(days=days),
        reason=request.reason,
        operator=operator,
        approved_by=approved_by,
    )
    if outcome.verdict == "short":
        raise short(request, outcome.available or 0)
    correction = await FIND_CORRECTION.one(connection, outcome.cause_id)
    if outcome.verdict == "differs":
        raise differs(correction)
    if outcome.verdict == "corrected":
        await _note(connection, wallet, correction, operator, approved_by)
    return Corrected(correction, repeated=outcome.verdict == "repeated")


async def corrections_of(
    database: Database, asset: Asset, name: str, limit: int, offset: int
) -> list[Correction]:  # fmt: skip
    """Return some corrections of a wallet, newest first. Raises NotFound."""
    async with database.transaction() as connection:
        wallet = await find_wallet(connection, name, asset)
        return await LIST_CORRECTIONS.all(connection, wallet.id, limit, offset)


def short(request: CorrectionRequest, available: int) -> Conflict:
    """Return the refusal of a debit that there is not enough for."""
    missing = request.amount - available
    return Conflict(
        f"{request.amount} cannot be taken: the wallet has {available} of {request.money} money to take, so {missing}"
        " are missing (atomic units). What is held for calls, frozen by a dispute or deposited for one publisher is not"
        " taken. Nothing was moved.",
        available_atomic=str(available),
        missing_atomic=str(missing),
    )


def differs(earlier: Correction) -> Conflict:
    """Return the refusal of a reference that stands for another correction."""
    return Conflict(
        f"The reference {earlier.reference} is that of another correction of this wallet: {earlier.direction} of"
        f" {earlier.amount} {earlier.money} (atomic units). Nothing was moved; choose another reference.",
        reference=earlier.reference,
    )


async def _note(
    connection: Connection, wallet: Wallet, correction: Correction, operator: str, approved_by: str | None
) -> None:
    told: dict[str, object] = {
        "wallet": wallet.address,
        "correction_id": correction.id,
        "direction": correction.direction,
        "money": correction.money,
        "amount_atomic": str(correction.amount),
        "reason": correction.reason,
        "reference": correction.reference,
    }
    await tell_owner(connection, "wallet.correct", operator, wallet, told, approved_by=approved_by)
