-- 'busy' instead of 'short': what there is does not suffice, but other holds of this wallet have not ended, and the end of
-- one may just be on its way from another worker.
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
    ELSIF (SELECT a.balance > 0 FROM ledger.account a WHERE a.id = held) THEN
        verdict := 'busy';
    END IF;
END $$;
