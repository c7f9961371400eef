"""What the proof asks of money that came by card: each movement as its row says, and none without a row."""

from __future__ import annotations

from gateway.database.statement import Statement
from gateway.ledger.violation import Violation

CARD_RULES: dict[str, Statement[Violation]] = {
    "deposits by card are credited once they are paid, and not otherwise": Statement(
        """
        SELECT format('deposit %s: %s, paid %s with bonus %s, booked %s with %s', d.id, d.state, d.paid, d.paid_bonus,
                      b.amount, b.bonus) AS detail
          FROM card.deposit d
          CROSS JOIN LATERAL (
              SELECT coalesce(sum(t.amount) FILTER (WHERE p.purpose = 'clearing' AND p.rail = 'stripe'), 0) AS amount,
                     coalesce(sum(t.amount) FILTER (WHERE p.purpose = 'promotional_expense'), 0) AS bonus
                FROM ledger.transfer t JOIN ledger.account p ON p.id = t.debit_account
               WHERE t.cause_id = d.cause_id AND t.kind = 'grant') b
         WHERE (d.cause_id IS NULL OR d.cause_id >= (SELECT upto FROM ledger.archived))
           AND ((b.amount, b.bonus) <> (d.paid, d.paid_bonus) OR (d.state = 'paid' AND d.paid <> d.amount)) LIMIT 20
        """,
        Violation,
    ),
    "nothing is left of a deposit whose payment failed after it was credited": Statement(
        """
        SELECT format('deposit %s: of %s went %s', d.id, d.paid, g.money) AS detail
          FROM card.deposit d CROSS JOIN LATERAL card.gone(d) g
         WHERE d.failed_at IS NOT NULL AND g.money < d.paid LIMIT 20
        """,
        Violation,
    ),
    "what came by card has its deposit, or the refund or dispute that came back": Statement(
        """
        SELECT format('transfer %s %s/%s', t.cause_id, t.kind, t.leg) AS detail
          FROM ledger.transfer t JOIN ledger.account p ON p.id = t.debit_account
         WHERE t.kind = 'grant' AND p.purpose = 'clearing' AND p.rail = 'stripe'
           AND NOT EXISTS (SELECT FROM card.deposit d WHERE d.cause_id = t.cause_id)
           AND NOT EXISTS (SELECT FROM card.refund r WHERE r.returned_cause = t.cause_id)
           AND NOT EXISTS (SELECT FROM card.dispute x WHERE x.returned_cause = t.cause_id) LIMIT 20
        """,
        Violation,
    ),
    "refunds to cards took what they say, and owe the rest": Statement(
        """
        SELECT format('refund %s: %s, taken %s, owed %s, bonus %s, owed of it %s', r.id, r.amount, b.taken, b.short,
                      b.bonus, b.bonus_short) AS detail
          FROM card.refund r
          CROSS JOIN LATERAL (
              SELECT coalesce(sum(t.amount) FILTER (WHERE t.kind = 'card_refund'), 0) AS taken,
                     coalesce(sum(t.amount) FILTER (WHERE t.kind = 'shortfall' AND t.leg = 0), 0) AS short,
                     coalesce(sum(t.amount) FILTER (WHERE t.kind = 'expire'), 0) AS bonus,
                     coalesce(sum(t.amount) FILTER (WHERE t.kind = 'shortfall' AND t.leg = 1), 0) AS bonus_short
                FROM ledger.transfer t WHERE t.cause_id = r.cause_id) b
         WHERE r.cause_id >= (SELECT upto FROM ledger.archived)
           AND (b.taken, b.short, b.bonus, b.bonus_short) <> (r.taken, r.short, r.bonus, coalesce(r.bonus_short, 0))
         UNION ALL
        SELECT format('refund %s came back: %s, booked %s', r.id, r.amount, coalesce(sum(t.amount), 0))
          FROM card.refund r LEFT JOIN ledger.transfer t ON t.cause_id = r.returned_cause AND t.kind = 'grant'
         WHERE r.returned_cause >= (SELECT upto FROM ledger.archived)
         GROUP BY r.id, r.amount HAVING coalesce(sum(t.amount), 0) <> r.amount + r.returned_bonus LIMIT 20
        """,
        Violation,
    ),
    "a refund that an operator ordered is the one that was ordered": Statement(
        """
        SELECT format('order %s of %s cents of deposit %s: refund %s of %s cents of deposit %s', o.id, o.cents,
                      o.deposit_id, r.id, r.cents, r.deposit_id) AS detail
          FROM card.refund_order o JOIN card.refund r ON r.id = o.refund_id
         WHERE (r.deposit_id, r.cents) <> (o.deposit_id, o.cents) LIMIT 20
        """,
        Violation,
    ),
    "disputes froze what they say, and ended in exactly that": Statement(
        """
        SELECT format('dispute %s: %s, frozen %s, won %s, lost %s, owed %s', x.id, x.state, f.amount, e.won, e.lost,
                      e.short) AS detail
          FROM card.dispute x
          CROSS JOIN LATERAL (SELECT coalesce(sum(t.amount), 0) AS amount FROM ledger.transfer t
                               WHERE t.cause_id = x.cause_id AND t.kind = 'dispute') f
          CROSS JOIN LATERAL (
              SELECT coalesce(sum(t.amount) FILTER (WHERE t.kind = 'dispute_won'), 0) AS won,
                     coalesce(sum(t.amount) FILTER (WHERE t.kind = 'dispute_lost'), 0) AS lost,
                     coalesce(sum(t.amount) FILTER (WHERE t.kind = 'shortfall'), 0) AS short
                FROM ledger.transfer t WHERE t.cause_id = x.end_cause) e
         WHERE (x.cause_id >= (SELECT upto FROM ledger.archived) AND f.amount <> x.frozen + x.frozen_bonus)
            OR ((x.end_cause IS NULL OR x.end_cause >= (SELECT upto FROM ledger.archived))
                AND (e.won, e.lost, e.short) <> (
                    CASE WHEN x.state = 'won' THEN x.frozen + x.frozen_bonus ELSE 0 END,
                    CASE WHEN x.state = 'lost' THEN x.taken + x.frozen_bonus ELSE 0 END,
                    CASE WHEN x.state = 'lost' THEN x.amount - x.taken + x.bonus_short ELSE 0 END))
         UNION ALL
        SELECT format('dispute %s was won after all: %s, booked %s', x.id, x.amount, coalesce(sum(t.amount), 0))
          FROM card.dispute x LEFT JOIN ledger.transfer t ON t.cause_id = x.returned_cause AND t.kind = 'grant'
         WHERE x.returned_cause >= (SELECT upto FROM ledger.archived)
         GROUP BY x.id, x.amount HAVING coalesce(sum(t.amount), 0) <> x.amount + x.returned_bonus LIMIT 20
        """,
        Violation,
    ),
    "the bonus of a deposit goes with its money": Statement(
        """
        SELECT format('deposit %s: of %s with bonus %s went %s with %s', d.id, d.paid, d.paid_bonus, g.money, g.bonus)
                 AS detail
          FROM card.deposit d CROSS JOIN LATERAL card.gone(d) g
         WHERE d.paid_bonus > 0 AND g.money > 0 AND g.bonus < floor(d.paid_bonus * least(g.money, d.paid) / d.paid)
           AND NOT EXISTS (SELECT FROM card.refund r WHERE r.deposit_id = d.id AND r.bonus_short IS NULL)
           AND NOT EXISTS (SELECT FROM card.dispute x WHERE x.deposit_id = d.id AND x.bonus_due IS NULL) LIMIT 20
        """,
        Violation,
    ),
    "money that goes back to cards was paid for, and is nobody's bonus": Statement(
        """
        SELECT format('refund %s: transfer %s/%s is of the bonus %s', r.id, t.cause_id, t.leg, l.id) AS detail
          FROM card.refund r
          JOIN ledger.transfer t ON t.cause_id = r.cause_id AND t.kind = 'card_refund'
          JOIN ledger.account l ON l.id = t.debit_account AND ledger.is_promotional(l.purpose, l.source)
         WHERE r.bonus_short IS NOT NULL
         UNION ALL
        SELECT format('dispute %s: bonus frozen %s, of bonuses %s', x.id, x.frozen_bonus, coalesce(f.amount, 0))
          FROM card.dispute x
          LEFT JOIN (SELECT f.dispute_id, sum(f.amount) AS amount FROM card.frozen f
                       JOIN ledger.account l ON l.id = f.lot_id AND ledger.is_promotional(l.purpose, l.source)
                      GROUP BY f.dispute_id) f ON f.dispute_id = x.id
         WHERE x.bonus_due IS NOT NULL AND coalesce(f.amount, 0) <> x.frozen_bonus LIMIT 20
        """,
        Violation,
    ),
    "frozen money equals open disputes": Statement(
        """
        SELECT format('wallet %s: frozen %s, disputes %s', a.wallet_id, a.balance, coalesce(x.amount, 0)) AS detail
          FROM ledger.account a
          LEFT JOIN (SELECT d.wallet_id, sum(f.amount) AS amount
                       FROM card.dispute x JOIN card.deposit d ON d.id = x.deposit_id
                       JOIN card.frozen f ON f.dispute_id = x.id
                      WHERE x.state = 'frozen' GROUP BY d.wallet_id) x ON x.wallet_id = a.wallet_id
         WHERE a.purpose = 'disputed' AND a.balance <> coalesce(x.amount, 0) LIMIT 20
        """,
        Violation,
    ),
    "card fees and paid debts are booked as their rows say": Statement(
        """
        SELECT format('fee %s: %s, booked %s', f.id, f.amount, coalesce(sum(t.amount), 0)) AS detail
          FROM card.fee f LEFT JOIN ledger.transfer t ON t.cause_id = f.cause_id AND t.kind = 'card_fee'
         WHERE f.cause_id >= (SELECT upto FROM ledger.archived)
         GROUP BY f.id, f.amount HAVING coalesce(sum(t.amount), 0) <> abs(f.amount)
         UNION ALL
        SELECT format('recovery %s: %s, booked %s', r.cause_id, r.amount, coalesce(sum(t.amount), 0))
          FROM card.recovery r LEFT JOIN ledger.transfer t ON t.cause_id = r.cause_id AND t.kind = 'recovery'
         WHERE r.cause_id >= (SELECT upto FROM ledger.archived)
         GROUP BY r.cause_id, r.amount HAVING coalesce(sum(t.amount), 0) <> r.amount LIMIT 20
        """,
        Violation,
    ),
    "money that went back to cards, was frozen, owed or paid as a fee has its row": Statement(
        """
        SELECT format('transfer %s %s/%s', t.cause_id, t.kind, t.leg) AS detail FROM ledger.transfer t
         WHERE CASE t.kind
               WHEN 'card_refund' THEN NOT EXISTS (SELECT FROM card.refund r WHERE r.cause_id = t.cause_id)
               WHEN 'dispute' THEN NOT EXISTS (SELECT FROM card.dispute x WHERE x.cause_id = t.cause_id)
               WHEN 'dispute_won' THEN NOT EXISTS (SELECT FROM card.dispute x WHERE x.end_cause = t.cause_id)
               WHEN 'dispute_lost' THEN NOT EXISTS (SELECT FROM card.dispute x WHERE x.end_cause = t.cause_id)
               WHEN 'shortfall' THEN NOT EXISTS (SELECT FROM card.dispute x WHERE x.end_cause = t.cause_id)
                                     AND NOT EXISTS (SELECT FROM card.refund r WHERE r.cause_id = t.cause_id)
                                     AND NOT EXISTS (SELECT FROM invoice.back b WHERE b.cause_id = t.cause_id)
               WHEN 'card_fee' THEN NOT EXISTS (SELECT FROM card.fee f WHERE f.cause_id = t.cause_id)
               WHEN 'recovery' THEN NOT EXISTS (SELECT FROM card.recovery r WHERE r.cause_id = t.cause_id)
                                    AND NOT EXISTS (SELECT FROM invoice.back b WHERE b.returned_cause = t.cause_id)
                                    AND NOT EXISTS (SELECT FROM invoice.intent n WHERE n.cause_id = t.cause_id)
               ELSE false END
           AND t.kind IN ('card_refund', 'dispute', 'dispute_won', 'dispute_lost', 'shortfall', 'card_fee', 'recovery')
         LIMIT 20
        """,
        Violation,
    ),
}
