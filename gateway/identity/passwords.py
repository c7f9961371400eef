"""Passwords: what is one, and argon2id beside the event loop.

Hashing is meant to be dear, so it must not cost others: it happens in one thread per worker, which the system runs
after everything else (niceness), and a line that is too long is refused instead of growing. A password is compared with
something even where there is no account, so that time tells nothing. The parameters are in each hash; a hash by others
is made anew at the next login.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from gateway.errors import Overloaded

Result = TypeVar("Result")

SHORTEST, LONGEST = 12, 256
FEWEST_LETTERS = 5
MOST_WAITING = 32
"""At some 30 ms each the last one waits for a second."""
NICENESS = 15
# OWASP's parameters for argon2id with the least memory that it recommends for one lane.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def _nobodys() -> str:
    """Return a hash in our parameters that no password has: salt and digest are all zeros."""
    salt, digest = (base64.b64encode(bytes(size)).decode().rstrip("=") for size in (16, 32))
    return f"$argon2id$v=19$m={_HASHER.memory_cost},t={_HASHER.time_cost},p={_HASHER.parallelism}${salt}${digest}"


NOBODYS = _nobodys()


class PasswordRefused(ValueError):
    """A chosen password is not usable. The message says why in words for the caller."""


def check(text: str, email: str = "") -> str:
    """Return a chosen password in normal form. Raises PasswordRefused."""
    password = normal_form(text)
    if not SHORTEST <= len(password) <= LONGEST:
        raise PasswordRefused(f"must be {SHORTEST} to {LONGEST} characters long")
    if len(set(password)) < FEWEST_LETTERS:
        raise PasswordRefused(f"must have at least {FEWEST_LETTERS} different characters")
    if email and password.lower() == email:
        raise PasswordRefused("must not be your e-mail address")
    return password


def normal_form(text: str) -> str:
    """Return a password as it is hashed: keyboards write one letter in several ways (NIST SP 800-63B, NFKC)."""
    return unicodedata.normalize("NFKC", text)


class Passwords:
    """Hashes and compares. One per worker; its thread begins with the first password."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "passwords", initializer=_after_everything_else)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """Return the hash of a password in normal form. Raises Overloaded when too many wait."""
        return await self._aside(lambda: _HASHER.hash(password))

    async def matches(self, stored: str | None, text: str) -> bool:
        """Return whether a text is the password of a hash, None being nobody's. Raises Overloaded."""
        password = normal_form(text)
        found = await self._aside(lambda: _is(stored or NOBODYS, password))
        return found and stored is not None

    def stop(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _aside(self, work: Callable[[], Result]) -> Result:
        if self._waiting >= MOST_WAITING:
            raise Overloaded("Too many people log in at this moment. Try again.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= 1


def is_outdated(stored: str) -> bool:
    """Return whether a hash was made by other parameters than ours."""
    return _HASHER.check_needs_rehash(stored)


def same(one: str, other: str) -> bool:
    """Return whether two passwords in normal form are the same."""
    return hmac.compare_digest(one.encode(), other.encode())


def _is(stored: str, password: str) -> bool:
    try:
        return _HASHER.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


def _after_everything_else() -> None:
    """Give this thread's turn to whoever wants it: Linux has a niceness per thread, elsewhere it is the process's."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
