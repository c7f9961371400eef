"""The proof: recompute everything from the transfers and compare.

`verify` runs in one repeatable-read snapshot, so it is exact while the gateway serves. Each rule is one query that
returns the rows which break it; a sound ledger returns none. Source: DESIGN.md section 3, "Proof".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.ledger.card_rules import CARD_RULES
from gateway.ledger.correction_rules import CORRECTION_RULES
from gateway.ledger.invoice_rules import INVOICE_RULES
from gateway.ledger.payout_rules import PAYOUT_RULES
from gateway.ledger.violation import Violation


@dataclass(frozen=True, slots=True)
class AssetTotals:
    """All money of one asset: what was debited and credited, and what customers and publishers hold."""

    asset: str
    symbol: str
    network: str
    debits: int
    credits: int
    customers: int
    publishers: int
    fees: int

    def __post_init__(self) -> None:
        for name in ("debits", "credits", "customers", "publishers", "fees"):
            object.__setattr__(self, name, int(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is."""

    transfers: int
    accounts: int
    open_exchanges: int
    pending_holds: int


@dataclass(slots=True)
class Report:
    """The outcome of a proof. `sound` is true when no rule was broken."""

    transfers: int = 0
    accounts: int = 0
    open_exchanges: int = 0
    pending_holds: int = 0
    assets: list[AssetTotals] = field(default_factory=list[AssetTotals])
    violations: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    @property
    def sound(self) -> bool:
        """Return whether every rule held."""
        return not self.violations


COUNTS = Statement(
    """
    SELECT (SELECT count(*) FROM ledger.transfer) AS transfers, (SELECT count(*) FROM ledger.account) AS accounts,
           (SELECT count(*) FROM ledger.transfer t WHERE t.kind IN ('charge', 'hold') AND t.leg = 0
               AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = t.cause_id))
           + (SELECT count(*) FROM chain.payment p WHERE p.booking IN ('earnings', 'direct') AND p.state <> 'cancelled'
                 AND NOT (p.state = 'failed' AND p.final) AND p.id >= (SELECT upto FROM ledger.archived)
                 AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = p.id))
           + (SELECT count(DISTINCT d.exchange_id) FROM ledger.counted d WHERE d.alone
                 AND d.exchange_id >= (SELECT upto FROM ledger.archived)
                 AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = d.exchange_id))
               AS open_exchanges,
           (SELECT count(*) FROM ledger.hold WHERE status = 'pending') AS pending_holds
    """,
    Counts,
)
TOTALS = Statement(
    """
    SELECT a.asset_id::text AS asset, max(s.symbol) AS symbol, max(s.network_id) AS network,
           sum(p.debit) AS debits, sum(p.credit) AS credits,
           coalesce(sum(p.credit - p.debit) FILTER (WHERE a.wallet_id IS NOT NULL), 0) AS customers,
           coalesce(sum(p.credit - p.debit) FILTER (WHERE a.publisher_id IS NOT NULL AND a.wallet_id IS NULL), 0)
               AS publishers,
           coalesce(sum(p.credit - p.debit) FILTER (WHERE a.purpose = 'fees'), 0) AS fees
      FROM ledger.posting p JOIN ledger.account a ON a.id = p.account_id
      JOIN catalog.asset s ON s.id = a.asset_id GROUP BY a.asset_id ORDER BY 1
    """,
    AssetTotals,
)

