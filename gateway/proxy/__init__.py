"""The paid path: one Exchange through ten plain steps. Start with `pipeline.py`; each step has its own file.

No router and no middleware stack stands on this path. What does not live here: prices (pricing/), money (ledger/),
connections (upstreams/).
"""
