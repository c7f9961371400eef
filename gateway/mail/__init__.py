"""Letters to people: the list of those to be sent, what they say, and the one door to a mail server.

What does not live here: whom they concern (identity/), and the job that sends them (jobs/letters.py).
"""
