"""What the sums say is what the ledger says."""
