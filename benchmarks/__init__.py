"""Benchmarks: the gateway against its bare upstream and against nginx, in one run on one machine (docs/benchmarks.md).

`python -m benchmarks` measures HTTP calls, `python -m benchmarks.ledger` the ledger's hot door alone. Everything is
started here on a temporary directory and ended by process id.
"""
