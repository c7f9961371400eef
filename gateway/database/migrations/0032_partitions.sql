-- What grows with every call is kept in partitions by its id, which begins with its time: a month each, made ahead, and one
-- for whatever else comes, so that no call fails for want of a partition. The primary keys begin with that id, so that "one
-- charge, one refund per cause" stays a law over all of them. The tables that are there become the first partition as they
-- are: they are read once, and not copied.

-- The smallest id of a moment, and a new id of this one: what SQL itself causes has its place in time as well.
CREATE FUNCTION ledger.id_at(p_moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT rpad(lpad(to_hex(floor(extract(epoch FROM p_moment) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$;
CREATE FUNCTION ledger.new_id() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT overlay(overlay(gen_random_uuid()::text PLACING left(ledger.id_at(clock_timestamp())::text, 13) FROM 1)
                   PLACING '7' FROM 15)::uuid
$$;
CREATE FUNCTION ledger.month_of(p_moment timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT date_trunc('month', p_moment, 'UTC')
$$;
CREATE FUNCTION ledger.month_after(p_month timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT (p_month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC'
$$;

-- The partitions of a table in order, with the ids that they hold: from `low` to below `high`. NULL: without a bound on that
-- side; on both: the one for what has no other.
CREATE FUNCTION ledger.partitions(p_table text) RETURNS TABLE (name text, low uuid, high uuid) LANGUAGE sql STABLE AS $$
    SELECT c.relname::text, substring(b.bound FROM $r$FROM \('([0-9a-f-]{36})'\)$r$)::uuid,
           substring(b.bound FROM $r$TO \('([0-9a-f-]{36})'\)$r$)::uuid
      FROM pg_inherits i
      JOIN pg_class c ON c.oid = i.inhrelid
      CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound) b
     WHERE i.inhparent = format('ledger.%I', p_table)::regclass AND NOT i.inhdetachpending
     ORDER BY 3 NULLS LAST
$$;

-- Make the partition of a month, if none holds it. Returns whether it was made. What has come before it was there lies in
-- the last one and is moved.
CREATE FUNCTION ledger.make_partition(p_table text, p_month timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    key text := CASE p_table WHEN 'transfer' THEN 'cause_id' WHEN 'settlement' THEN 'exchange_id' END;
    month timestamptz := ledger.month_of(p_month);
    since uuid := ledger.id_at(month);
    upto uuid := ledger.id_at(ledger.month_after(month));
    made text := format('%s_%s', p_table, to_char(month AT TIME ZONE 'UTC', 'YYYY_MM'));
    others text := p_table || '_other';
BEGIN
    PERFORM FROM ledger.partitions(p_table) p WHERE p.high > since AND coalesce(p.low < upto, true);
    IF FOUND THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE ledger.%I (LIKE ledger.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', made, p_table);
    EXECUTE format('LOCK TABLE ledger.%I IN ACCESS EXCLUSIVE MODE', others);
    EXECUTE format('ALTER TABLE ledger.%I DISABLE TRIGGER USER', others);
    EXECUTE format('WITH moved AS (DELETE FROM ledger.%I WHERE %I >= %L AND %I < %L RETURNING *)'
                   ' INSERT INTO ledger.%I SELECT * FROM moved', others, key, since, key, upto, made);
    EXECUTE format('ALTER TABLE ledger.%I ENABLE TRIGGER USER', others);
    EXECUTE format('ALTER TABLE ledger.%I ATTACH PARTITION ledger.%I FOR VALUES FROM (%L) TO (%L)', p_table, made, since,
                   upto);
    IF p_table = 'transfer' THEN
        PERFORM ledger.keep(made);
    END IF;
    RETURN true;
END $$;

-- A partition can be named itself: it may be emptied as little as the whole.
CREATE FUNCTION ledger.keep(p_partition text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER transfer_kept BEFORE TRUNCATE ON ledger.%I'
                   ' FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()', p_partition);
END $$;

-- Make what is missing for so many months from now on, unless somebody else is just doing so. It waits for nobody: whoever
-- waits for its lock keeps calls waiting behind it. Returns how many were made.
CREATE FUNCTION ledger.make_ahead(p_table text, p_months integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    month timestamptz := ledger.month_of(now());
    made integer := 0;
BEGIN
    PERFORM set_config('lock_timeout', '200ms', true);
    IF NOT pg_try_advisory_xact_lock(hashtext('ledger.make_ahead')) THEN
        RETURN 0;
    END IF;
    FOR n IN 0 .. p_months LOOP
        made := made + ledger.make_partition(p_table, month)::integer;
        month := ledger.month_after(month);
    END LOOP;
    RETURN made;
END $$;

-- For how many seconds from now on ids have a partition of their own, in both tables.
CREATE FUNCTION ledger.seconds_ahead() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT min(e.at) - extract(epoch FROM now())::bigint
      FROM unnest(ARRAY['transfer', 'settlement']) AS t (name)
      CROSS JOIN LATERAL (SELECT max(('x' || left(replace(p.high::text, '-', ''), 12))::bit(48)::bigint) / 1000 AS at
                            FROM ledger.partitions(t.name) p) e
$$;

DROP TRIGGER transfer_immutable ON ledger.transfer;
ALTER TABLE ledger.transfer RENAME TO transfer_first;
ALTER INDEX ledger.transfer_pkey RENAME TO transfer_first_pkey;
ALTER INDEX ledger.transfer_wallet RENAME TO transfer_first_wallet_id_cause_id_idx;
CREATE TABLE ledger.transfer (LIKE ledger.transfer_first INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
    PARTITION BY RANGE (cause_id);
ALTER TABLE ledger.transfer ADD PRIMARY KEY (cause_id, kind, leg);
CREATE INDEX transfer_wallet ON ledger.transfer (wallet_id, cause_id) WHERE wallet_id IS NOT NULL;
CREATE TABLE ledger.transfer_other PARTITION OF ledger.transfer DEFAULT;

ALTER TABLE ledger.settlement RENAME TO settlement_first;
ALTER INDEX ledger.settlement_pkey RENAME TO settlement_first_pkey;
CREATE TABLE ledger.settlement (LIKE ledger.settlement_first INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
    PARTITION BY RANGE (exchange_id);
ALTER TABLE ledger.settlement ADD PRIMARY KEY (exchange_id);
CREATE TABLE ledger.settlement_other PARTITION OF ledger.settlement DEFAULT;

-- What bears no time in its id (until now what expired did not) is moved; everything else stays where it is.
DO $$
DECLARE
    high uuid := ledger.id_at(ledger.month_after(ledger.month_of(now())));
BEGIN
    WITH moved AS (DELETE FROM ledger.transfer_first WHERE cause_id >= high RETURNING *)
    INSERT INTO ledger.transfer_other SELECT * FROM moved;
    WITH moved AS (DELETE FROM ledger.settlement_first WHERE exchange_id >= high RETURNING *)
    INSERT INTO ledger.settlement_other SELECT * FROM moved;
    EXECUTE format('ALTER TABLE ledger.transfer ATTACH PARTITION ledger.transfer_first FOR VALUES FROM (MINVALUE) TO (%L)', high);
    EXECUTE format('ALTER TABLE ledger.settlement ATTACH PARTITION ledger.settlement_first FOR VALUES FROM (MINVALUE) TO (%L)',
                   high);
END $$;
CREATE TRIGGER transfer_immutable BEFORE UPDATE OR DELETE ON ledger.transfer
    FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
SELECT ledger.keep(name) FROM unnest(ARRAY['transfer', 'transfer_other']) AS p (name);
SELECT ledger.make_partition(p.name, ledger.month_of(now()) + n * interval '31 days')
  FROM generate_series(1, 3) n, unnest(ARRAY['transfer', 'settlement']) AS p (name);

-- A view names the table itself, not whatever bears its name.
CREATE OR REPLACE VIEW ledger.posting AS
    SELECT t.cause_id, t.kind, t.leg, t.created_at, t.debit_account AS account_id,
           CASE WHEN t.kind IN ('refund', 'reversal', 'repayment') THEN t.amount - t.fee ELSE t.amount END AS debit,
           0::numeric AS credit
      FROM ledger.transfer t
    UNION ALL
    SELECT t.cause_id, t.kind, t.leg, t.created_at, t.credit_account,
           0, CASE WHEN t.kind IN ('charge', 'capture', 'payment') THEN t.amount - t.fee ELSE t.amount END
      FROM ledger.transfer t
    UNION ALL
    SELECT t.cause_id, t.kind, t.leg, t.created_at, a.fee_account_id,
           CASE WHEN t.kind IN ('refund', 'reversal', 'repayment') THEN t.fee ELSE 0 END,
           CASE WHEN t.kind IN ('refund', 'reversal', 'repayment') THEN 0 ELSE t.fee END
      FROM ledger.transfer t
      JOIN ledger.account a ON a.id = CASE WHEN t.kind IN ('refund', 'reversal', 'repayment') THEN t.debit_account
                                           ELSE t.credit_account END
     WHERE t.fee > 0;

-- Take an amount from a wallet's lots, as before; 'repeated' when this cause has done so already. Its transfers say that
-- themselves, so that nobody need look for them first, in all of the partitions that a kept plan names.
CREATE OR REPLACE FUNCTION ledger.draw(
    p_kind ledger.kind, p_cause uuid, p_wallet bigint, p_publisher uuid, p_to bigint, p_amount numeric, p_fee numeric,
    p_worker integer, OUT verdict text, OUT available numeric, OUT deposit numeric, OUT promotional numeric,
    OUT funded numeric
) LANGUAGE plpgsql AS $$
DECLARE
    lot record;
    taken numeric;
    left_over numeric := p_amount;
    leg_no smallint := 0;
    fee_done numeric := 0;
    fee_upto numeric;
BEGIN
    deposit := 0; promotional := 0; funded := 0;
    SELECT coalesce(sum(balance), 0) INTO available FROM ledger.account a
     WHERE a.wallet_id = p_wallet AND NOT a.spent AND a.granted IS NOT NULL
       AND (a.expires_at IS NULL OR a.expires_at > now()) AND (a.purpose <> 'deposit' OR a.publisher_id = p_publisher);
    IF available < p_amount THEN
        verdict := 'short';
        RETURN;
    END IF;
    FOR lot IN
        SELECT a.id, a.purpose, a.balance FROM ledger.account a
         WHERE a.wallet_id = p_wallet AND NOT a.spent AND a.granted IS NOT NULL
           AND (a.expires_at IS NULL OR a.expires_at > now())
           AND (a.purpose <> 'deposit' OR a.publisher_id = p_publisher)
         ORDER BY a.purpose, a.expires_at NULLS LAST, a.id
    LOOP
        taken := least(lot.balance, left_over);
        CONTINUE WHEN taken = 0;
        left_over := left_over - taken;
        fee_upto := div(p_fee * (p_amount - left_over), p_amount);
        INSERT INTO ledger.transfer (cause_id, kind, leg, worker_id, debit_account, credit_account, wallet_id, amount, fee)
        VALUES (p_cause, p_kind, leg_no, p_worker, lot.id, p_to, p_wallet, taken, fee_upto - fee_done)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND AND leg_no = 0 THEN  -- before anything has moved
            verdict := 'repeated';
            RETURN;
        ELSIF NOT FOUND THEN
            RAISE unique_violation USING MESSAGE = format('leg %s of %s is there and its first was not', leg_no, p_cause);
        END IF;
        UPDATE ledger.account SET balance = balance - taken, spent = (lot.balance = taken) WHERE id = lot.id;
        fee_done := fee_upto;
        leg_no := leg_no + 1::smallint;
        CASE lot.purpose
            WHEN 'deposit' THEN deposit := deposit + taken;
            WHEN 'promotional' THEN promotional := promotional + taken;
            ELSE funded := funded + taken;
        END CASE;
        EXIT WHEN left_over = 0;
    END LOOP;
    available := available - p_amount;
    verdict := 'posted';
END $$;

-- Charge one exchange, exactly, as before.
CREATE OR REPLACE FUNCTION ledger.post_charge(
    p_exchange uuid, p_wallet bigint, p_publisher uuid, p_account bigint, p_amount numeric, p_fee numeric,
    p_worker integer, OUT verdict text, OUT available numeric, OUT deposit numeric, OUT promotional numeric,
    OUT funded numeric
) LANGUAGE plpgsql AS $$
DECLARE
    fee_account bigint;
    earlier record;
BEGIN
    PERFORM FROM ledger.wallet WHERE id = p_wallet FOR UPDATE;
    IF NOT FOUND THEN
        verdict := 'unknown_wallet'; available := 0;
        RETURN;
    END IF;
    SELECT d.verdict, d.available, d.deposit, d.promotional, d.funded
      INTO verdict, available, deposit, promotional, funded
      FROM ledger.draw('charge', p_exchange, p_wallet, p_publisher, p_account, p_amount, p_fee, p_worker) d;
    IF verdict = 'posted' THEN
        PERFORM ledger.add_to_shard(p_account, 0, p_amount - p_fee);
        IF p_fee > 0 THEN
            SELECT a.fee_account_id INTO STRICT fee_account FROM ledger.account a WHERE a.id = p_account;
            PERFORM ledger.add_to_shard(fee_account, 0, p_fee);
        END IF;
        RETURN;
    END IF;
    -- What was posted before says so even where too little is left by now.
    SELECT t.wallet_id, sum(t.amount) AS amount INTO earlier FROM ledger.transfer t
     WHERE t.cause_id = p_exchange AND t.kind = 'charge' GROUP BY t.wallet_id;
    IF FOUND THEN
        SELECT coalesce(sum(a.balance), 0) INTO available FROM ledger.account a
         WHERE a.wallet_id = p_wallet AND NOT a.spent AND a.granted IS NOT NULL
           AND (a.expires_at IS NULL OR a.expires_at > now())
           AND (a.purpose <> 'deposit' OR a.publisher_id = p_publisher);
        SELECT coalesce(sum(t.amount) FILTER (WHERE a.purpose = 'deposit'), 0),
               coalesce(sum(t.amount) FILTER (WHERE a.purpose = 'promotional'), 0),
               coalesce(sum(t.amount) FILTER (WHERE a.purpose = 'funded'), 0)
          INTO deposit, promotional, funded
          FROM ledger.transfer t JOIN ledger.account a ON a.id = t.debit_account
         WHERE t.cause_id = p_exchange AND t.kind = 'charge';
        verdict := CASE WHEN earlier.wallet_id = p_wallet AND earlier.amount = p_amount THEN 'replayed' ELSE 'conflict' END;
    END IF;
END $$;

-- What finds transfers by their cause in a plan that is kept, which leaves out the other partitions when it starts; left to
-- itself the planner believes that it does better to plan each time, which costs more than the search.
ALTER FUNCTION ledger.end_hold(uuid, numeric, numeric, text, smallint, bigint, bigint, interval, text, bytea, bytea)
    SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION ledger.refund(uuid, text, smallint, interval, boolean) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION ledger.store_answer(uuid, text, uuid, smallint, bytea, bytea, bytea, boolean, text, smallint, bigint, bigint,
                                   text, bytea, bytea) SET plan_cache_mode = force_generic_plan;

-- As before; the cause has its time.
CREATE OR REPLACE FUNCTION ledger.return_to_lot(p_lot bigint, p_amount numeric, p_grace interval) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    lot ledger.account;
BEGIN
    SELECT * INTO STRICT lot FROM ledger.account WHERE id = p_lot;
    IF lot.expires_at <= now() THEN
        PERFORM ledger.expire_lot(lot.id, ledger.new_id());
        UPDATE ledger.account SET expires_at = now() + p_grace WHERE id = p_lot;
    END IF;
    UPDATE ledger.account SET balance = balance + p_amount, spent = false WHERE id = p_lot;
END $$;

-- As before; the cause has its time.
CREATE OR REPLACE FUNCTION ledger.expire_lots(p_limit integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    lot record;
    swept integer := 0;
BEGIN
    FOR lot IN
        SELECT a.id, a.wallet_id FROM ledger.account a
         WHERE a.expires_at <= now() AND a.expires_at IS NOT NULL AND NOT a.spent
         ORDER BY a.wallet_id, a.id LIMIT p_limit
    LOOP
        PERFORM FROM ledger.wallet w WHERE w.id = lot.wallet_id FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        PERFORM ledger.expire_lot(lot.id, ledger.new_id());
        swept := swept + 1;
    END LOOP;
    RETURN swept;
END $$;
