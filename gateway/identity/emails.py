"""E-mail addresses of accounts: one spelling each, so that no two accounts share a mailbox and none borrows another's.

Only ASCII: case folding of Unicode turns letters of one address into those of another (the Kelvin sign into k, a
dotless i into i), and look-alikes deceive people. An international domain can be written in its ASCII form (xn--…).
The whole address is in small letters; mail goes to the stored address, never to what somebody typed.
"""

from __future__ import annotations

import hashlib
import re

MAX_LENGTH = 254
_LOCAL = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
ADDRESS = re.compile(rf"(?=.{{1,64}}@){_LOCAL}@(?:{_LABEL}\.)+(?=.*[a-z]){_LABEL}")


class EmailRefused(ValueError):
    """A text is no address for an account. The message says why in words for the caller."""


def normalise(text: str) -> str:
    """Return the one spelling of an address. Raises EmailRefused."""
    if not text.isascii():
        raise EmailRefused("must be ASCII; write an international domain in its xn-- form")
    address = text.lower()
    if len(address) > MAX_LENGTH or not ADDRESS.fullmatch(address):
        raise EmailRefused("must be an e-mail address such as name@example.com")
    return address


def counted(address: str) -> str:
    """Return what limits count an address by: its digest, since their keys hold nothing that callers wrote."""
    return hashlib.sha256(address.encode()).hexdigest()
