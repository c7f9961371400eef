"""SQL as a product, without any I/O: what may run, what it will cost, and what was delivered.

In the order of a call: guard.py (bounds on the text, with lexer.py), tree.py (PostgreSQL's own grammar), policy.py
(what a query may be made of, with forms.py, functions.py, names.py, scopes.py, growth.py, recursion.py), estimate.py
(rows before the call), metering.py (rows after it).
"""
