-- A payment of an invoice can fail after it was booked, as one of a deposit can: what it paid is due again.
ALTER TABLE invoice.back DROP CONSTRAINT back_kind_check,
    ADD CONSTRAINT back_kind_check CHECK (kind IN ('refund', 'dispute', 'failure'));
CREATE INDEX back_unwanted ON invoice.back (made_at) WHERE kind <> 'refund' AND returned_cause IS NULL;
