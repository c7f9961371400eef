-- Counters: what somebody has used of something in a period, counted in the transaction that takes the money, refused
-- there when a bound would be passed, and corrected in the transaction that gives money back. Tiers count calls by month,
-- budgets count money by day and month.
CREATE TABLE ledger.counter (
    scope           uuid NOT NULL,              -- who uses: an account, an API key
    subject         uuid NOT NULL,              -- what: a publisher, an asset
    kind            text NOT NULL,
    period          date NOT NULL,              -- the day, or the first day of the month, in UTC
    value           numeric(39,0) NOT NULL DEFAULT 0 CHECK (value >= 0),
    PRIMARY KEY (scope, subject, kind, period)
) WITH (fillfactor = 50);

-- What one exchange has counted: 0 once it was given back. One that is only counted moves no money, because it is free;
-- it is open until it is settled all the same.
CREATE TABLE ledger.counted (
    exchange_id     uuid NOT NULL,
    scope           uuid NOT NULL,
    subject         uuid NOT NULL,
    kind            text NOT NULL,
    period          date NOT NULL,
    amount          numeric(39,0) NOT NULL CHECK (amount >= 0),
    money           boolean NOT NULL,           -- atomic units that were taken; else something else, such as calls
    alone           boolean NOT NULL,           -- without a charge or hold
    worker_id       integer,                    -- whose exchange it is until it is settled
    PRIMARY KEY (exchange_id, scope, subject, kind, period)
);
ALTER TABLE ledger.hold ADD COLUMN counted boolean NOT NULL DEFAULT false;

