"""The outbox's rows and statements: payments, sendings (one signing nonce each) and their signed attempts.

State changes that book money are functions of the `chain` schema (database/migrations/0010_chain.sql), each one
transaction with its booking. What does not live here: when to call them (relayer.py, watcher.py, settlements.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from gateway.database.statement import Command, Statement
from gateway.payments.evm.terms import Terms
from gateway.payments.evm.transaction import Fees

State = Literal["reserved", "pending", "broadcast", "unknown", "confirmed", "failed", "cancelled"]
BookingKind = Literal["earnings", "direct", "deposit", "none"]

RELAY_CHANNEL = "tollway_relay"
SETTLED_CHANNEL = "tollway_settled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment(Terms):
    """One authorization and what is known of it. Amounts are atomic units; addresses, nonces and hashes are bytes.

    `amount` is what is settled of `authorized`. `sending_id` is our transaction that carries it, `mined_transaction`
    the one that moved the money, which may be somebody else's.
    """

    id: UUID
    network: str
    amount: int
    deferred: bool
    state: State
    reason: str | None
    final: bool
    sending_id: int | None
    sending_status: str | None
    mined_transaction: bytes | None
    since_block: int | None
    tries: int

    def __post_init__(self) -> None:
        for name in ("authorized", "amount"):
            object.__setattr__(self, name, int(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class Sending:
    """One signing nonce of our key whose transaction is not final, with its newest attempt."""

    id: int
    nonce: int
    target: bytes
    data: bytes
    gas: int
    purpose: Literal["settle", "repay", "payout"]
    status: Literal["open", "mined"]
    hashes: list[bytes]
    hash: bytes
    raw: bytes
    max_fee: int
    tip: int
    void: bool
    tried_at: datetime
    sent_at: datetime | None
    wanted: bool

    def __post_init__(self) -> None:
        for name in ("max_fee", "tip"):
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def fees(self) -> Fees:
        """Return what the newest attempt offers."""
        return Fees(self.max_fee, self.tip)


@dataclass(frozen=True, slots=True)
class Counted:
    """How much there is in a state."""

    state: str
    number: int


_PAYMENT = """
    SELECT p.id, p.network, p.asset, p.payer, p.nonce, p.method, p.payee, p.authorized, p.amount, p.valid_after,
           p.valid_before, p.signature, p.deploy_target, p.deploy_data, p.deferred, p.state::text AS state, p.reason,
           p.final, p.sending_id, s.status AS sending_status, p.mined_transaction, p.since_block, p.tries
      FROM chain.payment p LEFT JOIN chain.sending s ON s.id = p.sending_id
