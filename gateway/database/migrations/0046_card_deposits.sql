-- Deposits by card: what was asked for, what Stripe says became of it, and how that is booked.
--
-- A deposit: new -> open -> (processing ->) paid | expired | failed. `suspense`: money came that is not what was asked for.
-- Whoever changes one locks its row first, then its wallet. Each movement has an id of its own time as its cause.

CREATE TABLE card.deposit (
    id              uuid PRIMARY KEY,
    wallet_id       bigint NOT NULL REFERENCES ledger.wallet,
    organization_id uuid REFERENCES identity.organization,  -- who hears of it
    cents           bigint NOT NULL CHECK (cents > 0),      -- what was asked for
    amount          numeric(39,0) NOT NULL CHECK (amount > 0),
    bonus           numeric(39,0) NOT NULL CHECK (bonus >= 0),
    state           text NOT NULL DEFAULT 'new'
                    CHECK (state IN ('new', 'open', 'processing', 'paid', 'expired', 'failed', 'suspense')),
    reason          text,
    session_id      text UNIQUE,
    checkout_url    text,
    intent_id       text UNIQUE,
    receipt_url     text,
    -- What was booked when it was paid: the cause, the lots that it opened, and the cents that Stripe has taken.
    cause_id        uuid UNIQUE,
    lot_id          bigint REFERENCES ledger.account,
    bonus_lot_id    bigint REFERENCES ledger.account,
    paid_cents      bigint,
    paid            numeric(39,0) NOT NULL DEFAULT 0 CHECK (paid >= 0),
    paid_bonus      numeric(39,0) NOT NULL DEFAULT 0 CHECK (paid_bonus >= 0),
    version         bigint NOT NULL DEFAULT 0,              -- counts what was learnt of it
    checked_at      timestamptz NOT NULL DEFAULT now(),
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,                   -- until when its page is open
    ended_at        timestamptz,
    CHECK ((cause_id IS NOT NULL) = (paid > 0)),
    CHECK (paid = 0 OR state IN ('paid', 'suspense')),
    CHECK ((state = 'paid') = (lot_id IS NOT NULL))
);
CREATE INDEX deposit_wallet ON card.deposit (wallet_id, created_at DESC);
CREATE INDEX deposit_open ON card.deposit (checked_at) WHERE state IN ('new', 'open', 'processing');
CREATE INDEX deposit_recent ON card.deposit (checked_at) WHERE state IN ('paid', 'suspense');

-- Money that went back to its card: from the wallet's lots (or suspense), the rest is owed. What a bank sent back to us is
-- `returned`: a lot of its own.
CREATE TABLE card.refund (
    id              text PRIMARY KEY,
    deposit_id      uuid NOT NULL REFERENCES card.deposit,
    cents           bigint NOT NULL CHECK (cents > 0),
    amount          numeric(39,0) NOT NULL CHECK (amount > 0),
    cause_id        uuid NOT NULL UNIQUE,
    taken           numeric(39,0) NOT NULL,
    short           numeric(39,0) NOT NULL,
    bonus           numeric(39,0) NOT NULL,                 -- of the deposit's bonus, taken back with it
    returned_cause  uuid UNIQUE,
    made_at         timestamptz NOT NULL DEFAULT now(),
    CHECK (taken + short = amount)
);
CREATE INDEX refund_deposit ON card.refund (deposit_id);

-- Money that a card's bank asks back: frozen until it is won or lost. A won one that was lost before is `returned`.
CREATE TABLE card.dispute (
    id              text PRIMARY KEY,
    deposit_id      uuid NOT NULL REFERENCES card.deposit,
    amount          numeric(39,0) NOT NULL CHECK (amount > 0),
    state           text NOT NULL CHECK (state IN ('frozen', 'won', 'lost')),
    cause_id        uuid NOT NULL UNIQUE,
    frozen          numeric(39,0) NOT NULL,
    frozen_bonus    numeric(39,0) NOT NULL,
    end_cause       uuid UNIQUE,
    taken           numeric(39,0) NOT NULL DEFAULT 0,       -- lost: of what was frozen, or of suspense
    short           numeric(39,0) NOT NULL DEFAULT 0,
    returned_cause  uuid UNIQUE,
    made_at         timestamptz NOT NULL DEFAULT now(),
    ended_at        timestamptz,
    CHECK ((end_cause IS NOT NULL) = (state <> 'frozen'))
);
CREATE INDEX dispute_deposit ON card.dispute (deposit_id);
-- Which lots it was taken from, so that it goes back there whatever is archived meanwhile.
CREATE TABLE card.frozen (
    dispute_id  text NOT NULL REFERENCES card.dispute,
    lot_id      bigint NOT NULL REFERENCES ledger.account,
    amount      numeric(39,0) NOT NULL CHECK (amount > 0),
    PRIMARY KEY (dispute_id, lot_id)
);

