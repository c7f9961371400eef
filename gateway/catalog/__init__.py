"""What is sold: assets, publishers, endpoints, prices.

`snapshot.py` is what the hot path reads, wholly in memory; `publishers.py` validates and stores. What does not live
here: computing a price (pricing/) and talking to upstreams.
"""
