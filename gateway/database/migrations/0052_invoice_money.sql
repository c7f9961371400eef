-- What became of the money of invoices after it was paid by card: given back, disputed, paid again; and by what it cost.
--
-- Whatever Stripe took or gave for an invoice is between its clearing and the organization's receivable: `invoice_paid`
-- when it is paid first, `shortfall` when money goes back to a card, `recovery` when it comes again, or came unneeded.
ALTER TABLE invoice.invoice ADD COLUMN owed_again numeric(39,0) NOT NULL DEFAULT 0;   -- below zero: too much came
-- One whose whole payment went back may be void.
ALTER TABLE invoice.invoice DROP CONSTRAINT invoice_check8;

ALTER TABLE invoice.intent
    ADD COLUMN paid numeric(39,0) NOT NULL DEFAULT 0,
    ADD COLUMN cause_id uuid UNIQUE,                        -- the receipt of its invoice, or a recovery
    ADD COLUMN version bigint NOT NULL DEFAULT 0,           -- counts what was learnt of it
    ADD COLUMN checked_at timestamptz NOT NULL DEFAULT now();
UPDATE invoice.intent n SET paid = i.taxable + i.tax, cause_id = i.receipt FROM invoice.invoice i
 WHERE i.id = n.invoice_id AND n.state = 'succeeded';
ALTER TABLE invoice.intent ADD CHECK ((cause_id IS NOT NULL) = (paid > 0));
CREATE INDEX intent_checked ON invoice.intent (checked_at) WHERE state = 'open' OR cause_id IS NOT NULL;

-- Money of a payment that went back: a refund, or a dispute whose money was withdrawn. `returned_cause`: it came again.
CREATE TABLE invoice.back (
    id              text PRIMARY KEY,               -- the payment service's
    intent_id       text NOT NULL REFERENCES invoice.intent,
    kind            text NOT NULL CHECK (kind IN ('refund', 'dispute')),
    cents           bigint NOT NULL CHECK (cents > 0),
    amount          numeric(39,0) NOT NULL CHECK (amount > 0),
    cause_id        uuid NOT NULL UNIQUE,
    returned_cause  uuid UNIQUE,
    undecided       boolean NOT NULL,               -- a bank has still to decide
    made_at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX back_intent ON invoice.back (intent_id);

-- What an invoice's payments have not brought, beside its receipt.
CREATE FUNCTION invoice.owed_again(p_invoice uuid) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT sum(b.amount) FROM invoice.back b JOIN invoice.intent n ON n.id = b.intent_id
                      WHERE n.invoice_id = p_invoice AND b.returned_cause IS NULL), 0)
         - coalesce((SELECT sum(n.paid) FROM invoice.intent n JOIN invoice.invoice i ON i.id = n.invoice_id
                      WHERE n.invoice_id = p_invoice AND n.cause_id IS DISTINCT FROM i.receipt), 0)
$$;

-- An issued invoice goes on to be paid or void, may be due again, and nothing else of it changes.
CREATE OR REPLACE FUNCTION invoice.keep() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moving text[] := ARRAY['status', 'paid_at', 'receipt', 'voided_at', 'void_reason', 'reversal', 'owed_again'];
BEGIN
    IF OLD.status = 'draft' THEN
        RETURN coalesce(NEW, OLD);
    END IF;
    IF TG_OP = 'DELETE' OR to_jsonb(OLD) - moving <> to_jsonb(NEW) - moving
       OR NOT (OLD.status = NEW.status AND OLD.owed_again <> NEW.owed_again
               OR (OLD.status = 'issued' AND NEW.status IN ('paid', 'void'))
               OR (OLD.status = 'paid' AND NEW.status = 'void' AND OLD.receipt IS NULL)
               OR (OLD.status = 'paid' AND NEW.status = 'issued' AND OLD.receipt IS NOT NULL AND NEW.owed_again > 0))
       OR (OLD.paid_at IS NOT NULL AND (OLD.paid_at, OLD.receipt) IS DISTINCT FROM (NEW.paid_at, NEW.receipt))
       OR (OLD.status = 'void' AND (OLD.voided_at, OLD.void_reason, OLD.reversal)
                                   IS DISTINCT FROM (NEW.voided_at, NEW.void_reason, NEW.reversal)) THEN
        RAISE EXCEPTION 'invoice %: what is issued never changes', OLD.number;
    END IF;
    RETURN NEW;
END $$;
