-- The double-entry ledger. Money moves only through the functions of this schema: each is one transaction that locks
-- the wallets it touches in id order, writes immutable transfers and keeps the balances that the hard stop needs.
CREATE SCHEMA ledger;

CREATE TYPE ledger.purpose AS ENUM (
    'deposit', 'promotional', 'funded',             -- lots: spendable money of an agent, in draw order
    'held',                                         -- an agent's money reserved by open holds
    'earnings', 'paying_out',                       -- publishers
    'fees', 'promotional_expense', 'clearing', 'suspense'   -- platform, per asset (clearing also per rail)
);
CREATE TYPE ledger.kind AS ENUM ('grant', 'charge', 'refund', 'hold', 'capture', 'release', 'expire');
CREATE TYPE ledger.outcome AS ENUM ('settled', 'refunded');
CREATE TYPE ledger.hold_status AS ENUM ('pending', 'captured', 'voided');

-- One agent's money in one asset; the row is the lock under which all of its lots change.
CREATE TABLE ledger.wallet (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner_id    uuid NOT NULL REFERENCES identity.account,
    asset_id    uuid NOT NULL REFERENCES catalog.asset,
    address     text NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (owner_id, asset_id)
) WITH (fillfactor = 70);

CREATE TABLE ledger.account (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    purpose         ledger.purpose NOT NULL,
    asset_id        uuid NOT NULL REFERENCES catalog.asset,
    wallet_id       bigint REFERENCES ledger.wallet,
    publisher_id    uuid REFERENCES catalog.publisher,  -- earnings: whose; deposit: where alone it can be spent
    rail            text,                               -- clearing: 'stripe' or a CAIP-2 network
    fee_account_id  bigint REFERENCES ledger.account,   -- earnings: where the platform's share goes
    -- Lots only: which credit opened it, how much it brought, until when it can be spent.
    source          text,
    reference       text,
    description     text,
    granted         numeric(39,0),
    expires_at      timestamptz,
    -- The hard stop: no customer account goes below zero, whatever the program believes. Platform and publisher
    -- accounts have no balance here; theirs is the sum of their shards, so that no seller is a hot row.
    balance         numeric(39,0),
    spent           boolean NOT NULL DEFAULT false,     -- an empty lot; kept apart so that balance updates stay HOT
    opened_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT no_overdraft CHECK (balance >= 0),
    CHECK ((wallet_id IS NOT NULL) = (purpose IN ('deposit', 'promotional', 'funded', 'held'))),
    CHECK ((wallet_id IS NOT NULL) = (balance IS NOT NULL)),
    CHECK ((granted IS NOT NULL) = (purpose IN ('deposit', 'promotional', 'funded'))),
    CHECK ((publisher_id IS NOT NULL) = (purpose IN ('deposit', 'earnings', 'paying_out'))),
    CHECK (fee_account_id IS NULL OR purpose = 'earnings')
) WITH (fillfactor = 50);
CREATE INDEX account_live_lots ON ledger.account (wallet_id) WHERE wallet_id IS NOT NULL AND NOT spent;
CREATE INDEX account_lots ON ledger.account (wallet_id, id DESC) WHERE granted IS NOT NULL;
CREATE INDEX account_expiring ON ledger.account (expires_at) WHERE expires_at IS NOT NULL AND NOT spent;
-- One credit once: the reference names what caused it within its source.
CREATE UNIQUE INDEX account_credit ON ledger.account (wallet_id, source, reference) WHERE granted IS NOT NULL;
CREATE UNIQUE INDEX account_held ON ledger.account (wallet_id) WHERE purpose = 'held';
CREATE UNIQUE INDEX account_publisher ON ledger.account (publisher_id, asset_id, purpose)
    WHERE purpose IN ('earnings', 'paying_out');
CREATE UNIQUE INDEX account_platform ON ledger.account (asset_id, purpose, rail) NULLS NOT DISTINCT
    WHERE wallet_id IS NULL AND publisher_id IS NULL;

