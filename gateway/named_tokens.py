"""Tokens that say who brings them: `alice:…,bob:…`."""

from __future__ import annotations

import re

SHARED = "operator"
"""Who acts with the token that has no name: nobody in particular."""
LEAST = 24
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")


def checked(token: str) -> str:
    """Return a token that is long enough, or none. Raises ValueError."""
    if token and len(token) < LEAST:
        raise ValueError(f"must have at least {LEAST} characters")
    return token


def read(text: str) -> dict[str, str]:
    """Return the tokens of a list by their names. Raises ValueError."""
    pairs = [part.strip().partition(":") for part in text.split(",") if part.strip()]
    for name, _, token in pairs:
        if not NAME.fullmatch(name) or name == SHARED:
            raise ValueError(f"must be name:token pairs; a name has a-z, 0-9, '.', '_', '-' and is not {SHARED!r}")
        if not checked(token):
            raise ValueError(f"has no token for {name}")
    found = {name: token for name, _, token in pairs}
    if len(found) < len(pairs) or len(set(found.values())) < len(found):
        raise ValueError("has a name or a token twice")
    return found
