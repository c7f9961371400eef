-- A file of its own, because PostgreSQL uses a new enum value only after its transaction.
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'correction';    -- lots -> promotional_expense or clearing: an operator took it back
