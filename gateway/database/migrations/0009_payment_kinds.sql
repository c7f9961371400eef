-- Money that moves on a chain. A file of its own, because PostgreSQL uses a new enum value only after its transaction.
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'payment';      -- clearing of a network -> earnings and fees: confirmed on chain
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'direct';       -- earnings -> clearing: the publisher got it on its own address
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'reversal';     -- a payment that its chain has taken back
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'repayment';    -- earnings and fees -> suspense: owed to the payer again
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'repaid';       -- suspense -> clearing: sent back to the payer on chain
