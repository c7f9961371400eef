-- Invoices: what an organization bought in a month, what of it is due, and how that was paid (docs/invoices.md).
CREATE SCHEMA invoice;
-- Who an organization is to a bookkeeper.
CREATE TABLE invoice.details (
    organization_id uuid PRIMARY KEY REFERENCES identity.organization,
    legal_name      text NOT NULL CHECK (length(legal_name) BETWEEN 1 AND 200),
    address         text NOT NULL CHECK (length(address) BETWEEN 1 AND 500),
    country         text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    tax_id          text CHECK (length(tax_id) BETWEEN 1 AND 40),
    updated_at      timestamptz NOT NULL DEFAULT now()
);

-- Numbers without gaps: the row is locked until the transaction that issues ends, and one that fails gives it back.
CREATE TABLE invoice.series (
    name    text PRIMARY KEY,
    last    integer NOT NULL CHECK (last > 0)
);

-- Amounts are atomic units of the default asset. draft -> issued -> paid | void; what is issued never changes.
CREATE TABLE invoice.invoice (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES identity.organization,
    period_start    date NOT NULL CHECK (extract(day FROM period_start) = 1),
    status          text NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'issued', 'paid', 'void')),
    series          text REFERENCES invoice.series,
    sequence        integer,
    number          text UNIQUE,
    asset_id        uuid NOT NULL REFERENCES catalog.asset,
    decimals        smallint NOT NULL,
    subtotal        numeric(39,0) NOT NULL,         -- all lines
    taxable         numeric(39,0) NOT NULL,         -- the lines that are due: whole cents
    tax             numeric(39,0) NOT NULL CHECK (tax >= 0),
    tax_ppm         integer NOT NULL CHECK (tax_ppm BETWEEN 0 AND 1000000),
    tax_note        text NOT NULL,
    seller          jsonb NOT NULL,
    buyer           jsonb NOT NULL,
    others          jsonb NOT NULL DEFAULT '[]',    -- what was spent in assets that are not counted in dollars
    created_at      timestamptz NOT NULL DEFAULT now(),
    issued_at       timestamptz,
    due_at          timestamptz,
    paid_at         timestamptz,
    voided_at       timestamptz,
    void_reason     text,
    -- Why it moved in the ledger, once each: receivable -> income, clearing -> receivable, income -> receivable.
    booking         uuid UNIQUE,
    receipt         uuid UNIQUE,
    reversal        uuid UNIQUE,
    UNIQUE (series, sequence),
    CHECK ((status = 'draft') = (issued_at IS NULL)),
    CHECK (num_nulls(series, sequence, number, issued_at, due_at) IN (0, 5)),
    CHECK ((status = 'paid') <= (paid_at IS NOT NULL)),
    CHECK ((status = 'void') = (voided_at IS NOT NULL)),
    CHECK (status = 'draft' OR taxable >= 0),
    CHECK (status = 'draft' OR (booking IS NOT NULL) = (taxable + tax > 0)),
    CHECK ((receipt IS NOT NULL) = (paid_at IS NOT NULL AND taxable + tax > 0)),
    CHECK ((reversal IS NOT NULL) = (status = 'void' AND taxable + tax > 0)),
    CHECK (receipt IS NULL OR reversal IS NULL)
);
-- One invoice per organization and month, whoever generates, and however many at once; a void one makes room.
CREATE UNIQUE INDEX invoice_month ON invoice.invoice (organization_id, period_start) WHERE status <> 'void';
CREATE INDEX invoice_organization ON invoice.invoice (organization_id, period_start DESC, id DESC);
CREATE INDEX invoice_period ON invoice.invoice (period_start);

