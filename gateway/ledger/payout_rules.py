"""The rules of the proof (proof.py) that payouts and repayments obey: each was sent once, or given back, as it says."""

from __future__ import annotations

from gateway.database.statement import Statement
from gateway.ledger.violation import Violation

PAYOUT_RULES: dict[str, Statement[Violation]] = {
    "payouts have taken from the earnings what they say, and have paid it or given it back": Statement(
        """
        SELECT format('payout %s: %s %s, taken %s (penalties %s), paid %s, given back %s',
                      p.id, p.amount, p.state, t.amount, t.penalties, o.amount, b.amount) AS detail
          FROM chain.payout p
          CROSS JOIN LATERAL (SELECT coalesce(sum(t.amount), 0) AS amount,
                                     coalesce(sum(t.amount) FILTER (WHERE a.purpose = 'penalties'), 0) AS penalties
                                FROM ledger.transfer t JOIN ledger.account a ON a.id = t.debit_account
                               WHERE t.cause_id = p.id AND t.kind = 'payout' AND a.publisher_id = p.publisher_id) t
          CROSS JOIN LATERAL (SELECT coalesce(sum(t.amount), 0) AS amount FROM ledger.transfer t
                               WHERE t.cause_id = p.id AND t.kind = 'paid_out') o
          CROSS JOIN LATERAL (SELECT coalesce(sum(t.amount), 0) AS amount,
                                     coalesce(sum(t.amount) FILTER (WHERE a.purpose = 'penalties'), 0) AS penalties
                                FROM ledger.transfer t JOIN ledger.account a ON a.id = t.credit_account
                               WHERE t.cause_id = p.id AND t.kind = 'payout_back' AND a.publisher_id = p.publisher_id) b
         WHERE p.id >= (SELECT upto FROM ledger.archived)
           AND ((t.amount, t.penalties) <> (p.amount, p.penalties)
                OR o.amount <> CASE WHEN p.state = 'completed' THEN p.amount ELSE 0 END
                OR b.amount <> CASE WHEN p.state IN ('failed', 'cancelled') THEN p.amount ELSE 0 END
                OR b.penalties <> CASE WHEN p.state IN ('failed', 'cancelled') THEN p.penalties ELSE 0 END)
         LIMIT 20
        """,
        Violation,
    ),
    "what publishers are being paid has its payouts, and nothing is left of those that have ended": Statement(
        """
        SELECT format('transfer %s %s/%s', t.cause_id, t.kind, t.leg) AS detail FROM ledger.transfer t
         WHERE t.kind IN ('payout', 'paid_out', 'payout_back')
           AND NOT EXISTS (SELECT FROM chain.payout p WHERE p.id = t.cause_id)
         UNION ALL
        SELECT format('account %s: %s is on its way, open payouts %s',
                      a.id, coalesce(s.amount, 0), coalesce(p.amount, 0))
          FROM ledger.account a
          LEFT JOIN (SELECT account_id, sum(credits - debits) AS amount FROM ledger.shard GROUP BY account_id) s
                 ON s.account_id = a.id
          LEFT JOIN (SELECT o.publisher_id, c.ledger_asset_id, sum(o.amount) AS amount
                       FROM chain.payout o JOIN catalog.asset c ON c.id = o.asset_id
                      WHERE o.state IN ('queued', 'processing') GROUP BY o.publisher_id, c.ledger_asset_id) p
                 ON p.publisher_id = a.publisher_id AND p.ledger_asset_id = a.asset_id
         WHERE a.purpose = 'paying_out' AND coalesce(s.amount, 0) <> coalesce(p.amount, 0)
         UNION ALL
        SELECT format('payouts %s and %s were both paid by %s', min(p.id::text), max(p.id::text), p.transaction)
          FROM chain.payout p WHERE p.transaction IS NOT NULL GROUP BY p.transaction HAVING count(*) > 1 LIMIT 20
        """,
        Violation,
    ),
    "payments that go back to their payers were taken from the earnings, and have left once they were sent": Statement(
        """
        SELECT format('payment %s: %s goes back, %s; taken %s, left %s', p.id, p.amount, r.state, o.amount, s.amount)
                 AS detail
          FROM chain.repayment r JOIN chain.payment p ON p.id = r.payment_id
          CROSS JOIN LATERAL (SELECT coalesce(sum(t.amount), 0) AS amount FROM ledger.transfer t
                               WHERE t.cause_id = p.id AND t.kind = 'repayment') o
          CROSS JOIN LATERAL (SELECT coalesce(sum(t.amount), 0) AS amount FROM ledger.transfer t
                               WHERE t.cause_id = p.id AND t.kind = 'repaid') s
         WHERE p.id >= (SELECT upto FROM ledger.archived)
           AND (o.amount, s.amount) <> (p.amount, CASE WHEN r.state = 'confirmed' THEN p.amount ELSE 0 END)
         UNION ALL
        SELECT format('transfer %s %s/%s', t.cause_id, t.kind, t.leg) FROM ledger.transfer t
         WHERE t.kind IN ('repayment', 'repaid')
           AND NOT EXISTS (SELECT FROM chain.repayment r WHERE r.payment_id = t.cause_id)
           AND (t.kind = 'repaid' OR NOT EXISTS (SELECT FROM ledger.transfer u
                                                  WHERE u.cause_id = t.cause_id AND u.kind = 'reversal')) LIMIT 20
        """,
        Violation,
    ),
    "what promotional credit has paid to publishers is counted as it was booked": Statement(
        "SELECT d.detail FROM ledger.promotional_differences() d LIMIT 20", Violation
    ),
    "payouts were of money that was paid, except for what they say": Statement(
        """
        WITH paid AS (
            SELECT o.publisher_id, c.ledger_asset_id AS asset_id, sum(o.amount - o.promotional) AS amount
              FROM chain.payout o JOIN catalog.asset c ON c.id = o.asset_id
             WHERE o.state NOT IN ('failed', 'cancelled') GROUP BY 1, 2
        ), moved AS (
            SELECT t.credit_account AS account_id, t.amount - t.fee AS amount FROM ledger.transfer t
             WHERE t.kind IN ('charge', 'capture', 'payment', 'penalty')
             UNION ALL
            SELECT t.debit_account, -t.amount FROM ledger.transfer t WHERE t.kind = 'direct'
             UNION ALL
            SELECT c.account_id, c.credits FROM ledger.carried c
             UNION ALL
            SELECT m.account_id, -m.amount FROM ledger.promotional_moves('-infinity', 'infinity') m WHERE m.amount > 0
             UNION ALL
            SELECT d.account_id, -d.earned FROM ledger.promotional_day d WHERE d.day < analytics.first_day()
        ), earned AS (
            SELECT a.publisher_id, a.asset_id, sum(m.amount) AS amount
              FROM moved m JOIN ledger.account a ON a.id = m.account_id AND a.purpose IN ('earnings', 'penalties')
             GROUP BY 1, 2
        )
        SELECT format('publisher %s: %s was paid out as earned with money, and %s was', p.publisher_id, p.amount,
                      coalesce(e.amount, 0)) AS detail
          FROM paid p LEFT JOIN earned e ON e.publisher_id = p.publisher_id AND e.asset_id = p.asset_id
         WHERE p.amount > coalesce(e.amount, 0) LIMIT 20
        """,
        Violation,
    ),
}
