"""Tokens of people: what a login gives, what a link in a letter carries, and what an invitation is answered by.

`seren_<kind>_<43 letters and digits>`: 256 random bits with the kind in front, so that one kind is never taken for
another: the whole text is hashed, and only the hash is stored. They look like no API key (principals.py).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class TokenKind(StrEnum):
    """What a token is good for."""

    ACCESS = "access"
    REFRESH = "refresh"
    VERIFY = "verify"
    RESET = "reset"
    INVITE = "invite"


@dataclass(frozen=True, slots=True)
class NewToken:
    """A fresh token. `text` goes to its owner and is kept nowhere."""

    text: str = field(repr=False)
    hash: bytes = field(repr=False)


def new_token(kind: TokenKind) -> NewToken:
    """Make a token."""
    text = f"seren_{kind}_{''.join(secrets.choice(_ALPHABET) for _ in range(43))}"
    return NewToken(text, _digest(text))


def hash_of(kind: TokenKind, text: str) -> bytes | None:
    """Return what is stored of a token; None for a text that is none of this kind."""
    return _digest(text) if re.fullmatch(rf"seren_{kind}_[A-Za-z0-9]{{43}}", text) else None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
