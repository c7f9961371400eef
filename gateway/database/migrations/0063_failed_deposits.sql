-- A payment can fail after Stripe has reported it as made: a bank debit that its bank returns days later.
ALTER TABLE card.deposit ADD COLUMN failed_at timestamptz,    -- after its money was booked
    ADD CHECK (failed_at IS NULL OR state IN ('paid', 'suspense'));
CREATE INDEX deposit_failed ON card.deposit (failed_at) WHERE failed_at IS NOT NULL;

-- Take back what is left of a deposit whose payment failed after all: as a refund does, so what was spent is owed. Money
-- that a dispute has frozen goes with it. 'failed', or 'repeated'.
CREATE FUNCTION card.fail(p_deposit uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    d card.deposit;
    dispute text;
    asset uuid;
    cents bigint;
    tries bigint;
BEGIN
    SELECT * INTO STRICT d FROM card.deposit WHERE id = p_deposit FOR UPDATE;
    IF d.failed_at IS NOT NULL THEN
        RETURN 'repeated';
    END IF;
    SELECT w.asset_id INTO STRICT asset FROM ledger.wallet w WHERE w.id = d.wallet_id FOR UPDATE;
    FOR dispute IN SELECT x.id FROM card.dispute x WHERE x.deposit_id = d.id AND x.state = 'frozen' ORDER BY x.id LOOP
        PERFORM card.lose(dispute);
    END LOOP;
    SELECT floor((d.paid - g.money) / card.atomic(asset, 1)) INTO cents FROM card.gone(d) g;
    IF cents > 0 THEN
        SELECT count(*) INTO tries FROM card.refund r WHERE r.deposit_id = d.id;
        PERFORM card.give_back(d.id, format('failed:%s:%s', d.id, tries), cents);
    END IF;
    UPDATE card.deposit SET failed_at = now() WHERE id = d.id;
    RETURN 'failed';
END $$;

-- Stripe has the money of a failed payment after all: what was taken for the failure comes back. 'arrived', or 'repeated'.
CREATE FUNCTION card.arrive(p_deposit uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    refund text;
BEGIN
    PERFORM FROM card.deposit WHERE id = p_deposit AND failed_at IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'repeated';
    END IF;
    FOR refund IN SELECT r.id FROM card.refund r
                   WHERE r.deposit_id = p_deposit AND r.id LIKE 'failed:%' AND r.returned_cause IS NULL ORDER BY r.id LOOP
        PERFORM card.take_again(refund);
    END LOOP;
    UPDATE card.deposit SET failed_at = NULL WHERE id = p_deposit;
    RETURN 'arrived';
END $$;
