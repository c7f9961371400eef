-- After the migrations: the order in which transfers were really made. A wallet's rows are written under its lock, so
-- per wallet the sequence is the order in which its money moved, which no timestamp tells.
CREATE TABLE simulator.journal (
    seq             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xact            bigint NOT NULL,
    at              timestamptz NOT NULL,
    cause_id        uuid NOT NULL,
    kind            text NOT NULL,
    worker_id       integer,
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
        (xact, at, cause_id, kind, worker_id, leg, debit_account, credit_account, wallet_id, amount, fee, expires_at)
    VALUES (pg_current_xact_id()::text::bigint, simulator.now(), NEW.cause_id, NEW.kind::text, NEW.worker_id,
            NEW.leg,
            NEW.debit_account, NEW.credit_account, NEW.wallet_id, NEW.amount, NEW.fee,
            (SELECT a.expires_at FROM ledger.account a WHERE a.id = NEW.credit_account));
    RETURN NULL;
END $$;
CREATE TRIGGER simulator_note AFTER INSERT ON ledger.transfer FOR EACH ROW WHEN (NEW.wallet_id IS NOT NULL)
    EXECUTE FUNCTION simulator.note();

-- When workers were fenced, in the same order as the transfers: whoever charges holds its worker's row meanwhile, and
-- whoever fences waits for it or passes on, so the numbers are the order in which it happened.
CREATE TABLE simulator.fenced (
    worker_id       integer PRIMARY KEY,
    seq             bigint NOT NULL DEFAULT nextval('simulator.journal_seq_seq'),
    at              timestamptz NOT NULL DEFAULT simulator.now()
);
CREATE FUNCTION simulator.note_fence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO simulator.fenced (worker_id) VALUES (NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER simulator_note_fence AFTER UPDATE OF fenced_at ON ledger.worker FOR EACH ROW
    WHEN (OLD.fenced_at IS NULL AND NEW.fenced_at IS NOT NULL) EXECUTE FUNCTION simulator.note_fence();

-- Exchanges that had ended settled and whose money went back all the same. Only their publishers may do that.
CREATE TABLE simulator.undone (
    exchange_id     uuid PRIMARY KEY
);
CREATE FUNCTION simulator.note_undone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO simulator.undone VALUES (NEW.exchange_id);
    RETURN NULL;
END $$;
CREATE TRIGGER simulator_note_undone AFTER UPDATE OF outcome ON ledger.settlement FOR EACH ROW
    WHEN (OLD.outcome = 'settled' AND NEW.outcome = 'refunded') EXECUTE FUNCTION simulator.note_undone();

-- What exchanges count, in the order in which each counter really moved: it is locked before, as a wallet is. `gone` says
-- that the exchange could not be paid and counts as if it had never been.
CREATE TABLE simulator.counts (
    seq             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at              timestamptz NOT NULL DEFAULT simulator.now(),
    exchange_id     uuid NOT NULL,
    scope           uuid NOT NULL,
    subject         uuid NOT NULL,
    kind            text NOT NULL,
    period          date NOT NULL,
    before          numeric NOT NULL,
    now             numeric NOT NULL,
    gone            boolean NOT NULL
);
CREATE FUNCTION simulator.note_counted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    one ledger.counted := coalesce(NEW, OLD);
BEGIN
    INSERT INTO simulator.counts (exchange_id, scope, subject, kind, period, before, now, gone)
    VALUES (one.exchange_id, one.scope, one.subject, one.kind, one.period, coalesce(OLD.amount, 0),
            coalesce(NEW.amount, 0), TG_OP = 'DELETE');
    RETURN NULL;
END $$;
CREATE TRIGGER simulator_note_counted AFTER INSERT OR UPDATE OR DELETE ON ledger.counted FOR EACH ROW
    EXECUTE FUNCTION simulator.note_counted();