-- What a movement of the balance at Stripe has cost (below zero: a fee that came back), by that movement's id.
CREATE TABLE card.fee (
    id          text PRIMARY KEY,
    cause_id    uuid NOT NULL UNIQUE,
    amount      numeric(39,0) NOT NULL CHECK (amount <> 0),
    subject     uuid NOT NULL,                              -- the deposit or invoice
    booked_at   timestamptz NOT NULL DEFAULT now()
);

-- Debts that were paid from a wallet.
CREATE TABLE card.recovery (
    cause_id    uuid PRIMARY KEY,
    wallet_id   bigint NOT NULL REFERENCES ledger.wallet,
    amount      numeric(39,0) NOT NULL CHECK (amount > 0)
);
CREATE INDEX recovery_wallet ON card.recovery (wallet_id);

CREATE FUNCTION card.atomic(p_asset uuid, p_cents bigint) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT p_cents * (10::numeric ^ (a.decimals - 2))::numeric(39,0) FROM catalog.asset a WHERE a.id = p_asset
$$;

CREATE FUNCTION card.clearing(p_asset uuid) RETURNS bigint LANGUAGE sql AS $$
    SELECT ledger.platform_account(p_asset, 'clearing', 'stripe')
$$;

CREATE FUNCTION card.refunded_cents(p_deposit uuid) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(r.cents), 0)::bigint FROM card.refund r WHERE r.deposit_id = p_deposit AND r.returned_cause IS NULL
$$;

-- What an account owes the platform in an asset, because a card's money went back that it had spent.
CREATE FUNCTION card.receivable(p_wallet bigint) RETURNS bigint LANGUAGE sql AS $$
    SELECT ledger.platform_account(w.asset_id, 'receivable', 'account:' || w.owner_id) FROM ledger.wallet w WHERE w.id = p_wallet
$$;
CREATE FUNCTION card.owed(p_wallet bigint) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(s.debits - s.credits), 0)
      FROM ledger.wallet w
      JOIN ledger.account a ON a.asset_id = w.asset_id AND a.purpose = 'receivable' AND a.rail = 'account:' || w.owner_id
      JOIN ledger.shard s ON s.account_id = a.id
     WHERE w.id = p_wallet
$$;

