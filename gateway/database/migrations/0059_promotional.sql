-- Free credit must not become money: earnings know what promotional credit has paid, the bonus of a deposit goes back with
-- its money, and expired credit lives again once, until a fixed day.

-- Credit that nobody has paid for. What an operator has granted by hand is the operator's own decision and counts as paid.
CREATE FUNCTION ledger.is_promotional(p_purpose ledger.purpose, p_source text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT (p_purpose = 'promotional' AND p_source IS DISTINCT FROM 'admin_grant')
        OR (p_purpose = 'funded' AND p_source IS NOT DISTINCT FROM 'tier_bonus')
$$;

-- What promotional lots gave of a captured hold, less their share of the fee, as ledger.captured_legs has it: a capture
-- keeps what was drawn first.
CREATE FUNCTION ledger.promotional_capture(p_exchange uuid, p_captured numeric, p_fee numeric) RETURNS numeric
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(k.taken - div(p_fee * k.upto, p_captured) + div(p_fee * (k.upto - k.taken), p_captured)), 0)
      FROM (SELECT r.lot, least(r.upto, p_captured) AS upto, greatest(least(r.amount, p_captured - r.upto + r.amount), 0) AS taken
              FROM (SELECT h.debit_account AS lot, h.amount, sum(h.amount) OVER (ORDER BY h.leg) AS upto
                      FROM ledger.transfer h WHERE h.cause_id = p_exchange AND h.kind = 'hold') r) k
      JOIN ledger.account l ON l.id = k.lot AND ledger.is_promotional(l.purpose, l.source)
     WHERE k.taken > 0
$$;

-- What promotional credit has paid to publishers, and what went back to it, as booked from one moment until before another.
CREATE FUNCTION ledger.promotional_moves(p_since timestamptz, p_before timestamptz, p_accounts bigint[] DEFAULT NULL)
RETURNS TABLE (cause_id uuid, account_id bigint, amount numeric)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH moved AS MATERIALIZED (
        SELECT t.cause_id, t.kind, t.amount, t.fee, t.debit_account, t.credit_account
          FROM ledger.transfer t
         WHERE t.created_at >= p_since AND t.created_at < p_before
           AND t.kind IN ('charge', 'capture', 'penalty', 'refund')
           AND (p_accounts IS NULL OR t.credit_account = ANY (p_accounts) OR t.debit_account = ANY (p_accounts))
    )
    SELECT m.cause_id, m.credit_account, m.amount - m.fee
      FROM moved m JOIN ledger.account l ON l.id = m.debit_account AND ledger.is_promotional(l.purpose, l.source)
     WHERE m.kind IN ('charge', 'penalty')
    UNION ALL
    SELECT m.cause_id, m.debit_account, m.fee - m.amount
      FROM moved m JOIN ledger.account l ON l.id = m.credit_account AND ledger.is_promotional(l.purpose, l.source)
     WHERE m.kind = 'refund'
    UNION ALL
    SELECT m.cause_id, m.credit_account, ledger.promotional_capture(m.cause_id, m.amount, m.fee)
      FROM moved m WHERE m.kind = 'capture';
END $$;

-- Its sums, by the day of the call, up to analytics.mark: like the other sums of days they outlive an archive.
CREATE TABLE ledger.promotional_day (
    account_id  bigint NOT NULL,                -- earnings or penalties
    day         date NOT NULL,
    earned      numeric(39,0) NOT NULL,
    PRIMARY KEY (account_id, day)
) WITH (fillfactor = 80);

CREATE FUNCTION ledger.add_promotional(p_since timestamptz, p_before timestamptz) RETURNS void LANGUAGE sql AS $$
    INSERT INTO ledger.promotional_day AS d (account_id, day, earned)
    SELECT m.account_id, ledger.day_of(m.cause_id), sum(m.amount)
      FROM ledger.promotional_moves(p_since, p_before) m GROUP BY 1, 2 HAVING sum(m.amount) <> 0
    ON CONFLICT (account_id, day) DO UPDATE SET earned = d.earned + EXCLUDED.earned
$$;

