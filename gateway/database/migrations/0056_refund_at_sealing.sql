-- As before; but a month that is sealed while a refund of then is waiting for it says so, rather than that it failed.
CREATE OR REPLACE FUNCTION ledger.refund_charge(
    p_id uuid, p_reason text, p_key text, p_grace interval, OUT verdict text, OUT amount numeric
) LANGUAGE plpgsql AS $$
DECLARE
    c ledger.direct_charge;
    leg record;
BEGIN
    PERFORM FROM ledger.wallet w WHERE w.id = (SELECT d.wallet_id FROM ledger.direct_charge d WHERE d.id = p_id)
       FOR UPDATE;
    SELECT * INTO STRICT c FROM ledger.direct_charge d WHERE d.id = p_id;
    amount := 0;
    IF c.refunded_at IS NOT NULL THEN
        verdict := CASE WHEN c.refund_key IS DISTINCT FROM p_key OR p_key IS NULL THEN 'again'
                        WHEN c.refund_reason = p_reason THEN 'repeated' ELSE 'reused' END;
        RETURN;
    END IF;
    IF ledger.is_put_away(p_id) THEN
        verdict := 'archived';
        RETURN;
    END IF;
    BEGIN
        SELECT r.amount INTO STRICT amount FROM ledger.refund(p_id, 'direct_refund', NULL, p_grace, false) r;
        FOR leg IN
            SELECT t.cause_id, t.leg, t.debit_account AS lot, t.credit_account AS penalties, t.amount
              FROM ledger.penalty p JOIN ledger.transfer t ON t.cause_id = p.id AND t.kind = 'penalty'
             WHERE p.charge_id = p_id ORDER BY t.cause_id, t.leg
        LOOP
            PERFORM ledger.return_to_lot(leg.lot, leg.amount, p_grace);
            INSERT INTO ledger.transfer (cause_id, kind, leg, debit_account, credit_account, wallet_id, amount)
            VALUES (leg.cause_id, 'refund', leg.leg, leg.penalties, leg.lot, c.wallet_id, leg.amount);
            PERFORM ledger.add_to_shard(leg.penalties, leg.amount, 0);
            amount := amount + leg.amount;
        END LOOP;
    EXCEPTION WHEN raise_exception OR check_violation THEN
        IF NOT ledger.is_put_away(p_id) THEN
            RAISE;
        END IF;
        verdict := 'archived'; amount := 0;
        RETURN;
    END;
    UPDATE ledger.direct_charge SET refunded_at = clock_timestamp(), refund_reason = p_reason, refund_key = p_key
     WHERE id = p_id;
    verdict := 'refunded';
END $$;
