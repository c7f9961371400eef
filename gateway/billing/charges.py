"""Direct charges: a first-party service takes money from an agent's balance without a call, gives it back, or slashes.

Who may is the operator's to say (`tollway publisher first-party`), with a bound for one charge and one for what a
publisher may take of one wallet in a UTC day. Each change is one transaction under the wallet's lock: its rows, its
transfers, the audit entry and the events, or nothing of it. The rules are the database's (migration 0042).

What does not live here: who may act for a publisher (identity/permissions.py), the wire (admin_api).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from gateway.audit.entries import record
from gateway.catalog.records import Record
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.identity.organizations import default_of
from gateway.ids import uuid7
from gateway.ledger.wallets import Wallet
from gateway.webhooks.events import EVENT_OF_ACTION
from gateway.webhooks.outbox import emit
from pricing.money import fee_of, parse_ratio, percent_to_ppm

Status = Literal["completed", "refunded", "partially_slashed", "slashed"]


@dataclass(frozen=True, slots=True)
class DirectCharge:
    """One direct charge as it stands. Amounts are atomic units of its wallet's asset."""

    id: UUID
    publisher_id: UUID
    wallet_id: int
    owner_id: UUID
    agent_wallet: str
    amount: int
    slashed: int
    charged_at: datetime
    refunded_at: datetime | None

    def __post_init__(self) -> None:
        for name in ("amount", "slashed"):
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def status(self) -> Status:
        """Return the word for what became of it."""
        if self.refunded_at is not None:
            return "refunded"
        if not self.slashed:
            return "completed"
        return "slashed" if self.slashed == self.amount else "partially_slashed"


@dataclass(frozen=True, slots=True)
class ChargeOutcome:
    """What ledger.charge_directly says; `bound` and `taken` where a bound was kept, `available` where it was short."""

    verdict: Literal["charged", "repeated", "conflict", "refused", "above", "beyond", "short"]
    charge_id: UUID
    available: int
    bound: int
    taken: int

    def __post_init__(self) -> None:
        for name in ("available", "bound", "taken"):
            object.__setattr__(self, name, int(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class RefundOutcome:
    """What ledger.refund_charge says: `amount` is what went back, penalties too."""

    verdict: Literal["refunded", "repeated", "reused", "again", "archived"]
    amount: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))