-- What promotional credit has paid to these accounts until now, and still pays them.
CREATE FUNCTION ledger.promotional_earned(p_accounts bigint[]) RETURNS TABLE (account_id bigint, amount numeric)
LANGUAGE sql STABLE AS $$
    SELECT x.account_id, sum(x.amount)
      FROM (SELECT d.account_id, d.earned AS amount FROM ledger.promotional_day d WHERE d.account_id = ANY (p_accounts)
             UNION ALL
            SELECT m.account_id, m.amount
              FROM analytics.mark k CROSS JOIN LATERAL ledger.promotional_moves(k.upto, k.never, p_accounts) m) x
     GROUP BY x.account_id
$$;

-- Where the sums of days differ from the ledger, in words.
CREATE FUNCTION ledger.promotional_differences() RETURNS TABLE (detail text) LANGUAGE sql STABLE AS $$
    SELECT format('account %s, %s: promotional credit paid %s, the ledger says %s', coalesce(k.account_id, l.account_id),
                  coalesce(k.day, l.day), k.earned, l.earned)
      FROM (SELECT d.* FROM ledger.promotional_day d WHERE d.day >= analytics.first_day()) k
      FULL JOIN (SELECT m.account_id, ledger.day_of(m.cause_id) AS day, sum(m.amount) AS earned
                   FROM analytics.mark a CROSS JOIN LATERAL ledger.promotional_moves('-infinity', a.upto) m
                  GROUP BY 1, 2) l ON l.account_id = k.account_id AND l.day = k.day
     WHERE coalesce(k.earned, 0) <> coalesce(l.earned, 0)
$$;

-- The three that keep the sums of days keep these too, under the same lock and up to the same mark.
ALTER FUNCTION analytics.roll_up(timestamptz) RENAME TO roll_up_sales;
CREATE FUNCTION analytics.roll_up(p_before timestamptz) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    since timestamptz;
    moved timestamptz;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('analytics.roll_up')) THEN
        RETURN NULL;
    END IF;
    SELECT m.upto INTO STRICT since FROM analytics.mark m FOR UPDATE;
    moved := analytics.roll_up_sales(p_before);
    IF moved > since THEN
        PERFORM ledger.add_promotional(since, moved);
    END IF;
    RETURN moved;
END $$;

ALTER FUNCTION analytics.rebuild() RENAME TO rebuild_sales;
CREATE FUNCTION analytics.rebuild() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM analytics.rebuild_sales();
    DELETE FROM ledger.promotional_day WHERE day >= analytics.first_day();
    PERFORM ledger.add_promotional('-infinity', m.upto) FROM analytics.mark m;
END $$;

ALTER FUNCTION analytics.differences() RENAME TO differences_of_sales;
CREATE FUNCTION analytics.differences() RETURNS TABLE (detail text) LANGUAGE sql STABLE AS $$
    SELECT d.detail FROM analytics.differences_of_sales() d
    UNION ALL
    SELECT d.detail FROM ledger.promotional_differences() d
$$;

SELECT ledger.add_promotional('-infinity', m.upto) FROM analytics.mark m;

-- Causes that have brought these accounts money and may still take it back by themselves: calls in flight, purchases whose
-- authorization may lapse, payments that a fork may undo or whose answer was not delivered.
CREATE FUNCTION ledger.unended_of(p_accounts bigint[]) RETURNS uuid[]
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    since uuid := coalesce((SELECT w.settled_through FROM ledger.worker w WHERE w.reconciled_at IS NULL
                             ORDER BY w.settled_through LIMIT 1), 'ffffffff-ffff-ffff-ffff-ffffffffffff');
BEGIN
    RETURN ARRAY(
        SELECT t.cause_id FROM ledger.transfer t
         WHERE t.cause_id >= since AND t.kind = 'charge' AND t.credit_account = ANY (p_accounts)
           AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = t.cause_id)
        UNION
        SELECT p.id FROM chain.payment p
         WHERE p.id >= since AND p.account_id = ANY (p_accounts) AND p.state = 'confirmed'
           AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = p.id)
        UNION
        SELECT p.id FROM chain.payment p
         WHERE NOT p.final AND p.state = 'confirmed' AND p.account_id = ANY (p_accounts)
        UNION
        SELECT u.payment_id FROM chain.undelivered u JOIN chain.payment p ON p.id = u.payment_id
         WHERE p.account_id = ANY (p_accounts)
        UNION
        SELECT b.exchange_id FROM chain.purchase b JOIN ledger.account a ON a.publisher_id = b.publisher_id
         WHERE b.ended_at IS NULL AND a.id = ANY (p_accounts)
    );
