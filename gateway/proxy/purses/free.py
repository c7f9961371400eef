"""A call that costs nothing. Its answer is stored all the same where it has an Idempotency-Key."""

from __future__ import annotations

from gateway.proxy.purses.keyed import KeyedPurse


class FreePurse(KeyedPurse):
    """Moves no money."""

    __slots__ = ()
