"""How good estimates of queries are: two data sets, families of queries on each, and q-errors before and after answers.

Start with __main__.py. `wholesale.sql` is a data set like TPC-H's at scale 0.05, made by arithmetic.
"""
