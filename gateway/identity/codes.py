"""Codes that people write down: recovery codes and referral codes. Pure but for the random source.

The alphabet leaves out 0 O 1 I L U, so that a code read aloud or copied by hand comes back right. A recovery code
has 24 of its 30 letters, 117 bits: it needs no slow hash, and its sha256 is all that is stored.
"""

from __future__ import annotations

import hashlib
import re
import secrets

ALPHABET = "ABCDEFGHJKMNPQRSTVWXYZ23456789"
RECOVERY_LENGTH = 24
REFERRAL_LENGTH = 8
_SEPARATORS = re.compile(r"[\s\-\u2010-\u2015]+")


class CodeRefused(ValueError):
    """A text cannot be a code at all. The message says why in words for the caller."""


def new_recovery_code() -> str:
    """Return a fresh recovery code in dashed groups of four, as it is shown once."""
    letters = "".join(secrets.choice(ALPHABET) for _ in range(RECOVERY_LENGTH))
    return "-".join(letters[start : start + 4] for start in range(0, RECOVERY_LENGTH, 4))


def new_referral_code() -> str:
    """Return a fresh referral code."""
    return "".join(secrets.choice(ALPHABET) for _ in range(REFERRAL_LENGTH))


def normalise_recovery(text: str) -> str:
    """Return the 24 letters of a recovery code; case, dashes and blanks do not matter. Raises CodeRefused."""
    letters = _SEPARATORS.sub("", text).upper()
    if len(letters) != RECOVERY_LENGTH:
        raise CodeRefused(f"must have {RECOVERY_LENGTH} letters and digits; dashes and blanks do not count")
    if any(letter not in ALPHABET for letter in letters):
        raise CodeRefused("contains a character that recovery codes never have")
    return letters


def normalise_referral(text: str) -> str:
    """Return a referral code as it is stored; it may match nobody."""
    return _SEPARATORS.sub("", text).upper()


def recovery_hash(code: str) -> bytes:
    """Return what is stored of a recovery code. Raises CodeRefused for a text that cannot be one."""
    return hashlib.sha256(normalise_recovery(code).encode()).digest()
