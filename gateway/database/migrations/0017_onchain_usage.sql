-- Paid calls after a cause, one row per publisher and payer, now also of wallets that pay on a chain. A wallet without an
-- account has no wallet number here; a negative one is made of its address. Calls whose money went back do not count.
CREATE OR REPLACE FUNCTION catalog.usage_between(p_after uuid, p_upto uuid)
RETURNS TABLE (publisher_id uuid, wallet_id bigint, calls bigint) LANGUAGE sql STABLE AS $$
    SELECT a.publisher_id, t.wallet_id, count(*)
      FROM ledger.transfer t JOIN ledger.account a ON a.id = t.credit_account
     WHERE t.cause_id > p_after AND t.cause_id <= p_upto AND t.kind IN ('charge', 'capture') AND t.leg = 0
       AND a.purpose = 'earnings' AND t.wallet_id IS NOT NULL
       AND NOT EXISTS (SELECT FROM ledger.transfer r WHERE r.cause_id = t.cause_id AND r.kind = 'refund')
     GROUP BY a.publisher_id, t.wallet_id
    UNION ALL
    SELECT a.publisher_id, -1 - (hashtextextended(p.network || encode(p.payer, 'hex'), 0) & 9223372036854775807), count(*)
      FROM ledger.transfer t
      JOIN ledger.account a ON a.id = t.credit_account
      JOIN chain.payment p ON p.id = t.cause_id
     WHERE t.cause_id > p_after AND t.cause_id <= p_upto AND t.kind = 'payment' AND a.purpose = 'earnings'
       AND NOT EXISTS (SELECT FROM ledger.transfer r
                        WHERE r.cause_id = t.cause_id AND r.kind IN ('repayment', 'reversal'))
     GROUP BY 1, 2
$$;
