"""Publishers' PostgreSQL databases: the only place that connects to them.

Start with queries.py (one sold query from its plan to its last row), then pool.py. What does not live here: what a
query may be made of and what it costs (pricing/sql, pricing/tariffs), and our own database (gateway/database).
"""
