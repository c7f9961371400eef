"""The rules of the proof (proof.py) that invoices obey: each is booked as it says, and is the sum of its lines."""

from __future__ import annotations

from gateway.database.statement import Statement
from gateway.ledger.violation import Violation

INVOICE_RULES: dict[str, Statement[Violation]] = {
    "invoices are booked when they are issued, paid and void, and not otherwise": Statement(
        """
        SELECT format('invoice %s: %s, due %s with %s tax, booked %s with %s', i.number, b.kind, i.taxable + i.tax,
                      i.tax, m.amount, m.tax) AS detail
          FROM invoice.invoice i
          CROSS JOIN LATERAL (VALUES ('invoice'::ledger.kind, i.booking), ('invoice_paid', i.receipt),
                                     ('invoice_void', i.reversal)) b (kind, cause)
          CROSS JOIN LATERAL (
              SELECT coalesce(sum(t.amount), 0) AS amount,
                     coalesce(sum(t.amount) FILTER (WHERE 'taxes' IN (d.purpose, c.purpose)), 0) AS tax,
                     coalesce(bool_and(CASE b.kind WHEN 'invoice' THEN d.rail ELSE coalesce(c.rail, '') END
                                       = 'organization:' || i.organization_id), false) AS theirs
                FROM ledger.transfer t
                JOIN ledger.account d ON d.id = t.debit_account JOIN ledger.account c ON c.id = t.credit_account
               WHERE t.cause_id = b.cause AND t.kind = b.kind) m
         WHERE b.cause >= (SELECT upto FROM ledger.archived)
           AND (NOT m.theirs OR m.amount <> i.taxable + i.tax
                OR m.tax <> CASE b.kind WHEN 'invoice_paid' THEN 0 ELSE i.tax END)
         UNION ALL
        SELECT format('transfer %s %s/%s', t.cause_id, t.kind, t.leg) FROM ledger.transfer t
         WHERE t.kind IN ('invoice', 'invoice_paid', 'invoice_void')
           AND NOT EXISTS (SELECT FROM invoice.invoice i
                            WHERE t.cause_id = CASE t.kind WHEN 'invoice' THEN i.booking
                                                           WHEN 'invoice_paid' THEN i.receipt ELSE i.reversal END)
         LIMIT 20
        """,
        Violation,
    ),
    "payments of invoices are booked as they came, went back and came again": Statement(
        """
        SELECT format('%s of invoice %s: %s %s, booked %s', m.id, i.id, m.kind, m.amount, b.amount) AS detail
          FROM (SELECT n.id, n.invoice_id, n.cause_id AS cause, n.paid AS amount, false AS back,
                       CASE WHEN n.cause_id = i.receipt THEN 'invoice_paid' ELSE 'recovery' END::ledger.kind AS kind
                  FROM invoice.intent n JOIN invoice.invoice i ON i.id = n.invoice_id
                 UNION ALL
                SELECT k.id, n.invoice_id, k.cause_id, k.amount, true, 'shortfall'
                  FROM invoice.back k JOIN invoice.intent n ON n.id = k.intent_id
                 UNION ALL
                SELECT k.id, n.invoice_id, k.returned_cause, k.amount, false, 'recovery'
                  FROM invoice.back k JOIN invoice.intent n ON n.id = k.intent_id) m
          JOIN invoice.invoice i ON i.id = m.invoice_id
          CROSS JOIN LATERAL (
              SELECT coalesce(sum(t.amount), 0) AS amount
                FROM ledger.transfer t
                JOIN ledger.account d ON d.id = t.debit_account JOIN ledger.account c ON c.id = t.credit_account
               WHERE t.cause_id = m.cause AND t.kind = m.kind
                 AND 'organization:' || i.organization_id = CASE WHEN m.back THEN d.rail ELSE c.rail END
                 AND 'stripe' = CASE WHEN m.back THEN c.rail ELSE d.rail END) b
         WHERE m.cause >= (SELECT upto FROM ledger.archived) AND b.amount <> m.amount
         UNION ALL
        SELECT format('invoice %s: %s, says that %s is owed again, its payments %s', i.id, i.status, i.owed_again,
                      invoice.owed_again(i.id))
          FROM invoice.invoice i
         WHERE i.owed_again <> invoice.owed_again(i.id)
            OR (i.receipt IS NOT NULL AND i.status <> 'void' AND (i.status = 'issued') <> (i.owed_again > 0)) LIMIT 20
        """,
        Violation,
    ),
    "the prepaid lines of an invoice are what its organization's wallets have bought in its month": Statement(
        """
        SELECT format('invoice %s: prepaid %s, bought %s', i.number, i.subtotal - i.taxable, coalesce(b.amount, 0))
                   AS detail
          FROM invoice.invoice i
          LEFT JOIN (
              SELECT o.id AS organization_id, m.month, w.asset_id, sum(m.amount) AS amount
                FROM (SELECT t.wallet_id, ledger.month_of(t.created_at) AT TIME ZONE 'UTC' AS month,
                             CASE WHEN t.kind = 'refund' THEN -t.amount ELSE t.amount END AS amount
                        FROM ledger.transfer t
                       WHERE t.wallet_id IS NOT NULL AND t.kind IN ('charge', 'capture', 'refund', 'penalty')
                       UNION ALL
                      SELECT wallet_id, month, amount FROM ledger.carried_bought) m
                JOIN ledger.wallet w ON w.id = m.wallet_id
                JOIN identity.organization o ON o.created_by = w.owner_id AND o.is_personal
               GROUP BY 1, 2, 3) b
            ON (b.organization_id, b.month, b.asset_id) = (i.organization_id, i.period_start, i.asset_id)
         WHERE i.status IN ('issued', 'paid') AND i.subtotal - i.taxable <> coalesce(b.amount, 0) LIMIT 20
        """,
        Violation,
    ),
    "an invoice is the sum of its lines, and their numbers have no gaps": Statement(
        """
        SELECT format('invoice %s: %s with %s due, lines %s with %s due', i.id, i.subtotal, i.taxable, l.amount, l.due)
                   AS detail
          FROM invoice.invoice i
          CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS amount,
                                     coalesce(sum(amount) FILTER (WHERE NOT paid), 0) AS due
                                FROM invoice.line WHERE invoice_id = i.id) l
         WHERE (i.subtotal, i.taxable) <> (l.amount, l.due)
         UNION ALL
        SELECT format('series %s: %s numbers, the last one is %s', s.name, count(i.id), s.last)
          FROM invoice.series s LEFT JOIN invoice.invoice i ON i.series = s.name
         GROUP BY s.name HAVING count(i.id) <> s.last OR max(i.sequence) IS DISTINCT FROM s.last LIMIT 20
        """,
        Violation,
    ),
}
