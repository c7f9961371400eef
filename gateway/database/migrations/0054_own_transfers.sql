-- What our own key sends: a payout says how much too little the treasury has for it, a repayment waits as a payout does.
ALTER TABLE chain.payout ADD COLUMN short numeric(39,0);
ALTER TABLE chain.repayment ADD COLUMN check_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN trouble text;    -- why it is not sent, or is sent again
