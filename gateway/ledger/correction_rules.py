"""What the proof asks of operators' corrections: each moved what its row says, and nothing moved without a row."""

from __future__ import annotations

from gateway.database.statement import Statement
from gateway.ledger.violation import Violation

CORRECTION_RULES: dict[str, Statement[Violation]] = {
    "corrections moved what they say, in the wallet that they name": Statement(
        """
        SELECT format('correction %s: %s of %s, booked %s', c.cause_id, c.direction, c.amount, coalesce(t.amount, 0))
                 AS detail
          FROM ledger.correction c
          CROSS JOIN LATERAL (
              SELECT sum(t.amount) AS amount, bool_and(t.wallet_id = c.wallet_id) AS theirs,
                     bool_and(ledger.is_promotional(l.purpose, l.source) = (c.money = 'promotional')) AS sorted
                FROM ledger.transfer t
                JOIN ledger.account l ON l.id = CASE c.direction WHEN 'credit' THEN t.credit_account
                                                                 ELSE t.debit_account END
               WHERE t.cause_id = c.cause_id
                 AND t.kind = CASE c.direction WHEN 'credit' THEN 'grant' ELSE 'correction' END::ledger.kind) t
         WHERE c.cause_id >= (SELECT upto FROM ledger.archived)
           AND (coalesce(t.amount, 0) <> c.amount OR NOT t.theirs OR NOT t.sorted) LIMIT 20
        """,
        Violation,
    ),
    "what a correction credited or took has its row": Statement(
        """
        SELECT format('transfer %s %s/%s', t.cause_id, t.kind, t.leg) AS detail FROM ledger.transfer t
         WHERE t.kind = 'correction' AND NOT EXISTS (SELECT FROM ledger.correction c WHERE c.cause_id = t.cause_id)
         UNION ALL
        SELECT format('lot %s of the correction %s', a.id, a.reference) FROM ledger.account a
         WHERE a.source = 'correction' AND a.granted IS NOT NULL
           AND NOT EXISTS (SELECT FROM ledger.correction c
                            WHERE c.wallet_id = a.wallet_id AND c.reference = a.reference AND c.direction = 'credit')
         LIMIT 20
        """,
        Violation,
    ),
}