RULES: dict[str, Statement[Violation]] = {
    "debits equal credits per asset": Statement(
        """
        SELECT format('asset %s: debits %s, credits %s', a.asset_id, sum(p.debit), sum(p.credit)) AS detail
          FROM ledger.posting p JOIN ledger.account a ON a.id = p.account_id
         GROUP BY a.asset_id HAVING sum(p.debit) <> sum(p.credit) LIMIT 20
        """,
        Violation,
    ),
    "both sides of a transfer exist and are of one asset": Statement(
        """
        SELECT format('transfer %s %s/%s', t.cause_id, t.kind, t.leg) AS detail FROM ledger.transfer t
          LEFT JOIN ledger.account d ON d.id = t.debit_account LEFT JOIN ledger.account c ON c.id = t.credit_account
         WHERE d.id IS NULL OR c.id IS NULL OR d.asset_id <> c.asset_id LIMIT 20
        """,
        Violation,
    ),
    "what touches a wallet's money names that wallet": Statement(
        """
        SELECT format('transfer %s %s/%s: wallet %s, accounts of %s and %s',
                      t.cause_id, t.kind, t.leg, t.wallet_id, d.wallet_id, c.wallet_id) AS detail
          FROM ledger.transfer t
          JOIN ledger.account d ON d.id = t.debit_account JOIN ledger.account c ON c.id = t.credit_account
         WHERE d.wallet_id <> coalesce(t.wallet_id, -1) OR c.wallet_id <> coalesce(t.wallet_id, -1) LIMIT 20
        """,
        Violation,
    ),
    "customer balances equal their transfers": Statement(
        """
        SELECT format('account %s: balance %s, transfers %s', a.id, a.balance, coalesce(s.net, 0)) AS detail
          FROM ledger.account a
          LEFT JOIN (SELECT account_id, sum(credit - debit) AS net FROM ledger.posting GROUP BY account_id) s
                 ON s.account_id = a.id
         WHERE a.balance IS NOT NULL AND a.balance <> coalesce(s.net, 0) LIMIT 20
        """,
        Violation,
    ),
    "sharded balances equal their transfers": Statement(
        """
        SELECT format('account %s: shards %s/%s, transfers %s/%s',
                      a.id, s.debits, s.credits, p.debits, p.credits) AS detail
          FROM ledger.account a
          LEFT JOIN (SELECT account_id, sum(debits) AS debits, sum(credits) AS credits FROM ledger.shard
                      GROUP BY account_id) s ON s.account_id = a.id
          LEFT JOIN (SELECT account_id, sum(debit) AS debits, sum(credit) AS credits FROM ledger.posting
                      GROUP BY account_id) p ON p.account_id = a.id
         WHERE a.balance IS NULL AND (coalesce(s.debits, 0), coalesce(s.credits, 0))
                                  <> (coalesce(p.debits, 0), coalesce(p.credits, 0)) LIMIT 20
        """,
        Violation,
    ),
    "no customer account is below zero": Statement(
        "SELECT format('account %s: %s', id, balance) AS detail FROM ledger.account WHERE balance < 0 LIMIT 20",
        Violation,
    ),
    "empty lots are marked spent and others are not": Statement(
        """
        SELECT format('lot %s: balance %s, spent %s', id, balance, spent) AS detail FROM ledger.account
         WHERE granted IS NOT NULL AND spent <> (balance = 0) LIMIT 20
        """,
        Violation,
    ),
    "nothing was drawn from a lot that had expired": Statement(
        """
        SELECT format('transfer %s %s/%s at %s: lot %s expired at %s', t.cause_id, t.kind, t.leg, t.created_at, l.id,
                      l.expires_at) AS detail
          FROM ledger.transfer t JOIN ledger.account l ON l.id = t.debit_account AND l.expires_at <= t.created_at
         WHERE t.kind IN ('charge', 'hold', 'penalty') LIMIT 20
        """,
        Violation,
    ),
    "held money equals pending holds": Statement(
        """
        SELECT format('wallet %s: held %s, holds %s', a.wallet_id, a.balance, coalesce(h.amount, 0)) AS detail
          FROM ledger.account a
          LEFT JOIN (SELECT wallet_id, sum(amount) AS amount FROM ledger.hold WHERE status = 'pending'
                      GROUP BY wallet_id) h ON h.wallet_id = a.wallet_id
         WHERE a.purpose = 'held' AND a.balance <> coalesce(h.amount, 0) LIMIT 20
        """,
        Violation,
    ),
    "a hold ends in exactly what it held": Statement(
        """
        SELECT format('hold %s: held %s, captured %s, released %s',
                      h.exchange_id, h.amount, c.amount, r.amount) AS detail
          FROM ledger.hold h
          CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS amount FROM ledger.transfer
                               WHERE cause_id = h.exchange_id AND kind = 'hold') d
          CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS amount FROM ledger.transfer
                               WHERE cause_id = h.exchange_id AND kind = 'capture') c
          CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS amount FROM ledger.transfer
                               WHERE cause_id = h.exchange_id AND kind = 'release') r
         WHERE h.exchange_id >= (SELECT upto FROM ledger.archived)
           AND (d.amount <> h.amount OR c.amount <> h.captured
                OR (h.status = 'pending' AND c.amount + r.amount <> 0)
                OR (h.status <> 'pending' AND c.amount + r.amount <> h.amount)) LIMIT 20
        """,
        Violation,
    ),
    "a refund is whole and of an existing charge": Statement(
        """
        SELECT format('exchange %s: taken %s, refunded %s', r.cause_id, coalesce(c.amount, 0), r.amount) AS detail
          FROM (SELECT cause_id, sum(amount) AS amount, sum(fee) AS fee FROM ledger.transfer WHERE kind = 'refund'
                 GROUP BY cause_id) r
          LEFT JOIN (SELECT cause_id, sum(amount) AS amount, sum(fee) AS fee FROM ledger.transfer
                      WHERE kind IN ('charge', 'capture', 'penalty') GROUP BY cause_id) c ON c.cause_id = r.cause_id
         WHERE c.cause_id IS NULL OR (c.amount, c.fee) <> (r.amount, r.fee) LIMIT 20
        """,
        Violation,
    ),
    "direct charges and penalties took what they say, and gave it back when they say so": Statement(
        """
        SELECT format('%s %s: %s with fee %s, taken %s with fee %s, given back %s',
                      d.kind, d.id, d.amount, d.fee, t.amount, t.fee, r.amount) AS detail
          FROM (SELECT id, 'charge' AS kind, wallet_id, publisher_id, amount, fee, refunded_at FROM ledger.direct_charge
                 UNION ALL
                SELECT p.id, 'penalty', p.wallet_id, p.publisher_id, p.amount, 0, c.refunded_at
                  FROM ledger.penalty p JOIN ledger.direct_charge c ON c.id = p.charge_id) d
          CROSS JOIN LATERAL (SELECT coalesce(sum(t.amount), 0) AS amount, coalesce(sum(t.fee), 0) AS fee,
                                     coalesce(bool_and(t.wallet_id = d.wallet_id AND a.publisher_id = d.publisher_id),
                                              false) AS theirs
                                FROM ledger.transfer t JOIN ledger.account a ON a.id = t.credit_account
                               WHERE t.cause_id = d.id AND t.kind = d.kind::ledger.kind) t
          CROSS JOIN LATERAL (SELECT coalesce(sum(t.amount), 0) AS amount FROM ledger.transfer t
                               WHERE t.cause_id = d.id AND t.kind = 'refund') r
         WHERE d.id >= (SELECT upto FROM ledger.archived)
           AND (NOT t.theirs OR (t.amount, t.fee) <> (d.amount, d.fee)
                OR r.amount <> CASE WHEN d.refunded_at IS NULL THEN 0 ELSE d.amount END) LIMIT 20
        """,
        Violation,
    ),
    "money that was taken without a call has its charge, and penalties take no more than that": Statement(
        """
        SELECT format('transfer %s %s/%s', t.cause_id, t.kind, t.leg) AS detail FROM ledger.transfer t
         WHERE t.kind = 'penalty' AND NOT EXISTS (SELECT FROM ledger.penalty p WHERE p.id = t.cause_id)
         UNION ALL
        SELECT format('settlement %s: %s', s.exchange_id, s.reason) FROM ledger.settlement s
         WHERE s.reason IN ('direct_charge', 'direct_refund')
           AND NOT EXISTS (SELECT FROM ledger.direct_charge c WHERE c.id = s.exchange_id)
         UNION ALL
        SELECT format('charge %s: %s, slashed %s, penalties %s', c.id, c.amount, c.slashed, coalesce(p.amount, 0))
          FROM ledger.direct_charge c
          LEFT JOIN (SELECT charge_id, sum(amount) AS amount FROM ledger.penalty GROUP BY charge_id) p
                 ON p.charge_id = c.id
         WHERE c.slashed <> coalesce(p.amount, 0) OR c.slashed > c.amount LIMIT 20
        """,
        Violation,
    ),
    "refunded exchanges have their refund, settled ones have none": Statement(
        """
        SELECT format('exchange %s: %s but refunded %s of %s', s.exchange_id, s.outcome, r.amount, c.amount) AS detail
          FROM ledger.settlement s
          CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS amount FROM ledger.transfer
                               WHERE cause_id = s.exchange_id AND kind = 'refund') r
          CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS amount FROM ledger.transfer
                               WHERE cause_id = s.exchange_id AND kind IN ('charge', 'capture')) c
         WHERE (s.outcome = 'refunded' AND r.amount <> c.amount) OR (s.outcome = 'settled' AND r.amount <> 0) LIMIT 20
        """,
        Violation,
    ),
    "every settlement has its charge, hold, payment or count": Statement(
        """
        SELECT format('exchange %s', s.exchange_id) AS detail FROM ledger.settlement s
         WHERE NOT EXISTS (SELECT FROM ledger.transfer t WHERE t.cause_id = s.exchange_id
                              AND t.kind IN ('charge', 'hold'))
           AND NOT EXISTS (SELECT FROM chain.payment p WHERE p.id = s.exchange_id)
           AND NOT EXISTS (SELECT FROM ledger.counted d WHERE d.exchange_id = s.exchange_id AND d.alone) LIMIT 20
        """,
        Violation,
    ),
    "every counter equals what exchanges have counted": Statement(
        """
        SELECT format('counter %s/%s/%s/%s: %s, counted %s', scope, subject, kind, period, c.value, d.amount) AS detail
          FROM ledger.counter c
          FULL JOIN (SELECT scope, subject, kind, period, sum(amount) AS amount FROM ledger.counted
                      GROUP BY scope, subject, kind, period) d USING (scope, subject, kind, period)
         WHERE coalesce(c.value, -1) <> coalesce(d.amount, 0) LIMIT 20
        """,
        Violation,
    ),
    "an exchange counts what was taken for it, and nothing once it was given back": Statement(
        """
        SELECT format('exchange %s: %s counted %s, taken %s', d.exchange_id, d.kind, d.amount, t.amount) AS detail
          FROM ledger.counted d
          LEFT JOIN ledger.hold h ON h.exchange_id = d.exchange_id
          LEFT JOIN ledger.settlement s ON s.exchange_id = d.exchange_id
          CROSS JOIN LATERAL (
              SELECT coalesce(sum(CASE WHEN t.kind = 'refund' THEN -t.amount ELSE t.amount END), 0) AS amount
                FROM ledger.transfer t
               WHERE t.cause_id = d.exchange_id
                 AND t.kind IN ('charge', 'refund',
                                CASE WHEN h.status = 'pending' THEN 'hold' ELSE 'capture' END::ledger.kind)) t
         WHERE d.exchange_id >= (SELECT upto FROM ledger.archived)
           AND ((d.money AND d.amount <> t.amount) OR (s.outcome = 'refunded' AND d.amount <> 0)
                OR d.alone <> NOT EXISTS (SELECT FROM ledger.transfer t
                                           WHERE t.cause_id = d.exchange_id AND t.kind IN ('charge', 'hold'))) LIMIT 20
        """,
        Violation,
    ),
    "payments on a chain are booked when confirmed, and not when failed": Statement(
        """
        SELECT format('payment %s: %s %s, booked %s, undone %s', p.id, p.amount, p.state, b.amount, u.amount) AS detail
          FROM chain.payment p
          CROSS JOIN LATERAL (SELECT coalesce(sum(t.amount), 0) AS amount FROM ledger.transfer t
                               WHERE t.cause_id = p.id AND t.kind IN ('payment', 'grant')) b
          CROSS JOIN LATERAL (SELECT coalesce(sum(t.amount), 0) AS amount FROM ledger.transfer t
                               WHERE t.cause_id = p.id AND t.kind = 'reversal'
                                 AND (t.leg = 0 OR p.booking = 'deposit')) u
         WHERE p.booking <> 'none' AND p.id >= (SELECT upto FROM ledger.archived)
           AND ((p.state = 'confirmed' AND (b.amount, u.amount) <> (p.amount, 0))
                OR (p.state IN ('reserved', 'pending', 'cancelled') AND b.amount <> 0)
                OR (p.state = 'failed' AND p.final AND b.amount <> u.amount)) LIMIT 20
        """,
        Violation,
    ),
    "money that moved on a chain has its payment": Statement(
        """
        SELECT format('transfer %s %s/%s', t.cause_id, t.kind, t.leg) AS detail FROM ledger.transfer t
         WHERE t.kind IN ('payment', 'direct', 'reversal', 'repayment', 'repaid')
           AND NOT EXISTS (SELECT FROM chain.payment p WHERE p.id = t.cause_id) LIMIT 20
        """,
        Violation,
    ),
    "calls paid on a chain ended as their payments say": Statement(
        """
        SELECT format('exchange %s: %s, its payment is %s, repayment %s', p.id, s.outcome, p.state, r.state) AS detail
          FROM chain.payment p
          JOIN ledger.settlement s ON s.exchange_id = p.id
          LEFT JOIN chain.repayment r ON r.payment_id = p.id
         WHERE (s.outcome = 'settled' AND (p.state IN ('reserved', 'cancelled') OR r.payment_id IS NOT NULL))
            OR (s.outcome = 'refunded' AND p.state = 'confirmed' AND r.payment_id IS NULL) LIMIT 20
        """,
        Violation,
    ),
    **PAYOUT_RULES,
    "purchases are booked when their authorizations were used, and not otherwise": Statement(
        """
        SELECT format('purchase %s: %s %s, booked %s', p.exchange_id, p.amount, p.state, b.amount) AS detail
          FROM chain.purchase p
          CROSS JOIN LATERAL (SELECT coalesce(sum(t.amount), 0) AS amount FROM ledger.transfer t
                               WHERE t.cause_id = p.exchange_id AND t.kind = 'purchase') b
         WHERE p.exchange_id >= (SELECT upto FROM ledger.archived)
           AND b.amount <> CASE WHEN p.state = 'bought' THEN p.amount ELSE 0 END LIMIT 20
        """,
        Violation,
    ),
    "what left the buying wallet has its purchase, and every purchase its hold": Statement(
        """
        SELECT format('exchange %s', t.cause_id) AS detail FROM ledger.transfer t
         WHERE t.kind = 'purchase' AND NOT EXISTS (SELECT FROM chain.purchase p WHERE p.exchange_id = t.cause_id)
         UNION ALL
        SELECT format('purchase %s: %s, delivered %s, its hold is %s', p.exchange_id, p.state, p.delivered, h.status)
          FROM chain.purchase p LEFT JOIN ledger.hold h ON h.exchange_id = p.exchange_id
         WHERE h.exchange_id IS NULL OR (p.ended_at IS NOT NULL AND p.delivered <> (h.status = 'captured')) LIMIT 20
        """,
        Violation,
    ),
    "what its operator moved into the buying wallet and out of it has its transaction": Statement(
        """
        SELECT format('movement %s: %s, booked %s', m.cause_id, m.treasury + m.outside, b.amount) AS detail
          FROM chain.wallet_movement m
          CROSS JOIN LATERAL (SELECT coalesce(sum(t.amount), 0) AS amount FROM ledger.transfer t
                               WHERE t.cause_id = m.cause_id
                                 AND t.kind = CASE WHEN m.incoming THEN 'funding' ELSE 'withdrawal' END::ledger.kind) b
         WHERE b.amount <> m.treasury + m.outside AND m.cause_id >= (SELECT upto FROM ledger.archived)
         UNION ALL
        SELECT format('transfer %s: %s', t.cause_id, t.kind) FROM ledger.transfer t
         WHERE t.kind IN ('funding', 'withdrawal')
           AND NOT EXISTS (SELECT FROM chain.wallet_movement m WHERE m.cause_id = t.cause_id) LIMIT 20
        """,
        Violation,
    ),
    **CARD_RULES,
    **INVOICE_RULES,
    **CORRECTION_RULES,
    "every lot has the grant that opened it": Statement(
        """
        SELECT format('lot %s: granted %s, credited %s', a.id, a.granted, coalesce(sum(t.amount), 0)) AS detail
          FROM ledger.account a
          LEFT JOIN (SELECT credit_account, amount FROM ledger.transfer WHERE kind = 'grant'
                      UNION ALL SELECT account_id, granted FROM ledger.carried) t ON t.credit_account = a.id
         WHERE a.granted IS NOT NULL GROUP BY a.id HAVING coalesce(sum(t.amount), 0) <> a.granted LIMIT 20
        """,
        Violation,
    ),
    "every archive balances by itself, per asset": Statement(
        """
        SELECT format('archive until %s, asset %s: debits %s, credits %s',
                      r.upto, a.asset_id, sum(c.debits), sum(c.credits)) AS detail
          FROM ledger.carried c
          JOIN ledger.archive r ON r.id = c.archive_id
          JOIN ledger.account a ON a.id = c.account_id
         GROUP BY r.upto, a.asset_id HAVING sum(c.debits) <> sum(c.credits) LIMIT 20
        """,
        Violation,
    ),
    "nothing is left of what was archived, and all of it was carried": Statement(
        """
        SELECT format('transfer %s %s/%s', t.cause_id, t.kind, t.leg) AS detail FROM ledger.transfer t
         WHERE t.cause_id < (SELECT upto FROM ledger.archived)
         UNION ALL
        SELECT format('settlement %s', s.exchange_id) FROM ledger.settlement s
         WHERE s.exchange_id < (SELECT upto FROM ledger.archived)
         UNION ALL
        SELECT format('archive until %s', r.upto) FROM ledger.archive r
         WHERE r.carried_at IS NULL AND EXISTS (SELECT FROM ledger.carried c WHERE c.archive_id = r.id) LIMIT 20
        """,
        Violation,
    ),
}


# Every rule reads whole tables. What stops at 20 findings looks to the planner as if it ended early, and it would take
# nested loops; a sound ledger has no findings, and they took half of the time at 20,000 agents.
WHOLE_TABLES = Command("SET LOCAL enable_nestloop = off")
# Before the snapshot is taken: a month that is dropped between the two would be missed, and its sums as well.
HOLD_STILL = Command("LOCK TABLE ledger.transfer, ledger.settlement IN ACCESS SHARE MODE")


async def verify(connection: Connection) -> Report:
    """Check every rule in one snapshot and return what was found. Reads only."""
    report = Report()
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await HOLD_STILL.run(connection)
        await WHOLE_TABLES.run(connection)
        counts = await COUNTS.one(connection)
        report.transfers, report.accounts = counts.transfers, counts.accounts
        report.open_exchanges, report.pending_holds = counts.open_exchanges, counts.pending_holds
        report.assets = await TOTALS.all(connection)
        for rule, statement in RULES.items():
            broken = await statement.all(connection)
            if broken:
                report.violations[rule] = [violation.detail for violation in broken]
    return report
