-- After the migrations: the order in which transfers were really made. A wallet's rows are written under its lock, so
-- per wallet the sequence is the order in which its money moved, which no timestamp tells.
CREATE TABLE simulator.journal (
    seq             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xact            bigint NOT NULL,
    at              timestamptz NOT NULL,
    cause_id        uuid NOT NULL,
    kind            text NOT NULL,
    leg             smallint NOT NULL,
    debit_account   bigint NOT NULL,
    credit_account  bigint NOT NULL,
    wallet_id       bigint NOT NULL,
    amount          numeric NOT NULL,
    fee             numeric NOT NULL,
    expires_at      timestamptz
);
CREATE FUNCTION simulator.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO simulator.journal
        (xact, at, cause_id, kind, leg, debit_account, credit_account, wallet_id, amount, fee, expires_at)
    VALUES (pg_current_xact_id()::text::bigint, simulator.now(), NEW.cause_id, NEW.kind::text, NEW.leg,
            NEW.debit_account, NEW.credit_account, NEW.wallet_id, NEW.amount, NEW.fee,
            (SELECT a.expires_at FROM ledger.account a WHERE a.id = NEW.credit_account));
    RETURN NULL;
END $$;
CREATE TRIGGER simulator_note AFTER INSERT ON ledger.transfer FOR EACH ROW EXECUTE FUNCTION simulator.note();