@dataclass(frozen=True, slots=True)
class SlashOutcome:
    """What ledger.slash_charge says; `bound`, `taken` and `available` as of a charge."""

    verdict: Literal["slashed", "repeated", "reused", "refunded", "archived", "refused", "above", "beyond", "short"]
    available: int
    bound: int
    taken: int

    def __post_init__(self) -> None:
        for name in ("available", "bound", "taken"):
            object.__setattr__(self, name, int(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class Terms:
    """What a first-party publisher may take of a wallet: in one charge, and in a UTC day."""

    asset_id: UUID
    per_charge: int
    per_day: int

    def __post_init__(self) -> None:
        for name in ("per_charge", "per_day"):
            object.__setattr__(self, name, int(getattr(self, name)))


CHARGE = Statement(
    """
    SELECT verdict, charge_id, available, bound, taken
      FROM ledger.charge_directly($1, $2, $3, $4::text::numeric, $5::text::numeric, $6, $7)
    """,
    ChargeOutcome,
)
REFUND_CHARGE = Statement("SELECT verdict, amount FROM ledger.refund_charge($1, $2, $3, $4)", RefundOutcome)
SLASH = Statement(
    "SELECT verdict, available, bound, taken FROM ledger.slash_charge($1, $2, $3::text::numeric, $4, $5)", SlashOutcome
)
FIND_CHARGE = Statement(
    """
    SELECT c.id, c.publisher_id, c.wallet_id, w.owner_id, w.address AS agent_wallet, c.amount, c.slashed, c.charged_at,
           c.refunded_at
      FROM ledger.direct_charge c JOIN ledger.wallet w ON w.id = c.wallet_id
     WHERE c.id = $1 AND c.publisher_id = $2
    """,
    DirectCharge,
)
# Whom a charge can name: a wallet in the asset of the operator's bounds, neither it nor its account switched off.
FIND_PAYER = Statement(
    """
    SELECT w.id, w.owner_id, w.asset_id, w.address
      FROM ledger.wallet w JOIN identity.account a ON a.id = w.owner_id AND a.status = 'active'
     WHERE w.address = $1 AND w.asset_id = $2 AND NOT ledger.is_stopped(a.id)
    """,
    Wallet,
)
IS_STOPPED = Statement("SELECT ledger.is_stopped($1)", bool, scalar=True)
ASSET_OF = Statement("SELECT asset_id::text FROM ledger.wallet WHERE id = $1", UUID, scalar=True)
TERMS_OF = Statement("SELECT asset_id, per_charge, per_day FROM catalog.first_party WHERE publisher_id = $1", Terms)
SET_TERMS = Command(
    """
    INSERT INTO catalog.first_party (publisher_id, asset_id, per_charge, per_day)
    VALUES ($1, $2, $3::text::numeric, $4::text::numeric)
    ON CONFLICT (publisher_id) DO UPDATE SET asset_id = EXCLUDED.asset_id, per_charge = EXCLUDED.per_charge,
        per_day = EXCLUDED.per_day, changed_at = now()
    """
)
END_TERMS = Command("DELETE FROM catalog.first_party WHERE publisher_id = $1")
# Whether an account may act for any first-party publisher: the organizations of those that have terms.
FIRST_PARTY_ORGANIZATIONS = Statement(
    """
    SELECT DISTINCT p.organization_id::text FROM identity.membership m
      JOIN catalog.publisher p ON p.organization_id = m.organization_id
      JOIN catalog.first_party f ON f.publisher_id = p.id
     WHERE m.account_id = $1 AND p.is_active AND NOT p.suspended AND p.deleted_at IS NULL ORDER BY 1
    """,
    UUID,
    scalar=True,
)


def fee_in(publisher: Record, amount: int) -> int:
    """Return the platform's part of a charge: the publisher's gateway fee, rounded down."""
    percent = str(publisher.document.get("gateway_fee_percent") or "0")
    return fee_of(amount, percent_to_ppm(parse_ratio(percent, places=4, maximum=100)))


async def charge(
    connection: Connection, publisher: Record, wallet: Wallet, amount: int, description: str, key: UUID | None
) -> ChargeOutcome:
    """Charge a wallet. Call it in a transaction of its own, and commit whatever it says."""
    outcome = await CHARGE.one(
        connection, uuid7(), publisher.id, wallet.id, str(amount), str(fee_in(publisher, amount)), description, key
    )
    if outcome.verdict == "charged":
        made = await find(connection, publisher, outcome.charge_id)
        await _tell(connection, "charge.create", publisher, made, None, made, {})
    return outcome


async def refund(
    connection: Connection, publisher: Record, charged: DirectCharge, reason: str, key: str | None, grace: timedelta
) -> RefundOutcome:
    """Give a charge back whole, with its penalties. Call it in a transaction of its own."""
    outcome = await REFUND_CHARGE.one(connection, charged.id, reason, key, grace)
    if outcome.verdict == "refunded":
        after = await find(connection, publisher, charged.id)
        told = {"refunded_atomic": str(outcome.amount)}
        await _tell(connection, "charge.refund", publisher, after, charged, after, told)
    return outcome


async def slash(
    connection: Connection, publisher: Record, charged: DirectCharge, amount: int, reason: str, key: str | None
) -> SlashOutcome:
    """Take a penalty for a charge. Call it in a transaction of its own."""
    outcome = await SLASH.one(connection, uuid7(), charged.id, str(amount), reason, key)
    if outcome.verdict == "slashed":
        after = await find(connection, publisher, charged.id)
        await _tell(connection, "charge.slash", publisher, after, charged, after, {"penalty_atomic": str(amount)})
    return outcome


async def find(connection: Connection, publisher: Record, charge_id: UUID) -> DirectCharge:
    """Return a charge of a publisher. Raises LookupError."""
    return await FIND_CHARGE.one(connection, charge_id, publisher.id)


async def _tell(
    connection: Connection, action: str, publisher: Record, charged: DirectCharge, before: DirectCharge | None,
    after: DirectCharge, more: Mapping[str, str],
) -> None:  # fmt: skip
    """Tell the agent's organization of it, and write it into the publisher's audit log, which tells that one."""
    details = {
        "publisher": publisher.slug,
        "agent_wallet": charged.agent_wallet,
        "amount_atomic": str(charged.amount),
        "status": charged.status,
        **more,
    }
    home = await default_of(connection, charged.owner_id)
    if home is not None and home.id != publisher.organization_id:
        await emit(connection, home.id, EVENT_OF_ACTION[action], {**details, "charge_id": str(charged.id)})
    await record(connection, action, publisher.organization_id, charged.id, before=before, after=after, details=details)