"""

FIND_PAYMENT = Statement(_PAYMENT + " WHERE p.id = $1", Payment)
FIND_PAYMENTS = Statement(_PAYMENT + " WHERE p.id = ANY ($1::uuid[])", Payment)
FIND_BY_NONCE = Statement(
    _PAYMENT + " WHERE p.network = $1 AND p.verifier = $2 AND p.payer = $3 AND p.nonce = $4", Payment
)
OPEN_PAYMENTS = Statement(
    _PAYMENT + " WHERE p.state IN ('reserved', 'pending', 'broadcast', 'unknown') ORDER BY p.reserved_at LIMIT $1",
    Payment,
)
PENDING = Statement(
    _PAYMENT + " WHERE p.network = $1 AND p.state = 'pending' ORDER BY p.submitted_at LIMIT $2", Payment
)
OF_SENDING = Statement(_PAYMENT + " WHERE p.sending_id = $1", Payment)
# What needs a look beside its own open transaction: overdue, silent, failed but not for good, expired.
DUE = Statement(
    _PAYMENT
    + """
     WHERE p.network = $1 AND NOT p.final AND p.check_at <= now()
       AND (p.state IN ('unknown', 'failed')
            OR (p.state = 'broadcast' AND (s.status IS DISTINCT FROM 'open' OR p.valid_before <= $2))
            OR (p.state = 'pending' AND p.valid_before <= $2))
     ORDER BY p.check_at LIMIT 100
    """,
    Payment,
)
SENDINGS = Statement(
    """
    SELECT s.id, s.nonce, s.target, s.data, s.gas, s.purpose, s.status, a.hashes, n.hash, n.raw, n.max_fee, n.tip,
           n.void, n.made_at AS tried_at, n.sent_at,
           EXISTS (SELECT FROM chain.payment p WHERE p.sending_id = s.id AND p.state IN ('broadcast', 'unknown'))
             OR EXISTS (SELECT FROM chain.repayment r WHERE r.sending_id = s.id)
             OR EXISTS (SELECT FROM chain.payout o WHERE o.sending_id = s.id) AS wanted
      FROM chain.sending s
      CROSS JOIN LATERAL (SELECT array_agg(hash) AS hashes FROM chain.attempt WHERE sending_id = s.id) a
      CROSS JOIN LATERAL (SELECT * FROM chain.attempt WHERE sending_id = s.id ORDER BY made_at DESC LIMIT 1) n
     WHERE s.network = $1 AND s.sender = $2 AND s.status = 'open'
     ORDER BY s.nonce
    """,
    Sending,
)
NEXT_NONCE = Statement(
    """
    SELECT coalesce(max(nonce) + 1, 0) FROM chain.sending
     WHERE network = $1 AND sender = $2 AND status IN ('open', 'mined')
    """,
    int,
    scalar=True,
)
ADD_SENDING = Statement(
    """
    INSERT INTO chain.sending (network, sender, nonce, target, data, gas, purpose)
    VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id
    """,
    int,
    scalar=True,
)
ADD_ATTEMPT = Command(
    "INSERT INTO chain.attempt (hash, sending_id, raw, max_fee, tip, void) VALUES ($1, $2, $3, $4, $5, $6)"
)
# Take a nonce for payments and keep their signed transaction, if all of them still wait; counts 1 or 0.
SEND = Statement(
    """
    WITH ready AS (
        SELECT id FROM chain.payment WHERE id = ANY ($7::uuid[]) AND state = 'pending' ORDER BY id FOR UPDATE
    ), made AS (
        INSERT INTO chain.sending (network, sender, nonce, target, data, gas, purpose)
        SELECT $1, $2, $3, $4, $5, $6, 'settle' WHERE (SELECT count(*) FROM ready) = cardinality($7::uuid[])
        RETURNING id
    ), carried AS (
        UPDATE chain.payment p
           SET state = 'broadcast', sending_id = made.id, tries = tries + 1, check_at = now() + $8::interval
          FROM made WHERE p.id IN (SELECT id FROM ready)
    ), tried AS (
        INSERT INTO chain.attempt (hash, sending_id, raw, max_fee, tip, void)
        SELECT $9, made.id, $10, $11, $12, false FROM made
    )
    SELECT count(*) FROM made
    """,
    bool,
    scalar=True,
)
NOTE_SENT = Command("UPDATE chain.attempt SET sent_at = now() WHERE hash = ANY ($1::bytea[])")
ATTEMPTS_AT = Statement(
    """
    SELECT a.raw FROM chain.attempt a JOIN chain.sending s ON s.id = a.sending_id
     WHERE s.network = $1 AND s.sender = $2 AND s.nonce = $3 ORDER BY a.made_at DESC LIMIT 5
    """,
    bytes,
    scalar=True,
)

MINED = Command(
    """
    UPDATE chain.sending SET status = 'mined', mined_transaction = $2, block_number = $3, block_hash = $4
     WHERE id = $1 AND status = 'open'
    """
)
LOST_NONCE = Command("UPDATE chain.sending SET status = 'lost' WHERE id = $1 AND status = 'open'")
CONFIRM = Statement("SELECT chain.confirm($1, $2, $3, $4)", bool, scalar=True)
# A transaction of ours is in a block, and these payments were made by it.
BOOK = Command(
    """
    WITH mined AS (
        UPDATE chain.sending SET status = 'mined', mined_transaction = $3, block_number = $4, block_hash = $5
         WHERE id = $1 AND status = 'open')
    SELECT chain.confirm(id, $3, $4, $5) FROM unnest($2::uuid[]) AS id
    """
)
FAIL = Statement("SELECT chain.fail($1, $2, $3, now() + $4::interval)", bool, scalar=True)
RETRY = Command(
    """
    UPDATE chain.payment SET state = 'pending', sending_id = NULL
     WHERE id = $1 AND state IN ('broadcast', 'unknown', 'failed') AND NOT final
    """
)
# `tries` counts looks that found nothing to explain a used authorization.
PUT_OFF = Command(
    """
    UPDATE chain.payment SET check_at = now() + $2::interval, since_block = coalesce(since_block, $3),
           tries = tries + $4::integer
     WHERE id = $1
    """
)
SILENT = Statement(
    """
    WITH silent AS (
        UPDATE chain.payment SET state = 'unknown', reason = 'settlement_pending'
         WHERE network = $1 AND state = 'broadcast' AND submitted_at < now() - $2::interval RETURNING id
    )
    SELECT count(*) FROM silent
    """,
    int,
    scalar=True,
)
# Blocks that our bookings rest on and a fork could still take away.
LIVE_BLOCKS = Statement(
    """
    SELECT DISTINCT block_number, block_hash FROM (
        SELECT block_number, block_hash FROM chain.payment WHERE network = $1 AND state = 'confirmed' AND NOT final
        UNION ALL
        SELECT block_number, block_hash FROM chain.sending WHERE network = $1 AND status = 'mined') b
     ORDER BY block_number LIMIT 500
    """,
    lambda block_number, block_hash: (int(block_number), bytes(block_hash)),  # type: ignore[no-any-return]
)
FINAL_PAYMENTS = Command(
    """
    UPDATE chain.payment SET final = true
     WHERE network = $1 AND state = 'confirmed' AND NOT final AND block_hash = ANY ($2::bytea[])
    """
)
FINAL_SENDINGS = Command(
    """
    UPDATE chain.sending SET status = 'final'
     WHERE network = $1 AND status = 'mined' AND block_hash = ANY ($2::bytea[])
    """
)
# A block is gone: what was in it is in the mempool again, or has to be sent there.
FORKED_PAYMENTS = Command(
    """
    UPDATE chain.payment SET state = 'broadcast', check_at = now()
     WHERE network = $1 AND state = 'confirmed' AND NOT final AND block_hash = ANY ($2::bytea[])
    """
)
FORKED_SENDINGS = Command(
    """
    UPDATE chain.sending SET status = 'open', mined_transaction = NULL, block_number = NULL, block_hash = NULL
     WHERE network = $1 AND status = 'mined' AND block_hash = ANY ($2::bytea[])
    """
)

CANCEL_ORPHANS = Statement("SELECT chain.cancel_orphans($1, $2)", int, scalar=True)
COUNTS = Statement(
    """
    SELECT state::text AS state, count(*) AS number FROM chain.payment
     WHERE network = $1 AND (state IN ('reserved', 'pending', 'broadcast', 'unknown')) GROUP BY state
    """,
    Counted,
)
# Is there anything for a relayer to do? Asked often, answered from partial indexes.
BUSY = Statement(
    """
    SELECT EXISTS (SELECT FROM chain.payment WHERE network = $1 AND state IN ('reserved', 'pending'))
        OR EXISTS (SELECT FROM chain.sending WHERE network = $1 AND sender = $2 AND status IN ('open', 'mined'))
        OR EXISTS (SELECT FROM chain.payment WHERE network = $1 AND NOT final
                      AND state IN ('broadcast', 'unknown', 'confirmed', 'failed'))
        OR EXISTS (SELECT FROM chain.repayment r JOIN chain.payment p ON p.id = r.payment_id
                    WHERE r.state <> 'confirmed' AND p.network = $1)
        OR EXISTS (SELECT FROM chain.payout o WHERE o.network = $1
                      AND (o.state = 'processing'
                           OR (o.state = 'queued' AND o.check_at <= now() AND o.free_at <= now()
                               AND (NOT o.needs_approval OR o.approved_by IS NOT NULL))))
    """,
    bool,
    scalar=True,
)
# Is somebody waiting for it? Then the next block is looked for at once.
URGENT = Statement(
    """
    SELECT EXISTS (SELECT FROM chain.payment WHERE network = $1 AND state = 'pending')
        OR EXISTS (SELECT FROM chain.sending WHERE network = $1 AND sender = $2 AND status = 'open')
    """,
    bool,
    scalar=True,
)
LEAD = Command(
    """
    INSERT INTO chain.relayer (network, sender, pid) VALUES ($1, $2, pg_backend_pid())
    ON CONFLICT (network, sender) DO UPDATE SET pid = EXCLUDED.pid, seen_at = now()
    """
)
DEPOSE = Statement("SELECT chain.depose($1, $2, $3, $4)", bool, scalar=True)