-- Running sums of the accounts without a balance, spread over rows so that concurrent batches never wait.
CREATE TABLE ledger.shard (
    account_id  bigint NOT NULL REFERENCES ledger.account,
    shard       smallint NOT NULL,
    debits      numeric(39,0) NOT NULL DEFAULT 0,
    credits     numeric(39,0) NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, shard)
) WITH (fillfactor = 50);

-- A gateway process. One that has not been seen for a while no longer owns its open exchanges; what it says of itself
-- keeps the reconciler's search short: exchanges of its own before `settled_through` have all ended.
CREATE TABLE ledger.worker (
    id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at      timestamptz NOT NULL DEFAULT now(),
    seen_at         timestamptz NOT NULL DEFAULT now(),
    settled_through uuid NOT NULL,
    stopped_at      timestamptz,
    reconciled_at   timestamptz
);
CREATE INDEX worker_unreconciled ON ledger.worker (seen_at) WHERE reconciled_at IS NULL;

-- Every movement of money, for ever. One row debits one account and credits another; where a fee is due, the
-- platform's part of a charge or capture goes to the fee account of the credited earnings account, and comes back
-- from it in a refund. The key makes "one charge, one refund per cause" a law of the database.
CREATE TABLE ledger.transfer (
    cause_id        uuid NOT NULL,              -- UUIDv7 of the exchange, grant or sweep
    kind            ledger.kind NOT NULL,
    leg             smallint NOT NULL,
    worker_id       integer,                    -- charges and holds: whose exchange it is until it is settled
    debit_account   bigint NOT NULL,
    credit_account  bigint NOT NULL,
    wallet_id       bigint,
    amount          numeric(39,0) NOT NULL CHECK (amount > 0),
    fee             numeric(39,0) NOT NULL DEFAULT 0 CHECK (fee >= 0 AND fee <= amount),
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cause_id, kind, leg)
);
CREATE INDEX transfer_wallet ON ledger.transfer (wallet_id, cause_id) WHERE wallet_id IS NOT NULL;
CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger.% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER transfer_immutable BEFORE UPDATE OR DELETE ON ledger.transfer
    FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER transfer_kept BEFORE TRUNCATE ON ledger.transfer
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- How an exchange ended. A charge or hold without a row here is open; the reconciler ends those of dead workers.
CREATE TABLE ledger.settlement (
    exchange_id     uuid PRIMARY KEY,
    outcome         ledger.outcome NOT NULL,
    reason          text NOT NULL,
    status          smallint,                   -- what the upstream answered, if it did
    bytes_in        bigint NOT NULL DEFAULT 0,  -- request body as forwarded
    bytes_out       bigint NOT NULL DEFAULT 0,  -- response body as delivered
    method          text,
    target_hash     bytea,                      -- sha256 of the request target as the agent sent it
    body_hash       bytea,                      -- sha256 of the response body as delivered
    ended_at        timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE ledger.hold (
    exchange_id     uuid PRIMARY KEY,
    wallet_id       bigint NOT NULL REFERENCES ledger.wallet,
    account_id      bigint NOT NULL REFERENCES ledger.account,
    amount          numeric(39,0) NOT NULL CHECK (amount > 0),
    captured        numeric(39,0) NOT NULL DEFAULT 0 CHECK (captured >= 0 AND captured <= amount),
    status          ledger.hold_status NOT NULL DEFAULT 'pending',
    placed_at       timestamptz NOT NULL DEFAULT now(),
    ended_at        timestamptz,
    CHECK ((status = 'captured') = (captured > 0))
);
CREATE INDEX hold_pending ON ledger.hold (placed_at) WHERE status = 'pending';

-- Both sides of every transfer, for proofs and statements.
CREATE VIEW ledger.posting AS
    SELECT t.cause_id, t.kind, t.leg, t.created_at, t.debit_account AS account_id,
           CASE WHEN t.kind = 'refund' THEN t.amount - t.fee ELSE t.amount END AS debit, 0::numeric AS credit
      FROM ledger.transfer t
    UNION ALL
    SELECT t.cause_id, t.kind, t.leg, t.created_at, t.credit_account,
           0, CASE WHEN t.kind IN ('charge', 'capture') THEN t.amount - t.fee ELSE t.amount END
      FROM ledger.transfer t
    UNION ALL
    SELECT t.cause_id, t.kind, t.leg, t.created_at, a.fee_account_id,
           CASE WHEN t.kind = 'refund' THEN t.fee ELSE 0 END, CASE WHEN t.kind = 'refund' THEN 0 ELSE t.fee END
      FROM ledger.transfer t
      JOIN ledger.account a ON a.id = CASE WHEN t.kind = 'refund' THEN t.debit_account ELSE t.credit_account END
     WHERE t.fee > 0;

-- Add to an account without a balance. The backend's number picks the shard: one writer, one row.
CREATE FUNCTION ledger.add_to_shard(p_account bigint, p_debit numeric, p_credit numeric) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO ledger.shard AS s (account_id, shard, debits, credits)
    VALUES (p_account, pg_backend_pid() % 64, p_debit, p_credit)
    ON CONFLICT (account_id, shard) DO UPDATE
        SET debits = s.debits + EXCLUDED.debits, credits = s.credits + EXCLUDED.credits
$$;

CREATE FUNCTION ledger.platform_account(p_asset uuid, p_purpose ledger.purpose, p_rail text DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    found_id bigint;
BEGIN
    SELECT id INTO found_id FROM ledger.account
     WHERE asset_id = p_asset AND purpose = p_purpose AND rail IS NOT DISTINCT FROM p_rail
       AND wallet_id IS NULL AND publisher_id IS NULL;
    IF found_id IS NULL THEN
        INSERT INTO ledger.account (purpose, asset_id, rail) VALUES (p_purpose, p_asset, p_rail)
        ON CONFLICT DO NOTHING RETURNING id INTO found_id;
        IF found_id IS NULL THEN
            SELECT id INTO found_id FROM ledger.account
             WHERE asset_id = p_asset AND purpose = p_purpose AND rail IS NOT DISTINCT FROM p_rail
               AND wallet_id IS NULL AND publisher_id IS NULL;
        END IF;
    END IF;
    RETURN found_id;
END $$;

CREATE FUNCTION ledger.earnings_account(p_publisher uuid, p_asset uuid) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    found_id bigint;
BEGIN
    SELECT id INTO found_id FROM ledger.account
     WHERE publisher_id = p_publisher AND asset_id = p_asset AND purpose = 'earnings';
    IF found_id IS NULL THEN
        INSERT INTO ledger.account (purpose, asset_id, publisher_id, fee_account_id)
        VALUES ('earnings', p_asset, p_publisher, ledger.platform_account(p_asset, 'fees'))
        ON CONFLICT DO NOTHING;
        SELECT id INTO found_id FROM ledger.account
         WHERE publisher_id = p_publisher AND asset_id = p_asset AND purpose = 'earnings';
    END IF;
    RETURN found_id;
END $$;

-- Credit a wallet with a new lot. 'granted', or 'repeated' when this reference has been credited before.
CREATE FUNCTION ledger.grant_lot(
    p_cause uuid, p_wallet bigint, p_source text, p_reference text, p_amount numeric, p_purpose ledger.purpose,
    p_expires timestamptz, p_description text, p_publisher uuid, p_rail text, OUT verdict text, OUT lot_id bigint
) LANGUAGE plpgsql AS $$
DECLARE
    asset uuid;
    payer bigint;
BEGIN
    SELECT asset_id INTO STRICT asset FROM ledger.wallet WHERE id = p_wallet FOR UPDATE;
    INSERT INTO ledger.account (purpose, asset_id, wallet_id, publisher_id, source, reference, description, granted,
                                expires_at, balance)
    VALUES (p_purpose, asset, p_wallet, p_publisher, p_source, p_reference, p_description, p_amount, p_expires, p_amount)
    ON CONFLICT (wallet_id, source, reference) WHERE granted IS NOT NULL DO NOTHING
    RETURNING id INTO lot_id;
    IF lot_id IS NULL THEN
        SELECT id INTO lot_id FROM ledger.account
         WHERE wallet_id = p_wallet AND source = p_source AND reference = p_reference AND granted IS NOT NULL;
        verdict := 'repeated';
        RETURN;
    END IF;
    payer := CASE WHEN p_purpose = 'promotional' THEN ledger.platform_account(asset, 'promotional_expense')
                  ELSE ledger.platform_account(asset, 'clearing', p_rail) END;
    INSERT INTO ledger.transfer (cause_id, kind, leg, debit_account, credit_account, wallet_id, amount)
    VALUES (p_cause, 'grant', 0, payer, lot_id, p_wallet, p_amount);
    PERFORM ledger.add_to_shard(payer, p_amount, 0);
    verdict := 'granted';
END $$;

-- Take an amount from a wallet's lots in draw order and credit it to `p_to`. The caller holds the wallet's lock.
-- Draw order: deposit for this publisher, promotional by earliest expiry, funded oldest first.
CREATE FUNCTION ledger.draw(
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
        UPDATE ledger.account SET balance = balance - taken, spent = (lot.balance = taken) WHERE id = lot.id;
        INSERT INTO ledger.transfer (cause_id, kind, leg, worker_id, debit_account, credit_account, wallet_id, amount, fee)
        VALUES (p_cause, p_kind, leg_no, p_worker, lot.id, p_to, p_wallet, taken, fee_upto - fee_done);
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

-- Charge one exchange, exactly: 'posted', 'short' (nothing moved), 'replayed' (this exchange was charged before),
-- 'conflict' (this id was used for another wallet or amount), 'unknown_wallet'.
CREATE FUNCTION ledger.post_charge(
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
    END IF;
END $$;

-- Record how exchanges ended. The first word stands: a late worker cannot unsay what the reconciler decided. Alone it
-- need not wait for the disk (p_relaxed): a lost row leaves its exchange open, and the reconciler ends it.
CREATE FUNCTION ledger.settle(
    p_exchange uuid[], p_reason text[], p_status smallint[], p_bytes_in bigint[], p_bytes_out bigint[],
    p_method text[], p_target bytea[], p_body bytea[], p_relaxed boolean
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_relaxed THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    INSERT INTO ledger.settlement
        (exchange_id, outcome, reason, status, bytes_in, bytes_out, method, target_hash, body_hash)
    SELECT e, 'settled', r, s, i, o, m, t, b
      FROM unnest(p_exchange, p_reason, p_status, p_bytes_in, p_bytes_out, p_method, p_target, p_body)
           AS u (e, r, s, i, o, m, t, b)
    ON CONFLICT (exchange_id) DO NOTHING;
END $$;

-- Charge many exchanges in one transaction (group commit), and record the ends of others in the same one. Arrays in, one
-- verdict per charge out, in order. When every item fits and no wallet has a publisher-scoped deposit, sums and range overlaps decide all of them at once; else each
-- item goes through post_charge in arrival order, so that one that does not fit fails alone.
CREATE FUNCTION ledger.post_charges(
    p_exchange uuid[], p_wallet bigint[], p_publisher uuid[], p_account bigint[], p_amount numeric[], p_fee numeric[],
    p_worker integer, p_ended uuid[], p_reason text[], p_status smallint[], p_bytes_in bigint[], p_bytes_out bigint[],
    p_method text[], p_target bytea[], p_body bytea[]
) RETURNS TABLE (verdict text, available text, deposit text, promotional text, funded text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    IF cardinality(p_ended) > 0 THEN
        PERFORM ledger.settle(p_ended, p_reason, p_status, p_bytes_in, p_bytes_out, p_method, p_target, p_body, false);
    END IF;
    IF cardinality(p_exchange) = 1 THEN  -- alone, the exact path is the cheaper one
        RETURN QUERY
        SELECT c.verdict, c.available::text, coalesce(c.deposit, 0)::text, coalesce(c.promotional, 0)::text,
               coalesce(c.funded, 0)::text
          FROM ledger.post_charge(p_exchange[1], p_wallet[1], p_publisher[1], p_account[1], p_amount[1], p_fee[1],
                                  p_worker) c;
        RETURN;
    END IF;
    PERFORM FROM ledger.wallet w WHERE w.id = ANY (p_wallet) ORDER BY w.id FOR UPDATE;
    RETURN QUERY
    WITH item AS MATERIALIZED (
        SELECT u.ord, u.exchange, u.wallet, u.account, u.amount, u.fee,
               sum(u.amount) OVER (PARTITION BY u.wallet ORDER BY u.ord) AS upto
          FROM unnest(p_exchange, p_wallet, p_account, p_amount, p_fee) WITH ORDINALITY
               AS u (exchange, wallet, account, amount, fee, ord)
    ), lot AS MATERIALIZED (
        SELECT a.id, a.wallet_id, a.purpose, a.balance,
               sum(a.balance) OVER (PARTITION BY a.wallet_id ORDER BY a.purpose, a.expires_at NULLS LAST, a.id) AS upto
          FROM ledger.account a
         WHERE a.wallet_id = ANY (p_wallet) AND NOT a.spent AND a.granted IS NOT NULL
           AND (a.expires_at IS NULL OR a.expires_at > now())
    ), total AS MATERIALIZED (
        SELECT l.wallet_id, max(l.upto) AS balance FROM lot l GROUP BY l.wallet_id
    ), verdicts AS MATERIALIZED (
        SELECT NOT EXISTS (SELECT FROM item i LEFT JOIN total t ON t.wallet_id = i.wallet
                            WHERE t.balance IS NULL OR i.upto > t.balance)
           AND NOT EXISTS (SELECT FROM lot l WHERE l.purpose = 'deposit') AS fits
    ), drawn AS MATERIALIZED (
        SELECT i.ord, i.exchange, i.wallet, i.account, i.amount, i.fee, l.id AS lot, l.purpose,
               least(i.upto, l.upto) - greatest(i.upto - i.amount, l.upto - l.balance) AS taken,
               row_number() OVER (PARTITION BY i.ord ORDER BY l.upto) - 1 AS leg,
               div(i.fee * (least(i.upto, l.upto) - (i.upto - i.amount)), i.amount)
                 - div(i.fee * (greatest(i.upto - i.amount, l.upto - l.balance) - (i.upto - i.amount)), i.amount) AS fee_part
          FROM verdicts v
          JOIN item i ON v.fits
          JOIN lot l ON l.wallet_id = i.wallet AND l.balance > 0
           AND l.upto > i.upto - i.amount AND l.upto - l.balance < i.upto
    ), paid AS (
        UPDATE ledger.account a SET balance = a.balance - d.taken, spent = (a.balance = d.taken)
          FROM (SELECT lot, sum(taken) AS taken FROM drawn GROUP BY lot) d WHERE a.id = d.lot
    ), posted AS (
        INSERT INTO ledger.transfer (cause_id, kind, leg, worker_id, debit_account, credit_account, wallet_id, amount, fee)
        SELECT exchange, 'charge', leg, p_worker, lot, account, wallet, taken, fee_part FROM drawn
    ), earned AS (
        INSERT INTO ledger.shard AS s (account_id, shard, credits)
        SELECT e.account, pg_backend_pid() % 64, sum(e.credit)
          FROM (SELECT i.account, i.amount - i.fee AS credit FROM verdicts v JOIN item i ON v.fits
                UNION ALL
                SELECT a.fee_account_id, i.fee FROM verdicts v JOIN item i ON v.fits
                  JOIN ledger.account a ON a.id = i.account WHERE i.fee > 0) e
         GROUP BY e.account ORDER BY e.account
        ON CONFLICT (account_id, shard) DO UPDATE SET credits = s.credits + EXCLUDED.credits
    )
    SELECT 'posted', (t.balance - i.upto)::text, '0', d.promotional::text, d.funded::text
      FROM verdicts v
      JOIN item i ON v.fits
      JOIN total t ON t.wallet_id = i.wallet
      JOIN (SELECT ord, coalesce(sum(taken) FILTER (WHERE purpose = 'promotional'), 0) AS promotional,
                   coalesce(sum(taken) FILTER (WHERE purpose = 'funded'), 0) AS funded
              FROM drawn GROUP BY ord) d ON d.ord = i.ord
     ORDER BY i.ord;
    IF NOT FOUND THEN
        FOR n IN 1 .. cardinality(p_exchange) LOOP
            RETURN QUERY
            SELECT c.verdict, c.available::text, coalesce(c.deposit, 0)::text, coalesce(c.promotional, 0)::text,
                   coalesce(c.funded, 0)::text
              FROM ledger.post_charge(p_exchange[n], p_wallet[n], p_publisher[n], p_account[n], p_amount[n], p_fee[n],
                                      p_worker) c;
        END LOOP;
    END IF;
END $$;

-- Give money back to the lot it came from. A lot that has expired meanwhile lives again for the grace period, without
-- what had expired in it.
CREATE FUNCTION ledger.return_to_lot(p_lot bigint, p_amount numeric, p_grace interval) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    lot ledger.account;
BEGIN
    SELECT * INTO STRICT lot FROM ledger.account WHERE id = p_lot;
    IF lot.expires_at <= now() THEN
        PERFORM ledger.expire_lot(lot.id, gen_random_uuid());
        UPDATE ledger.account SET expires_at = now() + p_grace WHERE id = p_lot;
    END IF;
    UPDATE ledger.account SET balance = balance + p_amount, spent = false WHERE id = p_lot;
END $$;

-- Take what is left in an expired lot back to the promotional expense. The caller holds the wallet's lock.
CREATE FUNCTION ledger.expire_lot(p_lot bigint, p_cause uuid) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    lot ledger.account;
    payer bigint;
BEGIN
    SELECT * INTO STRICT lot FROM ledger.account WHERE id = p_lot;
    IF lot.expires_at IS NULL OR lot.expires_at > now() OR lot.balance = 0 THEN
        RETURN 0;
    END IF;
    payer := ledger.platform_account(lot.asset_id, 'promotional_expense');
    UPDATE ledger.account SET balance = 0, spent = true WHERE id = p_lot;
    INSERT INTO ledger.transfer (cause_id, kind, leg, debit_account, credit_account, wallet_id, amount)
    VALUES (p_cause, 'expire', 0, p_lot, payer, lot.wallet_id, lot.balance);
    PERFORM ledger.add_to_shard(payer, 0, lot.balance);
    RETURN lot.balance;
END $$;

-- Expire up to p_limit lots; returns how many. Wallets that are busy are left for the next round.
CREATE FUNCTION ledger.expire_lots(p_limit integer) RETURNS integer LANGUAGE plpgsql AS $$
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
        PERFORM ledger.expire_lot(lot.id, gen_random_uuid());
        swept := swept + 1;
    END LOOP;
    RETURN swept;
END $$;

-- Undo a charge or a captured hold whole, to the lots it was taken from. 'refunded', 'repeated', 'unknown' (no such
-- charge), 'settled' (only when p_only_open: the exchange had ended before, nothing moved).
CREATE FUNCTION ledger.refund(
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
    IF payer IS NULL THEN
        verdict := 'unknown'; amount := 0;
        RETURN;
    END IF;
    PERFORM FROM ledger.wallet WHERE id = payer FOR UPDATE;
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

-- The lots behind a captured hold with what each gave: hold legs less release legs, fee shared by running total.
CREATE FUNCTION ledger.captured_legs(p_exchange uuid)
RETURNS TABLE (leg smallint, lot bigint, earnings bigint, amount numeric, fee numeric) LANGUAGE sql STABLE AS $$
    WITH capture AS (
        SELECT credit_account, amount, fee FROM ledger.transfer WHERE cause_id = p_exchange AND kind = 'capture'
    ), given AS (
        SELECT h.leg, h.debit_account AS lot, h.amount - coalesce(r.amount, 0) AS amount
          FROM ledger.transfer h
          LEFT JOIN ledger.transfer r ON r.cause_id = p_exchange AND r.kind = 'release' AND r.leg = h.leg
         WHERE h.cause_id = p_exchange AND h.kind = 'hold'
    ), running AS (
        SELECT g.leg, g.lot, g.amount, sum(g.amount) OVER (ORDER BY g.leg) AS upto FROM given g WHERE g.amount > 0
    )
    SELECT r.leg, r.lot, c.credit_account, r.amount,
           div(c.fee * r.upto, c.amount) - div(c.fee * (r.upto - r.amount), c.amount)
      FROM running r CROSS JOIN capture c
$$;

-- Reserve up to an amount: 'held', 'short', 'repeated', 'unknown_wallet'.
CREATE FUNCTION ledger.place_hold(
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
        verdict := 'repeated'; available := 0;
        RETURN;
    END IF;
    INSERT INTO ledger.account (purpose, asset_id, wallet_id, balance) VALUES ('held', asset, p_wallet, 0)
    ON CONFLICT (wallet_id) WHERE purpose = 'held' DO NOTHING;
    SELECT id INTO STRICT held FROM ledger.account WHERE wallet_id = p_wallet AND purpose = 'held';
    SELECT d.verdict, d.available INTO verdict, available
      FROM ledger.draw('hold', p_exchange, p_wallet, p_publisher, held, p_amount, 0, p_worker) d;
    IF verdict = 'posted' THEN
        UPDATE ledger.account SET balance = balance + p_amount WHERE id = held;
        INSERT INTO ledger.hold (exchange_id, wallet_id, account_id, amount)
        VALUES (p_exchange, p_wallet, p_account, p_amount);
        verdict := 'held';
    END IF;
END $$;

-- End a hold: capture a part (0 voids it) and release the rest to its lots, last drawn first. 'captured', 'voided',
-- 'repeated' (ended before in the same way), 'conflict' (ended before in another way), 'excess' (more than was held),
-- 'unknown'. Only 'captured' and 'voided' moved money.
CREATE FUNCTION ledger.end_hold(
    p_exchange uuid, p_capture numeric, p_fee numeric, p_reason text, p_status smallint, p_bytes_in bigint,
    p_bytes_out bigint, p_grace interval, OUT verdict text, OUT available numeric
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
    SELECT id INTO STRICT held FROM ledger.account WHERE wallet_id = h.wallet_id AND purpose = 'held';
    UPDATE ledger.account SET balance = balance - h.amount WHERE id = held;
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
    verdict := CASE WHEN p_capture > 0 THEN 'captured' ELSE 'voided' END;
    UPDATE ledger.hold SET status = verdict::ledger.hold_status, captured = p_capture, ended_at = now()
     WHERE exchange_id = p_exchange;
    INSERT INTO ledger.settlement (exchange_id, outcome, reason, status, bytes_in, bytes_out)
    VALUES (p_exchange, CASE WHEN p_capture > 0 THEN 'settled' ELSE 'refunded' END::ledger.outcome, p_reason, p_status,
            p_bytes_in, p_bytes_out)
    ON CONFLICT (exchange_id) DO NOTHING;
    SELECT coalesce(sum(a.balance), 0) INTO available FROM ledger.account a
     WHERE a.wallet_id = h.wallet_id AND NOT a.spent AND a.granted IS NOT NULL
       AND (a.expires_at IS NULL OR a.expires_at > now());
END $$;
