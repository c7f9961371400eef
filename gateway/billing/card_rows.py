"""Deposits by card as they are stored, and the statements that read and change them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from gateway.database.statement import Command, Statement

State = Literal["new", "open", "processing", "paid", "expired", "failed", "suspense"]


@dataclass(frozen=True, slots=True)
class Deposit:
    """A deposit as it is stored. `cents` were asked for, `paid_cents` came.

    `refunds` counts what was given back, also what its bank has sent back to us since; `refunded_cents` does not.
    `failed_at` is when its payment was found to have failed after it was credited. `dispute` is the state of a dispute
    that stands in the way of a refund.
    """

    id: UUID
    wallet_id: int
    organization_id: UUID | None
    asset_id: UUID
    wallet_address: str
    cents: int
    amount: int
    bonus: int
    state: State
    reason: str | None
    session_id: str | None
    checkout_url: str | None
    intent_id: str | None
    receipt_url: str | None
    paid_cents: int | None
    refunded_cents: int
    refunds: int
    version: int
    created_at: datetime
    expires_at: datetime
    failed_at: datetime | None
    dispute: Literal["frozen", "lost"] | None

    def __post_init__(self) -> None:
        for name in ("amount", "bonus", "refunded_cents"):
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def left_cents(self) -> int:
        """Return what came and has not gone back to its card."""
        return (self.paid_cents or 0) - self.refunded_cents


@dataclass(frozen=True, slots=True)
class Became:
    """Something that became of a deposit: a refund, a dispute or a fee, in atomic units."""

    what: str
    id: str
    state: str
    amount: int
    owed: int
    at: datetime

    def __post_init__(self) -> None:
        for name in ("amount", "owed"):
            object.__setattr__(self, name, int(getattr(self, name)))


INSERT = Command(
    """
    INSERT INTO card.deposit (id, wallet_id, organization_id, cents, amount, bonus, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5::text::numeric, $6::text::numeric, $7, $8)
    """
)
COUNT_OPEN = Statement(
    "SELECT count(*) FROM card.deposit WHERE wallet_id = $1 AND state IN ('new', 'open')", int, scalar=True
)
_DEPOSITS = """
    SELECT d.id, d.wallet_id, d.organization_id, w.asset_id, w.address AS wallet_address, d.cents, d.amount, d.bonus,
           d.state, d.reason, d.session_id, d.checkout_url, d.intent_id, d.receipt_url, d.paid_cents,
           card.refunded_cents(d.id) AS refunded_cents,
           (SELECT count(*) FROM card.refund r WHERE r.deposit_id = d.id) AS refunds,
           d.version, d.created_at, d.expires_at, d.failed_at,
           -- A lost dispute comes first: no end of another one makes its deposit refundable.
           (SELECT max(x.state) FROM card.dispute x
             WHERE x.deposit_id = d.id AND x.state IN ('frozen', 'lost') AND x.returned_cause IS NULL) AS dispute
      FROM card.deposit d JOIN ledger.wallet w ON w.id = d.wallet_id