END $$;

-- What causes have brought these accounts and cannot be paid out yet, less what was given back of it: booked since
-- p_since, or not ended. No cause before p_first can have brought what is as young. `promotional` is what of it promotional
-- credit has paid. What has not ended counts as booked at p_since at the earliest. A payout takes what is old, so what
-- comes back of one is as old as it was.
CREATE FUNCTION ledger.young_earnings(p_accounts bigint[], p_since timestamptz, p_first uuid)
RETURNS TABLE (account_id bigint, amount numeric, promotional numeric, oldest timestamptz, newest timestamptz)
LANGUAGE plpgsql STABLE SET jit = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    unended uuid[] := ledger.unended_of(p_accounts);
BEGIN
    RETURN QUERY
    WITH line AS MATERIALIZED (
        SELECT t.cause_id, t.kind, t.debit_account, t.credit_account, t.amount, t.fee, t.created_at AS moment
          FROM ledger.transfer t
         WHERE t.created_at > p_since AND t.cause_id >= p_first AND t.cause_id <> ALL (unended)
           AND (t.credit_account = ANY (p_accounts) OR t.debit_account = ANY (p_accounts)) AND t.kind <> 'payout_back'
        UNION ALL
        SELECT t.cause_id, t.kind, t.debit_account, t.credit_account, t.amount, t.fee, greatest(t.created_at, p_since)
          FROM unnest(unended) AS u (cause_id)
          CROSS JOIN LATERAL (SELECT * FROM ledger.transfer t WHERE t.cause_id = u.cause_id OFFSET 0) t
         WHERE t.credit_account = ANY (p_accounts) OR t.debit_account = ANY (p_accounts)
    ), side AS (
        SELECT l.cause_id, l.credit_account AS account_id, l.moment,
               l.amount - CASE WHEN l.kind IN ('charge', 'capture', 'payment') THEN l.fee ELSE 0 END AS amount,
               CASE WHEN l.kind = 'capture' THEN ledger.promotional_capture(l.cause_id, l.amount, l.fee)
                    WHEN l.kind IN ('charge', 'penalty') AND ledger.is_promotional(a.purpose, a.source)
                    THEN l.amount - l.fee ELSE 0 END AS promotional
          FROM line l JOIN ledger.account a ON a.id = l.debit_account WHERE l.credit_account = ANY (p_accounts)
        UNION ALL
        SELECT l.cause_id, l.debit_account, NULL,
               CASE WHEN l.kind IN ('refund', 'reversal', 'repayment') THEN l.fee ELSE 0 END - l.amount,
               CASE WHEN l.kind = 'refund' AND ledger.is_promotional(a.purpose, a.source) THEN l.fee - l.amount ELSE 0 END
          FROM line l JOIN ledger.account a ON a.id = l.credit_account WHERE l.debit_account = ANY (p_accounts)
    ), cause AS (
        SELECT s.account_id, sum(s.amount) AS amount, sum(s.promotional) AS promotional, max(s.moment) AS moment
          FROM side s GROUP BY s.account_id, s.cause_id HAVING max(s.moment) IS NOT NULL AND sum(s.amount) > 0
    )
    SELECT c.account_id, sum(c.amount), sum(c.promotional), min(c.moment), max(c.moment) FROM cause c GROUP BY c.account_id;
END $$;

-- A payout says how much of it promotional credit had paid: that is bounded for each owner and for all of them.
ALTER TABLE chain.payout ADD COLUMN promotional numeric(39,0) NOT NULL DEFAULT 0,
    ADD CONSTRAINT payout_promotional CHECK (promotional >= 0 AND promotional <= amount);
CREATE INDEX payout_promotional ON chain.payout (requested_at) WHERE promotional > 0;