-- Lock counters, making those that are not there. Everybody does so behind the wallets and before the sums, in this order.
CREATE FUNCTION ledger.lock_counters(p_scope uuid[], p_subject uuid[], p_kind text[], p_period date[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger.counter (scope, subject, kind, period)
    SELECT DISTINCT u.scope, u.subject, u.kind, u.period
      FROM unnest(p_scope, p_subject, p_kind, p_period) AS u (scope, subject, kind, period)
     ORDER BY u.scope, u.subject, u.kind, u.period
    ON CONFLICT DO NOTHING;
    PERFORM FROM (SELECT DISTINCT u.scope, u.subject, u.kind, u.period
                    FROM unnest(p_scope, p_subject, p_kind, p_period) AS u (scope, subject, kind, period)
                   ORDER BY u.scope, u.subject, u.kind, u.period) u
           CROSS JOIN LATERAL (SELECT FROM ledger.counter c
                                WHERE (c.scope, c.subject, c.kind, c.period) = (u.scope, u.subject, u.kind, u.period)
                                  FOR UPDATE) l;
END $$;

-- Count one exchange, whole or not at all: 'counted', 'recounted' (it was before, nothing happened), 'beyond' (a counter
-- would leave its bounds: its kind, and where it stands). The caller has locked the counters.
CREATE FUNCTION ledger.count_exchange(
    p_exchange uuid, p_worker integer, p_alone boolean, p_scope uuid[], p_subject uuid[], p_kind text[],
    p_period date[], p_amount numeric[], p_money boolean[], p_least numeric[], p_most numeric[],
    OUT verdict text, OUT kind text, OUT counted numeric
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM ledger.counted d WHERE d.exchange_id = p_exchange;
    IF FOUND THEN
        verdict := 'recounted';
        RETURN;
    END IF;
    SELECT u.kind, c.value INTO kind, counted
      FROM unnest(p_scope, p_subject, p_kind, p_period, p_amount, p_least, p_most) WITH ORDINALITY
           AS u (scope, subject, kind, period, amount, least, most, ord)
      CROSS JOIN LATERAL (SELECT c.value FROM ledger.counter c
                           WHERE (c.scope, c.subject, c.kind, c.period) = (u.scope, u.subject, u.kind, u.period)
                          OFFSET 0) c
     WHERE c.value < u.least OR c.value + u.amount > u.most
     ORDER BY u.ord LIMIT 1;
    IF FOUND THEN
        verdict := 'beyond';
        RETURN;
    END IF;
    PERFORM ledger.add_counted(array_fill(p_exchange, ARRAY[cardinality(p_scope)]),
                               array_fill(p_alone, ARRAY[cardinality(p_scope)]), p_worker, p_scope, p_subject, p_kind,
                               p_period, p_amount, p_money);
    verdict := 'counted';
END $$;

-- Write what exchanges count, one entry for each counter of each.
CREATE FUNCTION ledger.add_counted(
    p_exchange uuid[], p_alone boolean[], p_worker integer, p_scope uuid[], p_subject uuid[], p_kind text[],
    p_period date[], p_amount numeric[], p_money boolean[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger.counted (exchange_id, scope, subject, kind, period, amount, money, alone, worker_id)
    SELECT u.exchange, u.scope, u.subject, u.kind, u.period, u.amount, u.money, u.alone, p_worker
      FROM unnest(p_exchange, p_alone, p_scope, p_subject, p_kind, p_period, p_amount, p_money)
           AS u (exchange, alone, scope, subject, kind, period, amount, money);
    -- They are all there: the conflict is how each is found by its key, whatever the planner believes of the table.
    INSERT INTO ledger.counter AS c (scope, subject, kind, period, value)
    SELECT u.scope, u.subject, u.kind, u.period, sum(u.amount)
      FROM unnest(p_scope, p_subject, p_kind, p_period, p_amount) AS u (scope, subject, kind, period, amount)
     GROUP BY u.scope, u.subject, u.kind, u.period
    ON CONFLICT (scope, subject, kind, period) DO UPDATE SET value = c.value + EXCLUDED.value;
END $$;

-- Count many exchanges at once if all of them fit, none was counted before, and so their order does not matter.
-- p_of is for each counter the number of its exchange; those behind the first p_paid move no money.
CREATE FUNCTION ledger.count_together(
    p_exchange uuid[], p_paid integer, p_worker integer, p_of integer[], p_scope uuid[], p_subject uuid[],
    p_kind text[], p_period date[], p_amount numeric[], p_money boolean[], p_least numeric[], p_most numeric[]
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM ledger.counted d WHERE d.exchange_id = ANY (p_exchange) LIMIT 1;
    IF FOUND THEN
        RETURN false;
    END IF;
    PERFORM FROM (SELECT u.scope, u.subject, u.kind, u.period, sum(u.amount) AS amount, max(u.least) AS least,
                         min(u.most) AS most
                    FROM unnest(p_scope, p_subject, p_kind, p_period, p_amount, p_least, p_most)
                         AS u (scope, subject, kind, period, amount, least, most)
                   GROUP BY u.scope, u.subject, u.kind, u.period) u
           CROSS JOIN LATERAL (SELECT c.value FROM ledger.counter c
                                WHERE (c.scope, c.subject, c.kind, c.period) = (u.scope, u.subject, u.kind, u.period)
                               OFFSET 0) c
      WHERE c.value < u.least OR c.value + u.amount > u.most LIMIT 1;
    IF FOUND THEN
        RETURN false;
    END IF;
    PERFORM ledger.add_counted(
        (SELECT array_agg(p_exchange[o.n] ORDER BY o.ord) FROM unnest(p_of) WITH ORDINALITY AS o (n, ord)),
        (SELECT array_agg(o.n > p_paid ORDER BY o.ord) FROM unnest(p_of) WITH ORDINALITY AS o (n, ord)),
        p_worker, p_scope, p_subject, p_kind, p_period, p_amount, p_money);
    RETURN true;
END $$;

-- Take back what an exchange has counted in this transaction: its money did not move.
CREATE FUNCTION ledger.uncount(p_exchange uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ledger.recount(p_exchange, 0);
    DELETE FROM ledger.counted WHERE exchange_id = p_exchange;
END $$;

-- Correct what an exchange has counted to what was taken in the end: money to that amount; what is not money stays,
-- unless nothing was taken.
CREATE FUNCTION ledger.recount(p_exchange uuid, p_taken numeric) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    one ledger.counted;
    becomes numeric;
BEGIN
    FOR one IN
        SELECT * FROM ledger.counted d WHERE d.exchange_id = p_exchange
         ORDER BY d.scope, d.subject, d.kind, d.period
    LOOP
        becomes := CASE WHEN one.money THEN p_taken WHEN p_taken > 0 THEN one.amount ELSE 0 END;
        CONTINUE WHEN becomes = one.amount;
        UPDATE ledger.counter c SET value = c.value - one.amount + becomes
         WHERE (c.scope, c.subject, c.kind, c.period) = (one.scope, one.subject, one.kind, one.period);
        UPDATE ledger.counted d SET amount = becomes
         WHERE d.exchange_id = p_exchange
           AND (d.scope, d.subject, d.kind, d.period) = (one.scope, one.subject, one.kind, one.period);
    END LOOP;
END $$;

-- Charge many exchanges, count them, and record the ends of others, in one transaction. Those of p_free cost nothing and
-- are only counted. Of each counter: p_of, the number of its exchange among p_exchange and then p_free, in order; what it
-- adds; and the bounds that it must keep. Verdicts as before, and 'beyond' with the kind of the counter that would leave
-- its bounds and what it stands at: nothing moved. A row for each of p_exchange, then one for each of p_free.
DROP FUNCTION ledger.post_charges(uuid[], bigint[], uuid[], bigint[], numeric[], numeric[], integer, uuid[], text[],
                                  smallint[], bigint[], bigint[], text[], bytea[], bytea[]);
CREATE FUNCTION ledger.post_charges(
    p_exchange uuid[], p_wallet bigint[], p_publisher uuid[], p_account bigint[], p_amount numeric[], p_fee numeric[],
    p_worker integer, p_ended uuid[], p_reason text[], p_status smallint[], p_bytes_in bigint[], p_bytes_out bigint[],
    p_method text[], p_target bytea[], p_body bytea[], p_free uuid[] DEFAULT '{}', p_of integer[] DEFAULT '{}',
    p_scope uuid[] DEFAULT '{}', p_subject uuid[] DEFAULT '{}', p_kind text[] DEFAULT '{}',
    p_period date[] DEFAULT '{}', p_adds numeric[] DEFAULT '{}', p_money boolean[] DEFAULT '{}',
    p_least numeric[] DEFAULT '{}', p_most numeric[] DEFAULT '{}'
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
        PERFORM ledger.settle(p_ended, p_reason, p_status, p_bytes_in, p_bytes_out, p_method, p_target, p_body, false);
    END IF;
END $$;

-- The part of post_charges that counts. When everything can be counted the charges go together, else each exchange in
-- order of arrival, so that one that does not fit fails alone.
CREATE FUNCTION ledger.post_counted_charges(
    p_exchange uuid[], p_wallet bigint[], p_publisher uuid[], p_account bigint[], p_amount numeric[], p_fee numeric[],
    p_worker integer, p_free uuid[], p_of integer[], p_scope uuid[], p_subject uuid[], p_kind text[], p_period date[],
    p_adds numeric[], p_money boolean[], p_least numeric[], p_most numeric[]
) RETURNS TABLE (verdict text, available text, deposit text, promotional text, funded text, kind text, counted text)
LANGUAGE plpgsql AS $$
DECLARE
    every uuid[] := p_exchange || p_free;
    paid integer := cardinality(p_exchange);
    one record;
    n integer := 0;
    first_of integer;
    last_of integer := 0;
    count_said text;
BEGIN
    PERFORM FROM ledger.wallet w WHERE w.id = ANY (p_wallet) ORDER BY w.id FOR UPDATE;
    PERFORM ledger.lock_counters(p_scope, p_subject, p_kind, p_period);
    IF ledger.count_together(every, paid, p_worker, p_of, p_scope, p_subject, p_kind, p_period, p_adds, p_money,
                             p_least, p_most) THEN
        FOR one IN
            SELECT * FROM ledger.post_charges_unfenced(
                p_exchange, p_wallet, p_publisher, p_account, p_amount, p_fee, p_worker, '{}', '{}', '{}', '{}', '{}',
                '{}', '{}', '{}')
        LOOP
            n := n + 1;
            IF one.verdict <> 'posted' THEN
                PERFORM ledger.uncount(p_exchange[n]);
            END IF;
            RETURN QUERY SELECT one.verdict, one.available, one.deposit, one.promotional, one.funded, NULL, '0';
        END LOOP;
        RETURN QUERY SELECT 'posted', '0', '0', '0', '0', NULL, '0' FROM unnest(p_free);
        RETURN;
    END IF;
    FOR n IN 1 .. cardinality(every) LOOP
        first_of := last_of + 1;
        WHILE last_of < cardinality(p_of) AND p_of[last_of + 1] = n LOOP
            last_of := last_of + 1;
        END LOOP;
        count_said := 'none';
        IF first_of <= last_of THEN
            SELECT c.verdict, c.kind, c.counted::text INTO one
              FROM ledger.count_exchange(
                       every[n], p_worker, n > paid, p_scope[first_of:last_of], p_subject[first_of:last_of],
                       p_kind[first_of:last_of], p_period[first_of:last_of], p_adds[first_of:last_of],
                       p_money[first_of:last_of], p_least[first_of:last_of], p_most[first_of:last_of]) c;
            count_said := one.verdict;
        END IF;
        IF count_said = 'beyond' THEN
            RETURN QUERY SELECT 'beyond', '0', '0', '0', '0', one.kind, one.counted;
        ELSIF n > paid THEN
            RETURN QUERY SELECT CASE count_said WHEN 'counted' THEN 'posted' ELSE 'replayed' END, '0', '0', '0', '0',
                                NULL, '0';
        ELSE
            SELECT * INTO one FROM ledger.post_charge(
                p_exchange[n], p_wallet[n], p_publisher[n], p_account[n], p_amount[n], p_fee[n], p_worker);
            IF count_said = 'counted' AND one.verdict <> 'posted' THEN
                PERFORM ledger.uncount(p_exchange[n]);
            END IF;
            RETURN QUERY SELECT one.verdict, one.available::text, coalesce(one.deposit, 0)::text,
                                coalesce(one.promotional, 0)::text, coalesce(one.funded, 0)::text, NULL, '0';
        END IF;
    END LOOP;
END $$;

-- End holds and place others, all in one transaction: the ends first, so that what they release can be held again.
-- Returns a row for each end, as ledger.end_hold says it, then one for each hold: 'held', 'short', 'busy', 'repeated',
-- 'unknown_wallet', 'fenced' when the worker was taken for dead, or 'beyond' with the kind of the counter that would leave
-- its bounds and what it stands at. Counters as in post_charges.
DROP FUNCTION ledger.place_holds(uuid[], bigint[], uuid[], bigint[], numeric[], integer, numeric[], numeric[], uuid[],
                                 text[], smallint[], bigint[], bigint[], text[], bytea[], bytea[], interval);
CREATE FUNCTION ledger.place_holds(
    p_exchange uuid[], p_wallet bigint[], p_publisher uuid[], p_account bigint[], p_amount numeric[], p_worker integer,
    p_capture numeric[], p_fee numeric[], p_ended uuid[], p_reason text[], p_status smallint[], p_bytes_in bigint[],
    p_bytes_out bigint[], p_method text[], p_target bytea[], p_body bytea[], p_grace interval,
    p_of integer[] DEFAULT '{}', p_scope uuid[] DEFAULT '{}', p_subject uuid[] DEFAULT '{}', p_kind text[] DEFAULT '{}',
    p_period date[] DEFAULT '{}', p_adds numeric[] DEFAULT '{}', p_money boolean[] DEFAULT '{}',
    p_least numeric[] DEFAULT '{}', p_most numeric[] DEFAULT '{}'
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
                               p_bytes_out[n], p_grace, p_method[n], p_target[n], p_body[n]) f;
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

-- Count an exchange and place its hold, both or neither. The caller has locked the wallet and the counters.
CREATE FUNCTION ledger.place_counted_hold(
    p_exchange uuid, p_wallet bigint, p_publisher uuid, p_account bigint, p_amount numeric, p_worker integer,
    p_scope uuid[], p_subject uuid[], p_kind text[], p_period date[], p_adds numeric[], p_money boolean[],
    p_least numeric[], p_most numeric[], OUT verdict text, OUT available numeric, OUT kind text, OUT counted numeric
) LANGUAGE plpgsql AS $$
DECLARE
    count_said text;
BEGIN
    SELECT c.verdict, c.kind, coalesce(c.counted, 0) INTO count_said, kind, counted
      FROM ledger.count_exchange(p_exchange, p_worker, false, p_scope, p_subject, p_kind, p_period, p_adds, p_money,
                                 p_least, p_most) c;
    IF count_said = 'beyond' THEN
        verdict := 'beyond'; available := 0;
        RETURN;
    END IF;
    SELECT h.verdict, h.available INTO verdict, available
      FROM ledger.place_hold_unfenced(p_exchange, p_wallet, p_publisher, p_account, p_amount, p_worker) h;
    IF verdict = 'held' THEN
        UPDATE ledger.hold h SET counted = true WHERE h.exchange_id = p_exchange;
    ELSIF count_said = 'counted' THEN
        PERFORM ledger.uncount(p_exchange);
    END IF;
END $$;

-- End a hold, as before; what it has counted becomes what was captured.
CREATE OR REPLACE FUNCTION ledger.end_hold(
    p_exchange uuid, p_capture numeric, p_fee numeric, p_reason text, p_status smallint, p_bytes_in bigint,
    p_bytes_out bigint, p_grace interval, p_method text DEFAULT NULL, p_target bytea DEFAULT NULL,
    p_body bytea DEFAULT NULL, OUT verdict text, OUT available numeric
) LANGUAGE plpgsql AS $$
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
        (exchange_id, outcome, reason, status, bytes_in, bytes_out, method, target_hash, body_hash)
    VALUES (p_exchange, CASE WHEN p_capture > 0 THEN 'settled' ELSE 'refunded' END::ledger.outcome, p_reason, p_status,
            p_bytes_in, p_bytes_out, p_method, p_target, p_body)
    ON CONFLICT (exchange_id) DO NOTHING;
    SELECT coalesce(sum(a.balance), 0) INTO available FROM ledger.account a
     WHERE a.wallet_id = h.wallet_id AND NOT a.spent AND a.granted IS NOT NULL
       AND (a.expires_at IS NULL OR a.expires_at > now());
END $$;

-- Undo a charge or a captured hold whole, as before, and what was counted; also of an exchange that was only counted.
CREATE OR REPLACE FUNCTION ledger.refund(
    p_exchange uuid, p_reason text, p_status smallint, p_grace interval, p_only_open boolean,
    OUT verdict text, OUT amount numeric
) LANGUAGE plpgsql AS $$
DECLARE
    leg record;
    payer bigint;
    fee_account bigint;
BEGIN
    SELECT t.wallet_id INTO payer FROM ledger.transfer t
     WHERE t.cause_id = p_exchange AND t.kind IN ('charge', 'capture') LIMIT 1;
    IF payer IS NULL AND NOT EXISTS (SELECT FROM ledger.counted d WHERE d.exchange_id = p_exchange AND d.alone) THEN
        verdict := 'unknown'; amount := 0;
        RETURN;
    END IF;
    PERFORM FROM ledger.wallet WHERE id = payer FOR UPDATE;
    PERFORM ledger.lock_counters(array_agg(d.scope), array_agg(d.subject), array_agg(d.kind), array_agg(d.period))
       FROM ledger.counted d WHERE d.exchange_id = p_exchange HAVING count(*) > 0;
    SELECT sum(t.amount) INTO amount FROM ledger.transfer t WHERE t.cause_id = p_exchange AND t.kind = 'refund';
    IF amount IS NOT NULL THEN
        verdict := 'repeated';
        RETURN;
    END IF;
    INSERT INTO ledger.settlement (exchange_id, outcome, reason, status) VALUES (p_exchange, 'refunded', p_reason, p_status)
    ON CONFLICT (exchange_id) DO NOTHING;
    IF NOT FOUND THEN
        IF p_only_open THEN
            verdict := 'settled'; amount := 0;
            RETURN;
        END IF;
        UPDATE ledger.settlement SET outcome = 'refunded', reason = p_reason WHERE exchange_id = p_exchange;
    END IF;
    PERFORM ledger.recount(p_exchange, 0);
    amount := 0;
    FOR leg IN
        -- What each leg really took: a charge's own legs, or a hold's legs less what the capture released.
        SELECT t.leg, t.debit_account AS lot, t.credit_account AS earnings, t.amount, t.fee
          FROM ledger.transfer t WHERE t.cause_id = p_exchange AND t.kind = 'charge'
        UNION ALL
        SELECT c.leg, c.lot, c.earnings, c.amount, c.fee FROM ledger.captured_legs(p_exchange) c
        ORDER BY leg
    LOOP
        PERFORM ledger.return_to_lot(leg.lot, leg.amount, p_grace);
        INSERT INTO ledger.transfer (cause_id, kind, leg, debit_account, credit_account, wallet_id, amount, fee)
        VALUES (p_exchange, 'refund', leg.leg, leg.earnings, leg.lot, payer, leg.amount, leg.fee);
        PERFORM ledger.add_to_shard(leg.earnings, leg.amount - leg.fee, 0);
        IF leg.fee > 0 THEN
            SELECT a.fee_account_id INTO STRICT fee_account FROM ledger.account a WHERE a.id = leg.earnings;
            PERFORM ledger.add_to_shard(fee_account, leg.fee, 0);
        END IF;
        amount := amount + leg.amount;
    END LOOP;
    verdict := 'refunded';
END $$;
