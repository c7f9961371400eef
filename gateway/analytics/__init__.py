"""Sums of the ledger by day, kept by a job and proven against it: what publishers earn, what organizations use."""
