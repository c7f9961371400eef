-- Payments on a chain: the outbox between a signed authorization and money that has moved, and its booking.
--
-- A payment's life:
--   reserved -> pending -> broadcast -> confirmed (-> final)       a fork may lead back from confirmed to broadcast
--          \-> cancelled      \-> unknown -> confirmed | failed     failed is final when nobody can execute it any more
CREATE SCHEMA chain;

CREATE TYPE chain.state AS ENUM ('reserved', 'pending', 'broadcast', 'unknown', 'confirmed', 'failed', 'cancelled');
CREATE TYPE chain.booking AS ENUM (
    'earnings',     -- paid to the platform's treasury: earnings of the publisher, less the fee
    'direct',       -- paid to the publisher's own address: earned and received at once
    'deposit',      -- paid to the treasury: a deposit of a wallet, for one publisher's calls
    'none'          -- settled for somebody else (facilitator): no money of ours
);

-- One signing nonce of one key, and what the transaction that spends it does. Attempts with other fees share it.
CREATE TABLE chain.sending (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    network         text NOT NULL,
    sender          bytea NOT NULL CHECK (octet_length(sender) = 20),
    nonce           bigint NOT NULL CHECK (nonce >= 0),
    target          bytea NOT NULL CHECK (octet_length(target) = 20),
    data            bytea NOT NULL,
    gas             bigint NOT NULL,
    purpose         text NOT NULL CHECK (purpose IN ('settle', 'repay')),
    -- open: not in a block; mined: in one, which may still be forked away; final; lost: the nonce went to something else
    status          text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'mined', 'final', 'lost')),
    mined_transaction bytea,
    block_number    bigint,
    block_hash      bytea,
    made_at         timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX sending_nonce ON chain.sending (network, sender, nonce) WHERE status IN ('open', 'mined');
CREATE INDEX sending_live ON chain.sending (network, sender, status) WHERE status IN ('open', 'mined');

-- Signed transactions, stored before they are broadcast: whatever was sent can be found and sent again.
CREATE TABLE chain.attempt (
    hash            bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    sending_id      bigint NOT NULL REFERENCES chain.sending,
    raw             bytea NOT NULL,
    max_fee         numeric(39,0) NOT NULL,
    tip             numeric(39,0) NOT NULL,
    void            boolean NOT NULL DEFAULT false,     -- does nothing: fills the nonce of a sending nobody needs now
    made_at         timestamptz NOT NULL DEFAULT now(),
    sent_at         timestamptz                         -- last handed to a node; NULL: maybe never
);
CREATE INDEX attempt_sending ON chain.attempt (sending_id);

CREATE TABLE chain.payment (
    id              uuid PRIMARY KEY,                   -- the exchange or deposit that it pays
    network         text NOT NULL,                      -- CAIP-2
    verifier        bytea NOT NULL CHECK (octet_length(verifier) = 20),     -- whose nonce it is: the token, or Permit2
    asset           bytea NOT NULL CHECK (octet_length(asset) = 20),
    payer           bytea NOT NULL CHECK (octet_length(payer) = 20),
    nonce           bytea NOT NULL CHECK (octet_length(nonce) = 32),
    method          text NOT NULL CHECK (method IN ('eip3009', 'permit2_exact', 'permit2_upto')),
    payee           bytea NOT NULL CHECK (octet_length(payee) = 20),
    authorized      numeric(39,0) NOT NULL CHECK (authorized > 0),          -- what was signed, atomic units
    amount          numeric(39,0) NOT NULL CHECK (amount > 0 AND amount <= authorized),
    valid_after     bigint NOT NULL,
    valid_before    bigint NOT NULL,
    signature       bytea NOT NULL CHECK (octet_length(signature) BETWEEN 65 AND 8192),
    deploy_target   bytea CHECK (octet_length(deploy_target) = 20),         -- ERC-6492: what makes the payer's wallet
    deploy_data     bytea,
    deferred        boolean NOT NULL,                   -- delivered before it is settled: counts as exposure
    booking         chain.booking NOT NULL,
    account_id      bigint REFERENCES ledger.account,   -- earnings, direct
    fee             numeric(39,0) NOT NULL DEFAULT 0,
    wallet_id       bigint REFERENCES ledger.wallet,    -- deposit
    publisher_id    uuid,                               -- deposit
    request_hash    bytea,
    worker_id       integer,
    state           chain.state NOT NULL DEFAULT 'reserved',
    reason          text,                               -- of a failure, a protocol code
    final           boolean NOT NULL DEFAULT false,
    sending_id      bigint REFERENCES chain.sending,    -- ours that carries it
    mined_transaction bytea,                            -- the one that moved the money, ours or not
    block_number    bigint,
    block_hash      bytea,
    since_block     bigint,                             -- its use cannot be older than this block
    tries           integer NOT NULL DEFAULT 0,
    check_at        timestamptz NOT NULL DEFAULT now(),
    reserved_at     timestamptz NOT NULL DEFAULT now(),
    submitted_at    timestamptz,
    ended_at        timestamptz,
    CHECK (fee >= 0 AND fee <= amount),
    CHECK ((account_id IS NOT NULL) = (booking IN ('earnings', 'direct'))),
    CHECK ((wallet_id IS NOT NULL AND publisher_id IS NOT NULL) = (booking = 'deposit')),
    CHECK (booking = 'earnings' OR fee = 0),
    CHECK ((deploy_target IS NULL) = (deploy_data IS NULL)),
    CHECK (method = 'permit2_upto' OR amount = authorized),
    CHECK (state <> 'confirmed' OR (mined_transaction IS NOT NULL AND block_number IS NOT NULL))
);
-- One payment once. Bytes have one spelling, so no other case or padding is another payment.
CREATE UNIQUE INDEX payment_once ON chain.payment (network, verifier, payer, nonce);
CREATE INDEX payment_payer ON chain.payment (network, asset, payer);
CREATE INDEX payment_pending ON chain.payment (network, submitted_at) WHERE state = 'pending';
CREATE INDEX payment_sending ON chain.payment (sending_id) WHERE sending_id IS NOT NULL;
CREATE INDEX payment_watched ON chain.payment (network, check_at)
    WHERE NOT final AND state IN ('broadcast', 'unknown', 'confirmed', 'failed');