"""
FIND = Statement(f"{_DEPOSITS} WHERE d.id = $1", Deposit)
FIND_LAST = Statement(
    f"""{_DEPOSITS} WHERE ($1::text IS NULL OR d.state = $1) AND (NOT $2::boolean OR d.failed_at IS NOT NULL)
         ORDER BY d.created_at DESC LIMIT $3""",
    Deposit,
)
# What became of one, oldest first. `owed`: of what was spent already.
SINCE = Statement(
    """
    SELECT x.what, x.id, x.state, x.amount, x.owed, x.at FROM (
        SELECT CASE WHEN f.failure THEN 'failure' ELSE 'refund' END AS what, r.id, r.amount, r.short AS owed,
               r.made_at AS at,
               CASE WHEN f.failure AND r.returned_cause IS NULL THEN 'taken back: the payment failed'
                    WHEN f.failure THEN 'paid after all'
                    WHEN r.returned_cause IS NULL THEN 'given back' ELSE 'did not arrive' END AS state
          FROM card.refund r CROSS JOIN LATERAL (SELECT r.id LIKE 'failed:%' AS failure) f WHERE r.deposit_id = $1
         UNION ALL
        SELECT 'dispute', i.id, i.amount, i.short, i.made_at,
               CASE WHEN i.returned_cause IS NULL THEN i.state ELSE 'won after all' END
          FROM card.dispute i WHERE i.deposit_id = $1
         UNION ALL
        SELECT 'refund', o.id::text, card.atomic(w.asset_id, o.cents), 0, o.ordered_at,
               CASE WHEN o.refused IS NULL THEN 'ordered, not yet sent' ELSE 'refused by Stripe: ' || o.refused END
          FROM card.refund_order o JOIN card.deposit d ON d.id = o.deposit_id JOIN ledger.wallet w ON w.id = d.wallet_id
         WHERE o.deposit_id = $1 AND o.refund_id IS NULL
         UNION ALL
        SELECT 'fee', f.id, f.amount, 0, f.booked_at, 'paid to Stripe' FROM card.fee f WHERE f.subject = $1) x
     ORDER BY x.at, x.id
    """,
    Became,
)
LOCK_VERSION = Statement("SELECT version FROM card.deposit WHERE id = $1 FOR UPDATE", int, scalar=True)
BY_SESSION = Statement("SELECT id::text FROM card.deposit WHERE session_id = $1", UUID, scalar=True)
BY_INTENT = Statement("SELECT id::text FROM card.deposit WHERE intent_id = $1", UUID, scalar=True)
# The page is stored by whoever learns of it first: who has opened it, or an event about it.
OPEN = Command(
    """
    UPDATE card.deposit SET session_id = $2, checkout_url = $3, state = 'open', version = version + 1
     WHERE id = $1 AND session_id IS NULL
    """
)
FAIL = Command(
    "UPDATE card.deposit SET state = 'failed', reason = $2, ended_at = now() WHERE id = $1 AND session_id IS NULL"
)
NOTE = Command(
    """
    UPDATE card.deposit SET intent_id = coalesce($2, intent_id), receipt_url = coalesce($3, receipt_url),
           checked_at = now() WHERE id = $1
    """
)
# Whoever has learnt nothing new does not count: who asked Stripe at the same time need not ask again.
COUNT = Command("UPDATE card.deposit SET version = version + 1 WHERE id = $1")
SET_STATE = Command(
    """
    UPDATE card.deposit SET state = $2, reason = $3,
           ended_at = CASE WHEN $2::text IN ('expired', 'failed') THEN now() END
     WHERE id = $1
    """
)
PAY = Command("SELECT card.pay($1)")
SUSPEND = Command("SELECT card.suspend($1, $2, $3)")
GIVE_BACK = Statement("SELECT card.give_back($1, $2, $3)", str, scalar=True)
TAKE_AGAIN = Statement("SELECT card.take_again($1)", str, scalar=True)
# An operator's order has arrived at Stripe, whatever we heard of that before.
CLOSE_ORDER = Command(
    """
    UPDATE card.refund_order SET refund_id = $3, refused = NULL
     WHERE id::text = $2 AND deposit_id = $1 AND refund_id IS NULL
    """
)
FREEZE = Statement("SELECT card.freeze($1, $2, $3)", str, scalar=True)
WIN = Statement("SELECT card.win($1)", str, scalar=True)
LOSE = Statement("SELECT card.lose($1)", str, scalar=True)
FAIL_PAID = Statement("SELECT card.fail($1)", str, scalar=True)
ARRIVE = Statement("SELECT card.arrive($1)", str, scalar=True)
# What can go back to its card now and leave nothing owed.
REFUNDABLE = Statement("SELECT card.refundable_cents($1)", int, scalar=True)
BOOK_FEE = Statement("SELECT card.book_fee($1, $2, $3, $4)", bool, scalar=True)
# Those without a page soon, open ones now and then and when their page closes, others for as long as banks may ask for
# money back.
DUE = Statement(
    """
    UPDATE card.deposit SET checked_at = now() WHERE id IN (
        SELECT id FROM card.deposit
         WHERE (state IN ('new', 'open', 'processing')
                AND checked_at < now() - CASE WHEN state = 'new' OR checked_at < expires_at AND expires_at < now()
                                              THEN $1::interval ELSE $1::interval * 5 END)
            OR (state IN ('paid', 'suspense') AND checked_at < now() - interval '1 day'
                AND created_at > now() - interval '200 days')
         ORDER BY checked_at LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING id::text
    """,
    UUID,
    scalar=True,
)
# Wallets whose owner owes something and has funded money by now, such as a call's that was refunded. From the debts to
# the wallets, because there are few of those and many of these.
DEBTORS = Statement(
    """
    WITH debt AS MATERIALIZED (
        SELECT substr(a.rail, length('account:') + 1)::uuid AS owner_id, a.asset_id
          FROM ledger.account a JOIN ledger.shard s ON s.account_id = a.id
         WHERE a.wallet_id IS NULL AND a.publisher_id IS NULL AND a.purpose = 'receivable' AND a.rail LIKE 'account:%'
         GROUP BY a.id HAVING sum(s.debits - s.credits) > 0
    )
    SELECT w.id FROM debt d JOIN ledger.wallet w ON w.owner_id = d.owner_id AND w.asset_id = d.asset_id
     WHERE EXISTS (SELECT FROM ledger.account l WHERE l.wallet_id = w.id AND NOT l.spent AND l.purpose = 'funded'
                      AND NOT ledger.is_promotional(l.purpose, l.source))
    """,
    int,
    scalar=True,
)
RECOVER = Statement("SELECT card.recover($1)", int, scalar=True)
