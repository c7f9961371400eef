"""Secrets that the suite puts into gateways, looked for in all that comes out of them where none belongs.

Whatever test runs: what a gateway has printed is looked through when it ends, the audit log and the letters that wait
when their database goes, and refusals as they arrive. So a new log line or problem need not be thought of.
"""

from __future__ import annotations

import re

from gateway.database.pool import Connection
from gateway.upstreams.credentials import generate_key
from tests.support import stripe_server, token_server

SECRET_KEYS = f"test:{generate_key().rsplit(':', 1)[-1]}"
# By their shape: keys, sessions, links and invitations are random in each test.
_SHAPES = re.compile(
    r"seren_[0-9a-f]{16}_[A-Za-z0-9]{43}|seren_[a-z]+_[A-Za-z0-9_-]{43}|whsec_[A-Za-z0-9+/=]{24,}"
    r"|[Bb]earer seren_\w+|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
# What is the same in many tests: publishers' credentials, passwords, the key that seals them.
SEEDED = (
    token_server.KEY, token_server.SECRET, SECRET_KEYS.partition(":")[2], stripe_server.KEY, stripe_server.SIGNING,
    "do-not-show-7d1f", "hunter2-hunter2", "reader-secret", "the-query-key",
)  # fmt: skip
# Tables that people read, or that letters are made from.
RECORDS = ("audit.entry", "identity.letter")


def found_in(text: str) -> list[str]:
    """Return the secrets in a text, shortened, so that a failing test prints none either."""
    hits = [*_SHAPES.findall(text), *(one for one in SEEDED if one in text)]
    return [f"{one[:14]}… ({len(one)} characters)" for one in hits]


async def found_in_records(connection: Connection) -> list[str]:
    """Return the secrets in a database's tables that are made to be read."""
    found: list[str] = []
    for table in RECORDS:
        if await connection.fetchval("SELECT to_regclass($1)", table):
            rows = await connection.fetch(f"SELECT row_to_json(r)::text AS text FROM {table} r")
            found += [f"{table}: {hit}" for row in rows for hit in found_in(row["text"])]
    return found
