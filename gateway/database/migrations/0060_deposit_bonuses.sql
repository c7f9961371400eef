-- The bonus of a deposit comes back with its money, whatever of either was spent: what is left of the bonus is taken, the
-- rest of it is owed like the money. What was paid for is never taken from a bonus, and no debt is paid with one.
ALTER TABLE card.refund ADD COLUMN bonus_short numeric(39,0),               -- owed of the bonus; NULL: made before this
    ADD COLUMN returned_bonus numeric(39,0) NOT NULL DEFAULT 0;             -- given again with what did not reach its card
ALTER TABLE card.dispute ADD COLUMN bonus_due numeric(39,0),                -- NULL: begun before this
    ADD COLUMN bonus_short numeric(39,0) NOT NULL DEFAULT 0,                -- lost: owed of it
    ADD COLUMN returned_bonus numeric(39,0) NOT NULL DEFAULT 0;

-- As before, and never from a bonus unless it is among `p_first`.
CREATE OR REPLACE FUNCTION card.take(
    p_cause uuid, p_kind ledger.kind, p_wallet bigint, p_first bigint[], p_others boolean, p_to bigint, p_amount numeric
) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    lot record;
    part numeric;
    taken numeric := 0;
    leg_no smallint;
BEGIN
    SELECT coalesce(max(t.leg) + 1, 0) INTO leg_no FROM ledger.transfer t WHERE t.cause_id = p_cause AND t.kind = p_kind;
    FOR lot IN
        SELECT a.id, a.balance FROM ledger.account a
         WHERE a.wallet_id = p_wallet AND NOT a.spent AND a.granted IS NOT NULL AND a.purpose = 'funded'
           AND ((p_others AND NOT ledger.is_promotional(a.purpose, a.source)) OR a.id = ANY (p_first))
         ORDER BY array_position(p_first, a.id) NULLS LAST, a.id
    LOOP
        part := least(lot.balance, p_amount - taken);
        EXIT WHEN part <= 0;
        UPDATE ledger.account SET balance = balance - part, spent = (lot.balance = part) WHERE id = lot.id;
        INSERT INTO ledger.transfer (cause_id, kind, leg, debit_account, credit_account, wallet_id, amount)
        VALUES (p_cause, p_kind, leg_no, lot.id, p_to, p_wallet, part);
        leg_no := leg_no + 1::smallint;
        taken := taken + part;
    END LOOP;
    IF taken > 0 THEN
        UPDATE ledger.account SET balance = balance + taken WHERE id = p_to AND balance IS NOT NULL;
        IF NOT FOUND THEN
            PERFORM ledger.add_to_shard(p_to, 0, taken);
        END IF;
    END IF;
    RETURN taken;
END $$;

-- The lots of a deposit's bonus: the one it came with, and those that were given again with money that came back.
CREATE FUNCTION card.bonus_lots(d card.deposit) RETURNS bigint[] LANGUAGE sql STABLE AS $$
    SELECT ARRAY(SELECT a.id FROM ledger.account a
                  WHERE a.wallet_id = d.wallet_id AND a.source = 'tier_bonus' AND a.granted IS NOT NULL
                    AND (a.id = d.bonus_lot_id
                         OR a.reference IN (SELECT r.id FROM card.refund r WHERE r.deposit_id = d.id
                                             UNION SELECT x.id FROM card.dispute x WHERE x.deposit_id = d.id)))
$$;

-- What has gone of a deposit, or is frozen, and what of its bonus went with that.
CREATE FUNCTION card.gone(d card.deposit, OUT money numeric, OUT bonus numeric) LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(g.money), 0), coalesce(sum(g.bonus), 0)
      FROM (SELECT r.amount AS money, r.bonus + coalesce(r.bonus_short, 0) AS bonus FROM card.refund r
             WHERE r.deposit_id = d.id AND r.returned_cause IS NULL
             UNION ALL
            SELECT x.amount, coalesce(x.bonus_due, x.frozen_bonus) FROM card.dispute x
             WHERE x.deposit_id = d.id AND x.state <> 'won' AND x.returned_cause IS NULL) g
$$;

-- The part of a deposit's bonus that goes with more of its money, rounded up, beside what has gone before.
CREATE OR REPLACE FUNCTION card.bonus_of(d card.deposit, p_amount numeric) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN d.paid_bonus = 0 THEN 0
                ELSE greatest(least(ceil(d.paid_bonus * (g.money + p_amount) / d.paid), d.paid_bonus) - g.bonus, 0) END
      FROM card.gone(d) g