-- Take up to an amount from a wallet's funded lots, `p_first` first and then (p_others) the others, oldest first; returns
-- what was there. The caller holds the wallet's lock.
CREATE FUNCTION card.take(
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
           AND (p_others OR a.id = ANY (p_first))
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

-- Open a funded lot from an account of the platform. The caller holds the wallet's lock.
CREATE FUNCTION card.credit(
    p_cause uuid, p_leg smallint, p_wallet bigint, p_source text, p_reference text, p_amount numeric, p_description text,
    p_payer bigint
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    lot bigint;
BEGIN
    INSERT INTO ledger.account (purpose, asset_id, wallet_id, source, reference, description, granted, balance)
    SELECT 'funded', w.asset_id, w.id, p_source, p_reference, p_description, p_amount, p_amount
      FROM ledger.wallet w WHERE w.id = p_wallet
    RETURNING id INTO STRICT lot;
    INSERT INTO ledger.transfer (cause_id, kind, leg, debit_account, credit_account, wallet_id, amount)
    VALUES (p_cause, 'grant', p_leg, p_payer, lot, p_wallet, p_amount);
    PERFORM ledger.add_to_shard(p_payer, p_amount, 0);
    RETURN lot;
END $$;

-- Pay what a wallet's owner owes from its funded lots, as far as they go; returns how much.
CREATE FUNCTION card.recover(p_wallet bigint) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    debt numeric;
    taken numeric;
    cause uuid;
BEGIN
    PERFORM FROM ledger.wallet WHERE id = p_wallet FOR UPDATE;
    debt := card.owed(p_wallet);
    IF debt <= 0 THEN
        RETURN 0;
    END IF;
    cause := ledger.new_id();
    taken := card.take(cause, 'recovery', p_wallet, '{}', true, card.receivable(p_wallet), debt);
    IF taken > 0 THEN
        INSERT INTO card.recovery (cause_id, wallet_id, amount) VALUES (cause, p_wallet, taken);
    END IF;
    RETURN taken;
END $$;

-- A deposit was paid as it was asked for: its money, less what is owed, and then its bonus. The caller holds its row.
CREATE FUNCTION card.pay(p_deposit uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    d card.deposit;
    asset uuid;
    cause uuid := ledger.new_id();
    lot bigint;
    bonus_lot bigint;
BEGIN
    SELECT * INTO STRICT d FROM card.deposit WHERE id = p_deposit AND cause_id IS NULL;
    SELECT w.asset_id INTO STRICT asset FROM ledger.wallet w WHERE w.id = d.wallet_id FOR UPDATE;
    lot := card.credit(cause, 0::smallint, d.wallet_id, 'fiat_purchase', d.id::text, d.amount,
                       concat_ws(', receipt: ', 'card deposit', d.receipt_url),
                       card.clearing(asset));
    PERFORM card.recover(d.wallet_id);
    IF d.bonus > 0 THEN
        bonus_lot := card.credit(cause, 1::smallint, d.wallet_id, 'tier_bonus', d.id::text, d.bonus, 'bonus of a card deposit',
                                 ledger.platform_account(asset, 'promotional_expense'));
    END IF;
    UPDATE card.deposit
       SET state = 'paid', cause_id = cause, lot_id = lot, bonus_lot_id = bonus_lot, paid_cents = cents, paid = amount,
           paid_bonus = bonus, ended_at = now()
     WHERE id = p_deposit;
END $$;

-- Money came that is not what was asked for: nobody's until an operator gives it back.
CREATE FUNCTION card.suspend(p_deposit uuid, p_cents bigint, p_reason text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    asset uuid;
    cause uuid := ledger.new_id();
    came numeric;
BEGIN
    SELECT w.asset_id INTO STRICT asset FROM card.deposit d JOIN ledger.wallet w ON w.id = d.wallet_id WHERE d.id = p_deposit;
    came := card.atomic(asset, p_cents);
    IF came > 0 THEN
        PERFORM ledger.move(cause, 'grant', 0::smallint, card.clearing(asset), ledger.platform_account(asset, 'suspense'), came, 0);
    END IF;
    UPDATE card.deposit
       SET state = 'suspense', reason = p_reason, cause_id = CASE WHEN came > 0 THEN cause END, paid_cents = p_cents,
           paid = came, ended_at = now()
     WHERE id = p_deposit;
END $$;

-- The part of a deposit's bonus that goes with a part of its money, rounded up.
CREATE FUNCTION card.bonus_of(d card.deposit, p_amount numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN d.paid_bonus = 0 THEN 0 ELSE least(ceil(d.paid_bonus * p_amount / d.paid), d.paid_bonus) END
$$;

-- Part of a deposit's money went back to its card. 'booked', or 'repeated'.
CREATE FUNCTION card.give_back(p_deposit uuid, p_refund text, p_cents bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    d card.deposit;
    asset uuid;
    cause uuid := ledger.new_id();
    wanted numeric;
    taken numeric;
    bonus numeric := 0;
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
        taken := card.take(cause, 'card_refund', d.wallet_id, ARRAY[d.lot_id, d.bonus_lot_id], true, card.clearing(asset), wanted);
        IF taken < wanted THEN
            PERFORM ledger.move(cause, 'shortfall', 0::smallint, card.receivable(d.wallet_id), card.clearing(asset), wanted - taken, 0);
        END IF;
        bonus := card.take(cause, 'expire', d.wallet_id, ARRAY[d.bonus_lot_id], false,
                           ledger.platform_account(asset, 'promotional_expense'), card.bonus_of(d, wanted));
    END IF;
    INSERT INTO card.refund (id, deposit_id, cents, amount, cause_id, taken, short, bonus)
    VALUES (p_refund, p_deposit, p_cents, wanted, cause, taken, wanted - taken, bonus);
    RETURN 'booked';
END $$;

-- Money that comes back from a card after all: a lot of its own, or suspense, after what is owed.
CREATE FUNCTION card.come_back(p_deposit uuid, p_reference text, p_amount numeric, p_cause uuid) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    d card.deposit;
    asset uuid;
BEGIN
    SELECT * INTO STRICT d FROM card.deposit WHERE id = p_deposit;
    SELECT w.asset_id INTO STRICT asset FROM ledger.wallet w WHERE w.id = d.wallet_id FOR UPDATE;
    IF d.lot_id IS NULL THEN
        PERFORM ledger.move(p_cause, 'grant', 0::smallint, card.clearing(asset), ledger.platform_account(asset, 'suspense'), p_amount, 0);
    ELSE
        PERFORM card.credit(p_cause, 0::smallint, d.wallet_id, 'refund', p_reference, p_amount, 'money back from a card',
                            card.clearing(asset));
        PERFORM card.recover(d.wallet_id);
    END IF;
END $$;

-- A refund did not reach its card. 'returned', or 'repeated'.
CREATE FUNCTION card.take_again(p_refund text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r card.refund;
    cause uuid := ledger.new_id();
BEGIN
    SELECT * INTO r FROM card.refund WHERE id = p_refund;
    IF NOT FOUND OR r.returned_cause IS NOT NULL THEN
        RETURN 'repeated';
    END IF;
    PERFORM card.come_back(r.deposit_id, r.id, r.amount, cause);
    UPDATE card.refund SET returned_cause = cause WHERE id = p_refund;
    RETURN 'returned';
END $$;

-- A dispute has begun: what is left of its money, and of its bonus, is frozen. 'frozen', or 'repeated'.
CREATE FUNCTION card.freeze(p_deposit uuid, p_dispute text, p_cents bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    d card.deposit;
    asset uuid;
    cause uuid := ledger.new_id();
    wanted numeric;
    kept bigint;
    money numeric := 0;
    bonus numeric := 0;
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
        money := card.take(cause, 'dispute', d.wallet_id, ARRAY[d.lot_id, d.bonus_lot_id], true, kept, wanted);
        bonus := card.take(cause, 'dispute', d.wallet_id, ARRAY[d.bonus_lot_id], false, kept, card.bonus_of(d, wanted));
    END IF;
    INSERT INTO card.dispute (id, deposit_id, amount, state, cause_id, frozen, frozen_bonus)
    VALUES (p_dispute, p_deposit, wanted, 'frozen', cause, money, bonus);
    INSERT INTO card.frozen (dispute_id, lot_id, amount)
    SELECT p_dispute, t.debit_account, sum(t.amount) FROM ledger.transfer t
     WHERE t.cause_id = cause AND t.kind = 'dispute' GROUP BY t.debit_account;
    RETURN 'frozen';
END $$;

-- The bank has decided for us: what was frozen goes back to the lots that it was in. 'won', or 'repeated'.
CREATE FUNCTION card.win(p_dispute text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    x card.dispute;
    d card.deposit;
    part record;
    kept bigint;
    cause uuid := ledger.new_id();
    leg_no smallint := 0;
BEGIN
    SELECT * INTO x FROM card.dispute WHERE id = p_dispute;
    IF NOT FOUND OR x.state = 'won' OR x.returned_cause IS NOT NULL THEN
        RETURN 'repeated';
    END IF;
    SELECT * INTO STRICT d FROM card.deposit WHERE id = x.deposit_id;
    PERFORM FROM ledger.wallet WHERE id = d.wallet_id FOR UPDATE;
    IF x.state = 'lost' THEN    -- won after all: what went away comes back
        PERFORM card.come_back(d.id, x.id, x.amount, cause);
        UPDATE card.dispute SET returned_cause = cause WHERE id = p_dispute;
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

-- The bank has decided against us: the frozen money is gone, the rest is owed, a frozen bonus was never given. 'lost', or
-- 'repeated'.
CREATE FUNCTION card.lose(p_dispute text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    x card.dispute;
    d card.deposit;
    asset uuid;
    kept bigint;
    cause uuid := ledger.new_id();
    gone numeric;
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
    END IF;
    UPDATE card.dispute SET state = 'lost', end_cause = cause, taken = gone, short = amount - gone, ended_at = now()
     WHERE id = p_dispute;
    PERFORM card.recover(d.wallet_id);
    RETURN 'lost';
END $$;

-- What a movement of the balance at Stripe has cost, once. Returns whether it was booked now.
CREATE FUNCTION card.book_fee(p_movement text, p_asset uuid, p_cents bigint, p_subject uuid) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    cause uuid := ledger.new_id();
    cost numeric := card.atomic(p_asset, p_cents);
BEGIN
    IF p_cents = 0 THEN
        RETURN false;
    END IF;
    INSERT INTO card.fee (id, cause_id, amount, subject) VALUES (p_movement, cause, cost, p_subject) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF cost > 0 THEN
        RETURN ledger.move(cause, 'card_fee', 0::smallint, ledger.platform_account(p_asset, 'card_fees'), card.clearing(p_asset), cost, 0);
    END IF;
    RETURN ledger.move(cause, 'card_fee', 1::smallint, card.clearing(p_asset), ledger.platform_account(p_asset, 'card_fees'), -cost, 0);
END $$;
