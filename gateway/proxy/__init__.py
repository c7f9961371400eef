"""The paid path: one walk for every call. Start with `walk.py`; each step has its own file.

No router and no middleware stack stands on this path. What does not live here: prices (pricing/), money (ledger/),
connections (upstreams/).
"""
