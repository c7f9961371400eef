-- What of a publisher was called: use by endpoint and by rows. A call's end names its endpoint, nothing before it does: what
-- is paid for is known when the call begins, what was delivered when it has ended, and nobody waits for that end.
--
-- endpoint: the path as documented, a tool's name, 'query' of a database. NULL: nothing that has a name, not delivered, not
-- a call, or ended before this migration. row_count: of a database's answer.
ALTER TABLE ledger.settlement ADD COLUMN endpoint text, ADD COLUMN row_count bigint;

-- The functions that write an end take both, last and with a default: workers of the version before do not know of them.
DROP FUNCTION ledger.settle(uuid[], text[], smallint[], bigint[], bigint[], text[], bytea[], bytea[], boolean);
DROP FUNCTION ledger.post_charges(uuid[], bigint[], uuid[], bigint[], numeric[], numeric[], integer, uuid[], text[],
                                  smallint[], bigint[], bigint[], text[], bytea[], bytea[], uuid[], integer[], uuid[],
                                  uuid[], text[], date[], numeric[], boolean[], numeric[], numeric[]);
DROP FUNCTION ledger.store_answer(uuid, text, uuid, smallint, bytea, bytea, bytea, boolean, text, smallint, bigint, bigint,
                                  text, bytea, bytea);
DROP FUNCTION ledger.end_hold(uuid, numeric, numeric, text, smallint, bigint, bigint, interval, text, bytea, bytea);
DROP FUNCTION ledger.finish_hold(uuid, numeric, numeric, text, smallint, bigint, bigint, interval, text, bytea, bytea, uuid,
                                 text, bytea, bytea, bytea);
DROP FUNCTION ledger.place_holds(uuid[], bigint[], uuid[], bigint[], numeric[], integer, numeric[], numeric[], uuid[],
                                 text[], smallint[], bigint[], bigint[], text[], bytea[], bytea[], interval, integer[],
                                 uuid[], uuid[], text[], date[], numeric[], boolean[], numeric[], numeric[]);
DROP FUNCTION chain.deliver(uuid, integer, uuid, text, smallint, bytea, bytea, bytea, text, smallint, bigint, bigint, text,
                            bytea, bytea, numeric, numeric);

