"""The money of single exchanges: exact charges, refunds, holds, and finding those that a crash left open.

Every function is one statement and one transaction of the `ledger` schema, and returns a named verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement

Verdict = Literal["posted", "short", "replayed", "conflict", "unknown_wallet", "fenced", "beyond"]


@dataclass(frozen=True, slots=True)
class ChargeVerdict:
    """What happened to one charge; amounts in atomic units. `fenced`: its worker was taken for dead, nothing moved.

    `available` is what the wallet can still spend at this publisher: after the charge when it was posted, and what
    there is instead when it was short. The three parts say what was drawn. `beyond`: the counter of this `kind` stands
    at `counted` and would have left its bounds; nothing moved, and nothing else is said.
    """

    verdict: Verdict
    available: int
    deposit: int = 0
    promotional: int = 0
    funded: int = 0
    kind: str | None = None
    counted: int = 0

    def __post_init__(self) -> None:
        for name in ("available", "deposit", "promotional", "funded", "counted"):
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def paid(self) -> bool:
        """Return whether the exchange is charged, now or by an earlier try of the same exchange."""
        return self.verdict in ("posted", "replayed")


@dataclass(frozen=True, slots=True)
class Refunded:
    """`refunded` moved `amount` back; `repeated` says how much an earlier refund moved; else nothing moved."""

    verdict: Literal["refunded", "repeated", "unknown", "settled"]
    amount: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))


@dataclass(frozen=True, slots=True)
class HoldVerdict:
    """The outcome of placing or ending a hold; see ledger.place_holds and ledger.end_hold.

    `short`: nothing is held, `available` is what there is; `busy`: so it is while other holds of the wallet last.
    `beyond`: nothing is held, the counter of this `kind` stands at `counted` and would have left its bounds.
    """

    verdict: Literal[
        "held",
        "short",
        "busy",
        "captured",
        "voided",
        "repeated",
        "conflict",
        "excess",
        "unknown",
        "unknown_wallet",
        "fenced",
        "beyond",
    ]
    available: int
    kind: str | None = None
    counted: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "available", int(self.available))
        object.__setattr__(self, "counted", int(self.counted))

    @property
    def paid(self) -> bool:
        """Return whether the money is held, now or by an earlier try of the same exchange."""
        return self.verdict in ("held", "repeated")


@dataclass(frozen=True, slots=True)
class OpenExchange:
    """An exchange whose money moved, or that was counted (`count`: it is free), and whose end nobody recorded."""

    exchange_id: UUID
    kind: Literal["charge", "hold", "count"]


@dataclass(frozen=True, slots=True)
class DeadWorker:
    """A process that is gone; its exchanges from `settled_through` on may be open."""

    id: int
    settled_through: UUID


def _as_it_is(moment: datetime) -> datetime:
    return moment


REFUND = Statement("SELECT verdict, amount FROM ledger.refund($1, $2, $3, $4, $5)", Refunded)
END_HOLD = Statement(
    "SELECT verdict, available FROM ledger.end_hold($1, $2::text::numeric, $3::text::numeric, $4, $5, $6, $7, $8)",
    HoldVerdict,
)
EARNINGS_ACCOUNT = Statement("SELECT ledger.earnings_account($1, $2)", int, scalar=True)
# Exchanges of one dead worker: its own word says from where on they can be open, so this reads a short tail.
FIND_ORPHANS = Statement(
    """
    SELECT t.cause_id AS exchange_id, t.kind::text AS kind FROM ledger.transfer t
     WHERE t.cause_id >= $2 AND t.worker_id = $1 AND t.kind IN ('charge', 'hold') AND t.leg = 0
       AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = t.cause_id)
    UNION
    SELECT d.exchange_id, 'count' FROM ledger.counted d
     WHERE d.exchange_id >= $2 AND d.worker_id = $1 AND d.alone
       AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = d.exchange_id)
     ORDER BY exchange_id LIMIT $3
    """,
    OpenExchange,
)
# Fenced, a worker moves no more money (migration 0013); only then are its exchanges ended. A database that was away
# itself has heard from nobody: it must be up as long as a worker may be silent before silence means anything. Nor does
# silence mean anything by a clock that was set: $2 is the time that whoever judges expects. NULL: it expects none.
FENCE_DEAD = Command(
    """
    UPDATE ledger.worker SET fenced_at = now() WHERE id IN (
        SELECT id FROM ledger.worker
         WHERE fenced_at IS NULL AND (stopped_at IS NOT NULL
            OR (seen_at < now() - $1::interval
                AND NOT pg_postmaster_start_time() BETWEEN now() - $1::interval AND now()
                AND ($2::timestamptz IS NULL OR now() BETWEEN $2 - $1::interval / 3 AND $2 + $1::interval / 3)))
         ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 16)
    """
)
# The clock was set back after they were seen: their silence counts from now on, not from when the clock is there again.
SEEN_LATER = Command(
    """
    UPDATE ledger.worker SET seen_at = now()
     WHERE reconciled_at IS NULL AND fenced_at IS NULL AND seen_at > now() + interval '1 second'
    """
)
FIND_FENCED = Statement(
    """
    SELECT id, settled_through FROM ledger.worker WHERE reconciled_at IS NULL AND fenced_at IS NOT NULL
     ORDER BY id LIMIT 16
    """,
    DeadWorker,
)
WORKER_RECONCILED = Command("UPDATE ledger.worker SET reconciled_at = now() WHERE id = $1")
COUNT_HOLDS = Statement("SELECT count(*) FROM ledger.hold WHERE status = 'pending'", int, scalar=True)
START_WORKER = Statement(
    "INSERT INTO ledger.worker (settled_through, secret_keys) VALUES ($1, $2) RETURNING id", int, scalar=True
)
# A worker that was taken for dead stays so: it registers anew (see jobs.heartbeat). Returns the database's time.
SEE_WORKER = Statement(
    """
    UPDATE ledger.worker SET seen_at = now(), settled_through = $2 WHERE id = $1 AND fenced_at IS NULL
    RETURNING now()
    """,
    _as_it_is,
    scalar=True,
)
STOP_WORKER = Command("UPDATE ledger.worker SET stopped_at = now(), settled_through = $2 WHERE id = $1")


async def refund(
    connection: Connection, exchange_id: UUID, *, reason: str, status: int | None, grace: timedelta, only_open: bool
) -> Refunded:
    """Undo a charge or captured hold, whole, to the lots it came from, and uncount what was counted.

    With `only_open` an exchange that has ended stays as it is (verdict `settled`): the pipeline and the reconciler
    use it so that neither can undo what the other has finished.
    """
    return await REFUND.one(connection, exchange_id, reason, status, grace, only_open)