CREATE TABLE invoice.line (
    invoice_id      uuid NOT NULL REFERENCES invoice.invoice,
    place           integer NOT NULL,
    line_type       text NOT NULL,
    description     text NOT NULL,
    quantity        numeric(39,6) NOT NULL,
    amount          numeric(39,0) NOT NULL,
    paid            boolean NOT NULL,               -- from the prepaid balance: shown, and not due
    reference       text NOT NULL,
    PRIMARY KEY (invoice_id, place)
);

-- Tries to pay by card. An intent is one try that goes on until it has succeeded; each that fails on the way adds one.
CREATE TABLE invoice.intent (
    id              text PRIMARY KEY,               -- the payment service's
    invoice_id      uuid NOT NULL REFERENCES invoice.invoice,
    cents           bigint NOT NULL CHECK (cents > 0),
    state           text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'succeeded', 'canceled')),
    made_at         timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX intent_open ON invoice.intent (invoice_id) WHERE state = 'open';
CREATE INDEX intent_invoice ON invoice.intent (invoice_id);
CREATE TABLE invoice.attempt (
    id              uuid PRIMARY KEY,
    intent_id       text NOT NULL REFERENCES invoice.intent,
    token           text NOT NULL,                  -- what it is known by there: a charge or an event; empty: the last try
    transaction_id  text,                           -- the charge there
    status          text NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed', 'canceled')),
    failure_code    text,
    failure_message text,
    attempted_at    timestamptz NOT NULL,
    ended_at        timestamptz,
    UNIQUE (intent_id, token)
);

CREATE FUNCTION invoice.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'invoice.%: what is issued never changes', TG_TABLE_NAME;
END $$;

-- An issued invoice goes on to be paid or void, and nothing else of it changes.
CREATE FUNCTION invoice.keep() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moving text[] := ARRAY['status', 'paid_at', 'receipt', 'voided_at', 'void_reason', 'reversal'];
BEGIN
    IF OLD.status = 'draft' THEN
        RETURN coalesce(NEW, OLD);
    END IF;
    IF TG_OP = 'DELETE' OR to_jsonb(OLD) - moving <> to_jsonb(NEW) - moving
       OR NOT ((OLD.status = 'issued' AND NEW.status IN ('paid', 'void'))
               OR (OLD.status = 'paid' AND NEW.status = 'void' AND OLD.receipt IS NULL))
       OR (OLD.paid_at IS NOT NULL AND (OLD.paid_at, OLD.receipt) IS DISTINCT FROM (NEW.paid_at, NEW.receipt)) THEN
        RAISE EXCEPTION 'invoice %: what is issued never changes', OLD.number;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER invoice_kept BEFORE UPDATE OR DELETE ON invoice.invoice FOR EACH ROW EXECUTE FUNCTION invoice.keep();
CREATE TRIGGER invoice_all_kept BEFORE TRUNCATE ON invoice.invoice FOR EACH STATEMENT EXECUTE FUNCTION invoice.refuse();

CREATE FUNCTION invoice.keep_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM invoice.invoice i WHERE i.id IN (OLD.invoice_id, NEW.invoice_id) AND i.status <> 'draft';
    IF FOUND THEN
        RAISE EXCEPTION 'invoice.line: what is issued never changes';
    END IF;
    RETURN coalesce(NEW, OLD);
END $$;
CREATE TRIGGER line_kept BEFORE INSERT OR UPDATE OR DELETE ON invoice.line
    FOR EACH ROW EXECUTE FUNCTION invoice.keep_line();
CREATE TRIGGER line_all_kept BEFORE TRUNCATE ON invoice.line FOR EACH STATEMENT EXECUTE FUNCTION invoice.refuse();

-- A number once given is the last of its series or an earlier one, for ever.
CREATE FUNCTION invoice.keep_series() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR NEW.name <> OLD.name OR NEW.last <> OLD.last + 1 THEN
        RAISE EXCEPTION 'invoice.series: numbers go up by one';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER series_kept BEFORE UPDATE OR DELETE ON invoice.series
    FOR EACH ROW EXECUTE FUNCTION invoice.keep_series();