CREATE FUNCTION ledger.settle(
    p_exchange uuid[], p_reason text[], p_status smallint[], p_bytes_in bigint[], p_bytes_out bigint[], p_method text[],
    p_target bytea[], p_body bytea[], p_relaxed boolean, p_endpoint text[] DEFAULT '{}', p_rows bigint[] DEFAULT '{}'
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_relaxed THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    INSERT INTO ledger.settlement
        (exchange_id, outcome, reason, status, bytes_in, bytes_out, method, target_hash, body_hash, endpoint, row_count)
    SELECT e, 'settled', r, s, i, o, m, t, b, n, c
      FROM unnest(p_exchange, p_reason, p_status, p_bytes_in, p_bytes_out, p_method, p_target, p_body, p_endpoint, p_rows)
           AS u (e, r, s, i, o, m, t, b, n, c)
    ON CONFLICT (exchange_id) DO NOTHING;
END $$;

CREATE FUNCTION ledger.post_charges(
    p_exchange uuid[], p_wallet bigint[], p_publisher uuid[], p_account bigint[], p_amount numeric[], p_fee numeric[],
    p_worker integer, p_ended uuid[], p_reason text[], p_status smallint[], p_bytes_in bigint[], p_bytes_out bigint[],
    p_method text[], p_target bytea[], p_body bytea[], p_free uuid[] DEFAULT '{}', p_of integer[] DEFAULT '{}',
    p_scope uuid[] DEFAULT '{}', p_subject uuid[] DEFAULT '{}', p_kind text[] DEFAULT '{}',
    p_period date[] DEFAULT '{}', p_adds numeric[] DEFAULT '{}', p_money boolean[] DEFAULT '{}',
    p_least numeric[] DEFAULT '{}', p_most numeric[] DEFAULT '{}',
    p_endpoint text[] DEFAULT '{}', p_rows bigint[] DEFAULT '{}'
) RETURNS TABLE (verdict text, available text, deposit text, promotional text, funded text, kind text, counted text)
LANGUAGE plpgsql AS $$
BEGIN
    IF ledger.is_fenced(p_worker) THEN
        RETURN QUERY SELECT 'fenced', '0', '0', '0', '0', NULL, '0'
                       FROM generate_series(1, cardinality(p_exchange) + cardinality(p_free));
    ELSIF cardinality(p_of) = 0 THEN
        RETURN QUERY SELECT u.*, NULL::text, '0' FROM ledger.post_charges_unfenced(
            p_exchange, p_wallet, p_publisher, p_account, p_amount, p_fee, p_worker, '{}', '{}', '{}', '{}', '{}', '{}',
            '{}', '{}') u;
    ELSE
        RETURN QUERY SELECT * FROM ledger.post_counted_charges(
            p_exchange, p_wallet, p_publisher, p_account, p_amount, p_fee, p_worker, p_free, p_of, p_scope, p_subject,
            p_kind, p_period, p_adds, p_money, p_least, p_most);
    END IF;
    IF cardinality(p_ended) > 0 THEN  -- of a fenced worker too: what was delivered before it was fenced stays delivered
        PERFORM ledger.settle(p_ended, p_reason, p_status, p_bytes_in, p_bytes_out, p_method, p_target, p_body, false,
                              p_endpoint, p_rows);
    END IF;
END $$;

-- Keep the answer of a call that has a key and settle its exchange, both or neither. 'stored', now or by an earlier try
-- of the same; 'lost': the key is another call's by now, or the charge was given back, and nothing was written.
CREATE FUNCTION ledger.store_answer(
    p_owner uuid, p_key text, p_exchange uuid, p_answered smallint, p_headers bytea, p_answer bytea, p_request bytea,
    p_settle boolean, p_reason text, p_status smallint, p_bytes_in bigint, p_bytes_out bigint, p_method text,
    p_target bytea, p_body bytea, p_endpoint text DEFAULT NULL, p_rows bigint DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    kept smallint;
BEGIN
    SELECT a.status INTO kept FROM ledger.answer a
     WHERE a.owner_id = p_owner AND a.key = p_key AND a.exchange_id = p_exchange FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'lost';
    END IF;
    IF kept IS NOT NULL THEN
        RETURN 'stored';
    END IF;
    IF p_settle THEN
        PERFORM ledger.settle(ARRAY[p_exchange], ARRAY[p_reason], ARRAY[p_status], ARRAY[p_bytes_in],
                              ARRAY[p_bytes_out], ARRAY[p_method], ARRAY[p_target], ARRAY[p_body], false,
                              ARRAY[p_endpoint], ARRAY[p_rows]);
        PERFORM FROM ledger.settlement s WHERE s.exchange_id = p_exchange AND s.outcome = 'settled';
        IF NOT FOUND THEN
            RETURN 'lost';
        END IF;
    END IF;
    UPDATE ledger.answer a SET status = p_answered, headers = p_headers, body = p_answer, body_hash = p_request
     WHERE a.owner_id = p_owner AND a.key = p_key;
    RETURN 'stored';
END $$;

-- End a hold: what is due is captured, the rest released, and what it has counted becomes what was captured.
CREATE FUNCTION ledger.end_hold(
    p_exchange uuid, p_capture numeric, p_fee numeric, p_reason text, p_status smallint, p_bytes_in bigint,
    p_bytes_out bigint, p_grace interval, p_method text DEFAULT NULL, p_target bytea DEFAULT NULL,
    p_body bytea DEFAULT NULL, p_endpoint text DEFAULT NULL, p_rows bigint DEFAULT NULL,
    OUT verdict text, OUT available numeric
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    h ledger.hold;
    held bigint;
    leg record;
    back numeric;
    left_over numeric;
    fee_account bigint;
BEGIN
    available := 0;
    SELECT * INTO h FROM ledger.hold WHERE exchange_id = p_exchange;
    IF NOT FOUND THEN
        verdict := 'unknown';
        RETURN;
    END IF;
    PERFORM FROM ledger.wallet WHERE id = h.wallet_id FOR UPDATE;
    SELECT * INTO STRICT h FROM ledger.hold WHERE exchange_id = p_exchange;
    IF h.status <> 'pending' THEN
        verdict := CASE WHEN h.captured = p_capture THEN 'repeated' ELSE 'conflict' END;
        RETURN;
    END IF;
    IF p_capture > h.amount OR p_capture < 0 OR p_fee > p_capture THEN
        verdict := 'excess';
        RETURN;
    END IF;
    IF h.counted THEN
        PERFORM ledger.recount(p_exchange, p_capture);
    END IF;
    UPDATE ledger.account SET balance = balance - h.amount WHERE wallet_id = h.wallet_id AND purpose = 'held'
    RETURNING id INTO STRICT held;
    IF p_capture > 0 THEN
        INSERT INTO ledger.transfer (cause_id, kind, leg, debit_account, credit_account, wallet_id, amount, fee)
        VALUES (p_exchange, 'capture', 0, held, h.account_id, h.wallet_id, p_capture, p_fee);
        PERFORM ledger.add_to_shard(h.account_id, 0, p_capture - p_fee);
        IF p_fee > 0 THEN
            SELECT a.fee_account_id INTO STRICT fee_account FROM ledger.account a WHERE a.id = h.account_id;
            PERFORM ledger.add_to_shard(fee_account, 0, p_fee);
        END IF;
    END IF;
    left_over := h.amount - p_capture;
    IF left_over > 0 THEN
        FOR leg IN
            SELECT t.leg, t.debit_account AS lot, t.amount FROM ledger.transfer t
             WHERE t.cause_id = p_exchange AND t.kind = 'hold' ORDER BY t.leg DESC
        LOOP
            EXIT WHEN left_over = 0;
            back := least(leg.amount, left_over);
            left_over := left_over - back;
            PERFORM ledger.return_to_lot(leg.lot, back, p_grace);
            INSERT INTO ledger.transfer (cause_id, kind, leg, debit_account, credit_account, wallet_id, amount)
            VALUES (p_exchange, 'release', leg.leg, held, leg.lot, h.wallet_id, back);
        END LOOP;
    END IF;
    verdict := CASE WHEN p_capture > 0 THEN 'captured' ELSE 'voided' END;
    UPDATE ledger.hold SET status = verdict::ledger.hold_status, captured = p_capture, ended_at = now()
     WHERE exchange_id = p_exchange;
    INSERT INTO ledger.settlement
        (exchange_id, outcome, reason, status, bytes_in, bytes_out, method, target_hash, body_hash, endpoint, row_count)
    VALUES (p_exchange, CASE WHEN p_capture > 0 THEN 'settled' ELSE 'refunded' END::ledger.outcome, p_reason, p_status,
            p_bytes_in, p_bytes_out, p_method, p_target, p_body, p_endpoint, p_rows)
    ON CONFLICT (exchange_id) DO NOTHING;
    SELECT coalesce(sum(a.balance), 0) INTO available FROM ledger.account a
     WHERE a.wallet_id = h.wallet_id AND NOT a.spent AND a.granted IS NOT NULL
       AND (a.expires_at IS NULL OR a.expires_at > now());
END $$;

-- End a hold as ledger.end_hold does, note what the receipt says and, for a call that has a key, keep its answer: all or
-- nothing. 'lost': the key is another call's by now; nothing moved.
CREATE FUNCTION ledger.finish_hold(
    p_exchange uuid, p_capture numeric, p_fee numeric, p_reason text, p_status smallint, p_bytes_in bigint,
    p_bytes_out bigint, p_grace interval, p_method text, p_target bytea, p_body bytea, p_owner uuid, p_key text,
    p_headers bytea, p_answer bytea, p_request bytea, p_endpoint text DEFAULT NULL, p_rows bigint DEFAULT NULL,
    OUT verdict text, OUT available numeric
) LANGUAGE plpgsql AS $$
BEGIN
    available := 0;
    IF p_key IS NOT NULL THEN
        PERFORM FROM ledger.answer a
          WHERE a.owner_id = p_owner AND a.key = p_key AND a.exchange_id = p_exchange FOR UPDATE;
        IF NOT FOUND THEN
            verdict := 'lost';
            RETURN;
        END IF;
    END IF;
    SELECT e.verdict, e.available INTO verdict, available
      FROM ledger.end_hold(p_exchange, p_capture, p_fee, p_reason, p_status, p_bytes_in, p_bytes_out, p_grace, p_method,
                           p_target, p_body, p_endpoint, p_rows) e;
    IF verdict NOT IN ('captured', 'voided') THEN
        RETURN;
    END IF;
    IF p_key IS NOT NULL THEN
        UPDATE ledger.answer a SET status = p_status, headers = p_headers, body = p_answer, body_hash = p_request
         WHERE a.owner_id = p_owner AND a.key = p_key;
    END IF;
END $$;

CREATE FUNCTION ledger.place_holds(
    p_exchange uuid[], p_wallet bigint[], p_publisher uuid[], p_account bigint[], p_amount numeric[], p_worker integer,
    p_capture numeric[], p_fee numeric[], p_ended uuid[], p_reason text[], p_status smallint[], p_bytes_in bigint[],
    p_bytes_out bigint[], p_method text[], p_target bytea[], p_body bytea[], p_grace interval,
    p_of integer[] DEFAULT '{}', p_scope uuid[] DEFAULT '{}', p_subject uuid[] DEFAULT '{}', p_kind text[] DEFAULT '{}',
    p_period date[] DEFAULT '{}', p_adds numeric[] DEFAULT '{}', p_money boolean[] DEFAULT '{}',
    p_least numeric[] DEFAULT '{}', p_most numeric[] DEFAULT '{}',
    p_endpoint text[] DEFAULT '{}', p_rows bigint[] DEFAULT '{}'
) RETURNS TABLE (verdict text, available text, kind text, counted text) LANGUAGE plpgsql AS $$
DECLARE
    fenced boolean := cardinality(p_exchange) > 0 AND ledger.is_fenced(p_worker);
    first_of integer;
    last_of integer := 0;
    one record;
BEGIN
    IF cardinality(p_exchange) + cardinality(p_ended) > 1 OR cardinality(p_of) > 0 THEN
        -- alone, the functions below lock what they need
        PERFORM FROM ledger.wallet w
          WHERE w.id IN (SELECT unnest(p_wallet)
                         UNION SELECT h.wallet_id FROM ledger.hold h WHERE h.exchange_id = ANY (p_ended))
          ORDER BY w.id FOR UPDATE;
    END IF;
    IF cardinality(p_of) > 0 OR cardinality(p_ended) > 1 THEN
        PERFORM ledger.lock_counters(array_agg(u.scope), array_agg(u.subject), array_agg(u.kind), array_agg(u.period))
           FROM (SELECT * FROM unnest(p_scope, p_subject, p_kind, p_period) AS n (scope, subject, kind, period)
                 UNION
                 SELECT d.scope, d.subject, d.kind, d.period
                   FROM ledger.hold h JOIN ledger.counted d ON d.exchange_id = h.exchange_id
                  WHERE h.exchange_id = ANY (p_ended) AND h.counted) u
         HAVING count(*) > 0;
    END IF;
    IF cardinality(p_ended) > 1 THEN  -- sums that another process may share are locked in order as well
        PERFORM FROM ledger.shard s
          WHERE s.shard = pg_backend_pid() % 64 AND s.account_id IN (
              SELECT h.account_id FROM ledger.hold h WHERE h.exchange_id = ANY (p_ended)
              UNION SELECT a.fee_account_id FROM ledger.hold h JOIN ledger.account a ON a.id = h.account_id
                     WHERE h.exchange_id = ANY (p_ended))
          ORDER BY s.account_id FOR UPDATE;
    END IF;
    FOR n IN 1 .. cardinality(p_ended) LOOP
        RETURN QUERY
        SELECT f.verdict, f.available::text, NULL, '0'
          FROM ledger.end_hold(p_ended[n], p_capture[n], p_fee[n], p_reason[n], p_status[n], p_bytes_in[n],
                               p_bytes_out[n], p_grace, p_method[n], p_target[n], p_body[n], p_endpoint[n], p_rows[n]) f;
    END LOOP;
    FOR n IN 1 .. cardinality(p_exchange) LOOP
        first_of := last_of + 1;
        WHILE last_of < cardinality(p_of) AND p_of[last_of + 1] = n LOOP
            last_of := last_of + 1;
        END LOOP;
        IF fenced THEN
            RETURN QUERY SELECT 'fenced', '0', NULL, '0';
        ELSIF first_of > last_of THEN
            RETURN QUERY
            SELECT h.verdict, h.available::text, NULL, '0'
              FROM ledger.place_hold_unfenced(p_exchange[n], p_wallet[n], p_publisher[n], p_account[n], p_amount[n],
                                              p_worker) h;
        ELSE
            RETURN QUERY
            SELECT h.verdict, h.available::text, h.kind, h.counted::text
              FROM ledger.place_counted_hold(
                       p_exchange[n], p_wallet[n], p_publisher[n], p_account[n], p_amount[n], p_worker,
                       p_scope[first_of:last_of], p_subject[first_of:last_of], p_kind[first_of:last_of],
                       p_period[first_of:last_of], p_adds[first_of:last_of], p_money[first_of:last_of],
                       p_least[first_of:last_of], p_most[first_of:last_of]) h;
        END IF;
    END LOOP;
END $$;

-- A call has its answer: keep it for whoever presents the payment again, record the end, and have the payment settled
-- (p_amount of it with p_fee; NULL: all of it); all of this or nothing. Returns the payment's state; 'cancelled': nothing
-- was written, because the payment was given up, or its call taken over, while this worker counted as dead.
CREATE FUNCTION chain.deliver(
    p_id uuid, p_worker integer, p_owner uuid, p_key text, p_answered smallint, p_headers bytea, p_answer bytea,
    p_request bytea, p_reason text, p_status smallint, p_bytes_in bigint, p_bytes_out bigint, p_method text,
    p_target bytea, p_body bytea, p_amount numeric, p_fee numeric, p_endpoint text DEFAULT NULL,
    p_rows bigint DEFAULT NULL
) RETURNS chain.state LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM chain.payment p WHERE p.id = p_id AND p.state <> 'cancelled' FOR UPDATE;
    IF NOT FOUND OR ledger.is_fenced(p_worker) THEN
        RETURN 'cancelled';
    END IF;
    IF ledger.store_answer(p_owner, p_key, p_id, p_answered, p_headers, p_answer, p_request, true, p_reason, p_status,
                           p_bytes_in, p_bytes_out, p_method, p_target, p_body, p_endpoint, p_rows) <> 'stored' THEN
        RETURN 'cancelled';
    END IF;
    RETURN chain.submit(p_id, p_amount, p_fee);
END $$;

-- The UTC day that an id begins with: that of ledger.moment_of, for whoever asks it of many.
CREATE FUNCTION ledger.day_of(p_id uuid) RETURNS date LANGUAGE sql IMMUTABLE AS $$
    SELECT date '1970-01-01' + (('x' || left(replace(p_id::text, '-', ''), 12))::bit(48)::bigint / 86400000)::integer
$$;

-- What was called, by a number: the sums below are kept by it. `key` is the hash of the name, which may be long.
CREATE TABLE analytics.endpoint (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id  bigint NOT NULL,            -- the publisher's earnings in one asset
    method      text NOT NULL,
    key         bytea NOT NULL,
    endpoint    text NOT NULL,
    UNIQUE (account_id, method, key)
);

-- One payer's day at one endpoint; and the same of all payers.
CREATE TABLE analytics.endpoint_agent_day (
    endpoint_id integer NOT NULL,
    payer       bigint NOT NULL,
    day         date NOT NULL,
    calls       bigint NOT NULL DEFAULT 0,          -- paid for, and not given back
    spent       numeric(39,0) NOT NULL DEFAULT 0,
    fee         numeric(39,0) NOT NULL DEFAULT 0,
    bytes_in    bigint NOT NULL DEFAULT 0,          -- these three of all calls, also of those that were given back
    bytes_out   bigint NOT NULL DEFAULT 0,
    row_count   bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (payer, day, endpoint_id)
) WITH (fillfactor = 80);
CREATE TABLE analytics.endpoint_day (
    endpoint_id integer NOT NULL,
    day         date NOT NULL,
    calls       bigint NOT NULL DEFAULT 0,
    spent       numeric(39,0) NOT NULL DEFAULT 0,
    fee         numeric(39,0) NOT NULL DEFAULT 0,
    bytes_in    bigint NOT NULL DEFAULT 0,
    bytes_out   bigint NOT NULL DEFAULT 0,
    row_count   bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (endpoint_id, day)
) WITH (fillfactor = 80);

-- What is known of endpoints from one moment until before another. A call belongs to an endpoint once it has ended, and its
-- money once it is booked as well: whichever is later decides when it is added, so that each is added once. What a call's
-- day has beyond its endpoints is on its way, or was no call (docs/analytics.md). OFFSET 0: what belongs to a call is looked
-- up by its id; the planner would rather read everything that is older.
CREATE FUNCTION analytics.delivered(p_since timestamptz, p_before timestamptz, p_accounts bigint[] DEFAULT NULL)
RETURNS TABLE (account_id bigint, method text, endpoint text, payer bigint, day date, calls bigint, spent numeric,
               fee numeric, bytes_in bigint, bytes_out bigint, row_count bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH booked AS MATERIALIZED (
        SELECT t.cause_id, t.kind, t.leg, t.wallet_id, t.amount, t.fee, t.debit_account, t.credit_account
          FROM ledger.transfer t
         WHERE t.created_at >= p_since AND t.created_at < p_before
           AND t.kind IN ('charge', 'capture', 'payment', 'refund', 'reversal', 'repayment')
    ), ended AS MATERIALIZED (
        SELECT s.exchange_id, s.method, s.endpoint, s.bytes_in, s.bytes_out, coalesce(s.row_count, 0) AS row_count
          FROM ledger.settlement s
         WHERE s.ended_at >= p_since AND s.ended_at < p_before
    ), named AS MATERIALIZED (
        SELECT * FROM ended e WHERE e.endpoint IS NOT NULL
    ), moved AS MATERIALIZED (
        -- of calls that have ended now, what was booked now
        SELECT e.exchange_id, e.method, e.endpoint, b.kind, b.leg, b.wallet_id, b.amount, b.fee, b.debit_account,
               b.credit_account, e.bytes_in, e.bytes_out, e.row_count
          FROM named e JOIN booked b ON b.cause_id = e.exchange_id
        UNION ALL
        -- and what was booked before: nothing, where the charge is of now
        SELECT e.exchange_id, e.method, e.endpoint, t.kind, t.leg, t.wallet_id, t.amount, t.fee, t.debit_account,
               t.credit_account, e.bytes_in, e.bytes_out, e.row_count
          FROM (SELECT * FROM named e WHERE NOT EXISTS (
                    SELECT FROM booked b WHERE b.cause_id = e.exchange_id AND b.kind = 'charge') OFFSET 0) e
          CROSS JOIN LATERAL (SELECT * FROM ledger.transfer t WHERE t.cause_id = e.exchange_id OFFSET 0) t
         WHERE t.kind IN ('charge', 'capture', 'payment', 'refund', 'reversal', 'repayment') AND t.created_at < p_since
        UNION ALL
        -- of those that had ended before, what was booked now
        SELECT b.cause_id, s.method, s.endpoint, b.kind, b.leg, b.wallet_id, b.amount, b.fee, b.debit_account,
               b.credit_account, 0, 0, 0
          FROM (SELECT * FROM booked b WHERE NOT EXISTS (
                    SELECT FROM ended e WHERE e.exchange_id = b.cause_id) OFFSET 0) b
          CROSS JOIN LATERAL (SELECT * FROM ledger.settlement s WHERE s.exchange_id = b.cause_id OFFSET 0) s
         WHERE s.endpoint IS NOT NULL AND s.ended_at < p_since
    ), signed AS (
        SELECT m.*, CASE WHEN m.kind IN ('charge', 'capture', 'payment') THEN 1 ELSE -1 END AS sign,
               -- what was delivered is counted once, with the charge that every call but a held or signed one has
               (m.kind = 'charge' AND m.leg = 0)::integer AS whole
          FROM moved m
    ), line AS (
        SELECT a.id AS account_id, s.exchange_id, s.method, s.endpoint, s.wallet_id,
               s.sign * (s.leg = 0)::integer AS calls, s.sign * s.amount AS spent, s.sign * s.fee AS fee,
               s.whole * s.bytes_in AS bytes_in, s.whole * s.bytes_out AS bytes_out, s.whole * s.row_count AS row_count
          FROM signed s
          JOIN ledger.account a ON a.purpose = 'earnings'
           AND a.id = CASE s.sign WHEN 1 THEN s.credit_account ELSE s.debit_account END
        UNION ALL
        SELECT o.account_id, e.exchange_id, e.method, e.endpoint, o.wallet_id, 0, 0, 0, e.bytes_in, e.bytes_out,
               e.row_count
          FROM (SELECT * FROM named e WHERE NOT EXISTS (
                    SELECT FROM moved m WHERE m.exchange_id = e.exchange_id AND m.kind = 'charge') OFFSET 0) e
          CROSS JOIN LATERAL (
              SELECT h.account_id, h.wallet_id FROM ledger.hold h WHERE h.exchange_id = e.exchange_id
              UNION ALL
              SELECT p.account_id, NULL FROM chain.payment p WHERE p.id = e.exchange_id AND p.account_id IS NOT NULL
          ) o
    )
    SELECT l.account_id, coalesce(l.method, ''), l.endpoint,
           coalesce(l.wallet_id, -1 - (hashtextextended(p.network || encode(p.payer, 'hex'), 0) & 9223372036854775807)),
           ledger.day_of(l.exchange_id), sum(l.calls), sum(l.spent), sum(l.fee),
           sum(l.bytes_in)::bigint, sum(l.bytes_out)::bigint, sum(l.row_count)::bigint
      FROM line l LEFT JOIN chain.payment p ON p.id = l.exchange_id AND l.wallet_id IS NULL
     WHERE (p_accounts IS NULL OR l.account_id = ANY (p_accounts)) AND (l.wallet_id IS NOT NULL OR p.id IS NOT NULL)
     GROUP BY 1, 2, 3, 4, 5;
END $$;

-- As before, and cheaper: a call's own charge is mostly booked in the time in which it ends, so it is not looked up again.
CREATE OR REPLACE FUNCTION analytics.booked(p_since timestamptz, p_before timestamptz, p_accounts bigint[] DEFAULT NULL)
RETURNS TABLE (account_id bigint, payer bigint, network text, address bytea, day date, calls bigint, spent numeric,
               fee numeric, bytes_in bigint, bytes_out bigint, last_at timestamptz)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH moved AS MATERIALIZED (
        SELECT t.cause_id, t.kind, t.wallet_id, t.leg, t.amount, t.fee, 1 AS sign, t.credit_account AS account_id
          FROM ledger.transfer t
         WHERE t.created_at >= p_since AND t.created_at < p_before AND t.kind IN ('charge', 'capture', 'payment')
        UNION ALL
        SELECT t.cause_id, t.kind, t.wallet_id, t.leg, t.amount, t.fee, -1, t.debit_account
          FROM ledger.transfer t
         WHERE t.created_at >= p_since AND t.created_at < p_before AND t.kind IN ('refund', 'reversal', 'repayment')
    ), ended AS MATERIALIZED (
        SELECT s.exchange_id, s.bytes_in, s.bytes_out FROM ledger.settlement s
         WHERE s.ended_at >= p_since AND s.ended_at < p_before AND s.bytes_in + s.bytes_out > 0
    ), line AS (
        SELECT m.account_id, m.wallet_id, m.cause_id, m.sign * (m.leg = 0)::integer AS calls, m.sign * m.amount AS spent,
               m.sign * m.fee AS fee, 0::bigint AS bytes_in, 0::bigint AS bytes_out,
               CASE WHEN m.sign > 0 THEN ledger.moment_of(m.cause_id) END AS last_at
          FROM moved m JOIN ledger.account a ON a.id = m.account_id AND a.purpose = 'earnings'
        UNION ALL
        SELECT m.account_id, m.wallet_id, e.exchange_id, 0, 0, 0, e.bytes_in, e.bytes_out, NULL
          FROM ended e JOIN moved m ON m.cause_id = e.exchange_id AND m.kind = 'charge' AND m.leg = 0
        UNION ALL
        SELECT o.account_id, o.wallet_id, e.exchange_id, 0, 0, 0, e.bytes_in, e.bytes_out, NULL
          FROM (SELECT * FROM ended e WHERE NOT EXISTS (
                    SELECT FROM moved m WHERE m.cause_id = e.exchange_id AND m.kind = 'charge') OFFSET 0) e
          CROSS JOIN LATERAL (
              SELECT t.credit_account AS account_id, t.wallet_id FROM ledger.transfer t
               WHERE t.cause_id = e.exchange_id AND t.kind = 'charge' AND t.leg = 0
              UNION ALL
              SELECT h.account_id, h.wallet_id FROM ledger.hold h WHERE h.exchange_id = e.exchange_id
              UNION ALL
              SELECT p.account_id, NULL FROM chain.payment p WHERE p.id = e.exchange_id AND p.account_id IS NOT NULL
          ) o
    )
    SELECT l.account_id,
           coalesce(l.wallet_id, -1 - (hashtextextended(p.network || encode(p.payer, 'hex'), 0) & 9223372036854775807)),
           p.network, p.payer, ledger.day_of(l.cause_id), sum(l.calls), sum(l.spent),
           sum(l.fee), sum(l.bytes_in)::bigint, sum(l.bytes_out)::bigint, max(l.last_at)
      FROM line l LEFT JOIN chain.payment p ON p.id = l.cause_id AND l.wallet_id IS NULL
     WHERE (p_accounts IS NULL OR l.account_id = ANY (p_accounts)) AND (l.wallet_id IS NOT NULL OR p.id IS NOT NULL)
     GROUP BY 1, 2, 3, 4, 5;
END $$;

-- Add what is known from one moment until before another to the sums.
CREATE FUNCTION analytics.add_endpoints(p_since timestamptz, p_before timestamptz) RETURNS void LANGUAGE sql AS $$
    WITH fresh AS MATERIALIZED (
        SELECT d.*, sha256(convert_to(d.endpoint, 'UTF8')) AS key FROM analytics.delivered(p_since, p_before) d
    ), named AS (
        INSERT INTO analytics.endpoint (account_id, method, key, endpoint)
        SELECT DISTINCT f.account_id, f.method, f.key, f.endpoint
          FROM fresh f
         WHERE NOT EXISTS (SELECT FROM analytics.endpoint e
                            WHERE e.account_id = f.account_id AND e.method = f.method AND e.key = f.key)
        ON CONFLICT (account_id, method, key) DO NOTHING
        RETURNING id, account_id, method, key
    ), numbered AS MATERIALIZED (
        SELECT n.id, f.payer, f.day, f.calls, f.spent, f.fee, f.bytes_in, f.bytes_out, f.row_count
          FROM fresh f
          JOIN (SELECT id, account_id, method, key FROM named
                UNION ALL SELECT id, account_id, method, key FROM analytics.endpoint) n
         USING (account_id, method, key)
    ), days AS (
        INSERT INTO analytics.endpoint_day AS d
        SELECT n.id, n.day, sum(n.calls), sum(n.spent), sum(n.fee), sum(n.bytes_in), sum(n.bytes_out), sum(n.row_count)
          FROM numbered n GROUP BY n.id, n.day
        ON CONFLICT (endpoint_id, day) DO UPDATE
            SET calls = d.calls + EXCLUDED.calls, spent = d.spent + EXCLUDED.spent, fee = d.fee + EXCLUDED.fee,
                bytes_in = d.bytes_in + EXCLUDED.bytes_in, bytes_out = d.bytes_out + EXCLUDED.bytes_out,
                row_count = d.row_count + EXCLUDED.row_count
    )
    INSERT INTO analytics.endpoint_agent_day AS d
    SELECT n.id, n.payer, n.day, n.calls, n.spent, n.fee, n.bytes_in, n.bytes_out, n.row_count FROM numbered n
    ON CONFLICT (payer, day, endpoint_id) DO UPDATE
        SET calls = d.calls + EXCLUDED.calls, spent = d.spent + EXCLUDED.spent, fee = d.fee + EXCLUDED.fee,
            bytes_in = d.bytes_in + EXCLUDED.bytes_in, bytes_out = d.bytes_out + EXCLUDED.bytes_out,
            row_count = d.row_count + EXCLUDED.row_count
$$;

-- The three that keep the sums do the same with those of endpoints, under the same lock and up to the same mark.
ALTER FUNCTION analytics.roll_up(timestamptz) RENAME TO roll_up_payers;
CREATE FUNCTION analytics.roll_up(p_before timestamptz) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    since timestamptz;
    moved timestamptz;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('analytics.roll_up')) THEN
        RETURN NULL;
    END IF;
    SELECT m.upto INTO STRICT since FROM analytics.mark m FOR UPDATE;
    moved := analytics.roll_up_payers(p_before);
    IF moved > since THEN
        PERFORM analytics.add_endpoints(since, moved);
    END IF;
    RETURN moved;
END $$;

ALTER FUNCTION analytics.rebuild() RENAME TO rebuild_payers;
CREATE FUNCTION analytics.rebuild() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM analytics.rebuild_payers();
    DELETE FROM analytics.endpoint_day;
    DELETE FROM analytics.endpoint_agent_day WHERE day >= analytics.first_day();
    PERFORM analytics.add_endpoints('-infinity', m.upto) FROM analytics.mark m;
    INSERT INTO analytics.endpoint_day AS d     -- of what is archived by now only the payers' days are left
    SELECT a.endpoint_id, a.day, sum(a.calls), sum(a.spent), sum(a.fee), sum(a.bytes_in), sum(a.bytes_out),
           sum(a.row_count)
      FROM analytics.endpoint_agent_day a WHERE a.day < analytics.first_day() GROUP BY 1, 2;
END $$;

ALTER FUNCTION analytics.differences() RENAME TO differences_of_payers;
CREATE FUNCTION analytics.differences() RETURNS TABLE (detail text) LANGUAGE sql STABLE AS $$
    SELECT d.detail FROM analytics.differences_of_payers() d
    UNION ALL
    SELECT format('account %s, %s %s, payer %s, %s: kept %s, the ledger says %s', coalesce(k.account_id, l.account_id),
                  coalesce(k.method, l.method), coalesce(k.endpoint, l.endpoint), coalesce(k.payer, l.payer),
                  coalesce(k.day, l.day), k.figures, l.figures)
      FROM (SELECT e.account_id, e.method, e.endpoint, d.payer, d.day,
                   ROW(d.calls, d.spent, d.fee, d.bytes_in, d.bytes_out, d.row_count)::text AS figures
              FROM analytics.endpoint_agent_day d JOIN analytics.endpoint e ON e.id = d.endpoint_id
             WHERE d.day >= analytics.first_day()) k
      FULL JOIN (SELECT b.account_id, b.method, b.endpoint, b.payer, b.day,
                        ROW(b.calls, b.spent, b.fee, b.bytes_in, b.bytes_out, b.row_count)::text AS figures
                   FROM analytics.mark m CROSS JOIN LATERAL analytics.delivered('-infinity', m.upto) b) l
        ON l.account_id = k.account_id AND l.method = k.method AND l.endpoint = k.endpoint AND l.payer = k.payer
       AND l.day = k.day
     WHERE k.figures IS DISTINCT FROM l.figures
    UNION ALL
    SELECT format('endpoint %s, %s: kept %s, its payers %s', coalesce(k.endpoint_id, s.endpoint_id),
                  coalesce(k.day, s.day), k.figures, s.figures)
      FROM (SELECT d.endpoint_id, d.day,
                   ROW(d.calls, d.spent, d.fee, d.bytes_in, d.bytes_out, d.row_count)::text AS figures
              FROM analytics.endpoint_day d) k
      FULL JOIN (SELECT a.endpoint_id, a.day, ROW(sum(a.calls), sum(a.spent), sum(a.fee), sum(a.bytes_in),
                                                  sum(a.bytes_out), sum(a.row_count))::text AS figures
                   FROM analytics.endpoint_agent_day a GROUP BY 1, 2) s
        ON s.endpoint_id = k.endpoint_id AND s.day = k.day
     WHERE k.figures IS DISTINCT FROM s.figures
$$;

-- Whose wallets count for an organization: those of members whose own (else first) organization it is.
CREATE FUNCTION analytics.wallets_of(p_organization uuid) RETURNS TABLE (id bigint) LANGUAGE sql STABLE AS $$
    SELECT w.id FROM identity.membership m JOIN ledger.wallet w ON w.owner_id = m.account_id
     WHERE m.organization_id = p_organization
       AND m.organization_id = (SELECT o.id FROM identity.membership x
                                  JOIN identity.organization o ON o.id = x.organization_id
                                 WHERE x.account_id = m.account_id AND o.deleted_at IS NULL
                                 ORDER BY o.is_personal DESC, x.created_at, o.id LIMIT 1)
$$;

-- What the publishers of a project have earned on. Publishers that are deleted by now have sold what they sold.
CREATE FUNCTION analytics.accounts_of_project(p_project uuid)
RETURNS TABLE (id bigint, asset_id uuid, publisher_id uuid, slug text) LANGUAGE sql STABLE AS $$
    SELECT a.id, a.asset_id, p.id, p.slug
      FROM catalog.publisher p JOIN ledger.account a ON a.publisher_id = p.id AND a.purpose = 'earnings'
     WHERE p.project_id = p_project
$$;