-- Payouts were made of either until now. What they must have had of promotional earnings, because there was not so much
-- else, is the oldest ones'.
WITH seller AS (
    SELECT a.publisher_id, a.asset_id, coalesce(sum(p.amount), 0) AS promotional,
           sum((SELECT coalesce(sum(s.credits - s.debits), 0) FROM ledger.shard s WHERE s.account_id = a.id)) AS balance
      FROM ledger.account a
      LEFT JOIN LATERAL ledger.promotional_earned(ARRAY[a.id]) p ON true
     WHERE a.purpose IN ('earnings', 'penalties')
       AND EXISTS (SELECT FROM chain.payout o WHERE o.publisher_id = a.publisher_id)
     GROUP BY a.publisher_id, a.asset_id
), part AS (
    SELECT o.id, o.amount, s.promotional - s.balance AS missing,
           sum(o.amount) OVER (PARTITION BY o.publisher_id, s.asset_id ORDER BY o.requested_at, o.id) - o.amount AS before
      FROM chain.payout o JOIN catalog.asset c ON c.id = o.asset_id
      JOIN seller s ON s.publisher_id = o.publisher_id AND s.asset_id = c.ledger_asset_id
     WHERE o.state NOT IN ('failed', 'cancelled') AND s.promotional > s.balance
)
UPDATE chain.payout o SET promotional = least(p.amount, p.missing - p.before) FROM part p
 WHERE o.id = p.id AND p.missing > p.before;

-- As before; it also says how much of it promotional credit had paid.
DROP FUNCTION chain.request_payout(uuid, uuid, uuid, uuid, text, bytea, bytea, numeric, numeric, text, uuid, boolean, uuid);
CREATE FUNCTION chain.request_payout(
    p_id uuid, p_organization uuid, p_publisher uuid, p_asset uuid, p_network text, p_token bytea, p_destination bytea,
    p_amount numeric, p_penalties numeric, p_description text, p_key uuid, p_needs_approval boolean, p_requester uuid,
    p_promotional numeric DEFAULT 0
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    p chain.payout;
BEGIN
    INSERT INTO chain.payout (id, organization_id, publisher_id, asset_id, network, token, destination, amount, penalties,
                              description, idempotency_key, needs_approval, requested_by, promotional)
    VALUES (p_id, p_organization, p_publisher, p_asset, p_network, p_token, p_destination, p_amount, p_penalties,
            p_description, p_key, p_needs_approval, p_requester, p_promotional)
    RETURNING * INTO p;
    PERFORM chain.move_payout(p, false);
    PERFORM pg_notify('tollway_relay', p_network);
END $$;

-- What of a held call is paid with promotional credit: captures take that first. As before; the bonus of a deposit counts.
CREATE OR REPLACE FUNCTION chain.bonuses_of(p_exchange uuid, p_amount numeric) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT least(coalesce(sum(t.amount), 0), p_amount) FROM ledger.transfer t
      JOIN ledger.account a ON a.id = t.debit_account AND ledger.is_promotional(a.purpose, a.source)
     WHERE t.cause_id = p_exchange AND t.kind = 'hold'
$$;

-- Expired credit that is given back lives again once, for the grace period after it has expired, however often more of it
-- is given back, and whenever: what comes later has expired as well.
ALTER TABLE ledger.account ADD COLUMN lapsed_at timestamptz;     -- when a lot expired that has had money given back since
CREATE OR REPLACE FUNCTION ledger.return_to_lot(p_lot bigint, p_amount numeric, p_grace interval) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    lot ledger.account;
BEGIN
    SELECT * INTO STRICT lot FROM ledger.account WHERE id = p_lot;
    IF lot.expires_at <= now() THEN
        PERFORM ledger.expire_lot(lot.id, ledger.new_id());
        UPDATE ledger.account SET lapsed_at = coalesce(lapsed_at, expires_at),
                                  expires_at = greatest(expires_at, coalesce(lapsed_at, expires_at) + p_grace)
         WHERE id = p_lot;
    END IF;
    UPDATE ledger.account SET balance = balance + p_amount, spent = false WHERE id = p_lot;
END $$;
