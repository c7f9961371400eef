-- Old months can be put away: their rows go to files, their sums stay, and nothing is written for them any more.
--
--   open -> sealed (nothing can be written into it) -> carried (its sums stand for its rows, which are gone)

CREATE TABLE ledger.archive (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    low                 uuid,                   -- ids from here on; NULL: from the first one on
    upto                uuid NOT NULL UNIQUE,   -- and before this one
    transfer_part       text NOT NULL,          -- the names of the partitions
    settlement_part     text NOT NULL,
    sealed_at           timestamptz NOT NULL DEFAULT now(),
    -- Known when it is carried: how many rows the files hold, and the SHA-256 of their lines.
    transfers           bigint,
    settlements         bigint,
    transfer_digest     bytea CHECK (octet_length(transfer_digest) = 32),
    settlement_digest   bytea CHECK (octet_length(settlement_digest) = 32),
    carried_at          timestamptz,
    CHECK ((carried_at IS NULL) = (transfers IS NULL) AND (carried_at IS NULL) = (settlements IS NULL)
           AND (carried_at IS NULL) = (transfer_digest IS NULL) AND (carried_at IS NULL) = (settlement_digest IS NULL))
);
CREATE UNIQUE INDEX archive_sealed ON ledger.archive ((true)) WHERE carried_at IS NULL;    -- one at a time

-- What an archive moved on each account: the opening balances of whatever comes after it.
CREATE TABLE ledger.carried (
    archive_id  bigint NOT NULL REFERENCES ledger.archive,
    account_id  bigint NOT NULL REFERENCES ledger.account,
    debits      numeric(39,0) NOT NULL CHECK (debits >= 0),
    credits     numeric(39,0) NOT NULL CHECK (credits >= 0),
    granted     numeric(39,0) NOT NULL CHECK (granted >= 0),    -- of the credits, what opened a lot
    PRIMARY KEY (archive_id, account_id)
);
CREATE INDEX carried_account ON ledger.carried (account_id);
CREATE TRIGGER carried_immutable BEFORE UPDATE OR DELETE ON ledger.carried
    FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER carried_kept BEFORE TRUNCATE ON ledger.carried
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER archive_kept BEFORE DELETE ON ledger.archive
    FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();

-- Whatever is before this id has been archived.
CREATE VIEW ledger.archived AS
    SELECT coalesce((SELECT a.upto FROM ledger.archive a WHERE a.carried_at IS NOT NULL ORDER BY a.upto DESC LIMIT 1),
                    '00000000-0000-0000-0000-000000000000'::uuid) AS upto;

-- Both sides of every transfer, and the sums that stand for those that are archived: these have no cause.
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
     WHERE t.fee > 0
    UNION ALL
    SELECT NULL, NULL, NULL, NULL, c.account_id, c.debits, c.credits FROM ledger.carried c;

CREATE FUNCTION ledger.moment_of(p_id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT to_timestamp(('x' || left(replace(p_id::text, '-', ''), 12))::bit(48)::bigint / 1000.0)
$$;

CREATE FUNCTION ledger.refuse_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger.% is sealed: it is being archived', TG_TABLE_NAME;
END $$;

-- Why what is before an id cannot be archived (yet), in words; NULL when everything in it has ended for good.
CREATE FUNCTION ledger.unfinished(p_upto uuid) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    one uuid;
BEGIN
    SELECT w.settled_through INTO one FROM ledger.worker w
     WHERE w.reconciled_at IS NULL AND w.settled_through < p_upto LIMIT 1;
    IF FOUND THEN
        RETURN format('a worker may still have open calls from %s on', one);
    END IF;
    IF (SELECT m.upto < p_upto FROM catalog.usage_mark m) THEN
        RETURN 'the counts of publishers do not reach so far yet';
    END IF;
    SELECT h.exchange_id INTO one FROM ledger.hold h WHERE h.status = 'pending' AND h.exchange_id < p_upto LIMIT 1;
    IF FOUND THEN
        RETURN format('the hold of %s is pending', one);
    END IF;
    SELECT t.cause_id INTO one FROM ledger.transfer t
     WHERE t.cause_id < p_upto AND t.kind IN ('charge', 'hold')
       AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = t.cause_id AND s.exchange_id < p_upto) LIMIT 1;
    IF FOUND THEN
        RETURN format('the call %s has no end', one);
    END IF;
    SELECT d.exchange_id INTO one FROM ledger.counted d
     WHERE d.alone AND d.exchange_id < p_upto AND d.exchange_id >= (SELECT upto FROM ledger.archived)
       AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = d.exchange_id AND s.exchange_id < p_upto) LIMIT 1;
    IF FOUND THEN
        RETURN format('the free call %s has no end', one);
    END IF;
    SELECT p.id INTO one FROM chain.payment p
      LEFT JOIN chain.repayment r ON r.payment_id = p.id
      LEFT JOIN chain.undelivered u ON u.payment_id = p.id
     WHERE p.id < p_upto AND p.id >= (SELECT upto FROM ledger.archived)
       AND ((NOT p.final AND p.state <> 'cancelled') OR r.state <> 'confirmed' OR u.payment_id IS NOT NULL
            OR (p.booking IN ('earnings', 'direct') AND p.state = 'confirmed'
                AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = p.id AND s.exchange_id < p_upto)))
     LIMIT 1;
    IF FOUND THEN
        RETURN format('the payment %s has no end, or its money is on its way back', one);
    END IF;
    SELECT p.exchange_id INTO one FROM chain.purchase p WHERE p.exchange_id < p_upto AND p.ended_at IS NULL LIMIT 1;
    IF FOUND THEN
        RETURN format('the purchase of %s has no end', one);
    END IF;
    RETURN NULL;
