-- Charges share a few simple statements instead of one large one, which took PostgreSQL longer to start than to carry out.
-- A charge that fits into the lot that is drawn first is posted together with the others of its batch. One that does not
-- fit is posted alone, after them and in order of arrival; the others of its batch no longer go alone as well.
--
-- Both functions use generic plans that look rows up by index. Left to itself the planner makes a plan for each length of
-- an array, and reads a whole table of a few thousand accounts because it believes that to be as cheap as ten lookups.

-- Charge one exchange exactly, with the verdicts of before. The common case, one lot that pays for everything, is tried
-- first.
CREATE OR REPLACE FUNCTION ledger.post_charge(
    p_exchange uuid, p_wallet bigint, p_publisher uuid, p_account bigint, p_amount numeric, p_fee numeric,
    p_worker integer, OUT verdict text, OUT available numeric, OUT deposit numeric, OUT promotional numeric,
    OUT funded numeric
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    fee_account bigint;
    earlier record;
    lot record;
    posted boolean := false;
BEGIN
    PERFORM FROM ledger.wallet WHERE id = p_wallet FOR UPDATE;
    IF NOT FOUND THEN
        verdict := 'unknown_wallet'; available := 0;
        RETURN;
    END IF;
    SELECT a.id, a.purpose, a.balance, sum(a.balance) OVER () AS total INTO lot
      FROM ledger.account a
     WHERE a.wallet_id = p_wallet AND NOT a.spent AND a.granted IS NOT NULL
       AND (a.expires_at IS NULL OR a.expires_at > now()) AND (a.purpose <> 'deposit' OR a.publisher_id = p_publisher)
     ORDER BY a.purpose, a.expires_at NULLS LAST, a.id LIMIT 1;
    IF lot.balance >= p_amount THEN
        INSERT INTO ledger.transfer (cause_id, kind, leg, worker_id, debit_account, credit_account, wallet_id, amount, fee)
        VALUES (p_exchange, 'charge', 0, p_worker, lot.id, p_account, p_wallet, p_amount, p_fee)
        ON CONFLICT DO NOTHING;
        posted := FOUND;
    END IF;
    IF posted THEN
        UPDATE ledger.account a SET balance = a.balance - p_amount, spent = (a.balance = p_amount) WHERE a.id = lot.id;
        verdict := 'posted';
        available := lot.total - p_amount;
        deposit := CASE lot.purpose WHEN 'deposit' THEN p_amount ELSE 0 END;
        promotional := CASE lot.purpose WHEN 'promotional' THEN p_amount ELSE 0 END;
        funded := p_amount - deposit - promotional;
    ELSE
        SELECT d.verdict, d.available, d.deposit, d.promotional, d.funded
          INTO verdict, available, deposit, promotional, funded
          FROM ledger.draw('charge', p_exchange, p_wallet, p_publisher, p_account, p_amount, p_fee, p_worker) d;
    END IF;
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

-- Charge many exchanges in one transaction. Arrays in, one verdict per charge out, in order.
CREATE OR REPLACE FUNCTION ledger.post_charges_unfenced(
    p_exchange uuid[], p_wallet bigint[], p_publisher uuid[], p_account bigint[], p_amount numeric[], p_fee numeric[],
    p_worker integer, p_ended uuid[], p_reason text[], p_status smallint[], p_bytes_in bigint[], p_bytes_out bigint[],
    p_method text[], p_target bytea[], p_body bytea[]
) RETURNS TABLE (verdict text, available text, deposit text, promotional text, funded text)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    wallets integer;
    upto numeric[] := p_amount;  -- what the batch takes from a charge's wallet up to and with that charge
    lots bigint[];               -- the lot that pays; NULL: the charge is posted alone
    given boolean[];             -- whether that lot is promotional
    rest numeric[];
    alone integer;
BEGIN
    IF cardinality(p_ended) > 0 THEN
        PERFORM ledger.settle(p_ended, p_reason, p_status, p_bytes_in, p_bytes_out, p_method, p_target, p_body, false);
    END IF;
    IF cardinality(p_exchange) = 1 THEN
        RETURN QUERY
        SELECT c.verdict, c.available::text, coalesce(c.deposit, 0)::text, coalesce(c.promotional, 0)::text,
               coalesce(c.funded, 0)::text
          FROM ledger.post_charge(p_exchange[1], p_wallet[1], p_publisher[1], p_account[1], p_amount[1], p_fee[1],
                                  p_worker) c;
        RETURN;
    END IF;
    PERFORM FROM ledger.wallet w WHERE w.id = ANY (p_wallet) ORDER BY w.id FOR UPDATE;
    GET DIAGNOSTICS wallets = ROW_COUNT;
    IF wallets < cardinality(p_wallet) THEN
        SELECT array_agg(s.upto ORDER BY s.ord) INTO upto
          FROM (SELECT u.ord, sum(u.amount) OVER (PARTITION BY u.wallet ORDER BY u.ord) AS upto
                  FROM unnest(p_wallet, p_amount) WITH ORDINALITY AS u (wallet, amount, ord)) s;
    END IF;
    -- The first lot of a wallet, unless it is a deposit: which of its charges may draw on that depends on the publisher.
    SELECT array_agg(CASE WHEN u.upto <= l.balance AND l.purpose <> 'deposit' THEN l.id END ORDER BY u.ord),
           array_agg(l.purpose = 'promotional' ORDER BY u.ord), array_agg(l.total - u.upto ORDER BY u.ord),
           count(*) FILTER (WHERE (u.upto <= l.balance AND l.purpose <> 'deposit') IS NOT TRUE)
      INTO lots, given, rest, alone
      FROM unnest(p_wallet, upto) WITH ORDINALITY AS u (wallet, upto, ord)
      LEFT JOIN LATERAL (
          SELECT a.id, a.purpose, a.balance, sum(a.balance) OVER () AS total
            FROM ledger.account a
           WHERE a.wallet_id = u.wallet AND NOT a.spent AND a.granted IS NOT NULL
             AND (a.expires_at IS NULL OR a.expires_at > now())
           ORDER BY a.purpose, a.expires_at NULLS LAST, a.id LIMIT 1
      ) l ON true;
    IF alone < cardinality(p_exchange) THEN
        INSERT INTO ledger.transfer (cause_id, kind, leg, worker_id, debit_account, credit_account, wallet_id, amount, fee)
        SELECT u.exchange, 'charge', 0, p_worker, u.lot, u.account, u.wallet, u.amount, u.fee
          FROM unnest(p_exchange, lots, p_account, p_wallet, p_amount, p_fee)
               AS u (exchange, lot, account, wallet, amount, fee)
         WHERE u.lot IS NOT NULL;
        UPDATE ledger.account a SET balance = a.balance - d.taken, spent = (a.balance = d.taken)
          FROM (SELECT u.lot, sum(u.amount) AS taken FROM unnest(lots, p_amount) AS u (lot, amount)
                 WHERE u.lot IS NOT NULL GROUP BY u.lot) d
         WHERE a.id = d.lot;
        INSERT INTO ledger.shard AS s (account_id, shard, credits)
        SELECT u.account, pg_backend_pid() % 64, sum(u.amount - u.fee)
          FROM unnest(lots, p_account, p_amount, p_fee) AS u (lot, account, amount, fee)
         WHERE u.lot IS NOT NULL GROUP BY u.account ORDER BY u.account
        ON CONFLICT (account_id, shard) DO UPDATE SET credits = s.credits + EXCLUDED.credits;
        IF 0 < ANY (p_fee) THEN
            INSERT INTO ledger.shard AS s (account_id, shard, credits)
            SELECT a.fee_account_id, pg_backend_pid() % 64, sum(e.fee)
              FROM (SELECT u.account, sum(u.fee) AS fee FROM unnest(lots, p_account, p_fee) AS u (lot, account, fee)
                     WHERE u.lot IS NOT NULL AND u.fee > 0 GROUP BY u.account) e
              LEFT JOIN ledger.account a ON a.id = e.account
             GROUP BY a.fee_account_id ORDER BY a.fee_account_id
            ON CONFLICT (account_id, shard) DO UPDATE SET credits = s.credits + EXCLUDED.credits;
        END IF;
    END IF;
    IF alone = 0 THEN
        RETURN QUERY
        SELECT 'posted', u.rest::text, '0', CASE WHEN u.given THEN u.amount ELSE 0 END::text,
               CASE WHEN u.given THEN 0 ELSE u.amount END::text
          FROM unnest(rest, given, p_amount) AS u (rest, given, amount);
        RETURN;
    END IF;
    FOR n IN 1 .. cardinality(p_exchange) LOOP
        IF lots[n] IS NULL THEN
            RETURN QUERY
            SELECT c.verdict, c.available::text, coalesce(c.deposit, 0)::text, coalesce(c.promotional, 0)::text,
                   coalesce(c.funded, 0)::text
              FROM ledger.post_charge(p_exchange[n], p_wallet[n], p_publisher[n], p_account[n], p_amount[n], p_fee[n],
                                      p_worker) c;
        ELSE
            RETURN QUERY
            SELECT 'posted', rest[n]::text, '0', CASE WHEN given[n] THEN p_amount[n] ELSE 0 END::text,
                   CASE WHEN given[n] THEN 0 ELSE p_amount[n] END::text;
        END IF;
    END LOOP;
END $$;
