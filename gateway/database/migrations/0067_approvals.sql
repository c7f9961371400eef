-- Money that an operator may move only with a second operator's word: what was asked for, and what became of it. One that
-- nobody has decided about in time is expired, whatever its state says.
CREATE TABLE ledger.approval (
    id          uuid PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('correction', 'refund', 'grant')),
    subject     text NOT NULL,              -- the wallet, or the call
    reference   text NOT NULL,
    amount      numeric(39,0) NOT NULL CHECK (amount > 0),
    reason      text NOT NULL,
    request     text NOT NULL,              -- JSON: all that the approval has to do
    asked_by    text NOT NULL,
    asked_at    timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    state       text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'approved', 'declined', 'expired')),
    decided_by  text,
    decided_at  timestamptz,
    note        text,
    CHECK ((state IN ('approved', 'declined')) = (decided_by IS NOT NULL)),
    CHECK ((decided_by IS NULL) = (decided_at IS NULL)),
    CONSTRAINT approval_by_another CHECK (state <> 'approved' OR lower(decided_by) <> lower(asked_by))
);
CREATE UNIQUE INDEX approval_pending ON ledger.approval (kind, subject, reference) WHERE state = 'pending';
CREATE INDEX approval_newest ON ledger.approval (asked_at DESC);

-- What an operator has corrected alone lately is bounded.
CREATE INDEX correction_alone ON ledger.correction (corrected_by, created_at) WHERE approved_by IS NULL;
