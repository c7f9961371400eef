-- What operators have credited to wallets and taken from them by hand, each with its reason, once per reference.
CREATE TABLE ledger.correction (
    cause_id        uuid PRIMARY KEY,
    wallet_id       bigint NOT NULL REFERENCES ledger.wallet,
    reference       text NOT NULL,
    direction       text NOT NULL CHECK (direction IN ('credit', 'debit')),
    money           text NOT NULL CHECK (money IN ('paid', 'promotional')),
    amount          numeric(39,0) NOT NULL CHECK (amount > 0),
    expires_at      timestamptz,
    reason          text NOT NULL,
    corrected_by    text NOT NULL,
    approved_by     text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (wallet_id, reference),
    CHECK (approved_by <> corrected_by),
    CHECK (expires_at IS NULL OR direction = 'credit')
);
CREATE INDEX correction_newest ON ledger.correction (wallet_id, created_at DESC);
CREATE TRIGGER correction_immutable BEFORE UPDATE OR DELETE ON ledger.correction
    FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER correction_kept BEFORE TRUNCATE ON ledger.correction
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- Take an amount from the lots of one sort of money; the caller holds the wallet's lock. Funded lots come first of paid
-- money, oldest first; of promotional money what expires first. Deposits for one publisher are neither. What is taken
-- goes where a credit of its sort comes from. Returns how much there was; with less than the amount nothing moves.
CREATE FUNCTION ledger.take_back(p_cause uuid, p_wallet bigint, p_money text, p_amount numeric) RETURNS numeric
LANGUAGE plpgsql AS $$
DECLARE
    asset uuid := (SELECT w.asset_id FROM ledger.wallet w WHERE w.id = p_wallet);
    lots bigint[];
    available numeric;
    lot record;
    part numeric;
    rest numeric := p_amount;
    leg_no smallint := 0;
    payee bigint;
BEGIN
    SELECT array_agg(a.id), coalesce(sum(a.balance), 0) INTO lots, available FROM ledger.account a
     WHERE a.wallet_id = p_wallet AND NOT a.spent AND a.granted IS NOT NULL AND a.purpose <> 'deposit'
       AND (a.expires_at IS NULL OR a.expires_at > now())
       AND ledger.is_promotional(a.purpose, a.source) = (p_money = 'promotional');
    IF available < p_amount THEN
        RETURN available;
    END IF;
    FOR lot IN
        SELECT a.id, a.balance, a.purpose = 'promotional' OR p_money = 'promotional' AS expense
          FROM ledger.account a WHERE a.id = ANY (lots)
         ORDER BY (a.purpose = 'funded') = (p_money = 'paid') DESC, a.expires_at NULLS LAST, a.id
    LOOP
        part := least(lot.balance, rest);
        EXIT WHEN part <= 0;
        payee := CASE WHEN lot.expense THEN ledger.platform_account(asset, 'promotional_expense')
                      ELSE ledger.platform_account(asset, 'clearing') END;
        UPDATE ledger.account SET balance = balance - part, spent = (lot.balance = part) WHERE id = lot.id;
        INSERT INTO ledger.transfer (cause_id, kind, leg, debit_account, credit_account, wallet_id, amount)
        VALUES (p_cause, 'correction', leg_no, lot.id, payee, p_wallet, part);
        PERFORM ledger.add_to_shard(payee, 0, part);
        leg_no := leg_no + 1::smallint;
        rest := rest - part;
    END LOOP;
    RETURN available;
END $$;

-- Correct a wallet's balance: 'corrected', 'repeated' (this reference did it before), 'differs' (it did something else),
-- or 'short' (there is less than that to take, and nothing moved).
CREATE FUNCTION ledger.correct(
    p_cause uuid, p_wallet bigint, p_reference text, p_direction text, p_money text, p_amount numeric,
    p_expires timestamptz, p_reason text, p_by text, p_approved_by text,
    OUT verdict text, OUT cause_id uuid, OUT available numeric
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    earlier ledger.correction;
BEGIN
    PERFORM FROM ledger.wallet WHERE id = p_wallet FOR UPDATE;
    SELECT * INTO earlier FROM ledger.correction c WHERE c.wallet_id = p_wallet AND c.reference = p_reference;
    IF FOUND THEN
        cause_id := earlier.cause_id;
        verdict := CASE WHEN (earlier.direction, earlier.money, earlier.amount) = (p_direction, p_money, p_amount)
                        THEN 'repeated' ELSE 'differs' END;
        RETURN;
    END IF;
    IF p_direction = 'debit' THEN
        available := ledger.take_back(p_cause, p_wallet, p_money, p_amount);
        IF available < p_amount THEN
            verdict := 'short';
            RETURN;
        END IF;
    ELSE
        PERFORM ledger.grant_lot(
            p_cause, p_wallet, 'correction', p_reference, p_amount,
            CASE WHEN p_money = 'promotional' THEN 'promotional' ELSE 'funded' END::ledger.purpose,
            p_expires, p_reason, NULL, NULL);
    END IF;
    INSERT INTO ledger.correction (cause_id, wallet_id, reference, direction, money, amount, expires_at, reason,
                                   corrected_by, approved_by)
    VALUES (p_cause, p_wallet, p_reference, p_direction, p_money, p_amount, p_expires, p_reason, p_by, p_approved_by);
    cause_id := p_cause;
    verdict := 'corrected';
END $$;
