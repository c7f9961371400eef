"""Pages that the links of letters lead to: confirming an address, and choosing another password.

What does not live here: the operations that they send to (resources/people.py), and what letters say (gateway/mail).
"""
