"""Benchmarks: the gateway beside its bare upstream and other proxies, in one run on one machine (docs/benchmarks.md).

`python -m benchmarks` measures HTTP calls by a plan (cases.py); its siblings measure one part alone. Everything is
started here on a temporary directory and ended by process id.
"""
