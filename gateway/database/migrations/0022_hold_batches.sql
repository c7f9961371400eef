-- Holds are placed and ended as often as queries are asked: fewer statements for each, and no look at the seller's
-- account, whose row would be locked by every buyer at once. Transfers name accounts without a foreign key as well.
ALTER TABLE ledger.hold DROP CONSTRAINT hold_wallet_id_fkey, DROP CONSTRAINT hold_account_id_fkey;

-- In this language its plan is kept by the session.
CREATE OR REPLACE FUNCTION ledger.add_to_shard(p_account bigint, p_debit numeric, p_credit numeric) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger.shard AS s (account_id, shard, debits, credits)
    VALUES (p_account, pg_backend_pid() % 64, p_debit, p_credit)
    ON CONFLICT (account_id, shard) DO UPDATE
        SET debits = s.debits + EXCLUDED.debits, credits = s.credits + EXCLUDED.credits;
END $$;

CREATE OR REPLACE FUNCTION ledger.place_hold_unfenced(
    p_exchange uuid, p_wallet bigint, p_publisher uuid, p_account bigint, p_amount numeric, p_worker integer,
    OUT verdict text, OUT available numeric
) LANGUAGE plpgsql AS $$
DECLARE
    held bigint;
    asset uuid;
BEGIN
    SELECT asset_id INTO asset FROM ledger.wallet WHERE id = p_wallet FOR UPDATE;
    IF NOT FOUND THEN
        verdict := 'unknown_wallet'; available := 0;
        RETURN;
    END IF;
    PERFORM FROM ledger.hold WHERE exchange_id = p_exchange;
    IF FOUND THEN
        SELECT coalesce(sum(a.balance), 0) INTO available FROM ledger.account a
         WHERE a.wallet_id = p_wallet AND NOT a.spent AND a.granted IS NOT NULL
           AND (a.expires_at IS NULL OR a.expires_at > now())
           AND (a.purpose <> 'deposit' OR a.publisher_id = p_publisher);
        verdict := 'repeated';
        RETURN;
    END IF;
    SELECT id INTO held FROM ledger.account WHERE wallet_id = p_wallet AND purpose = 'held';
    IF NOT FOUND THEN  -- the wallet's lock keeps others from making it as well
        INSERT INTO ledger.account (purpose, asset_id, wallet_id, balance) VALUES ('held', asset, p_wallet, 0)
        RETURNING id INTO held;
    END IF;
    SELECT d.verdict, d.available INTO verdict, available
      FROM ledger.draw('hold', p_exchange, p_wallet, p_publisher, held, p_amount, 0, p_worker) d;
    IF verdict = 'posted' THEN
        UPDATE ledger.account SET balance = balance + p_amount WHERE id = held;
        INSERT INTO ledger.hold (exchange_id, wallet_id, account_id, amount)
        VALUES (p_exchange, p_wallet, p_account, p_amount);
        verdict := 'held';
    END IF;
END $$;

-- End a hold, as before; what its receipt says is noted with its end.
DROP FUNCTION ledger.end_hold(uuid, numeric, numeric, text, smallint, bigint, bigint, interval);
CREATE FUNCTION ledger.end_hold(
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

-- End holds and place others, all in one transaction: the ends first, so that what they release can be held again.
-- Returns a row for each end, as ledger.end_hold says it, then one for each hold: 'held', 'short', 'repeated',
-- 'unknown_wallet', or 'fenced' when the worker was taken for dead.
DROP FUNCTION ledger.place_hold(uuid, bigint, uuid, bigint, numeric, integer);
CREATE FUNCTION ledger.place_holds(
    p_exchange uuid[], p_wallet bigint[], p_publisher uuid[], p_account bigint[], p_amount numeric[], p_worker integer,
    p_capture numeric[], p_fee numeric[], p_ended uuid[], p_reason text[], p_status smallint[], p_bytes_in bigint[],
    p_bytes_out bigint[], p_method text[], p_target bytea[], p_body bytea[], p_grace interval
) RETURNS TABLE (verdict text, available text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    fenced boolean := cardinality(p_exchange) > 0 AND ledger.is_fenced(p_worker);
BEGIN
    IF cardinality(p_exchange) + cardinality(p_ended) > 1 THEN  -- alone, the functions below lock what they need
        PERFORM FROM ledger.wallet w
          WHERE w.id IN (SELECT unnest(p_wallet)
                         UNION SELECT h.wallet_id FROM ledger.hold h WHERE h.exchange_id = ANY (p_ended))
          ORDER BY w.id FOR UPDATE;
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
        SELECT f.verdict, f.available::text
          FROM ledger.end_hold(p_ended[n], p_capture[n], p_fee[n], p_reason[n], p_status[n], p_bytes_in[n],
                                  p_bytes_out[n], p_grace, p_method[n], p_target[n], p_body[n]) f;
    END LOOP;
    FOR n IN 1 .. cardinality(p_exchange) LOOP
        IF fenced THEN
            RETURN QUERY SELECT 'fenced', '0';
        ELSE
            RETURN QUERY
            SELECT h.verdict, h.available::text
              FROM ledger.place_hold_unfenced(p_exchange[n], p_wallet[n], p_publisher[n], p_account[n], p_amount[n],
                                              p_worker) h;
        END IF;
    END LOOP;
END $$;