$$;

-- Owe the platform what is missing of a bonus that had to come back.
CREATE FUNCTION card.owe_bonus(p_cause uuid, p_wallet bigint, p_asset uuid, p_amount numeric) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_amount > 0 THEN
        PERFORM ledger.move(p_cause, 'shortfall', 1::smallint, card.receivable(p_wallet),
                            ledger.platform_account(p_asset, 'promotional_expense'), p_amount, 0);
    END IF;
END $$;

-- Part of a deposit's money went back to its card, and its bonus with it. 'booked', or 'repeated'.
CREATE OR REPLACE FUNCTION card.give_back(p_deposit uuid, p_refund text, p_cents bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    d card.deposit;
    asset uuid;
    cause uuid := ledger.new_id();
    wanted numeric;
    taken numeric;
    bonus numeric := 0;
    due numeric := 0;
BEGIN
    PERFORM FROM card.refund WHERE id = p_refund;
    IF FOUND THEN
        RETURN 'repeated';
    END IF;
    SELECT * INTO STRICT d FROM card.deposit WHERE id = p_deposit;
    SELECT w.asset_id INTO STRICT asset FROM ledger.wallet w WHERE w.id = d.wallet_id FOR UPDATE;
    wanted := card.atomic(asset, p_cents);
    IF d.lot_id IS NULL THEN
        taken := wanted;
        PERFORM ledger.move(cause, 'card_refund', 0::smallint, ledger.platform_account(asset, 'suspense'), card.clearing(asset), taken, 0);
    ELSE
        due := card.bonus_of(d, wanted);
        bonus := card.take(cause, 'expire', d.wallet_id, card.bonus_lots(d), false,
                           ledger.platform_account(asset, 'promotional_expense'), due);
        taken := card.take(cause, 'card_refund', d.wallet_id, ARRAY[d.lot_id], true, card.clearing(asset), wanted);
        IF taken < wanted THEN
            PERFORM ledger.move(cause, 'shortfall', 0::smallint, card.receivable(d.wallet_id), card.clearing(asset), wanted - taken, 0);
        END IF;
        PERFORM card.owe_bonus(cause, d.wallet_id, asset, due - bonus);
    END IF;
    INSERT INTO card.refund (id, deposit_id, cents, amount, cause_id, taken, short, bonus, bonus_short)
    VALUES (p_refund, p_deposit, p_cents, wanted, cause, taken, wanted - taken, bonus, due - bonus);
    PERFORM card.recover(d.wallet_id);
    RETURN 'booked';
END $$;

-- Money that comes back from a card after all: a lot of its own, or suspense, after what is owed; and its bonus again.
DROP FUNCTION card.come_back(uuid, text, numeric, uuid);
CREATE FUNCTION card.come_back(p_deposit uuid, p_reference text, p_amount numeric, p_bonus numeric, p_cause uuid) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    d card.deposit;
    asset uuid;
BEGIN
    SELECT * INTO STRICT d FROM card.deposit WHERE id = p_deposit;
    SELECT w.asset_id INTO STRICT asset FROM ledger.wallet w WHERE w.id = d.wallet_id FOR UPDATE;
    IF d.lot_id IS NULL THEN
        PERFORM ledger.move(p_cause, 'grant', 0::smallint, card.clearing(asset), ledger.platform_account(asset, 'suspense'), p_amount, 0);
        RETURN;
    END IF;
    PERFORM card.credit(p_cause, 0::smallint, d.wallet_id, 'refund', p_reference, p_amount, 'money back from a card',
                        card.clearing(asset));
    PERFORM card.recover(d.wallet_id);
    IF p_bonus > 0 THEN
        PERFORM card.credit(p_cause, 1::smallint, d.wallet_id, 'tier_bonus', p_reference, p_bonus, 'bonus of a card deposit',
                            ledger.platform_account(asset, 'promotional_expense'));
    END IF;
END $$;

-- A refund did not reach its card. 'returned', or 'repeated'.
CREATE OR REPLACE FUNCTION card.take_again(p_refund text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r card.refund;
    cause uuid := ledger.new_id();
    again numeric;
BEGIN
    SELECT * INTO r FROM card.refund WHERE id = p_refund;
    IF NOT FOUND OR r.returned_cause IS NOT NULL THEN
        RETURN 'repeated';
    END IF;
    again := r.bonus + coalesce(r.bonus_short, 0);
    PERFORM card.come_back(r.deposit_id, r.id, r.amount, again, cause);
    UPDATE card.refund SET returned_cause = cause, returned_bonus = again WHERE id = p_refund;
    RETURN 'returned';
END $$;

-- A dispute has begun: what is left of its money, and of its bonus, is frozen. 'frozen', or 'repeated'.
CREATE OR REPLACE FUNCTION card.freeze(p_deposit uuid, p_dispute text, p_cents bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    d card.deposit;
    asset uuid;
    cause uuid := ledger.new_id();
    wanted numeric;
    kept bigint;
    money numeric := 0;
    bonus numeric := 0;
    due numeric := 0;
BEGIN
    PERFORM FROM card.dispute WHERE id = p_dispute;
    IF FOUND THEN
        RETURN 'repeated';
    END IF;
    SELECT * INTO STRICT d FROM card.deposit WHERE id = p_deposit;
    SELECT w.asset_id INTO STRICT asset FROM ledger.wallet w WHERE w.id = d.wallet_id FOR UPDATE;
    wanted := card.atomic(asset, p_cents);
    IF d.lot_id IS NOT NULL THEN
        INSERT INTO ledger.account (purpose, asset_id, wallet_id, balance) VALUES ('disputed', asset, d.wallet_id, 0)
        ON CONFLICT (wallet_id) WHERE purpose = 'disputed' DO NOTHING;
        SELECT id INTO STRICT kept FROM ledger.account WHERE wallet_id = d.wallet_id AND purpose = 'disputed';
        due := card.bonus_of(d, wanted);
        money := card.take(cause, 'dispute', d.wallet_id, ARRAY[d.lot_id], true, kept, wanted);
        bonus := card.take(cause, 'dispute', d.wallet_id, card.bonus_lots(d), false, kept, due);
    END IF;
    INSERT INTO card.dispute (id, deposit_id, amount, state, cause_id, frozen, frozen_bonus, bonus_due)
    VALUES (p_dispute, p_deposit, wanted, 'frozen', cause, money, bonus, due);
    INSERT INTO card.frozen (dispute_id, lot_id, amount)
    SELECT p_dispute, t.debit_account, sum(t.amount) FROM ledger.transfer t
     WHERE t.cause_id = cause AND t.kind = 'dispute' GROUP BY t.debit_account;
    RETURN 'frozen';
END $$;

-- The bank has decided for us: what was frozen goes back to the lots that it was in. 'won', or 'repeated'.
CREATE OR REPLACE FUNCTION card.win(p_dispute text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    x card.dispute;
    d card.deposit;
    part record;
    kept bigint;
    cause uuid := ledger.new_id();
    leg_no smallint := 0;
    again numeric;
BEGIN
    SELECT * INTO x FROM card.dispute WHERE id = p_dispute;
    IF NOT FOUND OR x.state = 'won' OR x.returned_cause IS NOT NULL THEN
        RETURN 'repeated';
    END IF;
    SELECT * INTO STRICT d FROM card.deposit WHERE id = x.deposit_id;
    PERFORM FROM ledger.wallet WHERE id = d.wallet_id FOR UPDATE;
    IF x.state = 'lost' THEN    -- won after all: what went away comes back
        again := x.frozen_bonus + x.bonus_short;
        PERFORM card.come_back(d.id, x.id, x.amount, again, cause);
        UPDATE card.dispute SET returned_cause = cause, returned_bonus = again WHERE id = p_dispute;
        RETURN 'won';
    END IF;
    SELECT id INTO kept FROM ledger.account WHERE wallet_id = d.wallet_id AND purpose = 'disputed';
    FOR part IN SELECT f.lot_id, f.amount FROM card.frozen f WHERE f.dispute_id = p_dispute ORDER BY f.lot_id LOOP
        UPDATE ledger.account SET balance = balance - part.amount WHERE id = kept;
        UPDATE ledger.account SET balance = balance + part.amount, spent = false WHERE id = part.lot_id;
        INSERT INTO ledger.transfer (cause_id, kind, leg, debit_account, credit_account, wallet_id, amount)
        VALUES (cause, 'dispute_won', leg_no, kept, part.lot_id, d.wallet_id, part.amount);
        leg_no := leg_no + 1::smallint;
    END LOOP;
    UPDATE card.dispute SET state = 'won', end_cause = cause, ended_at = now() WHERE id = p_dispute;
    PERFORM card.recover(d.wallet_id);
    RETURN 'won';
END $$;

-- The bank has decided against us: the frozen money is gone, and the frozen bonus; what was spent of either is owed. 'lost',
-- or 'repeated'.
CREATE OR REPLACE FUNCTION card.lose(p_dispute text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    x card.dispute;
    d card.deposit;
    asset uuid;
    kept bigint;
    cause uuid := ledger.new_id();
    gone numeric;
    missing numeric := 0;
BEGIN
    SELECT * INTO x FROM card.dispute WHERE id = p_dispute;
    IF NOT FOUND OR x.state <> 'frozen' THEN
        RETURN 'repeated';
    END IF;
    SELECT * INTO STRICT d FROM card.deposit WHERE id = x.deposit_id;
    SELECT w.asset_id INTO STRICT asset FROM ledger.wallet w WHERE w.id = d.wallet_id FOR UPDATE;
    IF d.lot_id IS NULL THEN
        gone := x.amount;
        PERFORM ledger.move(cause, 'dispute_lost', 0::smallint, ledger.platform_account(asset, 'suspense'), card.clearing(asset), gone, 0);
    ELSE
        gone := x.frozen;
        missing := coalesce(x.bonus_due, x.frozen_bonus) - x.frozen_bonus;
        SELECT id INTO STRICT kept FROM ledger.account WHERE wallet_id = d.wallet_id AND purpose = 'disputed';
        UPDATE ledger.account SET balance = balance - x.frozen - x.frozen_bonus WHERE id = kept;
        IF gone > 0 THEN
            INSERT INTO ledger.transfer (cause_id, kind, leg, debit_account, credit_account, wallet_id, amount)
            VALUES (cause, 'dispute_lost', 0, kept, card.clearing(asset), d.wallet_id, gone);
            PERFORM ledger.add_to_shard(card.clearing(asset), 0, gone);
        END IF;
        IF x.frozen_bonus > 0 THEN
            INSERT INTO ledger.transfer (cause_id, kind, leg, debit_account, credit_account, wallet_id, amount)
            VALUES (cause, 'dispute_lost', 1, kept, ledger.platform_account(asset, 'promotional_expense'), d.wallet_id, x.frozen_bonus);
            PERFORM ledger.add_to_shard(ledger.platform_account(asset, 'promotional_expense'), 0, x.frozen_bonus);
        END IF;
        IF gone < x.amount THEN
            PERFORM ledger.move(cause, 'shortfall', 0::smallint, card.receivable(d.wallet_id), card.clearing(asset), x.amount - gone, 0);
        END IF;
        PERFORM card.owe_bonus(cause, d.wallet_id, asset, missing);
    END IF;
    UPDATE card.dispute SET state = 'lost', end_cause = cause, taken = gone, short = amount - gone, bonus_short = missing,
           ended_at = now() WHERE id = p_dispute;
    PERFORM card.recover(d.wallet_id);
    RETURN 'lost';
END $$;

-- What of a deposit could go back to its card now and leave nobody owing anything: the paid money of its wallet, of which
-- the part of the bonus that was spent comes off. In cents, as the largest sum for which that holds.
CREATE FUNCTION card.refundable_cents(p_deposit uuid) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    d card.deposit;
    asset uuid;
    money numeric;
    bonus numeric;
    low bigint := 0;
    high bigint;
    middle bigint;
    wanted numeric;
BEGIN
    SELECT * INTO STRICT d FROM card.deposit WHERE id = p_deposit;
    high := coalesce(d.paid_cents, 0) - card.refunded_cents(d.id);
    IF d.lot_id IS NULL THEN
        RETURN high;
    END IF;
    SELECT w.asset_id INTO STRICT asset FROM ledger.wallet w WHERE w.id = d.wallet_id;
    SELECT coalesce(sum(a.balance) FILTER (WHERE NOT ledger.is_promotional(a.purpose, a.source)), 0) - card.owed(d.wallet_id),
           coalesce(sum(a.balance) FILTER (WHERE a.id = ANY (card.bonus_lots(d))), 0)
      INTO money, bonus
      FROM ledger.account a
     WHERE a.wallet_id = d.wallet_id AND NOT a.spent AND a.granted IS NOT NULL AND a.purpose = 'funded';
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        wanted := card.atomic(asset, middle);
        IF wanted + greatest(card.bonus_of(d, wanted) - bonus, 0) <= money THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END $$;
