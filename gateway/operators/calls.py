"""One call by its request id: what the ledger knows of it, without access logs.

The X-Request-Id of a call is the id of its exchange, so nothing has to be stored to find it; one that a client sent
along is never taken for it. Found is every call that touched money or a counter: charges, holds, payments on a chain,
counted free calls. A call that was refused, or free and not counted, left nothing but a line in the access log.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Statement
from gateway.errors import InvalidRequest, NotFound
from gateway.ledger.receipts import is_archived
from gateway.operators.subjects import ID

FOREIGN = (
    "No call has this request id, and this gateway gives none of its form: take X-Request-Id of the answer, not of the"
    " request."
)
NOTHING = (
    "Nothing is recorded of a call with this request id. A call that was refused, or free and not counted, leaves only"
    " a line in the access log."
)
ARCHIVED = "Calls of then are archived: look for this id in the archive of its month (tollway ledger archive)."


@dataclass(frozen=True, slots=True)
class Movement:
    """Money that moved for a call, or its hold: `amount` is atomic units, `wallet` whose money it was."""

    kind: str
    wallet: str | None
    account_id: UUID | None
    publisher_id: UUID | None
    publisher_slug: str | None
    organization_id: UUID | None
    asset_symbol: str
    amount: int
    fee: int
    at: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))
        object.__setattr__(self, "fee", int(self.fee))


@dataclass(frozen=True, slots=True)
class End:
    """How a call ended; `status` is what the upstream answered."""

    outcome: str
    reason: str
    status: int | None
    bytes_in: int
    bytes_out: int
    method: str | None
    endpoint: str | None
    row_count: int | None
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class Payment:
    """The payment on a chain that a call brought along."""

    network: str
    payer: str
    payee: str
    asset_symbol: str
    amount: int
    state: str
    reason: str | None
    publisher_slug: str | None
    publisher_id: UUID | None
    transaction: str | None
    repayment: str | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `state` is `open` while no end is recorded; `charged`, less `refunded`, is what it cost."""

    request_id: UUID
    began_at: datetime
    state: Literal["open", "settled", "refunded"]
    movements: list[Movement]
    end: End | None
    payment: Payment | None
    counted: list[str]
    decisions: list[dict[str, str | None]]

    @property
    def charged(self) -> int:
        """Return what was paid, from a balance or on a chain, in atomic units."""
        return sum(one.amount for one in self.movements if one.kind in ("charge", "capture", "payment"))

    @property
    def refunded(self) -> int:
        """Return what was given back, or what a chain took back."""
        return sum(one.amount for one in self.movements if one.kind in ("refund", "repayment", "reversal"))


@dataclass(frozen=True, slots=True)
class _Decision:
    decision: str
    verdict: str
    actor: str
    note: str | None


MOVEMENTS = Statement(
    """
    SELECT t.kind::text AS kind, w.address AS wallet, w.owner_id AS account_id, p.id AS publisher_id,
           p.slug AS publisher_slug, p.organization_id, a.symbol AS asset_symbol, sum(t.amount) AS amount,
           sum(t.fee) AS fee, min(t.created_at) AS at
      FROM ledger.transfer t
      JOIN ledger.account d ON d.id = t.debit_account
      JOIN ledger.account c ON c.id = t.credit_account
      JOIN catalog.asset a ON a.id = c.asset_id
      LEFT JOIN ledger.wallet w ON w.id = t.wallet_id
      LEFT JOIN ledger.hold h ON h.exchange_id = t.cause_id
      LEFT JOIN ledger.account e ON e.id = h.account_id
      LEFT JOIN catalog.publisher p ON p.id = CASE t.kind::text WHEN 'refund' THEN d.publisher_id
                                              WHEN 'hold' THEN e.publisher_id WHEN 'void' THEN e.publisher_id
                                              ELSE c.publisher_id END
     WHERE t.cause_id = $1
     GROUP BY t.kind, w.address, w.owner_id, p.id, p.slug, p.organization_id, a.symbol ORDER BY min(t.created_at), 1
    """,
    Movement,
)
END_OF = Statement(
    """
    SELECT outcome::text AS outcome, reason, status, bytes_in, bytes_out, method, endpoint, row_count, ended_at
      FROM ledger.settlement WHERE exchange_id = $1
    """,
    End,
)
PAYMENT_OF = Statement(
    """
    SELECT m.network, '0x' || encode(m.payer, 'hex') AS payer, '0x' || encode(m.payee, 'hex') AS payee,
           coalesce(a.symbol, '') AS asset_symbol, m.amount, m.state::text AS state, m.reason, p.slug AS publisher_slug,
           p.id AS publisher_id, '0x' || encode(m.mined_transaction, 'hex') AS transaction, r.state::text AS repayment
      FROM chain.payment m
      LEFT JOIN ledger.account e ON e.id = m.account_id
      LEFT JOIN catalog.publisher p ON p.id = e.publisher_id
      LEFT JOIN catalog.asset a ON a.id = e.asset_id
      LEFT JOIN chain.repayment r ON r.payment_id = m.id
     WHERE m.id = $1
    """,
    Payment,
)
COUNTED = Statement("SELECT DISTINCT kind FROM ledger.counted WHERE exchange_id = $1 ORDER BY 1", str, scalar=True)
DECISIONS = Statement("SELECT decision, verdict, actor, note FROM ledger.resolution WHERE exchange_id = $1", _Decision)


async def find_call(connection: Connection, request_id: str) -> Call:
    """Return a call by its request id. Raises InvalidRequest, NotFound."""
    if not ID.fullmatch(request_id):
        raise InvalidRequest("The request id of a call is a UUID, as its answer has it in X-Request-Id.")
    exchange_id = UUID(request_id)
    movements = await MOVEMENTS.all(connection, exchange_id)
    end, payment = await END_OF.first(connection, exchange_id), await PAYMENT_OF.first(connection, exchange_id)
    counted = await COUNTED.all(connection, exchange_id)
    if not movements and end is None and payment is None and not counted:
        raise NotFound(ARCHIVED if await is_archived(connection, exchange_id) else _nothing(exchange_id))
    decisions = [
        {"decision": one.decision, "verdict": one.verdict, "by": one.actor, "note": one.note}
        for one in await DECISIONS.all(connection, exchange_id)
    ]
    state = "open" if end is None else "refunded" if end.outcome == "refunded" else "settled"
    return Call(exchange_id, _began(exchange_id), state, movements, end, payment, counted, decisions)


def _nothing(request_id: UUID) -> str:
    """Return why a call is not found: ids of this gateway tell when they were given, others are somebody else's."""
    if request_id.version != 7:
        return FOREIGN
    return f"{NOTHING} The id was given at {_began(request_id):%Y-%m-%d %H:%M:%S} UTC: look there for it."


def _began(exchange_id: UUID) -> datetime:
    """Return the moment that a time-ordered id bears."""
    return datetime.fromtimestamp((exchange_id.int >> 80) / 1000, UTC)