CREATE INDEX payment_reserved ON chain.payment (reserved_at) WHERE state = 'reserved';

-- Money of a settled payment that goes back to its payer, because the call it paid for failed.
CREATE TABLE chain.repayment (
    payment_id      uuid PRIMARY KEY REFERENCES chain.payment,
    state           chain.state NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'broadcast', 'confirmed')),
    reason          text NOT NULL,
    sending_id      bigint REFERENCES chain.sending,
    made_at         timestamptz NOT NULL DEFAULT now(),
    ended_at        timestamptz
);
CREATE INDEX repayment_open ON chain.repayment (made_at) WHERE state <> 'confirmed';

-- Both sides of every transfer, now also of those on a chain.
CREATE OR REPLACE VIEW ledger.posting AS
    SELECT t.cause_id, t.kind, t.leg, t.created_at, t.debit_account AS account_id,
           CASE WHEN t.kind IN ('refund', 'reversal', 'repayment') THEN t.amount - t.fee ELSE t.amount END AS debit,
           0::numeric AS credit
      FROM ledger.transfer t
    UNION ALL
    SELECT t.cause_id, t.kind, t.leg, t.created_at, t.credit_account,
           0, CASE WHEN t.kind IN ('charge', 'capture', 'payment') THEN t.amount - t.fee ELSE t.amount END
      FROM ledger.transfer t
    UNION ALL
    SELECT t.cause_id, t.kind, t.leg, t.created_at, a.fee_account_id,
           CASE WHEN t.kind IN ('refund', 'reversal', 'repayment') THEN t.fee ELSE 0 END,
           CASE WHEN t.kind IN ('refund', 'reversal', 'repayment') THEN 0 ELSE t.fee END
      FROM ledger.transfer t
      JOIN ledger.account a ON a.id = CASE WHEN t.kind IN ('refund', 'reversal', 'repayment') THEN t.debit_account
                                           ELSE t.credit_account END
     WHERE t.fee > 0;

