"""The audit log: who changed what, written in the transaction of the change, append-only and hash-chained.

What does not live here: paid calls (the ledger is their record), and log lines (telemetry/).
"""
