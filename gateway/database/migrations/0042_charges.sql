-- Direct charges: services of the operator's own house (first-party publishers) take money from agents' balances without
-- a call, give it back, and take penalties for it. Who may is the operator's to say, and how much; nobody else's.
CREATE TABLE catalog.first_party (
    publisher_id    uuid PRIMARY KEY REFERENCES catalog.publisher,
    asset_id        uuid NOT NULL REFERENCES catalog.asset,     -- of the bounds, and of the wallets that can be charged
    per_charge      numeric(39,0) NOT NULL CHECK (per_charge > 0),
    per_day         numeric(39,0) NOT NULL CHECK (per_day >= per_charge),   -- from one wallet, penalties too, by UTC days
    changed_at      timestamptz NOT NULL DEFAULT now()
);

-- One direct charge; its id is the cause of its transfers. The wallet's lock is the lock of this row as well.
CREATE TABLE ledger.direct_charge (
    id              uuid PRIMARY KEY,
    publisher_id    uuid NOT NULL REFERENCES catalog.publisher,
    wallet_id       bigint NOT NULL REFERENCES ledger.wallet,
    amount          numeric(39,0) NOT NULL CHECK (amount > 0),
    fee             numeric(39,0) NOT NULL CHECK (fee >= 0 AND fee <= amount),
    description     text NOT NULL,
    idempotency_key uuid,
    charged_at      timestamptz NOT NULL,
    slashed         numeric(39,0) NOT NULL DEFAULT 0 CHECK (slashed >= 0 AND slashed <= amount),
    refunded_at     timestamptz,
    refund_reason   text,
    refund_key      text,
    CHECK ((refunded_at IS NULL) = (refund_reason IS NULL)),
    CHECK (refund_key IS NULL OR refunded_at IS NOT NULL)
);
CREATE UNIQUE INDEX direct_charge_key ON ledger.direct_charge (publisher_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX direct_charge_day ON ledger.direct_charge (wallet_id, publisher_id, charged_at);

-- What was taken on top of a charge; its id is the cause of its transfers.
CREATE TABLE ledger.penalty (
    id              uuid PRIMARY KEY,
    charge_id       uuid NOT NULL REFERENCES ledger.direct_charge,
    publisher_id    uuid NOT NULL REFERENCES catalog.publisher,
    wallet_id       bigint NOT NULL REFERENCES ledger.wallet,
    amount          numeric(39,0) NOT NULL CHECK (amount > 0),
    reason          text NOT NULL,
    idempotency_key text,
    taken_at        timestamptz NOT NULL
);
CREATE UNIQUE INDEX penalty_key ON ledger.penalty (charge_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX penalty_charge ON ledger.penalty (charge_id);
CREATE INDEX penalty_day ON ledger.penalty (wallet_id, publisher_id, taken_at);

CREATE FUNCTION ledger.penalties_account(p_publisher uuid, p_asset uuid) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    found_id bigint;
BEGIN
    SELECT id INTO found_id FROM ledger.account
     WHERE publisher_id = p_publisher AND asset_id = p_asset AND purpose = 'penalties';
    IF found_id IS NULL THEN
        INSERT INTO ledger.account (purpose, asset_id, publisher_id) VALUES ('penalties', p_asset, p_publisher)
        ON CONFLICT DO NOTHING;
        SELECT id INTO found_id FROM ledger.account
         WHERE publisher_id = p_publisher AND asset_id = p_asset AND purpose = 'penalties';
    END IF;
    RETURN found_id;
END $$;

-- What a publisher may take of a wallet now: its terms, if they are about the wallet's asset and it is active, and what it
-- has taken since the day began (UTC). Money that was given back was not taken. The caller holds the wallet's lock.
CREATE FUNCTION ledger.direct_terms(
    p_publisher uuid, p_wallet bigint, p_moment timestamptz, OUT per_charge numeric, OUT per_day numeric,
    OUT taken numeric
) LANGUAGE sql STABLE AS $$
    SELECT f.per_charge, f.per_day,
           (SELECT coalesce(sum(c.amount), 0) FROM ledger.direct_charge c
             WHERE c.wallet_id = p_wallet AND c.publisher_id = p_publisher AND c.charged_at >= d.began
               AND c.refunded_at IS NULL)
         + (SELECT coalesce(sum(p.amount), 0) FROM ledger.penalty p JOIN ledger.direct_charge c ON c.id = p.charge_id
             WHERE p.wallet_id = p_wallet AND p.publisher_id = p_publisher AND p.taken_at >= d.began
               AND c.refunded_at IS NULL)
      FROM catalog.first_party f
      JOIN catalog.publisher s ON s.id = f.publisher_id AND s.is_active AND s.deleted_at IS NULL
      JOIN ledger.wallet w ON w.id = p_wallet AND w.asset_id = f.asset_id
      CROSS JOIN (SELECT date_trunc('day', p_moment, 'UTC') AS began) d
     WHERE f.publisher_id = p_publisher
$$;

-- Take an amount from a wallet, whole or not at all: 'charged'; 'repeated' (its key has done so before: charge_id says as
-- what); 'conflict' (its key belongs to that charge, which is another); 'refused' (no terms for this publisher and wallet);
-- 'above' (more than `bound`, which a charge may be); 'beyond' (more than `bound`, which may be taken in a day; `taken` is);
-- 'short' (`available` is what there is).
CREATE FUNCTION ledger.charge_directly(
    p_id uuid, p_publisher uuid, p_wallet bigint, p_amount numeric, p_fee numeric, p_description text, p_key uuid,
    OUT verdict text, OUT charge_id uuid, OUT available numeric, OUT bound numeric, OUT taken numeric
) LANGUAGE plpgsql AS $$
DECLARE
    asset uuid;
    moment timestamptz;
    terms record;
BEGIN
    charge_id := p_id; available := 0; bound := 0; taken := 0;
    SELECT w.asset_id INTO STRICT asset FROM ledger.wallet w WHERE w.id = p_wallet FOR UPDATE;
    moment := clock_timestamp();
    SELECT r.verdict, r.charge_id INTO verdict, charge_id
      FROM ledger.earlier_charge(p_publisher, p_key, p_wallet, p_amount, p_description) r;
    IF verdict IS NOT NULL THEN
        RETURN;
    END IF;
    charge_id := p_id;
    SELECT * INTO terms FROM ledger.direct_terms(p_publisher, p_wallet, moment);
    IF terms.per_day IS NULL THEN
        verdict := 'refused';
        RETURN;
    ELSIF p_amount > terms.per_charge THEN
        verdict := 'above'; bound := terms.per_charge;
        RETURN;
    ELSIF terms.taken + p_amount > terms.per_day THEN
        verdict := 'beyond'; bound := terms.per_day; taken := terms.taken;
        RETURN;
    END IF;
    INSERT INTO ledger.direct_charge (id, publisher_id, wallet_id, amount, fee, description, idempotency_key, charged_at)
    VALUES (p_id, p_publisher, p_wallet, p_amount, p_fee, p_description, p_key, moment)
    ON CONFLICT (publisher_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING;
    IF NOT FOUND THEN   -- at the same time, for another wallet: the first has been waited for
        SELECT r.verdict, r.charge_id INTO verdict, charge_id
          FROM ledger.earlier_charge(p_publisher, p_key, p_wallet, p_amount, p_description) r;
        RETURN;
    END IF;
    SELECT c.verdict, c.available INTO verdict, available
      FROM ledger.post_charge(p_id, p_wallet, p_publisher, ledger.earnings_account(p_publisher, asset), p_amount, p_fee,
                              NULL) c;
    IF verdict <> 'posted' THEN
        DELETE FROM ledger.direct_charge WHERE id = p_id;
        RETURN;
    END IF;
    INSERT INTO ledger.settlement (exchange_id, outcome, reason) VALUES (p_id, 'settled', 'direct_charge');
    verdict := 'charged';
END $$;

-- What a key has charged before: 'repeated' or 'conflict' with the id of that charge; NULL for a new or missing key.
CREATE FUNCTION ledger.earlier_charge(
    p_publisher uuid, p_key uuid, p_wallet bigint, p_amount numeric, p_description text,
    OUT verdict text, OUT charge_id uuid
) LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN (c.wallet_id, c.amount, c.description) = (p_wallet, p_amount, p_description) THEN 'repeated'
                ELSE 'conflict' END, c.id
      FROM ledger.direct_charge c WHERE c.publisher_id = p_publisher AND c.idempotency_key = p_key
$$;

-- Give back all that a charge has taken, penalties too, to the lots it was taken from: 'refunded'; 'repeated' (this key has
-- done so); 'reused' (this key has, for another reason); 'again' (somebody has); 'archived' (its month is put away).
CREATE FUNCTION ledger.refund_charge(
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
    UPDATE ledger.direct_charge SET refunded_at = clock_timestamp(), refund_reason = p_reason, refund_key = p_key
     WHERE id = p_id;
    verdict := 'refunded';
END $$;

-- Take a penalty for a charge: 'slashed'; 'repeated' or 'reused' (this key has taken this one, or another); 'refunded' (the
-- charge was given back); 'archived'; 'refused'; 'above' (more than `bound`, what of the charge's amount penalties have not
-- taken yet); 'beyond' and 'short' as of a charge.
CREATE FUNCTION ledger.slash_charge(
    p_id uuid, p_charge uuid, p_amount numeric, p_reason text, p_key text, OUT verdict text, OUT available numeric,
    OUT bound numeric, OUT taken numeric
) LANGUAGE plpgsql AS $$
DECLARE
    c ledger.direct_charge;
    earlier ledger.penalty;
    asset uuid;
    moment timestamptz;
    terms record;
    account bigint;
BEGIN
    available := 0; bound := 0; taken := 0;
    SELECT w.asset_id INTO STRICT asset FROM ledger.wallet w
     WHERE w.id = (SELECT d.wallet_id FROM ledger.direct_charge d WHERE d.id = p_charge) FOR UPDATE;
    moment := clock_timestamp();
    SELECT * INTO STRICT c FROM ledger.direct_charge d WHERE d.id = p_charge;
    SELECT * INTO earlier FROM ledger.penalty p WHERE p.charge_id = p_charge AND p.idempotency_key = p_key;
    IF FOUND THEN
        verdict := CASE WHEN (earlier.amount, earlier.reason) = (p_amount, p_reason) THEN 'repeated' ELSE 'reused' END;
        RETURN;
    END IF;
    SELECT * INTO terms FROM ledger.direct_terms(c.publisher_id, c.wallet_id, moment);
    verdict := CASE WHEN c.refunded_at IS NOT NULL THEN 'refunded'
                    WHEN ledger.is_put_away(p_charge) THEN 'archived'
                    WHEN terms.per_day IS NULL THEN 'refused'
                    WHEN p_amount > c.amount - c.slashed THEN 'above'
                    WHEN terms.taken + p_amount > terms.per_day THEN 'beyond' END;
    IF verdict IS NOT NULL THEN
        bound := CASE verdict WHEN 'above' THEN c.amount - c.slashed WHEN 'beyond' THEN terms.per_day ELSE 0 END;
        taken := coalesce(terms.taken, 0);
        RETURN;
    END IF;
    account := ledger.penalties_account(c.publisher_id, asset);
    SELECT d.verdict, d.available INTO verdict, available
      FROM ledger.draw('penalty', p_id, c.wallet_id, c.publisher_id, account, p_amount, 0, NULL) d;
    IF verdict <> 'posted' THEN
        RETURN;
    END IF;
    PERFORM ledger.add_to_shard(account, 0, p_amount);
    INSERT INTO ledger.penalty (id, charge_id, publisher_id, wallet_id, amount, reason, idempotency_key, taken_at)
    VALUES (p_id, p_charge, c.publisher_id, c.wallet_id, p_amount, p_reason, p_key, moment);
    UPDATE ledger.direct_charge SET slashed = slashed + p_amount WHERE id = p_charge;
    verdict := 'slashed';
END $$;

-- Whether what this id caused is in a month that is archived, or just about to be: nothing can be written there.
CREATE FUNCTION ledger.is_put_away(p_id uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM ledger.archive a WHERE p_id < a.upto)
$$;

-- As before; a direct charge is no call.
CREATE OR REPLACE FUNCTION catalog.usage_between(p_after uuid, p_upto uuid)
RETURNS TABLE (publisher_id uuid, wallet_id bigint, calls bigint) LANGUAGE sql STABLE AS $$
    SELECT a.publisher_id, t.wallet_id, count(*)
      FROM ledger.transfer t JOIN ledger.account a ON a.id = t.credit_account
     WHERE t.cause_id > p_after AND t.cause_id <= p_upto AND t.kind IN ('charge', 'capture') AND t.leg = 0
       AND a.purpose = 'earnings' AND t.wallet_id IS NOT NULL
       AND NOT EXISTS (SELECT FROM ledger.transfer r WHERE r.cause_id = t.cause_id AND r.kind = 'refund')
       AND NOT EXISTS (SELECT FROM ledger.direct_charge c WHERE c.id = t.cause_id)
     GROUP BY a.publisher_id, t.wallet_id
$$;