-- Move money between accounts without a balance, once per cause, kind and leg. Returns whether it moved now. For a
-- payment the fee goes on from the credited earnings to the fee account; a reversal or repayment brings it back.
CREATE FUNCTION ledger.move(
    p_cause uuid, p_kind ledger.kind, p_leg smallint, p_from bigint, p_to bigint, p_amount numeric, p_fee numeric
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    back boolean := p_kind IN ('reversal', 'repayment');
    fee_account bigint;
BEGIN
    INSERT INTO ledger.transfer (cause_id, kind, leg, debit_account, credit_account, amount, fee)
    VALUES (p_cause, p_kind, p_leg, p_from, p_to, p_amount, p_fee) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM ledger.add_to_shard(p_from, p_amount - CASE WHEN back THEN p_fee ELSE 0 END, 0);
    PERFORM ledger.add_to_shard(p_to, 0, p_amount - CASE WHEN back THEN 0 ELSE p_fee END);
    IF p_fee > 0 THEN
        SELECT a.fee_account_id INTO STRICT fee_account FROM ledger.account a
         WHERE a.id = CASE WHEN back THEN p_from ELSE p_to END;
        PERFORM ledger.add_to_shard(fee_account, CASE WHEN back THEN p_fee ELSE 0 END, CASE WHEN back THEN 0 ELSE p_fee END);
    END IF;
    RETURN true;
END $$;

CREATE FUNCTION chain.clearing(p_account bigint, p_network text) RETURNS bigint LANGUAGE sql AS $$
    SELECT ledger.platform_account(a.asset_id, 'clearing', p_network) FROM ledger.account a WHERE a.id = p_account
$$;

-- Book a payment that is in a block. Asked again it moves nothing: the ledger's key is the payment's id.
CREATE FUNCTION chain.book(p chain.payment) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    rail bigint;
BEGIN
    IF p.booking IN ('earnings', 'direct') THEN
        rail := chain.clearing(p.account_id, p.network);
        PERFORM ledger.move(p.id, 'payment', 0::smallint, rail, p.account_id, p.amount, p.fee);
        IF p.booking = 'direct' THEN
            PERFORM ledger.move(p.id, 'direct', 0::smallint, p.account_id, rail, p.amount, 0);
        END IF;
    ELSIF p.booking = 'deposit' THEN
        PERFORM ledger.grant_lot(p.id, p.wallet_id, 'onchain_deposit', p.id::text, p.amount, 'deposit', NULL, NULL,
                                 p.publisher_id, p.network);
    END IF;
END $$;

-- Take back the booking of a payment that its chain has undone for good. Of a deposit that is partly spent the rest is
-- the platform's loss (suspense): the agent cannot go below zero.
CREATE FUNCTION chain.unbook(p chain.payment) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    lot ledger.account;
    rail bigint;
    suspense bigint;
    taken numeric;
BEGIN
    IF p.booking IN ('earnings', 'direct') THEN
        PERFORM FROM ledger.transfer WHERE cause_id = p.id AND kind = 'payment';
        IF FOUND THEN
            rail := chain.clearing(p.account_id, p.network);
            DELETE FROM chain.repayment r WHERE r.payment_id = p.id;
            IF FOUND THEN   -- owed to the payer, not sent (that waits until the payment is final): it never came
                SELECT ledger.platform_account(a.asset_id, 'suspense') INTO suspense
                  FROM ledger.account a WHERE a.id = p.account_id;
                PERFORM ledger.move(p.id, 'reversal', 0::smallint, suspense, rail, p.amount, 0);
                RETURN;
            END IF;
            PERFORM ledger.move(p.id, 'reversal', 0::smallint, p.account_id, rail, p.amount, p.fee);
            IF p.booking = 'direct' THEN
                PERFORM ledger.move(p.id, 'reversal', 1::smallint, rail, p.account_id, p.amount, 0);
            END IF;
        END IF;
    ELSIF p.booking = 'deposit' THEN
        PERFORM FROM ledger.wallet WHERE id = p.wallet_id FOR UPDATE;
        SELECT a.* INTO lot FROM ledger.account a
         WHERE a.wallet_id = p.wallet_id AND a.source = 'onchain_deposit' AND a.reference = p.id::text AND a.granted IS NOT NULL;
        IF FOUND AND NOT EXISTS (SELECT FROM ledger.transfer WHERE cause_id = p.id AND kind = 'reversal') THEN
            rail := chain.clearing(lot.id, p.network);
            taken := least(lot.balance, p.amount);
            IF taken > 0 THEN
                UPDATE ledger.account SET balance = balance - taken, spent = (balance = taken) WHERE id = lot.id;
                INSERT INTO ledger.transfer (cause_id, kind, leg, debit_account, credit_account, wallet_id, amount)
                VALUES (p.id, 'reversal', 0, lot.id, rail, p.wallet_id, taken);
                PERFORM ledger.add_to_shard(rail, 0, taken);
            END IF;
            IF taken < p.amount THEN
                PERFORM ledger.move(p.id, 'reversal', 1::smallint, ledger.platform_account(lot.asset_id, 'suspense'), rail,
                                    p.amount - taken, 0);
            END IF;
        END IF;
    END IF;
END $$;

-- Claim an authorization for one call. 'reserved'; 'known' (it was claimed before: `payment_id` says by what); 'short'
-- (the payer's other open payments leave less than it needs of p_funds, which were read at block p_funds_block);
-- 'exposed' (unsettled deferred payments would exceed p_exposure). One claim per payer at a time.
CREATE FUNCTION chain.reserve(
    p_id uuid, p_network text, p_verifier bytea, p_asset bytea, p_payer bytea, p_nonce bytea, p_method text,
    p_payee bytea, p_authorized numeric, p_valid_after bigint, p_valid_before bigint, p_signature bytea,
    p_deploy_target bytea, p_deploy_data bytea, p_deferred boolean, p_booking chain.booking, p_account bigint,
    p_fee numeric, p_wallet bigint, p_publisher uuid, p_request_hash bytea, p_worker integer, p_funds numeric,
    p_funds_block bigint, p_exposure numeric, OUT verdict text, OUT payment_id uuid, OUT available numeric
) LANGUAGE plpgsql AS $$
DECLARE
    earlier chain.payment;
    taken numeric;
    exposed numeric;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(p_network || encode(p_payer, 'hex'), 8402));
    SELECT * INTO earlier FROM chain.payment p
     WHERE p.network = p_network AND p.verifier = p_verifier AND p.payer = p_payer AND p.nonce = p_nonce FOR UPDATE;
    IF FOUND AND earlier.state <> 'cancelled' THEN
        verdict := 'known'; payment_id := earlier.id; available := 0;
        RETURN;
    END IF;
    -- Money that is on its way counts as gone; so does what arrived after the balance was read.
    SELECT coalesce(sum(p.authorized) FILTER (WHERE p.state IN ('reserved', 'pending', 'broadcast', 'unknown')
                                                 OR (p.state = 'confirmed' AND p.block_number > p_funds_block)), 0),
           coalesce(sum(p.authorized) FILTER (WHERE p.deferred AND p.state <> 'confirmed'), 0)
      INTO taken, exposed
      FROM chain.payment p
     WHERE p.network = p_network AND p.asset = p_asset AND p.payer = p_payer AND p.state <> 'cancelled';
    available := greatest(p_funds - taken, 0);
    IF p_funds IS NOT NULL AND available < p_authorized THEN
        verdict := 'short';
        RETURN;
    END IF;
    IF p_exposure IS NOT NULL AND p_deferred AND exposed + p_authorized > p_exposure THEN
        verdict := 'exposed'; available := greatest(p_exposure - exposed, 0);
        RETURN;
    END IF;
    -- A cancelled claim was never sent anywhere: the authorization is as good as new.
    DELETE FROM chain.payment p WHERE p.id = earlier.id;
    INSERT INTO chain.payment (id, network, verifier, asset, payer, nonce, method, payee, authorized, amount, valid_after,
                               valid_before, signature, deploy_target, deploy_data, deferred, booking, account_id, fee,
                               wallet_id, publisher_id, request_hash, worker_id, since_block)
    VALUES (p_id, p_network, p_verifier, p_asset, p_payer, p_nonce, p_method, p_payee, p_authorized, p_authorized,
            p_valid_after, p_valid_before, p_signature, p_deploy_target, p_deploy_data, p_deferred, p_booking, p_account,
            p_fee, p_wallet, p_publisher, p_request_hash, p_worker, p_funds_block);
    verdict := 'reserved'; payment_id := p_id;
END $$;

-- Hand a reserved payment to the relayer; p_amount (at most what was authorized) is what it settles. Returns the state.
CREATE FUNCTION chain.submit(p_id uuid, p_amount numeric, p_fee numeric) RETURNS chain.state LANGUAGE plpgsql AS $$
DECLARE
    p chain.payment;
BEGIN
    SELECT * INTO STRICT p FROM chain.payment WHERE id = p_id FOR UPDATE;
    IF p.state = 'reserved' THEN
        UPDATE chain.payment SET state = 'pending', submitted_at = now(), check_at = now(),
               amount = coalesce(p_amount, amount), fee = coalesce(p_fee, fee) WHERE id = p_id;
        PERFORM pg_notify('tollway_relay', p.network);
        RETURN 'pending';
    END IF;
    RETURN p.state;
END $$;

-- Give an authorization back that was never sent. Returns the state: 'cancelled', or why it is too late.
CREATE FUNCTION chain.cancel(p_id uuid, p_reason text) RETURNS chain.state LANGUAGE plpgsql AS $$
DECLARE
    p chain.payment;
BEGIN
    SELECT * INTO STRICT p FROM chain.payment WHERE id = p_id FOR UPDATE;
    IF p.state IN ('reserved', 'pending') AND p.sending_id IS NULL THEN
        UPDATE chain.payment SET state = 'cancelled', reason = p_reason, final = true, ended_at = now() WHERE id = p_id;
        PERFORM pg_notify('tollway_settled', p_id::text);
        RETURN 'cancelled';
    END IF;
    RETURN p.state;
END $$;

-- Cancel claims that nobody will submit: their worker is gone and reconciled, or the authorization has expired.
CREATE FUNCTION chain.cancel_orphans(p_network text, p_now bigint) RETURNS integer LANGUAGE sql AS $$
    WITH gone AS (
        SELECT p.id FROM chain.payment p
         WHERE p.network = p_network AND p.state = 'reserved'
           AND (p.valid_before < p_now
                OR EXISTS (SELECT FROM ledger.worker w WHERE w.id = p.worker_id AND w.reconciled_at IS NOT NULL))
         LIMIT 500 FOR UPDATE SKIP LOCKED
    ), ended AS (
        UPDATE chain.payment p SET state = 'cancelled', reason = 'abandoned', final = true, ended_at = now()
          FROM gone WHERE p.id = gone.id RETURNING p.id
    )
    SELECT count(pg_notify('tollway_settled', id::text))::integer FROM ended
$$;

-- The money moved, in this transaction and block: book it. Again with another block (after a fork): note the block.
CREATE FUNCTION chain.confirm(p_id uuid, p_transaction bytea, p_number bigint, p_hash bytea) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    p chain.payment;
BEGIN
    SELECT * INTO STRICT p FROM chain.payment WHERE id = p_id FOR UPDATE;
    IF p.state IN ('reserved', 'cancelled') OR p.final THEN
        RETURN false;
    END IF;
    UPDATE chain.payment SET state = 'confirmed', reason = NULL, mined_transaction = p_transaction, block_number = p_number,
           block_hash = p_hash, ended_at = coalesce(ended_at, now()) WHERE id = p_id;
    PERFORM chain.book(p);
    PERFORM pg_notify('tollway_settled', p_id::text);
    RETURN true;
END $$;

-- The chain does not move the money. p_final: nobody can make it any more, so what was booked is taken back.
CREATE FUNCTION chain.fail(p_id uuid, p_reason text, p_final boolean, p_check_at timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    p chain.payment;
BEGIN
    SELECT * INTO STRICT p FROM chain.payment WHERE id = p_id FOR UPDATE;
    IF p.final OR p.state NOT IN ('pending', 'broadcast', 'unknown', 'failed') THEN
        RETURN false;
    END IF;
    UPDATE chain.payment SET state = 'failed', reason = p_reason, final = p_final, check_at = p_check_at,
           ended_at = coalesce(ended_at, now()) WHERE id = p_id;
    IF p_final THEN
        PERFORM chain.unbook(p);
    END IF;
    IF p.state <> 'failed' OR p_final THEN
        PERFORM pg_notify('tollway_settled', p_id::text);
    END IF;
    RETURN true;
END $$;

-- Owe a settled payment to its payer again: 'owed', 'repeated', or the state that forbids it.
CREATE FUNCTION chain.repay(p_id uuid, p_reason text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    p chain.payment;
    suspense bigint;
BEGIN
    SELECT * INTO STRICT p FROM chain.payment WHERE id = p_id FOR UPDATE;
    IF p.state <> 'confirmed' OR p.booking <> 'earnings' THEN
        RETURN CASE WHEN p.state <> 'confirmed' THEN p.state::text ELSE p.booking::text END;
    END IF;
    INSERT INTO chain.repayment (payment_id, reason) VALUES (p_id, p_reason) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN 'repeated';
    END IF;
    SELECT ledger.platform_account(a.asset_id, 'suspense') INTO suspense FROM ledger.account a WHERE a.id = p.account_id;
    PERFORM ledger.move(p_id, 'repayment', 0::smallint, p.account_id, suspense, p.amount, p.fee);
    PERFORM pg_notify('tollway_relay', p.network);
    RETURN 'owed';
END $$;

-- The repayment is in a block.
CREATE FUNCTION chain.repaid(p_id uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    p chain.payment;
    suspense bigint;
BEGIN
    UPDATE chain.repayment SET state = 'confirmed', ended_at = now() WHERE payment_id = p_id AND state <> 'confirmed';
    IF FOUND THEN
        SELECT * INTO STRICT p FROM chain.payment WHERE id = p_id;
        SELECT ledger.platform_account(a.asset_id, 'suspense') INTO suspense FROM ledger.account a WHERE a.id = p.account_id;
        PERFORM ledger.move(p_id, 'repaid', 0::smallint, suspense, chain.clearing(p.account_id, p.network), p.amount, 0);
        PERFORM pg_notify('tollway_settled', p_id::text);
    END IF;
END $$;