END $$;

-- Seal the oldest partition that is not put away, if all of it is older than p_before. From then on nothing can be written
-- into it, so whoever reads it reads the same. 'sealed', now or before; 'none' (nothing is so old); or why not.
CREATE FUNCTION ledger.seal(p_before uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    part record;
    other text;
    reason text;
    name text;
BEGIN
    PERFORM set_config('lock_timeout', '500ms', true);
    PERFORM pg_advisory_xact_lock(hashtext('ledger.archive'));
    PERFORM FROM ledger.archive a WHERE a.carried_at IS NULL;
    IF FOUND THEN
        RETURN 'sealed';
    END IF;
    SELECT p.* INTO part FROM ledger.partitions('transfer') p
     WHERE p.high > (SELECT upto FROM ledger.archived) ORDER BY p.high LIMIT 1;
    IF NOT FOUND OR part.high > p_before THEN
        RETURN 'none';
    END IF;
    SELECT p.name INTO STRICT other FROM ledger.partitions('settlement') p
     WHERE p.high = part.high AND p.low IS NOT DISTINCT FROM part.low;
    FOREACH name IN ARRAY ARRAY[part.name, other] LOOP  -- waits for whoever is just writing into it
        EXECUTE format('CREATE TRIGGER sealed BEFORE INSERT OR UPDATE OR DELETE ON ledger.%I'
                       ' FOR EACH ROW EXECUTE FUNCTION ledger.refuse_late()', name);
    END LOOP;
    reason := ledger.unfinished(part.high);
    IF reason IS NOT NULL THEN
        RAISE EXCEPTION '%', reason USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    INSERT INTO ledger.archive (low, upto, transfer_part, settlement_part)
    VALUES (part.low, part.high, part.name, other);
    RETURN 'sealed';
END $$;

-- Write the sums of a sealed partition beside it. Only useful in the transaction that then drops it.
CREATE FUNCTION ledger.carry(
    p_archive bigint, p_transfers bigint, p_settlements bigint, p_transfer_digest bytea, p_settlement_digest bytea
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    a ledger.archive;
BEGIN
    SELECT * INTO STRICT a FROM ledger.archive WHERE id = p_archive AND carried_at IS NULL FOR UPDATE;
    IF (SELECT count(*) FROM ledger.transfer t
         WHERE t.cause_id < a.upto AND t.cause_id >= coalesce(a.low, '00000000-0000-0000-0000-000000000000')) <> p_transfers
       OR (SELECT count(*) FROM ledger.settlement s WHERE s.exchange_id < a.upto
              AND s.exchange_id >= coalesce(a.low, '00000000-0000-0000-0000-000000000000')) <> p_settlements THEN
        RAISE EXCEPTION 'archive % holds other numbers of rows than the ledger', p_archive;
    END IF;
    INSERT INTO ledger.carried (archive_id, account_id, debits, credits, granted)
    SELECT a.id, p.account_id, sum(p.debit), sum(p.credit), coalesce(sum(p.credit) FILTER (WHERE p.kind = 'grant'), 0)
      FROM ledger.posting p
     WHERE p.cause_id < a.upto AND p.cause_id >= coalesce(a.low, '00000000-0000-0000-0000-000000000000')
     GROUP BY p.account_id;
    UPDATE ledger.archive
       SET transfers = p_transfers, settlements = p_settlements, transfer_digest = p_transfer_digest,
           settlement_digest = p_settlement_digest, carried_at = now()
     WHERE id = a.id;
END $$;

-- Drop a carried partition, and put in its place, and in that of all before it, one that takes nothing: a call of then can
-- be neither charged nor refunded again. Calls wait for this, and it waits for them half a second at most.
CREATE FUNCTION ledger.drop_carried(p_archive bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    a ledger.archive;
    of text;
BEGIN
    PERFORM set_config('lock_timeout', '500ms', true);
    SELECT * INTO STRICT a FROM ledger.archive WHERE id = p_archive AND carried_at IS NOT NULL;
    FOREACH of IN ARRAY ARRAY['transfer', 'settlement'] LOOP
        EXECUTE format('DROP TABLE ledger.%I', CASE of WHEN 'transfer' THEN a.transfer_part ELSE a.settlement_part END);
        EXECUTE format('DROP TABLE IF EXISTS ledger.%I', of || '_archived');
        EXECUTE format('CREATE TABLE ledger.%I (LIKE ledger.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS,'
                       ' CONSTRAINT archived CHECK (false))', of || '_archived', of);
        EXECUTE format('ALTER TABLE ledger.%I ATTACH PARTITION ledger.%I FOR VALUES FROM (MINVALUE) TO (%L)', of,
                       of || '_archived', a.upto);
    END LOOP;
    PERFORM ledger.keep('transfer_archived');
END $$;
